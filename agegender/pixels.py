"""Pictures as arrays: decoded and resized once, on all cores, then memory-mapped.

The cache is keyed by the pictures' content and the size asked for, so two folders with the same
pictures share one array and a changed picture makes a new one. A second key, over names, byte sizes
and modification times, leads to the first without reading a picture: reopening takes milliseconds.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock
from PIL import ExifTags, Image, ImageOps
from tqdm.auto import tqdm

from agegender.faces import Faces
from agegender.places import cache, cores, written_whole

THUMB = 64  # pixels per side of the grey thumbnails that duplicates are found on
VERSION = "1"  # part of the keys: raise it when decoding changes
CHUNK = 64  # faces a worker takes at a time


@dataclass(frozen=True)
class Pictures:
    """Decoded pictures, row for row those of ``faces.table``.

    ``pixels``: uint8 (n, size, size, 3), RGB, memory-mapped, read-only.
    ``thumbs``: uint8 (n, 64, 64), grey, resized from the original whatever `size` is.
    ``info``: file, digest (hex SHA-256 of the file), width and height (pixels), bytes,
    brightness and contrast (mean and standard deviation of the thumbnail, 0 to 255).
    ``key``: digest of the content; names the cache folder together with the size.
    """

    faces: Faces
    pixels: np.ndarray
    thumbs: np.ndarray
    info: pd.DataFrame
    key: str


def decode(data: bytes, size: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """RGB pixels (size, size, 3) and grey thumbnail (64, 64), both uint8, and (width, height) of a picture.

    Honours EXIF rotation; a picture that is not square is cut to its central square. Raises what
    Pillow raises for data that is no picture, or one that ends too early.
    """
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            image = ImageOps.exif_transpose(image)
        width, height = image.size
        if image.mode != "RGB":
            image = image.convert("RGB")
    if width != height:
        image = ImageOps.fit(image, (min(width, height),) * 2)
    # from the original, whatever `size` is; reducing_gap=1 takes whole pixels together first, which is quicker
    thumb = image.convert("L").resize((THUMB, THUMB), Image.Resampling.BOX, reducing_gap=1.0)
    if image.size != (size, size):
        image = image.resize((size, size))
    return np.asarray(image), np.asarray(thumb), (width, height)


def open_pictures(faces: Faces, size: int, workers: int = 0, progress: bool = True) -> Pictures:
    """Open the pictures of `faces` at `size` x `size` pixels, decoding them on first use.

    Faces whose picture cannot be decoded are set aside with the reason. `workers` 0 means all cores
    this process may use. Raises ValueError if no picture can be read.
    """
    if size < 8:
        raise ValueError(f"size={size}: pictures need at least 8 pixels per side")
    folder = cache() / "pixels"
    quick = folder / "index" / f"{_stat_key(faces, size)}.txt"
    quick.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(quick.with_suffix(".lock")):
        if not quick.is_file() or not (folder / quick.read_text()).is_dir():
            name = _build(faces, size, folder, workers or cores(), progress)
            with written_whole(quick) as part:
                part.write_text(name)
    return _open(faces, folder / quick.read_text())


def _open(faces: Faces, built: Path) -> Pictures:
    aside = pd.read_parquet(built / "aside.parquet")
    faces = faces.set_aside(dict(zip(aside["file"], aside["reason"])))
    info = pd.read_parquet(built / "info.parquet")
    if len(info) != len(faces.table) or (info["file"].to_numpy() != faces.table["file"].to_numpy()).any():
        raise ValueError(
            f"the cached pictures in {built.name} are not those of {faces.title}: delete {built.parent}"
        )
    pixels, thumbs = (np.load(built / f"{n}.npy", mmap_mode="r") for n in ("pixels", "thumbs"))
    return Pictures(faces, pixels, thumbs, info, built.name.partition("-")[0])


def _stat_key(faces: Faces, size: int) -> str:
    digest = hashlib.sha256(f"{VERSION} {size}\n".encode())
    for file in faces.table["file"]:
        stat = os.stat(faces.root / file)
        digest.update(f"{file}\t{stat.st_size}\t{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def _build(faces: Faces, size: int, folder: Path, workers: int, progress: bool) -> str:
    files = faces.table["file"].tolist()
    failed: dict[str, str] = {}
    rows: list = [None] * len(files)
    light = np.zeros((len(files), 2), np.float32)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as part:
        part = Path(part)
        shapes = {"pixels": (len(files), size, size, 3), "thumbs": (len(files), THUMB, THUMB)}
        for name, shape in shapes.items():
            np.lib.format.open_memmap(part / f"{name}.npy", mode="w+", dtype=np.uint8, shape=shape)

        def work(start: int) -> int:
            count = min(CHUNK, len(files) - start)
            chunk = {name: np.zeros((count, *shape[1:]), np.uint8) for name, shape in shapes.items()}
            for k, file in enumerate(files[start : start + count]):
                try:
                    data = (faces.root / file).read_bytes()
                except PermissionError as error:
                    failed[file] = f"unreadable file: {error.strerror}"
                    continue  # but a disk that fails is no bad picture, and stops the work
                try:
                    chunk["pixels"][k], thumb, (width, height) = decode(data, size)
                except MemoryError:
                    raise
                except Exception as error:  # Pillow raises many kinds; every one is kept as the reason
                    # Pillow's word on it, without the object's address that some of its messages carry
                    failed[file] = "unreadable picture: " + str(error).split(" <_io")[0]
                    continue
                chunk["thumbs"][k] = thumb
                digest = hashlib.sha256(data).hexdigest()
                rows[start + k] = (file, digest, width, height, len(data))
            grey = chunk["thumbs"].reshape(count, -1).astype(np.float32)
            mean = light[start : start + count, 0] = grey.mean(1)
            light[start : start + count, 1] = np.sqrt(np.maximum(np.square(grey).mean(1) - mean**2, 0))
            for name, block in chunk.items():  # a write is quicker than touching a memory map page by page
                with open(part / f"{name}.npy", "r+b") as whole:
                    whole.seek((start - len(files)) * block[0].nbytes, os.SEEK_END)
                    whole.write(block)
            return count

        # Pillow decodes and resizes outside Python's lock, so threads fill one shared array on all cores
        with (
            ThreadPoolExecutor(workers) as pool,
            tqdm(
                total=len(files),
                unit="face",
                desc=f"decoding at {size} px",
                **({} if progress else {"disable": True}),
            ) as bar,
        ):
            for done in pool.map(work, range(0, len(files), CHUNK)):
                bar.update(done)

        good = np.array([i for i, row in enumerate(rows) if row is not None], dtype=np.int64)
        if not len(good):
            file, reason = next(iter(failed.items()))
            raise ValueError(
                f"none of the {len(files)} pictures of {faces.title} can be read; the first: {file}: {reason}"
            )
        if len(good) < len(files):
            for name in shapes:
                _keep_rows(part / f"{name}.npy", good)
        info = pd.DataFrame([rows[i] for i in good], columns=["file", "digest", "width", "height", "bytes"])
        info[["brightness", "contrast"]] = light[good]
        info.to_parquet(part / "info.parquet")
        aside = pd.DataFrame(sorted(failed.items()), columns=["file", "reason"], dtype=object)
        aside.to_parquet(part / "aside.parquet")
        lines = f"{VERSION}\n" + "\n".join(info["file"] + " " + info["digest"]) + "\n".join(aside["file"])
        name = f"{hashlib.sha256(lines.encode()).hexdigest()[:32]}-{size}-v{VERSION}"
        with FileLock(folder / f"{name}.lock"):
            if not (folder / name).is_dir():
                part.rename(folder / name)
                part.mkdir()  # the context manager wants something to remove
    return name


def _keep_rows(path: Path, rows: np.ndarray) -> None:
    """Rewrite a stored array with some of its rows, block by block."""
    array = np.load(path, mmap_mode="r")
    kept = np.lib.format.open_memmap(
        path.with_suffix(".kept"), mode="w+", dtype=array.dtype, shape=(len(rows), *array.shape[1:])
    )
    for start in range(0, len(rows), 1024):
        kept[start : start + 1024] = array[rows[start : start + 1024]]
    kept.flush()
    os.replace(path.with_suffix(".kept"), path)
