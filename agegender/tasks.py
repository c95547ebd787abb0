"""What a network is asked."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from agegender import metrics

AGES = 117  # classes of an age distribution: 0 to 116 years, UTKFace's range


@dataclass(frozen=True)
class Tasks:
    """What a network is asked about a face, any of it alone or together.

    `age`: "regression" (one number), "distribution" (a probability for every age from 0 to 116, and their
    expectation) or "" (not asked). `gender`: the probability of label 1, female. `groups`: lower edges of age
    groups in years, the first 0, e.g. (0, 6, 19, 31, 46, 66); empty: not asked. `ages`: labelled ages of the
    training faces in years: heads start at their mean or distribution, not at 0, where a ReLU may never wake.
    """

    age: str = "regression"
    gender: bool = True
    groups: tuple[int, ...] = ()
    ages: np.ndarray = field(default_factory=lambda: np.array([33.0]), repr=False, compare=False)

    def __post_init__(self):
        if self.age not in ("regression", "distribution", ""):
            raise ValueError(f'age={self.age!r}: "regression", "distribution" or "" (not asked) would be right')
        if self.groups and (self.groups[0] != 0 or list(self.groups) != sorted(set(self.groups))):
            raise ValueError(f"groups={self.groups}: lower edges in years, rising, the first 0, would be right")
        if not self.outputs:
            raise ValueError("a network has to be asked something: age, gender or age groups")

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the model's outputs."""
        asked = {
            "age": bool(self.age),
            "age_distribution": self.age == "distribution",
            "gender": self.gender,
            "age_group": bool(self.groups),
        }
        return tuple(name for name, wanted in asked.items() if wanted)

    @property
    def mean_age(self) -> float:
        return float(np.mean(self.ages)) if len(self.ages) else 0.0

    def shares(self) -> np.ndarray:
        """Share of each age, float64 (117,), smoothed over a few years, none of it 0."""
        counts = np.bincount(np.clip(self.ages, 0, AGES - 1).astype(int), minlength=AGES)
        counts = counts + 1e-4 * (counts.sum() or 1)
        near = np.exp(-0.5 * (np.subtract.outer(np.arange(AGES), np.arange(AGES)) / 2.0) ** 2)
        smooth = near / near.sum(0) @ counts
        return smooth / smooth.sum()

    def group_of(self, ages) -> np.ndarray:
        """Position of the age group of each of `ages` (n,) in years, float64 (n,); NaN stays NaN."""
        return metrics.group_position(ages, self.groups)
