"""How far a model's own doubts can be trusted: probabilities of gender, intervals of age, and abstaining.

All from predictions tables (see `agegender.predictions`). What is fitted (a temperature, the width of age
intervals, a threshold of doubt) is fitted on validation faces, what is measured is measured on test faces:
functions refuse rows of another fold. The validation part also chose the kept epoch, so that its residuals
may be a little too small; the coverage measured on test faces shows whether it mattered.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from agegender import faces, metrics
from agegender.metrics import DRAWS, FEW, NOTHING, Estimate, Measure

BINS = 15
STEPS = 50  # points of a risk-coverage curve
TINY = 1e-7  # a float32 sigmoid ends in 0 or 1 near here, and a single such face makes the log loss infinite


def _checked(table: pd.DataFrame, fold: str) -> pd.DataFrame:
    """`table` if all its rows are of `fold`; else a ValueError that names the first that is not."""
    wrong = table["fold"] != fold
    if wrong.any():
        row = table[wrong].iloc[0]
        raise ValueError(
            f"{row['file']!r} is of fold {row['fold']!r} ({wrong.sum()} of {len(table)} rows are of another):"
            f" rows of {fold!r} alone are right here"
        )
    return table


def _gender(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probability of female (n,), label (n,) 0.0 or 1.0 and group (n,) of the faces that have both."""
    known = table.dropna(subset=["gender", "p_female"])
    return (
        known["p_female"].to_numpy(np.float64),
        known["gender"].to_numpy(np.float64),
        known["group"].to_numpy(),
    )


# Probabilities of gender


def _bins(p: np.ndarray, bins: int) -> np.ndarray:
    """Position of each probability's bin; edges at the quantiles, so that bins hold about equally many."""
    inner = np.unique(np.quantile(p, np.arange(1, bins) / bins)) if len(p) else np.empty(0)
    return np.searchsorted(inner, p)


def reliability(table: pd.DataFrame, bins: int = 10, fold: str = "test") -> pd.DataFrame:
    """How often faces are female whose probability of it was about so high: one row per bin of equal mass.

    Columns: predicted (mean probability), value (share labelled female), low, high (95 %, Wilson), n. Equal
    probabilities stay in one bin, so there may be fewer than `bins`.
    """
    p, female, _ = _gender(_checked(table, fold))
    at = _bins(p, bins)
    rows = [
        {"predicted": p[at == i].mean(), **vars(metrics.proportion(female[at == i] == 1))}
        for i in np.unique(at)
    ]
    return pd.DataFrame(rows, columns=["predicted", "value", "low", "high", "n"])


def ece(
    table: pd.DataFrame, bins: int = BINS, fold: str = "test", draws: int = DRAWS, seed: int = 0
) -> Estimate:
    """Expected calibration error of p_female: mean gap of predicted and observed share in bins of equal mass.

    Binned by the probability of female, not by that of the answer (Naeini et al. 2015 with bins as in Nguyen
    and O'Connor 2015). Chance alone lifts it above 0: see `ece_by_chance`. Each bootstrap draw of groups adds
    as much again, so the interval is the basic one, mirrored at the value (Davison and Hinkley 1997, section
    5.2), widened to hold the value, and 0 where chance explains the value.
    """
    return eces({"": table}, bins, fold, draws, seed)[""][0]


def eces(
    tables: Mapping[Hashable, pd.DataFrame],
    bins: int = BINS,
    fold: str = "test",
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[Hashable, tuple[Estimate, Estimate]]:
    """`ece` and `ece_by_chance` of each table, from the same draws where the faces are the same."""
    asked, found = {}, {}
    for key, table in tables.items():
        p, female, group = _gender(_checked(table, fold))
        if len(p) == 0:
            found[key] = NOTHING, NOTHING
            continue
        inside = _bins(p, bins)[:, None] == np.arange(bins)
        gaps = (p - female)[:, None] * inside
        value = float(np.abs(gaps.sum(axis=0)).sum() / len(p))
        found[key] = Estimate(value, np.nan, np.nan, len(p)), ece_by_chance(table, bins, fold)
        if len(np.unique(group)) >= FEW:
            asked[key] = np.hstack([gaps, np.ones((len(p), 1))]), group
    for key, sums in metrics.resampled_each(asked, draws, seed).items():
        without, chance = found[key]
        value = without.value
        with np.errstate(invalid="ignore"):
            least, most = metrics.interval(np.abs(sums[:, :-1]).sum(axis=1) / sums[:, -1])
        low = 0.0 if value <= chance.high else max(0.0, 2 * value - most)
        high = max(value, 2 * value - least)
        found[key] = replace(without, low=float(low), high=float(high)), chance
    return found


def ece_by_chance(
    table: pd.DataFrame, bins: int = BINS, fold: str = "test", draws: int = 500, seed: int = 0
) -> Estimate:
    """The `ece` that these probabilities would show if they were true: mean and central 95 % of `draws`.

    Labels are drawn anew from the probabilities (the consistency resampling of Bröcker and Smith 2007), face
    by face. An `ece` above the upper end is more than chance.
    """
    p, _, _ = _gender(_checked(table, fold))
    if len(p) == 0:
        return NOTHING
    order = np.argsort(p, kind="stable")
    p, at = p[order], _bins(p[order], bins)
    starts = np.flatnonzero(np.diff(at, prepend=-1))
    rng, found = np.random.default_rng(seed), np.empty(draws)
    for i in range(draws):
        gaps = np.add.reduceat(p - (rng.random(len(p)) < p), starts)
        found[i] = np.abs(gaps).sum() / len(p)
    return Estimate(float(found.mean()), *metrics.interval(found), len(p))


def _squared_gap(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    p, female = (table[name].to_numpy(np.float64, na_value=np.nan) for name in ("p_female", "gender"))
    return (p - female) ** 2, np.isfinite(p - female)


def _log_loss(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    p, female = (table[name].to_numpy(np.float64, na_value=np.nan) for name in ("p_female", "gender"))
    right = np.where(female == 1, p, 1 - p)
    return -np.log(np.clip(right, TINY, 1)), np.isfinite(p - female)


BRIER = Measure(_squared_gap, "mean squared distance of the probability of female from the label, 0 or 1")
LOG_LOSS = Measure(
    _log_loss, "mean negative logarithm of the probability given to the labelled gender (nats)"
)


def scores(table: pd.DataFrame, fold: str = "test", bins: int = BINS) -> pd.DataFrame:
    """Brier score, log loss, ECE and the ECE due to chance: columns measure, value, low, high, n (95 %)."""
    found = metrics.estimates(_checked(table, fold), {"Brier score": BRIER, "log loss": LOG_LOSS})
    found["ECE"], found["ECE by chance"] = eces({"": table}, bins, fold)[""]
    return pd.DataFrame([{"measure": name, **vars(estimate)} for name, estimate in found.items()])


def temperature(val: pd.DataFrame) -> float:
    """The T with which p' = sigmoid(logit(p) / T) has the lowest log loss on validation faces.

    Guo et al. (2017). Above 1 the model was too sure. Answers (p > 0.5) stay as they are. Between 0.01 and
    100, which is reached only where all validation faces are told right; NaN with fewer than FEW groups of
    faces.
    """
    p, female, group = _gender(_checked(val, "val"))
    if len(np.unique(group)) < FEW:
        return np.nan
    z = np.where(female == 1, 1, -1) * logit(np.clip(p, TINY, 1 - TINY))
    # log(1 + exp(-z / T)): convex in 1 / T, so one lowest point.
    best = minimize_scalar(
        lambda log_t: np.logaddexp(0, -z / np.exp(log_t)).mean(), bounds=np.log([0.01, 100])
    )
    return float(np.exp(best.x))


def with_temperature(table: pd.DataFrame, t: float) -> pd.DataFrame:
    """`table` with p_female = sigmoid(logit(p_female) / t); NaN where `t` is."""
    p = np.clip(table["p_female"].to_numpy(np.float64), TINY, 1 - TINY)
    return table.assign(p_female=expit(logit(p) / t))


# Intervals of age


@dataclass(frozen=True)
class AgeIntervals:
    """Widths learnt from validation residuals: ``intervals(table)`` fills in age_low and age_high.

    `reach`: one row per band of the predicted age (or one, "all"), with n validation faces and the reach: how
    many years the interval goes to either side, or, `scaled`, how many times the model's own interval's
    width.
    """

    alpha: float
    by_band: bool
    scaled: bool
    reach: pd.DataFrame

    def __call__(self, table: pd.DataFrame) -> pd.DataFrame:
        """`table` with age_low and age_high replaced, in years; low ends at 0, high may be infinite."""
        reach = self.reach["reach"].reindex(_bands(table, self.by_band)).to_numpy(np.float64)
        if self.scaled:
            reach = reach * _own_width(table)
        low = np.where(np.isnan(reach), np.nan, np.maximum(table["age_pred"] - reach, 0))
        return table.assign(age_low=low, age_high=table["age_pred"] + reach)

    def words(self) -> str:
        """For which faces the interval has no limit, since too few validation faces were like them."""
        few = self.reach[~np.isfinite(self.reach["reach"])]
        if few.empty:
            return ""
        needed = _rank(0, self.alpha, least=True)
        named = "; ".join(f"{band}: {row.n}" for band, row in zip(few.index, few.itertuples()))
        return (
            f"Too few validation faces for {1 - self.alpha:.0%} intervals, which need {needed}"
            f"{' of each predicted age' if self.by_band else ''} ({named}): there the interval has no limit."
        ).replace("%", " %")


def age_intervals(
    val: pd.DataFrame, alpha: float = 0.1, by_band: bool = False, scaled: bool = False
) -> AgeIntervals:
    """Age intervals that hold the label with probability 1 - `alpha`, by split-conformal prediction.

    The reach is the ceil((n + 1)(1 - alpha))-th smallest of the n absolute residuals on validation faces
    (Lei et al. 2018); infinite where n is too small for it. Faces like the validation faces are then covered
    with 1 - `alpha` or more, on average over all of them. Validation faces of one group count one by one,
    which they are not: with large groups coverage comes out lower.

    `by_band`: a reach for each of ``faces.AGE_BANDS`` of the *predicted* age (Mondrian; Vovk et al. 2005,
    section 4.5): of a new face only the prediction is known, not the band of its label. So it holds for faces
    taken for 6 to 12, not for those who are: children taken for adults are left out of their interval as
    before. `scaled`: residuals in units of age_high - age_low, where the model gives them (1 year at least),
    so that the intervals keep the model's own idea of which faces are hard (Lei et al. 2018, section 5.2).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha {alpha} is impossible: between 0 and 1, such as 0.1 for 90 %, is right")
    known = _checked(val, "val").dropna(subset=["age", "age_pred"])
    residual = (known["age_pred"] - known["age"]).abs().to_numpy(np.float64)
    if scaled:
        residual = residual / _own_width(known)
    bands = _bands(known, by_band)
    rows = {}
    for band in bands.categories:
        part = np.sort(residual[bands == band])
        k = _rank(len(part), alpha)
        rows[band] = {"n": len(part), "reach": part[k - 1] if k <= len(part) else np.inf}
    return AgeIntervals(alpha, by_band, scaled, pd.DataFrame.from_dict(rows, orient="index"))


def _rank(n: int, alpha: float, least: bool = False) -> int:
    """ceil((n + 1)(1 - alpha)); with `least`, the smallest n for which that is no more than n."""
    if least:
        return int(np.ceil(round((1 - alpha) / alpha, 9)))
    return int(np.ceil(round((n + 1) * (1 - alpha), 9)))  # rounded: 30 * 0.9 is a little more than 27


def _bands(table: pd.DataFrame, by_band: bool) -> pd.Categorical:
    if by_band:
        return faces.age_band(table["age_pred"].clip(lower=0))
    return pd.Categorical(np.where(table["age_pred"].isna(), None, "all"), categories=["all"])


def _own_width(table: pd.DataFrame) -> np.ndarray:
    width = (table["age_high"] - table["age_low"]).to_numpy(np.float64)
    if len(width) and not np.isfinite(width[table["age_pred"].notna()]).all():
        raise ValueError("scaled intervals need age_low and age_high from the model for every predicted age")
    return np.maximum(width, 1)


def _covered(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    known = table[["age", "age_low", "age_high"]].notna().all(axis=1)
    return table["age"].between(table["age_low"], table["age_high"]).to_numpy(), known.to_numpy()


def _width(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    width = (table["age_high"] - table["age_low"]).to_numpy(np.float64)
    known = np.isfinite(width) & table["age"].notna().to_numpy()
    return np.where(known, width, 0), known


def _without_limit(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return np.isinf(table["age_high"].to_numpy(np.float64)), _covered(table)[1]


INTERVALS = {
    "coverage": Measure(_covered, "share of faces whose labelled age lies in their interval", share=True),
    "interval width": Measure(_width, "mean width of the age intervals in years, of those that have a limit"),
    "without limit": Measure(
        _without_limit, "share of faces whose age interval has no upper limit", share=True
    ),
}


def coverage(table: pd.DataFrame, fold: str = "test") -> pd.DataFrame:
    """Measured coverage and width of age_low to age_high: of all faces ("all"), and of each true age band.

    Columns: measure (as in INTERVALS), band, value, low, high (95 %), n.
    """
    table = _checked(table, fold).assign(band=faces.age_band(table["age"]))
    overall = metrics.summary(table, measures=INTERVALS).assign(band="all")
    by_band = metrics.summary(table, "band", INTERVALS)
    return pd.concat([overall, by_band], ignore_index=True)[["measure", "band", "value", "low", "high", "n"]]


# Abstaining


def _losses(table: pd.DataFrame, task: str, doubt: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Loss (n,), doubt (n,) and group (n,) of the faces that have a label, an answer and a doubt."""
    if task == "gender":
        loss = _gender_wrong(table)
        doubts = np.minimum(table["p_female"], 1 - table["p_female"])
    elif task == "age":
        loss = (table["age_pred"] - table["age"]).abs()
        doubts = table["age_high"] - table["age_low"]
    else:
        raise ValueError(f"task {task!r}: 'gender' or 'age' is right")
    doubts = table[doubt] if doubt else doubts
    known = (loss.notna() & doubts.notna()).to_numpy()
    return (
        loss.to_numpy(np.float64)[known],
        doubts.to_numpy(np.float64)[known],
        table["group"].to_numpy()[known],
    )


def _gender_wrong(table: pd.DataFrame) -> pd.Series:
    wrong = ((table["p_female"] > 0.5) != (table["gender"] == 1)).astype("float64")
    return wrong.where(table["gender"].notna() & table["p_female"].notna())


def risk_coverage(
    table: pd.DataFrame,
    task: str,
    doubt: str | None = None,
    fold: str = "test",
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[pd.DataFrame, Estimate]:
    """The error among the faces a model is surest of, by the share answered, and the area under that curve.

    `task`: "gender" (error: share told wrong; doubt: 1 minus the probability of the answer) or "age" (error:
    MAE in years; doubt: age_high - age_low). `doubt`: a column to go by instead, such as the entropy of a
    distribution over ages (``scipy.stats.entropy(distribution, axis=1)``).

    Returns a table (columns answered, value, low, high, n; at most STEPS rows, equal doubts in one) and the
    area (Geifman and El-Yaniv 2017; trapezoids, level left of the first row), both with 95 % intervals by the
    bootstrap of whole groups. A doubt that says nothing gives a level curve, whose area is the error itself.
    """
    loss, doubts, group = _losses(_checked(table, fold), task, doubt)
    n = len(loss)
    columns = ["answered", "value", "low", "high", "n"]
    if n == 0:
        return pd.DataFrame(columns=columns), NOTHING
    limits = np.unique(np.sort(doubts)[np.ceil(n * np.arange(1, STEPS + 1) / STEPS).astype(int) - 1])
    step = np.searchsorted(limits, doubts)
    inside = step[:, None] == np.arange(len(limits))
    parts = np.hstack([loss[:, None] * inside, inside])
    found, drawn = parts.sum(axis=0)[None], metrics.resampled(parts, group, draws, seed)
    (risk, answered), (risks, shares) = (_cumulated(sums, len(limits)) for sums in (found, drawn))
    counts = np.bincount(step, minlength=len(limits)).cumsum()
    surest = pd.Series(step).groupby(group).min()  # the first row that counts each group
    groups = np.bincount(surest, minlength=len(limits)).cumsum()
    rows = [
        {"answered": answered[0, i], **vars(metrics.estimate(risk[0, i], risks[:, i], counts[i], groups[i]))}
        for i in range(len(limits))
    ]
    area = metrics.estimate(_area(risk, answered)[0], _area(risks, shares), n, groups[-1])
    return pd.DataFrame(rows, columns=columns), area


def _cumulated(sums: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    loss, count = sums[:, :steps].cumsum(axis=1), sums[:, steps:].cumsum(axis=1)
    with np.errstate(invalid="ignore"):
        return loss / count, count / count[:, -1:]


def _area(risk: np.ndarray, answered: np.ndarray) -> np.ndarray:
    first = np.nan_to_num(risk[:, :1])
    risk, answered = np.hstack([first, np.nan_to_num(risk)]), np.hstack([np.zeros_like(first), answered])
    return np.trapezoid(risk, answered, axis=1)


def abstaining(
    val: pd.DataFrame,
    test: pd.DataFrame,
    task: str,
    share: float = 0.1,
    doubt: str | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """What it buys to give no answer where the doubt is as high as in that `share` of the validation faces.

    Rows (column measure): "error, all answered", "error, surest answered", "gain" (the first minus the
    second) and "share declined", on test faces; value, low, high (95 %, bootstrap over whole groups; Wilson
    for the share declined), n. `task` and `doubt` as in `risk_coverage`. Faces of equal doubt are declined
    together or not at all, so that few different doubts (age intervals of one width per band) decline fewer.
    """
    return abstaining_each({"": (val, test)}, task, share, doubt, draws, seed)[""]


def abstaining_each(
    folds: Mapping[Hashable, tuple[pd.DataFrame, pd.DataFrame]],
    task: str,
    share: float = 0.1,
    doubt: str | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[Hashable, pd.DataFrame]:
    """`abstaining` of each (val, test), from the same draws where the test faces are the same."""
    if not 0 <= share < 1:
        raise ValueError(f"share {share} is impossible: 0 or more and below 1, such as 0.1, is right")
    names = ["error, all answered", "error, surest answered", "gain", "share declined"]
    found, asked = {key: dict.fromkeys(names, NOTHING) for key in folds}, {}
    for key, (val, test) in folds.items():
        doubts = _losses(_checked(val, "val"), task, doubt)[1]
        loss, at, group = _losses(_checked(test, "test"), task, doubt)
        if len(doubts) and len(loss):
            limit = np.sort(doubts)[int(np.ceil(round((1 - share) * len(doubts), 9))) - 1]
            sure = at <= limit
            asked[key] = np.stack([loss, np.ones(len(loss)), loss * sure, sure], axis=1), group
    for key, sums in metrics.resampled_each(asked, draws, seed).items():
        columns, group = asked[key]
        loss, sure = columns[:, 0], columns[:, 3] == 1
        with np.errstate(invalid="ignore"):
            every, surest = sums[:, 0] / sums[:, 1], sums[:, 2] / sums[:, 3]
        n, kept = len(loss), int(sure.sum())
        groups = len(np.unique(group)), len(np.unique(group[sure]))
        values = loss.mean(), loss[sure].mean() if kept else np.nan
        found[key] = {
            names[0]: metrics.estimate(values[0], every, n, groups[0]),
            names[1]: metrics.estimate(values[1], surest, kept, groups[1]),
            names[2]: metrics.estimate(values[0] - values[1], every - surest, n, groups[1]),
            names[3]: metrics.proportion(~sure),
        }
    return {
        key: pd.DataFrame([{"measure": name, **vars(estimate)} for name, estimate in figures.items()])
        for key, figures in found.items()
    }
