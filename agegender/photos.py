"""Photographs: found and read, and the faces in them found, set upright and cut out as the training data's are.

Faces are looked for by MTCNN (Zhang et al. 2016; package ``mtcnn``, which brings its weights, in the extra ``photos``).
UTKFace's pictures are turned and scaled so that eyes, nose and mouth lie where `landmarks` says; a face from a photograph
is brought to the same place, since how much of a head a network sees moves its answers (`agegender.crops` measures it).
"""

from __future__ import annotations

import glob
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from agegender import pixels

KINDS = (".jpg", ".jpeg", ".png", ".webp", ".heic", ".heif", ".bmp", ".tif", ".tiff")
HEIC = (".heic", ".heif")
SIDE = 200  # pixels per side of UTKFace's pictures: faces are cut at that size, then made smaller as those are
LONGEST = 1024  # of a photograph's longer side, in pixels, while faces are looked for
SMALLEST = 20  # pixels per side, at that scale, of the smallest face; mtcnn 1.0.0 goes wrong in silence with a larger one
SURE = 0.9  # of MTCNN, that a face is one
ROOM = 0.15  # of the shorter side: drawn out round a photograph, so that faces at its edge are found
POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")  # left and right as in the picture
LANDMARKS = Path(__file__).parent / "models" / "weights" / "utkface_landmarks.json"
EXTRA = "pip install -e '.[photos]' would be right"


@dataclass(frozen=True)
class Face:
    """A face in a photograph. `box`: left, top, right and bottom in pixels; `points` float64 (5, 2): x and y of the
    POINTS; `sure`: MTCNN's probability that it is a face."""

    box: tuple[int, int, int, int]
    points: np.ndarray
    sure: float


def files(asked: Sequence[str | Path]) -> tuple[list[Path], int]:
    """The photographs that are meant by files, folders (with those below) and patterns; and how many other files lay there.

    In the order asked for, folders sorted, each once. A file named itself is taken whatever its name. Raises
    FileNotFoundError for what leads to nothing.
    """
    found: dict[Path, None] = {}
    others = 0
    for one in asked:
        place = Path(one)
        if place.is_file():
            found[place] = None
            continue
        matched = [Path(path) for path in sorted(glob.glob(str(one), recursive=True))] if not place.is_dir() else [place]
        inside = [
            path
            for match in matched
            for path in (sorted(match.rglob("*")) if match.is_dir() else [match])
            if path.is_file() and (path == match or not any(part.startswith(".") for part in path.relative_to(match).parts))
        ]
        pictures = [path for path in inside if path.suffix.lower() in KINDS]
        if not pictures:
            raise FileNotFoundError(f"{one}: no photograph there; a file, a folder or a pattern of {', '.join(KINDS)} would be right")
        others += len(inside) - len(pictures)
        found |= dict.fromkeys(pictures)
    return list(found), others


def read(path: Path) -> Image.Image:
    """A photograph, upright (its EXIF rotation honoured) and RGB; ValueError with the reason where it cannot be read."""
    with _reasons():
        with Image.open(io.BytesIO(_bytes(path))) as image:
            image.load()
            if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                image = ImageOps.exif_transpose(image)
            return image.convert("RGB")


def aligned(path: Path, size: int) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """A picture that is a crop already, as training pictures are read: uint8 (size, size, 3), and its box.

    Raises ValueError with the reason where it cannot be read.
    """
    with _reasons():
        square, _, (width, height) = pixels.decode(_bytes(path), size)
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return square, (left, top, left + side, top + side)


def _bytes(path: Path) -> bytes:
    if path.suffix.lower() in HEIC:
        try:
            import pillow_heif
        except ImportError:
            raise ValueError(f"a HEIC picture needs the library pillow-heif: {EXTRA}") from None
        pillow_heif.register_heif_opener()
    return path.read_bytes()


@contextmanager
def _reasons() -> Iterator[None]:
    """Makes a ValueError with the reason of whatever Pillow raises for a picture."""
    try:
        yield
    except (MemoryError, KeyboardInterrupt, ValueError):
        raise
    except Exception as error:  # many kinds; Pillow's word, without the object's address that some carry
        raise ValueError(f"unreadable picture: {str(error).split(' <_io')[0] or type(error).__name__}") from error


class Finder:
    """Finds faces in photographs; ModuleNotFoundError where MTCNN is not installed, RuntimeError where it cannot run."""

    def __init__(self, sure: float = SURE):
        import keras

        if keras.config.backend() != "tensorflow":
            raise RuntimeError(
                f"MTCNN computes with TensorFlow, and Keras with {keras.config.backend()} here: "
                "KERAS_BACKEND=tensorflow, or crops that are aligned already, would be right"
            )
        try:
            from mtcnn import MTCNN
        except ImportError:
            raise ModuleNotFoundError(
                f"looking for faces needs the package mtcnn: {EXTRA}; or give crops that are aligned already"
            ) from None
        self._network, self._sure = MTCNN(), sure

    def __call__(self, image: Image.Image) -> list[Face]:
        """The faces in an upright RGB photograph, the largest first; its points lie in the photograph's own pixels."""
        scale = min(1.0, LONGEST / max(image.size))
        small = image.resize([max(1, round(side * scale)) for side in image.size], reducing_gap=3.0) if scale < 1 else image
        room = round(ROOM * min(small.size))
        wide = np.pad(np.asarray(small), ((room, room), (room, room), (0, 0)), mode="edge")
        found = []
        for face in self._network.detect_faces(wide, min_face_size=SMALLEST, threshold_onet=self._sure) or []:
            points = (np.array([face["keypoints"][name] for name in POINTS], np.float64) - room) / scale
            left, top, width, height = (float(side) for side in face["box"])
            edges = (np.array([left, top, left + width, top + height]) - room) / scale
            box = np.clip(edges.round(), 0, [*image.size, *image.size]).astype(int)
            if box[2] > box[0] and box[3] > box[1]:
                found.append(Face(tuple(box.tolist()), points, float(face["confidence"])))
        return sorted(found, key=lambda face: -(face.box[2] - face.box[0]) * (face.box[3] - face.box[1]))


def landmarks() -> np.ndarray:
    """Where POINTS lie in UTKFace's pictures, float64 (5, 2), in shares of the side: medians, see ``crops.landmarks``."""
    kept = json.loads(LANDMARKS.read_text(encoding="utf-8"))
    return np.array([kept["points"][name] for name in POINTS])


def turn(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The similarity, (2, 3), that brings `points` closest to `target`, both (n, 2): A in ``A @ (x, y, 1)``.

    Least squares over turning, one scale and shifting, without mirroring (Umeyama 1991). Raises ValueError where all
    points are one.
    """
    middle, aim = points.mean(0), target.mean(0)
    x, y = (points - middle).T
    u, v = (target - aim).T
    size = (x**2 + y**2).sum()
    if size == 0:
        raise ValueError("the points of the face all lie in one place: it cannot be set upright")
    a, b = (x * u + y * v).sum() / size, (x * v - y * u).sum() / size
    linear = np.array([[a, -b], [b, a]])
    return np.column_stack([linear, aim - linear @ middle])


def cut(image: Image.Image, face: Face, size: int, wider: float = 1.0) -> np.ndarray:
    """A face as the networks get it: upright, eyes and mouth where UTKFace has them; uint8 (size, size, 3).

    `wider`: 1.2 shows 1.2 times as much to each side. What lies outside of the photograph is its edge, drawn out.
    """
    aim = (0.5 + (landmarks() - 0.5) / wider) * SIDE
    return _cut(image, turn(face.points, aim), size)


def cut_box(image: Image.Image, face: Face, size: int, margin: float = 0.0) -> np.ndarray:
    """The square round a face's box as it is, not set upright, with `margin` (share of its side) on each side."""
    left, top, right, bottom = face.box
    half = max(right - left, bottom - top) * (0.5 + margin)
    x, y = (left + right) / 2, (top + bottom) / 2
    corners = np.array([[x - half, y - half], [x + half, y + half]])
    return _cut(image, turn(corners, np.array([[0.0, 0.0], [SIDE, SIDE]])), size)


def _cut(image: Image.Image, there: np.ndarray, size: int) -> np.ndarray:
    """The SIDE x SIDE pixels to which `there` (2, 3) brings a photograph's, made `size` like training pictures."""
    corners = (np.array([[0, 0], [SIDE, 0], [0, SIDE], [SIDE, SIDE]]) - there[:, 2]) @ np.linalg.inv(there[:, :2]).T
    low, high = np.floor(corners.min(0)).astype(int) - 2, np.ceil(corners.max(0)).astype(int) + 2
    inside = np.maximum(low, 0), np.minimum(high, image.size)
    if (inside[0] >= inside[1]).any():
        raise ValueError("the face lies outside of the photograph")
    part = image.crop(np.concatenate(inside).tolist())
    around = [(max(0, -low[1]), max(0, high[1] - image.size[1])), (max(0, -low[0]), max(0, high[0] - image.size[0])), (0, 0)]
    part = Image.fromarray(np.pad(np.asarray(part), around, mode="edge"))
    there = np.column_stack([there[:, :2], there[:, 2] + there[:, :2] @ low])
    scale = np.sqrt(abs(np.linalg.det(there[:, :2])))
    if scale < 0.5:  # a large face: first made smaller with all of its pixels, which the turning alone would skip
        smaller = [max(1, round(side * 2 * scale)) for side in part.size]
        ratio = np.array(part.size) / smaller
        part, there = part.resize(smaller, Image.Resampling.BOX), np.column_stack([there[:, :2] * ratio, there[:, 2]])
    back = np.linalg.inv(np.vstack([there, [0, 0, 1]]))[:2]
    square = part.transform((SIDE, SIDE), Image.Transform.AFFINE, back.ravel(), Image.Resampling.BICUBIC)
    return np.asarray(square.resize((size, size)) if size != SIDE else square)
