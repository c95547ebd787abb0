"""Damage done to pictures of faces on purpose, in five severities, and what it costs a model.

Severity 0 leaves a picture as it is. What depends on a picture's size is given as a share of its side, so a
severity means the same at 48 and at 128 pixels. The idea is that of Hendrycks and Dietterich (2019),
"Benchmarking neural network robustness to common corruptions and perturbations"; the kinds and levels are
our own.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter

from agegender import metrics, predictions

SEVERITIES = range(6)
MIDDLE = 3
MEASURES = ("age MAE", "gender accuracy")
KEYS = ["model", "corruption", "severity"]
GREY = 128
# where eyes and mouth lie in UTKFace's aligned crops, (down, right) in shares of the side; from their mean
EYES, MOUTH = ((0.285, 0.28), (0.285, 0.70)), ((0.69, 0.49),)
_CHUNK = 512  # faces at a time: 15,000 of 128 pixels as floats would not fit into memory


@dataclass(frozen=True)
class Corruption:
    """One kind of damage.

    `levels`: what severities 1 to 5 mean, in `unit`; `untouched`: what severity 0 means, NaN where no level
    stands for "as it was". `apply` takes pictures, uint8 (n, s, s, 3), a level and a NumPy generator, and
    gives uint8 (n, s, s, 3).
    """

    levels: tuple[float, float, float, float, float]
    unit: str
    apply: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
    untouched: float = 0.0

    def level(self, severity: int) -> float:
        """What `severity` (0 to 5) means, in `unit`."""
        if severity not in SEVERITIES:
            raise ValueError(f"severity={severity!r}: 0 (untouched) to 5 would be right")
        return self.levels[severity - 1] if severity else self.untouched

    def __call__(self, pixels: np.ndarray, severity: int, seed: int = 0) -> np.ndarray:
        """`pixels`, uint8 (n, s, s, 3), damaged; a new array of the same shape and type.

        What is drawn (noise, directions, places) depends on `seed` alone: it is the same at each severity.
        """
        pixels = _checked(pixels)
        level, damaged = self.level(severity), np.array(pixels)
        if severity:
            rng = np.random.default_rng(seed)
            for start in range(0, len(pixels), _CHUNK):
                chunk = slice(start, start + _CHUNK)
                damaged[chunk] = self.apply(damaged[chunk], level, rng)
        return damaged


def _checked(pixels) -> np.ndarray:
    shape, dtype = np.shape(pixels), getattr(pixels, "dtype", None)
    if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3 or dtype != np.uint8:
        raise ValueError(f"pixels of shape {shape} and type {dtype}: uint8 (n, s, s, 3) would be right")
    return pixels


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _each(pixels: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(change(Image.fromarray(picture))) for picture in pixels])


def _blur(pixels, level, rng):
    sigma = level / 100 * pixels.shape[1]
    return _rounded(gaussian_filter(pixels.astype(np.float32), (0, sigma, sigma, 0), mode="nearest"))


def _noise(pixels, level, rng):
    return _rounded(pixels + rng.standard_normal(pixels.shape, np.float32) * (level / 100 * 255))


def _brightness(pixels, level, rng, sign):
    return _rounded(pixels + sign * level / 100 * 255)


def _jpeg(pixels, level, rng):
    def recompressed(picture):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=level)
        return Image.open(file)

    return _each(pixels, recompressed)


def _resolution(pixels, level, rng):
    side = pixels.shape[1]
    if level >= side:
        return pixels

    def coarse(picture):
        small = picture.resize((level, level), Image.Resampling.BOX)
        return small.resize((side, side), Image.Resampling.BILINEAR)

    return _each(pixels, coarse)


def _warp(pixels, scale=1.0, degrees=0.0, right=0.0, down=0.0):
    """Turned anticlockwise by `degrees` (n,) about the centre, the section `scale` times as wide, then moved.

    `right` and `down` (n,) in pixels. Beyond the edge the outermost pixels go on; bilinear.
    """
    count, side = pixels.shape[:2]
    pad = side // 2 + 1
    wide = np.pad(pixels, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="edge")
    angle = np.broadcast_to(np.deg2rad(degrees), count)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    half, centre = side / 2, side / 2 + pad
    # a pixel of the result -> its place in the padded picture: (a x + b y + c, d x + e y + f)
    a, b, d, e = cos, -sin, sin, cos
    c = centre - a * (half + right) - b * (half + down)
    f = centre - d * (half + right) - e * (half + down)
    matrices = np.stack(np.broadcast_arrays(a, b, c, d, e, f), axis=1)
    return np.stack([
        np.asarray(Image.fromarray(picture).transform(
            (side, side), Image.Transform.AFFINE, tuple(matrix), Image.Resampling.BILINEAR
        ))
        for picture, matrix in zip(wide, matrices)
    ])  # fmt: skip


def _rotation(pixels, level, rng):
    return _warp(pixels, degrees=level * rng.choice([-1, 1], len(pixels)))


def _shift(pixels, level, rng):
    direction, length = rng.uniform(0, 2 * np.pi, len(pixels)), level / 100 * pixels.shape[1]
    return _warp(pixels, right=length * np.cos(direction), down=length * np.sin(direction))


def _zoom(pixels, level, rng, sign):
    return _warp(pixels, scale=1 + sign * 2 * level / 100)


def _cover(pixels, level, rng, places=None):
    side = pixels.shape[1]
    width, covered = max(1, round(level / 100 * side)), pixels.copy()
    if places is None:  # anywhere, whole
        for picture, (y, x) in zip(covered, (rng.random((len(pixels), 2)) * (side - width + 1)).astype(int)):
            picture[y : y + width, x : x + width] = GREY
    else:
        for down, right in places:
            y, x = round(down * side - width / 2), round(right * side - width / 2)
            covered[:, max(y, 0) : y + width, max(x, 0) : x + width] = GREY
    return covered


_SQUARES = (10, 20, 30, 40, 50)
CORRUPTIONS: dict[str, Corruption] = {
    "blur": Corruption((0.5, 1, 2, 3, 5), "% of the side (standard deviation)", _blur),
    "noise": Corruption((2, 5, 10, 15, 25), "% of white (standard deviation)", _noise),
    "darker": Corruption((10, 20, 30, 40, 50), "% of white taken off", partial(_brightness, sign=-1)),
    "brighter": Corruption((10, 20, 30, 40, 50), "% of white added", partial(_brightness, sign=1)),
    "JPEG": Corruption((60, 40, 25, 15, 8), "of 95 (Pillow's quality)", _jpeg, np.nan),
    "rotation": Corruption((5, 10, 20, 30, 45), "degrees, to either side", _rotation),
    "shift": Corruption((5, 10, 15, 20, 30), "% of the side, in any direction", _shift),
    "zoomed in": Corruption((2.5, 5, 10, 15, 20), "% of the side cut off each edge", partial(_zoom, sign=-1)),
    "zoomed out": Corruption((5, 10, 20, 30, 40), "% of the side added at each edge", partial(_zoom, sign=1)),
    "resolution": Corruption((32, 24, 16, 12, 8), "pixels a side, if it has more", _resolution, np.nan),
    "eyes covered": Corruption(_SQUARES, "% of the side, a square on each eye", partial(_cover, places=EYES)),
    "mouth covered": Corruption(_SQUARES, "% of the side, a square", partial(_cover, places=MOUTH)),
    "anywhere covered": Corruption(_SQUARES, "% of the side, a square", _cover),
}


def answers_under(
    predict: Mapping[str, Callable[[np.ndarray], Mapping[str, np.ndarray]]],
    pixels: np.ndarray,
    table: pd.DataFrame,
    corruptions: Mapping[str, Corruption] = CORRUPTIONS,
    severities: Sequence[int] = SEVERITIES[1:],
    seed: int = 0,
    step: Callable[[], object] = lambda: None,
) -> pd.DataFrame:
    """What models say of the same faces, as they are and damaged.

    `predict`: for each model's name, what takes uint8 (n, s, s, 3) and gives {"age": (n,) years,
    "gender": (n,) probability of female}, or one of the two. `table` has one row per picture, in the same
    order, with the columns file, fold, group, age, gender, race. `step` is called after each damage done.

    Returns a table of predictions for each model, corruption and severity, below one another, with these
    three in columns of their own; once per model with corruption "" and severity 0, of the pictures as
    they are.
    """
    if len(pixels) != len(table):
        raise ValueError(f"{len(pixels)} pictures and {len(table)} rows: one row per picture would be right")
    parts = []

    def ask(pictures, corruption: str, severity: int) -> None:
        for name, answer in predict.items():
            said = answer(pictures)
            if not {"age", "gender"} & set(said):
                raise ValueError(f'{name} gave {sorted(said)}: "age", "gender" or both would be right')
            found = predictions.table(table, said)
            parts.append(found.assign(model=name, corruption=corruption, severity=severity))

    ask(_checked(pixels), "", 0)
    for name, corruption in corruptions.items():
        for severity in severities:
            ask(corruption(pixels, severity, seed), name, severity)
            step()
    return pd.concat(parts, ignore_index=True)


def errors(answers: pd.DataFrame) -> pd.DataFrame:
    """The errors of `answers_under`: one row per model, corruption, severity and measure.

    Columns: model, corruption, severity, measure ("age MAE" in years, "gender accuracy" as share), value,
    n. The pictures as they are have corruption "" and severity 0. What has no labels, or no answers, has
    no row.
    """
    parts = []
    for name in MEASURES:
        amount, counts = metrics.MEASURES[name].of(answers)
        known = answers.loc[counts, KEYS].assign(value=np.asarray(amount, np.float64)[counts], measure=name)
        parts.append(
            known.groupby([*KEYS, "measure"], sort=False)["value"].agg(["mean", "size"]).reset_index()
        )
    table = pd.concat(parts, ignore_index=True).rename(columns={"mean": "value", "size": "n"})
    return table[[*KEYS, "measure", "value", "n"]]


def rises(answers: pd.DataFrame, model: str, severity: int = MIDDLE) -> pd.DataFrame:
    """By how much each corruption changes a model's errors at `severity`, face by face, and whether by chance.

    One row per measure and corruption; columns measure, corruption, level (in unit), unit, value (damaged
    less as it was: years of age MAE, share of genders right), low, high (95 %, bootstrap of the
    difference over whole groups), n, p, p_holm (corrected over all rows): as in ``metrics.paired``.
    Measures without labels or answers have no rows.
    """
    own = answers[answers["model"] == model]
    damaged = own[own["severity"] == severity]
    tables = {name: damaged[damaged["corruption"] == name] for name in dict.fromkeys(damaged["corruption"])}
    columns = ["measure", "corruption", "level", "unit", "value", "low", "high", "n", "p", "p_holm"]
    if not tables:
        return pd.DataFrame(columns=columns)
    found = metrics.paired({"": own[own["severity"] == 0]} | tables, against="").query("n > 0")
    found = found.assign(
        corruption=found["b"],
        level=[CORRUPTIONS[name].level(severity) for name in found["b"]],
        unit=[CORRUPTIONS[name].unit for name in found["b"]],
    )
    return found.sort_values("measure", kind="stable", ignore_index=True)[columns]
