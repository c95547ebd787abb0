"""A trained model put to use: its network, and how far its answers about new faces may be trusted.

A run's own validation faces say that much: a temperature for the probabilities of gender, and for each band of predicted
age how many years its intervals reach (see `agegender.calibration`). They hold for faces like those; a new
photograph may be another kind of picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agegender import calibration, faces, metrics, predictions, provenance
from agegender.calibration import AgeIntervals
from agegender.places import home

RELEASED = "released"
ALPHA = 0.1  # share of labels that age intervals may leave out
SURE = 0.8  # below this probability of the likelier gender, none is told


@dataclass(frozen=True)
class Calibration:
    """What validation faces say of a model's answers.

    `temperature` of the probabilities of gender, and `intervals` for ages; None where the model does not tell these or
    too few faces had labels. `faces`: how many validation faces there were.
    """

    temperature: float | None
    intervals: AgeIntervals | None
    faces: int

    def to_json(self) -> dict[str, Any]:
        """As JSON has it; reach in years by band of predicted age, null: without limit."""
        reach = self.intervals and {
            str(band): {"n": int(row.n), "reach": float(row.reach) if np.isfinite(row.reach) else None}
            for band, row in zip(self.intervals.reach.index, self.intervals.reach.itertuples())
        }
        alpha = self.intervals and self.intervals.alpha
        return {"temperature": self.temperature, "alpha": alpha, "reach": reach, "faces": self.faces}

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Calibration:
        intervals = None
        if kept["reach"]:
            reach = pd.DataFrame.from_dict(kept["reach"], orient="index").fillna({"reach": np.inf})
            intervals = AgeIntervals(kept["alpha"], True, False, reach.astype({"n": int, "reach": float}))
        return cls(kept["temperature"], intervals, kept["faces"])


def calibrated(table: pd.DataFrame, alpha: float = ALPHA) -> Calibration:
    """Learnt from the validation faces of a predictions table; ages from `calibration.age_intervals` by band."""
    val = table[table["fold"] == "val"]
    temperature = calibration.temperature(val)
    told = val[["age", "age_pred"]].notna().all(axis=1).any()
    intervals = calibration.age_intervals(val, alpha, by_band=True) if told else None
    return Calibration(None if np.isnan(temperature) else temperature, intervals, len(val))


@dataclass(frozen=True)
class Trained:
    """A network with the record of its run. `name`: the run's folder, or "released"."""

    name: str
    network: Any
    record: dict[str, Any]
    calibration: Calibration

    @property
    def size(self) -> int:
        """Pixels per side of the pictures it takes."""
        return int(self.record["parameters"]["size"])

    @property
    def flip(self) -> bool:
        """Whether it answers by the mean over a picture and its mirror image."""
        return bool(self.record["facts"].get("flip_test"))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the network's outputs, see ``Tasks.outputs``."""
        return tuple(self.network.output)

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the age groups it tells; none: it tells none."""
        edges = self.record["facts"].get("age_groups")
        return tuple(metrics.age_group([], edges).categories) if edges else ()

    @cached_property
    def title(self) -> str:
        """What it is and what it learned from, for print."""
        facts = self.record["facts"]
        drawn = " (drawn: they say nothing of people)" if facts["data"]["drawn"] else ""
        return f"{facts['model']} ({self.name}), trained on {facts['split']['train']:,} faces of {facts['data']['title']}{drawn}"

    def answers(self, pixels: np.ndarray, batch: int = 64) -> pd.DataFrame:
        """What the model says of faces, uint8 (n, size, size, 3), RGB; one row for each, in order.

        Columns, NaN where not told: age, age_low and age_high (years; the interval holds the label of 90 % of
        faces like the validation faces, high may be infinite), p_female (calibrated), age_group (a name).
        """
        from agegender import training

        if pixels.dtype != np.uint8 or pixels.shape[1:] != (self.size, self.size, 3):
            raise ValueError(
                f"faces are {pixels.dtype} {pixels.shape}; uint8 (n, {self.size}, {self.size}, 3) is what {self.name} takes"
            )
        table = pd.DataFrame(index=range(len(pixels)), columns=["age", "age_low", "age_high", "p_female"], dtype=float)
        table["age_group"] = pd.Series(pd.NA, index=table.index, dtype="string")
        if not len(pixels):
            return table
        said = training.predict(self.network, pixels, np.arange(len(pixels)), batch, self.flip)
        if "age" in said:
            table["age"] = said["age"]
        if "age" in said and self.calibration.intervals:
            spread = self.calibration.intervals(table.rename(columns={"age": "age_pred"}))
            table[["age_low", "age_high"]] = spread[["age_low", "age_high"]]
        if "gender" in said:
            table["p_female"] = said["gender"]
            if self.calibration.temperature:
                table = calibration.with_temperature(table, self.calibration.temperature)
        if "age_group" in said:
            table["age_group"] = pd.array(np.array(self.groups)[said["age_group"].argmax(1)], dtype="string")
        return table


def words(model: Trained) -> str:
    """The model and its calibration in sentences, for a page."""
    learnt = model.calibration
    said = [f"The model: {model.title}; it takes faces of {model.size} x {model.size} pixels."]
    if learnt.intervals is not None:
        reach = learnt.intervals.reach["reach"]
        known = reach[np.isfinite(reach)]
        told = ", ".join(f"{band} ± {years:.0f}" for band, years in known.items())
        rest = "" if len(known) == len(reach) else f" For {', '.join(map(str, reach.index.difference(known.index, sort=False)))} there were too few: no limit."
        said.append(
            f"Learnt from {learnt.faces:,} validation faces: {1 - learnt.intervals.alpha:.0%} intervals in years by predicted age "
            f"({told or 'for none'}).{rest}".replace("%", " %")
        )
    if learnt.temperature:
        sure = "too sure" if learnt.temperature > 1 else "not sure enough"
        said.append(f"Of genders it was {sure} there; a temperature of {learnt.temperature:.2f} corrects that.")
    return " ".join(said)


def gender_words(p_female: pd.Series, sure: float = SURE) -> pd.Series:
    """"female", "male", or "uncertain" where the likelier has a probability below `sure`; NA stays NA."""
    said = np.where(p_female > 0.5, faces.GENDERS[1], faces.GENDERS[0])
    unsure = np.maximum(p_female, 1 - p_female) < sure
    words = pd.Series(np.where(unsure, "uncertain", said), index=p_female.index, dtype="string")
    return words.mask(p_female.isna())


def load(model: str | Path = RELEASED) -> Trained:
    """The released model, or that of a finished run by its folder (as seen from here or from `home`).

    Raises FileNotFoundError for a folder that holds no run or no network, and ValueError for a file that is damaged or
    is not the one that the run wrote. Network files are opened in Keras' safe mode: nothing in them is executed.
    """
    from agegender.models import released

    if str(model) == RELEASED:
        return Trained(RELEASED, released.load(), released.record(), Calibration.from_json(released.calibration()))
    folder = next((place for place in (Path(model), home() / model) if place.is_dir()), None)
    if folder is None:
        raise FileNotFoundError(f'no folder {model}: "{RELEASED}", or the folder of a finished run, would be right')
    folder = folder.resolve()
    if not (folder / provenance.FILE).is_file():
        raise FileNotFoundError(f"{folder.name} holds no {provenance.FILE}: the folder of a finished run has one")
    record = provenance.read(folder)
    from agegender import reopened

    path = folder / reopened.FILE
    wrote = record["files"].get(reopened.FILE)
    if path.is_file() and wrote and provenance.file_digest(path) != wrote:
        raise ValueError(f"{path} is not the file that its run wrote: it is damaged or foreign; run the notebook again")
    return Trained(folder.name, reopened.load(folder), record, calibrated(predictions.read(folder)))
