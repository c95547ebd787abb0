"""Finished runs opened once more with network and pictures, for what their predictions alone cannot tell.

How errors grow when pictures get worse, and where in the picture an answer comes from. A framework is loaded
only where there is a network and pictures of its test faces: `open_all` says what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from agegender import corruptions, faces, metrics, pixels, provenance
from agegender.comparison import Finished
from agegender.places import written_whole

SEVERITIES = (1, corruptions.MIDDLE, 5)
COLUMNS = {"age": "age_pred", "gender": "p_female"}  # an output, and where its answers stand
EXACT, ROUGH = 1e-3, 0.05  # how far answers may lie apart: relative for years, absolute for a probability
DRAWS = 3  # networks with weights drawn anew: one alone may be an odd one
BATCH = 64
FILE = "model.keras"


def load(folder: Path | str):
    """The network that a finished run kept in `folder`, as a Keras model, not compiled.

    FileNotFoundError where it kept none (stored reference runs have predictions alone), ValueError for a
    file that cannot be read. Only here a framework is loaded.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise FileNotFoundError(f"no {FILE} in {path.parent}: the folder of a run that was trained here has one")
    import keras

    # these say what our own layers and losses are, which a stored model only names
    from agegender import augment, training  # noqa: F401
    from agegender.models import backbones, heads  # noqa: F401

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # zip, HDF5 and Keras raise many kinds
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} cannot be read ({said}): run the model's notebook again") from error


@dataclass(frozen=True)
class Reopened:
    """A network of a finished run, and some of its test faces.

    `network`: a Keras model; `pixels`: uint8 (n, s, s, 3), in the run's own size; `table`: their rows of the
    run's predictions, in the same order; `flip`: whether it answers by the mean of a picture and its mirror
    image; `outputs`: what it answers of "age" and "gender".
    """

    network: Any
    pixels: np.ndarray
    table: pd.DataFrame
    flip: bool
    outputs: tuple[str, ...]

    def predict(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        """Answers about `pictures`, uint8 (m, s, s, 3): "age" (m,) years, "gender" (m,) probability of female."""
        count, said = len(pictures), {name: [] for name in self.outputs}
        for start in range(0, count, BATCH):
            batch = pictures[np.arange(start, start + BATCH) % count]  # always full: one shape, compiled once
            both = [batch, np.ascontiguousarray(batch[:, :, ::-1])] if self.flip else [batch]
            answers = [self.network.predict_on_batch(part) for part in both]
            for name in self.outputs:
                values = np.mean([np.asarray(a[name], np.float64)[:, 0] for a in answers], axis=0)
                said[name].append(values[: count - start])
        return {name: np.concatenate(parts) for name, parts in said.items()}

    def first(self, count: int) -> Reopened:
        """The same with no more than `count` of its faces, which lie in the order of a lot."""
        return replace(self, pixels=self.pixels[:count], table=self.table.iloc[:count])


def open_all(
    runs: Mapping[str, Finished], data: str, person: str = "", limit: int = 0, count: int = 200, seed: int = 0
) -> tuple[dict[str, Reopened], dict[str, str]]:
    """The runs that can be opened again, and why others cannot; all with the same `count` test faces, by lot.

    `data`, `person`, `limit`: where the pictures are, as in the runs' own notebooks. Raises ValueError
    where a network cannot be read, or says of the pictures something else than the run did: then they are
    others.
    """
    if count <= 0:
        return {}, dict.fromkeys(runs, "not asked for")
    absent = {name: why for name, run in runs.items() if (why := _lacks(run))}
    if len(absent) == len(runs):
        return {}, absent
    found = faces.read(data, person, limit)
    sizes = {run.record["parameters"]["size"] for name, run in runs.items() if name not in absent}
    pictures = {size: pixels.open_pictures(found, size) for size in sizes}
    there = set.intersection(*(set(opened.faces.table["file"]) for opened in pictures.values()))
    first = next(iter(runs.values())).predictions
    files = sorted(first.loc[(first["fold"] == "test") & first["file"].isin(there), "file"])
    if not files:
        return {}, {name: absent.get(name, f"no picture of its test faces in {data}") for name in runs}
    files = np.random.default_rng(seed).permutation(files)[:count]
    again = {}
    for name, run in runs.items():
        if name not in absent:
            opened = pictures[run.record["parameters"]["size"]]
            rows = pd.Index(opened.faces.table["file"]).get_indexer(files)
            again[name] = _open(name, run, opened.pixels[rows], files, data)
    return again, absent


def _lacks(run: Finished) -> str:
    """What a run lacks to be opened again; empty: nothing."""
    if not (run.folder / FILE).is_file():
        return f"no {FILE} in its folder"
    if not _outputs(run.predictions):
        return "it was asked neither for an age nor for a gender"
    return "" if run.record["parameters"].get("size") else "its record does not say the size of its pictures"


def _outputs(table: pd.DataFrame) -> tuple[str, ...]:
    return tuple(name for name, column in COLUMNS.items() if table[column].notna().any())


def _open(name: str, run: Finished, pictures: np.ndarray, files: np.ndarray, data: str) -> Reopened:
    table = run.predictions.set_index("file").loc[files].reset_index()
    network = load(run.folder)
    again = Reopened(network, pictures, table, bool(run.facts.get("flip_test")), _outputs(table))
    said, allowed = again.predict(pictures), _allowed(run.record)
    for output in again.outputs:
        kept = table[COLUMNS[output]].to_numpy(np.float64)
        scale = np.maximum(np.abs(kept), 1) if output == "age" else 1
        apart = np.abs(said[output] - kept) / scale
        worst = int(apart.argmax())
        if apart[worst] > allowed:
            raise ValueError(
                f"{name} says {said[output][worst]:.4g} for the {output} of {files[worst]}, and its run said "
                f"{kept[worst]:.4g}: the pictures in {data} are not those of that run, or {run.folder.name}/"
                f"{FILE} is of another one; the same `data`, `person` and `limit` would be right"
            )
    return again


def _allowed(record: dict) -> float:
    """How far answers may lie from those kept: more where half precision or another kind of device rounds."""
    kinds = [
        {str(d).partition(":")[0].lower() for d in ds}
        for ds in (record.get("devices", ()), provenance.devices())
    ]
    same = not kinds[0] or kinds[0] == kinds[1]
    return EXACT if same and record["parameters"].get("precision", "float32") == "float32" else ROUGH


def leader(again: Mapping[str, Reopened], best: str) -> str:
    """`best`, if it could be opened again; else the first that could; empty: none."""
    return best if best in again else next(iter(again), "")


# Robustness


def under_corruptions(
    again: Mapping[str, Reopened], count: int, folder: Path, seed: int = 0, severities=SEVERITIES
) -> pd.DataFrame:
    """What the models say of `count` faces as they are and damaged: ``corruptions.answers_under``, for all.

    Kept in `folder` as robustness.parquet, with the severities' columns model, corruption and severity before
    those of predictions.
    """
    parts, sizes = [], {opened.pixels.shape[1] for opened in again.values()}
    steps = len(sizes) * len(corruptions.CORRUPTIONS) * len(severities)
    with tqdm(
        total=steps if count else 0, desc="damaged", mininterval=5,
        **({} if count and again else {"disable": True}),
    ) as bar:  # fmt: skip
        for size in sorted(sizes if count else ()):  # models of one size share the damaged pictures
            same = {name: o.first(count) for name, o in again.items() if o.pixels.shape[1] == size}
            one = next(iter(same.values()))
            asked = {name: opened.predict for name, opened in same.items()}
            parts.append(corruptions.answers_under(
                asked, one.pixels, one.table, corruptions.CORRUPTIONS, severities, seed, bar.update
            ))  # fmt: skip
    if not parts:
        return pd.DataFrame(columns=[*corruptions.KEYS, "fold", "file", "age", "gender", *COLUMNS.values()])
    answers = pd.concat(parts, ignore_index=True)
    order = {name: place for place, name in enumerate(again)}
    answers = answers.sort_values(
        "model", key=lambda names: names.map(order), kind="stable", ignore_index=True
    )
    with written_whole(folder / "robustness.parquet") as part:
        answers.to_parquet(part, index=False)
    return answers


# Explanation


@dataclass(frozen=True)
class Map:
    """Where in its pictures a model found what spoke for its answers.

    `maps`: float32 (n, s, s) in [0, 1]; `signs` (n,): what was asked for, 1 (older, or female) or -1
    (younger, or male); `method`: "Grad-CAM" or "HiResCAM".
    """

    maps: np.ndarray
    signs: np.ndarray
    method: str

    @property
    def empty(self) -> int:
        """Faces for which nothing in the last feature map speaks for the answer."""
        return int((self.maps.max((1, 2)) == 0).sum())

    def sides(self, output: str) -> list[str]:
        """For each face, which side's evidence its map shows."""
        names = {"age": ("older", "younger"), "gender": ("female", "male")}[output]
        return [names[0] if sign > 0 else names[1] for sign in self.signs]


def maps_of(opened: Reopened, output: str) -> Map | None:
    """Grad-CAM of a model's faces for the side its answer lies on: female or male; older or younger than the
    median of its answers. None where the network has no feature map to show.

    HiResCAM where a dense layer reads the flattened map: see ``explain.grad_cam``.
    """
    from agegender import explain

    try:
        cells = explain.flattens(opened.network, output)
    except ValueError:
        return None
    answers = opened.table[COLUMNS[output]].to_numpy(np.float64)
    middle = 0.5 if output == "gender" else np.median(answers)
    signs = np.where(answers > middle, 1, -1)
    maps = explain.grad_cam(opened.network, opened.pixels, output, signs, cells)
    return Map(maps, signs, "HiResCAM" if cells else "Grad-CAM")


def all_maps(again: Mapping[str, Reopened], count: int) -> dict[str, dict[str, Map]]:
    """`maps_of` of `count` faces by model and output; an output without a feature map is left out."""
    found = {}
    asked = [(name, output) for name, opened in again.items() for output in opened.outputs] if count else []
    for name, output in tqdm(asked, desc="explained", mininterval=5, **({} if asked else {"disable": True})):
        if (made := maps_of(again[name].first(count), output)) is not None:
            found.setdefault(name, {})[output] = made
    return found


def groups(table: pd.DataFrame, least: int = metrics.FEW) -> dict[str, np.ndarray]:
    """Positions of the faces of each age band, of women and of men; of `least` faces or more."""
    table = table.reset_index(drop=True)
    band = pd.Series(faces.age_band(table["age"]))
    gender = table["gender"].to_numpy(np.float64, na_value=np.nan)
    parts = {str(name): np.flatnonzero(band == name) for name in band.cat.categories}
    parts |= {"men": np.flatnonzero(gender == 0), "women": np.flatnonzero(gender == 1)}
    return {name: rows for name, rows in parts.items() if len(rows) >= least}


def averages(
    maps: Mapping[str, Mapping[str, Map]], table: pd.DataFrame, folder: Path
) -> dict[tuple, np.ndarray]:
    """Mean maps (s, s) by (model, output, group of `groups` or "all").

    Kept in `folder` as explanation.npz: an array for each, called MODEL|OUTPUT|GROUP. No picture is kept.
    """
    parts = {"all": np.arange(len(table)), **groups(table)}
    found = {
        (name, output, group): made.maps[rows].mean(0)
        for name, outputs in maps.items()
        for output, made in outputs.items()
        for group, rows in parts.items()
    }
    if found:
        with written_whole(folder / "explanation.npz") as part:
            np.savez_compressed(
                part, **{"|".join(key): values.astype(np.float16) for key, values in found.items()}
            )
    return found


def check(opened: Reopened | None, maps: Mapping[str, Map], folder: Path, draws: int = DRAWS) -> pd.DataFrame:
    """Whether a model's maps depend on what it learned: the sanity check of Adebayo et al. (2018).

    Rank correlation of the cells of each face's map with those of the same network in which the weights
    of the upper half of the layers, or of all, were drawn anew, the mean over `draws` such networks; and
    with those of another face by the network as it is. One row per output and comparison; columns output,
    drawn ("" for the other face), value, low, high (95 %, bootstrap over groups of faces), n (faces),
    least, most (over draws), left_out (share of pairs without a correlation: a map that is the same all
    over has no ranks). Kept in `folder` as explanation.parquet.
    """
    columns = ["output", "drawn", "value", "low", "high", "n", "least", "most", "left_out"]
    if opened is None or not maps:
        return pd.DataFrame(columns=columns)
    from agegender import explain

    def cells_of(network, output: str) -> np.ndarray:
        made = maps[output]
        return explain.grad_cam(
            network, opened.pixels, output, made.signs, made.method == "HiResCAM", fine=False
        )

    group, rows = opened.table["group"].to_numpy(), []
    alike: dict[tuple[str, str], list[np.ndarray]] = {}
    before = {output: cells_of(opened.network, output) for output in maps}
    half = explain.weighted_layers(opened.network) // 2
    for output, own in before.items():
        alike[output, ""] = [explain.similarity(own, np.roll(own, 1, axis=0))]
    for draw in range(draws):
        for drawn, top in (("upper half", half), ("all", None)):
            network = explain.randomised(opened.network, draw, top)
            for output, own in before.items():
                found = explain.similarity(own, cells_of(network, output))
                alike.setdefault((output, drawn), []).append(found)
    for (output, drawn), found in alike.items():
        values = np.stack(found)
        known = np.isfinite(values)
        counts = known.any(0)
        means = np.nansum(values, 0)[counts] / known.sum(0)[counts]
        each = [float(v[k].mean()) for v, k in zip(values, known) if k.any()]
        said = metrics.mean_over_groups(means, group[counts]) if counts.any() else metrics.NOTHING
        rows.append({"output": output, "drawn": drawn, **vars(said), "least": min(each, default=np.nan),
                     "most": max(each, default=np.nan), "left_out": float(1 - known.mean())})  # fmt: skip
    table = pd.DataFrame(rows, columns=columns).sort_values("output", kind="stable", ignore_index=True)
    with written_whole(folder / "explanation.parquet") as part:
        table.to_parquet(part, index=False)
    return table
