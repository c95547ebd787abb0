"""Errors with their intervals, from tables of predictions alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binomtest

DRAWS = 10_000
FEW = 10  # groups: a bootstrap of fewer knows too little of how they vary, and gives no interval


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval. `n` faces; NaN where there are none, or too few for an interval."""

    value: float
    low: float
    high: float
    n: int

    def years(self) -> str:
        """For print: "5.6 years [5.2, 6.0]"."""
        if self.n == 0:
            return "no labels"
        if np.isnan(self.low):
            return f"{self.value:.1f} years, too few faces for an interval"
        return f"{self.value:.1f} years [{self.low:.1f}, {self.high:.1f}]"

    def percent(self) -> str:
        """For print: "91.2 % [89.0, 93.0]"."""
        if self.n == 0:
            return "no labels"
        return f"{self.value:.1%} [{self.low * 100:.1f}, {self.high * 100:.1f}]".replace("%", " %")


NOTHING = Estimate(np.nan, np.nan, np.nan, 0)


def mean_over_groups(values, group, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """Mean of `values` (n,) with a percentile bootstrap interval over whole groups (n,).

    Twins and pictures of one person are not independent: `draws` resamplings take whole groups with
    replacement (the cluster bootstrap of Davison and Hinkley 1997, section 3.8). With fewer than FEW groups
    there is no interval: both ends are NaN.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) == 0:
        return NOTHING
    codes = np.unique(np.asarray(group), return_inverse=True)[1]
    sums, counts = np.bincount(codes, values), np.bincount(codes)
    if len(sums) < FEW:
        return Estimate(float(values.mean()), np.nan, np.nan, len(values))
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    step = max(1, 4_000_000 // len(sums))  # keeps the drawn block at some 30 MB
    for start in range(0, draws, step):
        drawn = rng.integers(0, len(sums), (min(step, draws - start), len(sums)), dtype=np.int32)
        means[start : start + step] = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(values.mean()), float(low), float(high), len(values))


def proportion(hits) -> Estimate:
    """Share of true values in `hits` (n,) with Wilson's score interval."""
    hits = np.asarray(hits, dtype=bool)
    if len(hits) == 0:
        return NOTHING
    interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, method="wilson")
    return Estimate(float(hits.mean()), float(interval.low), float(interval.high), len(hits))


def age_mae(table: pd.DataFrame) -> Estimate:
    """Mean absolute error of age in years, over the faces with a label and a prediction."""
    known = table.dropna(subset=["age", "age_pred"])
    return mean_over_groups((known["age_pred"] - known["age"]).abs(), known["group"])


def age_bias(table: pd.DataFrame) -> Estimate:
    """Mean signed error of age in years: above 0, faces are taken for older than labelled."""
    known = table.dropna(subset=["age", "age_pred"])
    return mean_over_groups(known["age_pred"] - known["age"], known["group"])


def gender_accuracy(table: pd.DataFrame) -> Estimate:
    """Share of faces whose labelled gender has the larger predicted probability."""
    known = table.dropna(subset=["gender", "p_female"])
    return proportion((known["p_female"] > 0.5).to_numpy() == (known["gender"] == 1).to_numpy())


MEASURES = {"age MAE": age_mae, "age bias": age_bias, "gender accuracy": gender_accuracy}


def summary(table: pd.DataFrame, by: str | None = None) -> pd.DataFrame:
    """All measures with intervals: one row each, or one per measure and value of the column `by`.

    Columns: measure, (`by`,) value, low, high, n.
    """
    parts = {"": table} if by is None else dict(tuple(table.groupby(by, observed=False)))
    rows = []
    for part, faces in parts.items():
        for name, measure in MEASURES.items():
            estimate = measure(faces)
            rows.append({"measure": name, **({by: part} if by else {}), **vars(estimate)})
    return pd.DataFrame(rows)


def facts(table: pd.DataFrame, prefix: str) -> dict[str, float]:
    """Age MAE and gender accuracy for a run's record, e.g. {"val_age_MAE": 5.6}; what has no labels is left out."""
    found = {name: MEASURES[name](table).value for name in ("age MAE", "gender accuracy")}
    return {f"{prefix}_{n}".replace(" ", "_"): value for n, value in found.items() if np.isfinite(value)}


def naive(table: pd.DataFrame) -> dict[str, float]:
    """What a guesser reaches who never looks: the validation part's median age and commoner gender, on the test part.

    `table` is any predictions table; returns {"age MAE": years, "gender accuracy": share}, less what has no labels.
    """
    val, test = (table[table["fold"] == fold] for fold in ("val", "test"))
    found = {"age MAE": float((test["age"] - val["age"].median()).abs().mean())}
    if len(common := val["gender"].mode()) and test["gender"].notna().any():
        found["gender accuracy"] = float((test["gender"].dropna() == common[0]).mean())
    return {name: value for name, value in found.items() if np.isfinite(value)}
