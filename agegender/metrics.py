"""Errors with their intervals, and which differences are real, from tables of predictions alone.

Every figure is an `Estimate`: a value with its 95 % interval. Two kinds of interval:

* Wilson's score interval for shares (Wilson 1927). It takes faces for independent: near-duplicates and
  pictures of one person make it a little too narrow; ``clustered=True`` bootstraps whole groups instead.
* The bootstrap of whole groups for everything else: each of `DRAWS` draws gives every group a Poisson(1)
  number of copies (Hanley and MacGibbon 2006), and sums over faces become one matrix product, so that all
  measures share their draws. The interval is the central 95 % of the draws (percentile interval).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binomtest, poisson
from threadpoolctl import threadpool_limits

DRAWS = 10_000
FEW = 10  # groups: a bootstrap of fewer knows too little of how they vary, and gives no interval
YEARS = 5  # "within 5 years"
LEVEL = 0.05  # of a test, after Holm's correction: two models differ where p is below
S0_EDGES = (0, 11, 21, 36, 51)  # lower edges in years: 0-10, 11-20, 21-35, 36-50, 51+
S4_EDGES = (0, 6, 19, 31, 46, 66)  # 0-5, 6-18, 19-30, 31-45, 46-65, 66+

# Poisson(1) by the inverse of its distribution function, in steps of 1 / 65,536: mean 1, variance 0.99997.
_COPIES = np.repeat(np.arange(9), np.diff(np.rint(65_536 * poisson.cdf(np.arange(-1, 9), 1)).astype(int)))
_COPIES = _COPIES.astype(np.float32)

# Blocks of draws are small: to share each out among threads takes longer than it saves, and on a busy machine
# ten times as long.
_one_thread = threadpool_limits.wrap(limits=1, user_api="blas")


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
        if np.isnan(self.low):
            return f"{self.value * 100:.1f} %, too few faces for an interval"
        return f"{self.value:.1%} [{self.low * 100:.1f}, {self.high * 100:.1f}]".replace("%", " %")


NOTHING = Estimate(np.nan, np.nan, np.nan, 0)


# Intervals


def proportion(hits) -> Estimate:
    """Share of true values in `hits` (n,) with Wilson's score interval, which takes them for independent.

    Where near-duplicates or pictures of one person share their errors it is too narrow; then
    ``mean_over_groups(hits, group)`` bootstraps whole groups.
    """
    hits = np.asarray(hits, dtype=bool)
    if len(hits) == 0:
        return NOTHING
    wilson = binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, method="wilson")
    return Estimate(float(hits.mean()), float(wilson.low), float(wilson.high), len(hits))


def mean_over_groups(values, group, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """Mean of `values` (n,) with a percentile bootstrap interval over whole groups (n,).

    Twins and pictures of one person are not independent: the draws take whole groups (the cluster bootstrap
    of Davison and Hinkley 1997, section 3.8). With fewer than FEW groups there is no interval: both ends are
    NaN.
    """
    values = np.asarray(values, dtype=np.float64)
    sums = resampled(np.stack([values, np.ones_like(values)], axis=1), group, draws, seed)
    with np.errstate(invalid="ignore"):  # 0 / 0: a draw that took no group says nothing
        means = sums[:, 0] / sums[:, 1]
    return estimate(values.mean() if len(values) else np.nan, means, len(values), len(np.unique(group)))


def interval(draws) -> tuple[float, float]:
    """The central 95 % of the bootstrap draws (n,) of a figure; draws without a value (NaN) do not count."""
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return float(low), float(high)


@_one_thread
def resampled(columns, group, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Sums over faces of `columns` (n, k) in each bootstrap draw of whole groups (n,): (draws, k) float64.

    The same seed and groups give the same draws, whatever the columns.
    """
    per_group, _ = _by_group(np.asarray(columns, dtype=np.float64), group)
    sums = [copies @ per_group for copies in _copies(len(per_group), draws, seed)]
    return np.concatenate(sums).astype(np.float64)


def resampled_each(
    asked: Mapping[Hashable, tuple[np.ndarray, np.ndarray]], draws: int = DRAWS, seed: int = 0
) -> dict[Hashable, np.ndarray]:
    """``resampled(columns, group)`` of each key; those of the same faces from the same draws, which saves time."""
    found, alike = {}, {}
    for key, (_, group) in asked.items():
        alike.setdefault(tuple(group), []).append(key)
    for group, keys in alike.items():
        columns = [asked[key][0] for key in keys]
        sums = resampled(np.hstack(columns), group, draws, seed)
        ends = np.cumsum([part.shape[1] for part in columns])
        found |= dict(zip(keys, np.split(sums, ends[:-1], axis=1)))
    return found


def _by_group(columns: np.ndarray, group) -> tuple[np.ndarray, np.ndarray]:
    """Sums of `columns` (n, k) over each group, (groups, k) float32, and each face's group as a position."""
    codes = np.unique(np.asarray(group), return_inverse=True)[1]
    count = int(codes.max(initial=-1)) + 1
    sums = np.stack([np.bincount(codes, column, count) for column in columns.T], axis=1)
    return sums.astype(np.float32), codes


def _copies(groups: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """How often each draw takes each group, in blocks (some draws, groups) float32."""
    rng = np.random.Generator(np.random.SFC64(seed))
    for count in _blocks(groups, draws):
        yield np.take(_COPIES, rng.integers(0, 65_536, (count, groups), dtype=np.uint16))


def _blocks(groups: int, draws: int) -> Iterator[int]:
    """How many draws to make at a time: a block of about 1 MB stays in the processor's cache."""
    step = max(1, 250_000 // max(groups, 1))
    for start in range(0, draws, step):
        yield min(step, draws - start)


def estimate(value: float, draws: np.ndarray, n: int, groups: int) -> Estimate:
    """`value` of `n` faces, with the `interval` of its `draws` if the faces are of FEW `groups` or more."""
    if n == 0 or not np.isfinite(value):
        return NOTHING
    low, high = interval(draws) if groups >= FEW else (np.nan, np.nan)
    return Estimate(float(value), low, high, int(n))


# Measures


@dataclass(frozen=True)
class Measure:
    """A figure of a predictions table: ``measure(table)`` is its `Estimate`, from faces with label and answer.

    `of`: from a table, the amounts (n,) or (n, m) of each face, and whether it counts, of the same shape. The
    figure is the mean of the amounts that count (with m columns the mean of the m means; `median`: the
    median of one column). `share`: the amounts are true or false and the interval is Wilson's.
    `meaning`: in words, for a glossary.
    """

    of: Callable[[pd.DataFrame], tuple[np.ndarray, np.ndarray]]
    meaning: str
    share: bool = False
    median: bool = False

    def __call__(self, table: pd.DataFrame) -> Estimate:
        return estimates(table, {"": self})[""]


def _age_error(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    error = (table["age_pred"] - table["age"]).to_numpy(np.float64)
    return error, np.isfinite(error)


def _absolute_age_error(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    error, known = _age_error(table)
    return np.abs(error), known


def _gender_right(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    p, female = (table[name].to_numpy(np.float64, na_value=np.nan) for name in ("p_female", "gender"))
    return (p > 0.5) == (female == 1), np.isfinite(p - female)


def _right_of_each_gender(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    right, known = _gender_right(table)
    female = (table["gender"] == 1).to_numpy(bool, na_value=False)
    return np.stack([right, right], axis=1), np.stack([known & ~female, known & female], axis=1)


def within_years(years: float) -> Measure:
    """The share of faces whose predicted age is at most `years` from the labelled one."""

    def of(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        error, known = _absolute_age_error(table)
        return error <= years, known

    return Measure(of, f"share of faces whose predicted age is at most {years:g} years off", share=True)


def age_group(age, edges: Sequence[float] = S0_EDGES) -> pd.Categorical:
    """Ordered age groups "0-10", "11-20", ... "51+" of ages in years, from the groups' lower `edges`.

    Fractions count as the last birthday, as in ``faces.age_band``: with edges 0, 11, ... an age of 10.9 is in
    "0-10". A missing age, and one below the first edge, stays missing.
    """
    labels = [f"{low}-{above - 1}" for low, above in itertools.pairwise(edges)] + [f"{edges[-1]}+"]
    return pd.cut(np.asarray(age, dtype=np.float64), [*edges, np.inf], right=False, labels=labels)


def group_answer(
    table: pd.DataFrame, edges: Sequence[float] = S0_EDGES, own: Sequence[float] | None = None
) -> tuple[np.ndarray, str]:
    """The age group each face was put into, and the column that says so: "age_group_pred" or "age_pred".

    `edges`: lower edges of the groups asked for; `own`: those that the model was trained to tell, where it
    was. If they are the same and the column age_group_pred is filled, it is the answer; otherwise the
    predicted age is put into its group (one below the first edge into the first group). Returns positions
    (n,) float64, NaN where there is no answer. Raises ValueError for a group that `own` does not have.
    """
    if own is not None and tuple(own) == tuple(edges) and table["age_group_pred"].notna().any():
        groups = table["age_group_pred"].to_numpy(np.float64, na_value=np.nan)
        wrong = (groups < 0) | (groups >= len(edges))
        if wrong.any():
            row = table[wrong].iloc[0]
            raise ValueError(
                f"age_group_pred of {row['file']!r} is {row['age_group_pred']}: with lower edges"
                f" {tuple(edges)}, 0 to {len(edges) - 1} would be right"
            )
        return groups, "age_group_pred"
    return group_position(table["age_pred"].clip(lower=edges[0]), edges), "age_pred"


def group_position(age, edges: Sequence[float]) -> np.ndarray:
    """Position of the age group of each of `age` (n,) in years, float64 (n,); NaN where it is missing."""
    codes = age_group(age, edges).codes.astype(np.float64)
    return np.where(codes < 0, np.nan, codes)


def age_group_accuracy(
    edges: Sequence[float] = S0_EDGES, own: Sequence[float] | None = None, off: int = 0
) -> Measure:
    """The share of faces put into their age group, or at most `off` from it; the rest as in `group_answer`."""

    def of(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        apart = np.abs(group_answer(table, edges, own)[0] - group_position(table["age"], edges))
        return apart <= off, np.isfinite(apart)

    where = "into their own age group" if off == 0 else f"at most {off} age group from their own"
    return Measure(of, f"share of faces put {where}; the groups begin at {_listed(edges)} years", share=True)


def _listed(edges: Sequence[float]) -> str:
    return ", ".join(f"{edge:g}" for edge in edges[:-1]) + f" and {edges[-1]:g}"


MEASURES = {
    "age MAE": Measure(
        _absolute_age_error, "mean absolute error of age in years, over the faces with a label and an answer"
    ),
    "age bias": Measure(
        _age_error, "mean signed error of age in years: above 0, faces are taken for older than labelled"
    ),
    "gender accuracy": Measure(
        _gender_right, "share of faces whose labelled gender has the larger predicted probability", share=True
    ),
}
age_mae, age_bias, gender_accuracy = MEASURES.values()


def more(own: Sequence[float] | None = None) -> dict[str, Measure]:
    """The measures beside MEASURES; `own`: lower edges of the age groups that the model was trained to tell."""
    return {
        "median age error": Measure(
            _absolute_age_error,
            "median absolute error of age in years: half of the faces are closer",
            median=True,
        ),
        f"accuracy within {YEARS} years": within_years(YEARS),
        "balanced gender accuracy": Measure(
            _right_of_each_gender, "mean of the shares of women and of men whose gender is told right"
        ),
        "age group accuracy (5 groups)": age_group_accuracy(S0_EDGES, own),
        "age group accuracy (6 groups)": age_group_accuracy(S4_EDGES, own),
        "one-off age group accuracy (5 groups)": age_group_accuracy(S0_EDGES, own, off=1),
        "one-off age group accuracy (6 groups)": age_group_accuracy(S4_EDGES, own, off=1),
    }


MORE = more()


def estimates(
    table: pd.DataFrame,
    measures: Mapping[str, Measure] = MEASURES,
    clustered: bool = False,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Estimate]:
    """The figures of `table` by the measures' names, all from the same bootstrap draws.

    `clustered`: shares, too, get the bootstrap of whole groups instead of Wilson's interval.
    """
    group, found = table["group"].to_numpy(), {}
    parts, medians = {}, {}
    for name, measure in measures.items():
        amount, counts = (np.atleast_2d(np.asarray(part, dtype=np.float64).T).T for part in measure.of(table))
        counts = counts > 0
        if not counts.any(axis=0).all():
            found[name] = NOTHING
        elif measure.share and not clustered:
            found[name] = proportion(amount[counts] > 0)
        else:
            (medians if measure.median else parts)[name] = np.where(counts, amount, 0), counts
    if parts:
        sums = resampled(
            np.concatenate([np.hstack(part) for part in parts.values()], axis=1), group, draws, seed
        )
    for name, (amount, counts) in parts.items():
        m = amount.shape[1]
        drawn, sums = sums[:, : 2 * m], sums[:, 2 * m :]
        with np.errstate(invalid="ignore"):
            means = (drawn[:, :m] / drawn[:, m:]).mean(axis=1)
        groups = min(len(np.unique(group[counts[:, j]])) for j in range(m))
        value = np.mean(amount.sum(axis=0) / counts.sum(axis=0))
        found[name] = estimate(value, means, counts.sum(), groups)
    for name, (amount, counts) in medians.items():
        values, known = amount[counts], group[counts[:, 0]]
        drawn = _medians(values, known, draws, seed)
        found[name] = estimate(np.median(values), drawn, len(values), len(np.unique(known)))
    return {name: found[name] for name in measures}


@_one_thread
def _medians(values: np.ndarray, group: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """The median of `values` (n,) in each bootstrap draw of whole groups: (draws,).

    Only the values that a draw's median can reach are counted one by one; those below them enter as a sum.
    """
    order = np.argsort(values, kind="stable")
    values, group = values[order], group[order]
    n, middle = len(values), len(values) // 2
    below = np.where(np.arange(n) < middle, 0.5, -0.5)
    per_group, codes = _by_group(np.stack([below, np.ones(n)], axis=1), group)
    reach = int(8 * np.sqrt((per_group[:, 0] ** 2).sum())) + 8  # eight standard deviations of the rank
    first, last = max(0, middle - reach), min(n, middle + reach)
    lower = np.bincount(codes[:first], minlength=len(per_group)).astype(np.float32)
    found = []
    for copies in _copies(len(per_group), draws, seed):
        half = copies @ per_group[:, 1] / 2
        rank = (copies @ lower)[:, None] + np.cumsum(copies[:, codes[first:last]], axis=1)
        # Of an even number of values it is the mean of two: the first to reach half, and to pass it.
        at = np.stack([(rank < half[:, None]).sum(axis=1), (rank <= half[:, None]).sum(axis=1)])
        found.append(np.where(half > 0, values[np.minimum(first + at, n - 1)].mean(axis=0), np.nan))
    return np.concatenate(found)


def summary(
    table: pd.DataFrame,
    by: str | None = None,
    measures: Mapping[str, Measure] = MEASURES,
    clustered: bool = False,
) -> pd.DataFrame:
    """All `measures` with intervals: one row each, or one per measure and value of the column `by`.

    Columns: measure, (`by`,) value, low, high, n. `clustered` as in `estimates`.
    """
    parts = {"": table} if by is None else dict(tuple(table.groupby(by, observed=False)))
    rows = []
    for part, faces in parts.items():
        for name, estimate in estimates(faces, measures, clustered).items():
            rows.append({"measure": name, **({by: part} if by else {}), **vars(estimate)})
    return pd.DataFrame(rows)


def by_true_group(
    table: pd.DataFrame, edges: Sequence[float] = S0_EDGES, own: Sequence[float] | None = None
) -> pd.DataFrame:
    """Age group accuracy, and that within one group, of each true age group: a `summary` by "age group"."""
    name = f"age group accuracy ({len(edges)} groups)"
    measures = {
        name: age_group_accuracy(edges, own),
        f"one-off {name}": age_group_accuracy(edges, own, off=1),
    }
    return summary(table.assign(**{"age group": age_group(table["age"], edges)}), "age group", measures)


# Two models on the same faces


def paired(
    tables: Mapping[str, pd.DataFrame],
    draws: int = DRAWS,
    seed: int = 0,
    against: str | None = None,
    measures: Mapping[str, Mapping[str, Measure]] | None = None,
) -> pd.DataFrame:
    """Every pair of models on the same faces of one fold: how much b differs from a, and whether by chance.

    `against`: only the pairs whose a is the table of that name. `measures`: by their names, the `Measure` of
    each model, since models may answer the same question each in its own way; without it "age MAE" in years
    and "gender accuracy" as share. Columns: a, b, measure, value = b - a, low, high (95 %, bootstrap of the
    difference over whole groups), n, p, p_holm.

    p of a mean: sign-flip test. If neither model is better, the sign of a group's summed difference is
    a coin's: the share of `draws` random flips whose sum lies as far from 0 as the one found (the one found
    counted in, so that no p is below 1 / (draws + 1)). p of a share: exact test of McNemar (1947);
    with several faces in a group the group counts once, for the model that gets more of them right, since
    copies are no new evidence (with groups of one face it is McNemar's own). `p_holm`: p corrected for all
    rows (Holm 1979). Raises ValueError where the faces are not the same, or of several folds.
    """
    # Here and not above: only tests need statsmodels.
    from statsmodels.stats.contingency_tables import mcnemar

    tables = {name: table.sort_values("file", ignore_index=True) for name, table in tables.items()}
    _same_faces(tables)
    measures = measures or {
        "age MAE": dict.fromkeys(tables, age_mae),
        "gender accuracy": dict.fromkeys(tables, gender_accuracy),
    }
    judged = {(m, name): measure.of(tables[name]) for m, by_model in measures.items() for name, measure in by_model.items()}
    pairs = itertools.combinations(tables, 2) if against is None else ((against, name) for name in tables if name != against)
    # A pair's sums are differences of its models' own over the faces that both know: few columns do for many pairs.
    columns, at, rows, places = [], {}, [], []
    for (a, b), measure in itertools.product(pairs, measures):
        (x, x_known), (y, y_known) = judged[measure, a], judged[measure, b]
        known = x_known & y_known
        faces = known.tobytes()
        keys = (measure, a, faces), (measure, b, faces), faces
        for key, values in zip(keys, (x, y, 1)):
            if key not in at:
                at[key] = len(columns)
                columns.append(np.where(known, values, 0).astype(np.float64))
        rows.append({"a": a, "b": b, "measure": measure})
        places.append([at[key] for key in keys])
    if not rows:
        return pd.DataFrame(columns=["a", "b", "measure", "value", "low", "high", "n", "p", "p_holm"])
    group = next(iter(tables.values()))["group"]
    matrix = np.stack(columns, axis=1)
    sums = resampled(matrix, group, draws, seed)
    per_group = _by_group(matrix, group)[0].astype(np.float64)
    chance = _sign_flips(per_group, np.array(places)[:, :2], draws, seed)
    for (a, b, both), row, p in zip(places, rows, chance):
        n, groups = int(matrix[:, both].sum()), int((per_group[:, both] > 0).sum())
        with np.errstate(invalid="ignore"):
            means = (sums[:, b] - sums[:, a]) / sums[:, both]
        value = (matrix[:, b].sum() - matrix[:, a].sum()) / n if n else np.nan
        row.update(vars(estimate(value, means, n, groups)), p=np.nan)
        if measures[row["measure"]][row["a"]].share and n:
            ahead, behind = ((sign * (per_group[:, b] - per_group[:, a]) > 0).sum() for sign in (1, -1))
            row["p"] = float(mcnemar([[0, ahead], [behind, 0]], exact=True).pvalue)
        elif groups >= FEW:
            row["p"] = float(p)
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p"]))


def holm(p: Sequence[float]) -> np.ndarray:
    """The `p` of several tests, (k,), corrected for their number (Holm 1979); NaN where there is none, which does not count."""
    from statsmodels.stats.multitest import multipletests

    p = np.asarray(p, dtype=np.float64)
    found, tested = np.full(len(p), np.nan), np.isfinite(p)
    if tested.any():
        found[tested] = multipletests(p[tested], method="holm")[1]
    return found


def _same_faces(tables: Mapping[str, pd.DataFrame]) -> None:
    (first, one), *others = tables.items()
    if one["fold"].nunique() > 1:
        raise ValueError(f"{first} has faces of {', '.join(sorted(one['fold'].unique()))}: one fold is right")
    for name, other in others:
        for column in ("file", "fold", "group", "age", "gender"):
            if not one[column].equals(other[column]):
                raise ValueError(
                    f"{first} and {name} differ in the column {column!r}: the same faces are right"
                )


@_one_thread
def _sign_flips(per_group: np.ndarray, pairs: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """p (k,) of the differences of two columns of `per_group` (groups, c), summed, among the sums with random signs.

    `pairs`: positions of the two columns, (k, 2).
    """
    rng = np.random.Generator(np.random.SFC64(seed))
    groups, (a, b) = len(per_group), pairs.T
    sums = per_group.sum(axis=0)
    total, as_far = sums[b] - sums[a], np.ones(len(pairs))
    reach = np.abs(per_group).sum(axis=0)
    bound = np.abs(total) - 1e-9 * (reach[a] + reach[b])  # equal sums differ in the last digits
    for count in _blocks(groups, draws):
        bits = rng.integers(0, 256, (count, -(-groups // 8)), dtype=np.uint8)
        kept = np.unpackbits(bits, axis=1, count=groups).astype(np.float64) @ per_group
        as_far += (np.abs(2 * (kept[:, b] - kept[:, a]) - total) >= bound).sum(axis=0)
    return as_far / (draws + 1)


# For records and pages


def facts(table: pd.DataFrame, prefix: str, own: Sequence[float] = ()) -> dict[str, float]:
    """Age MAE and gender accuracy for a run's record, e.g. {"val_age_MAE": 5.6}; what has no labels is left out.

    `own`: lower edges of the age groups that the model was trained to tell, whose accuracy then is added.
    """
    found = {name: MEASURES[name](table).value for name in ("age MAE", "gender accuracy")}
    if own:
        found["age group accuracy"] = age_group_accuracy(own, own)(table).value
    return {f"{prefix}_{n}".replace(" ", "_"): value for n, value in found.items() if np.isfinite(value)}


def naive(table: pd.DataFrame) -> dict[str, float]:
    """What a guesser reaches who never looks: the validation part's median age and commoner gender, on the test part.

    `table` is any predictions table; returns {"age MAE": years, "gender accuracy": share}, less what has no
    labels.
    """
    val, test = (table[table["fold"] == fold] for fold in ("val", "test"))
    found = {"age MAE": float((test["age"] - val["age"].median()).abs().mean())}
    if len(common := val["gender"].mode()) and test["gender"].notna().any():
        found["gender accuracy"] = float((test["gender"].dropna() == common[0]).mean())
    return {name: value for name, value in found.items() if np.isfinite(value)}
