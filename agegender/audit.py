"""On whom models go wrong, and whose label may be wrong, from predictions tables alone.

All intervals are at 95 %: Wilson's for shares, the bootstrap of whole groups (`metrics.resampled`) for
means and for differences. A cell with fewer than TOO_FEW faces, or faces of fewer than ``metrics.FEW``
groups, gets no figure at all: in a table of many cells the smallest would otherwise look like the best and
the worst.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from agegender import calibration, faces, metrics
from agegender.faces import ADULT
from agegender.comparison import Finished, chance, number
from agegender.metrics import DRAWS, FEW, Estimate, Measure

TOO_FEW = 30  # faces of a cell
PARTS = ("minors", "adults")
SURE = 0.9  # probability from which on a model is called sure of a gender
RARE = 0.01  # share of validation faces that all models misjudge by so many years and more


# Means of many cells from the same draws


@dataclass(frozen=True)
class Means:
    """Means of k cells: value (k,), drawn (draws, k), n and groups (k,); `few` (k,): too few for a figure."""

    value: np.ndarray
    drawn: np.ndarray
    n: np.ndarray
    groups: np.ndarray

    @property
    def few(self) -> np.ndarray:
        return (self.n < TOO_FEW) | (self.groups < FEW)

    def estimate(self, i: int) -> Estimate:
        """Of cell i; without a value where there are too few faces."""
        if self.few[i]:
            return Estimate(np.nan, np.nan, np.nan, int(self.n[i]))
        return metrics.estimate(self.value[i], self.drawn[:, i], self.n[i], self.groups[i])


def means(
    blocks: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, int]],
    group,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Means]:
    """Means of amounts by cell, with bootstrap draws of whole groups that all blocks share.

    Each of `blocks`: amount (n,), whether it counts (n,), the face's cell (n,) as a position or -1, and the
    number of cells k.
    """
    group = np.unique(np.asarray(group), return_inverse=True)[1]
    columns, found = [], []
    for amount, known, cell, k in blocks:
        inside = (np.asarray(cell)[:, None] == np.arange(k)) & np.asarray(known, dtype=bool)[:, None]
        columns += [np.where(inside, np.asarray(amount, dtype=np.float64)[:, None], 0), inside]
    drawn = metrics.resampled(np.hstack(columns), group, draws, seed)
    at = 0
    for (*_, k), amounts, inside in zip(blocks, columns[::2], columns[1::2]):
        with np.errstate(invalid="ignore", divide="ignore"):
            value = amounts.sum(axis=0) / inside.sum(axis=0)
            shares = drawn[:, at : at + k] / drawn[:, at + k : at + 2 * k]
        groups = np.array([len(np.unique(group[inside[:, i]])) for i in range(k)])
        found.append(Means(value, shares, inside.sum(axis=0), groups))
        at += 2 * k
    return found


def p_of(drawn: np.ndarray) -> float:
    """Two-sided p of a difference being 0, from its bootstrap draws: 0.05 where the interval touches 0.

    The smaller share of draws on one side of 0, doubled, with one draw added to each side, so that it is
    never 0 (Davison and Hinkley 1997, section 4.4).
    """
    drawn = drawn[np.isfinite(drawn)]
    least = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return float(min(1.0, 2 * (least + 1) / (len(drawn) + 1)))


def _codes(table: pd.DataFrame, column: str, count: int) -> np.ndarray:
    codes = table[column].to_numpy(np.float64, na_value=np.nan)
    return np.where((codes >= 0) & (codes < count), codes, -1).astype(int)


# Age band by gender by race


def cells(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """One of ``metrics.MEASURES`` by age band, labelled gender and race, each with its interval.

    Columns: measure, race, gender, band, value, low, high, n. Races are those that occur, "all" where no face
    has such a label; the same for genders. Faces without one of the labels are in no cell. Where fewer than
    two cells have faces enough, races are put together.
    """
    found = _cells(table, measure)
    if found["low"].notna().sum() < 2 and (found["race"] != "all").any():
        found = _cells(table.assign(race=pd.NA), measure)
    return found


def _cells(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    codes, names, known = [], [], np.ones(len(table), dtype=bool)
    for column, all_names in (("race", faces.RACES), ("gender", faces.GENDERS)):
        code = _codes(table, column, len(all_names))
        there = np.unique(code[code >= 0])
        known &= (code >= 0) | (len(there) == 0)
        codes.append(np.searchsorted(there, code) if len(there) else np.zeros(len(table), int))
        names.append([all_names[i] for i in there] or ["all"])
    band = faces.age_band(table["age"])
    codes.append(band.codes.astype(int))
    names.append(list(band.categories))
    shape, cell = tuple(map(len, names)), np.full(len(table), -1)
    known &= codes[2] >= 0
    cell[known] = np.ravel_multi_index([code[known] for code in codes], shape)
    amount, counts = metrics.MEASURES[measure].of(table)
    share, block = (
        metrics.MEASURES[measure].share,
        (np.where(counts, amount, 0), counts, cell, int(np.prod(shape))),
    )
    (found,) = means([block], table["group"], draws=1 if share else DRAWS)
    rows = []
    for i, names_of in enumerate(itertools.product(*names)):
        figure = found.estimate(i)
        if share and not found.few[i]:
            figure = metrics.proportion(amount[counts & (cell == i)])
        rows.append({"measure": measure, **dict(zip(("race", "gender", "band"), names_of)), **vars(figure)})
    return pd.DataFrame(rows)


# Minors and adults


def _part(table: pd.DataFrame) -> np.ndarray:
    """0 for minors, 1 for adults, -1 where the age is not known."""
    age = table["age"].to_numpy(np.float64)
    return np.where(np.isnan(age), -1, age >= ADULT).astype(int)


def minors_and_adults(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The MEASURES of models on the same faces, minors and adults apart, and how much adults differ.

    Columns: model, measure, part ("minors", "adults" or "adults - minors"), value, low, high, n, p (of a
    difference of 0).
    """
    blocks, names = [], []
    for model, table in tables.items():
        for name, measure in metrics.MEASURES.items():
            amount, counts = measure.of(table)
            blocks.append((np.where(counts, amount, 0), counts, _part(table), 2))
            names.append((model, name, measure.share))
    rows = []
    group = next(iter(tables.values()))["group"]
    for (model, name, share), found, (amount, counts, part, _) in zip(names, means(blocks, group), blocks):
        for i, each in enumerate(PARTS):
            figure = found.estimate(i)
            if share and np.isfinite(figure.value):
                figure = metrics.proportion(amount[(counts > 0) & (part == i)] > 0)
            rows.append({"model": model, "measure": name, "part": each, **vars(figure), "p": np.nan})
        figure, p = _difference(found, 1, 0)
        rows.append({"model": model, "measure": name, "part": "adults - minors", **vars(figure), "p": p})
    return pd.DataFrame(rows)


def parts_table(found: pd.DataFrame) -> pd.DataFrame:
    """`minors_and_adults` for print: one row per model, minors and adults side by side."""
    found = found[found["part"].isin(PARTS)]
    kept = found.groupby("measure")["n"].transform("max") > 0
    rows: dict[str, dict[str, str]] = {}
    for row in found[kept].to_dict("records"):
        share = "accuracy" in row["measure"]
        column = f"{row['measure'].replace('accuracy', 'right')}, {row['part']} ({'%' if share else 'years'})"
        rows.setdefault(row["model"], {})[column] = _number(row, 100 if share else 1)
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table[(table != "–").any(axis=1)]  # without the models that have no answers


def _number(row: Mapping, scale: float = 1) -> str:
    """``comparison.number``, but where there are too few faces how many there are."""
    if row["n"] and not np.isfinite(row["value"]):
        return f"{row['n']:,} faces: too few"
    return number(row, scale)


def _difference(found: Means, i: int, j: int) -> tuple[Estimate, float]:
    """Cell i minus cell j, and p; without a value where either has too few faces."""
    n = int(found.n[i] + found.n[j])
    if found.few[[i, j]].any():
        return Estimate(np.nan, np.nan, np.nan, n), np.nan
    drawn = found.drawn[:, i] - found.drawn[:, j]
    low, high = metrics.interval(drawn)
    return Estimate(float(found.value[i] - found.value[j]), low, high, n), p_of(drawn)


def direction(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Which gender is taken for the other more often, by minors and adults.

    One row per model and part; columns model, part, then value, low, high and n of the share of women taken
    for men (``women_...``), of men taken for women (``men_...``), and of the first minus the second
    (``gap_...``), p of a gap of 0, and p_holm over all rows. Models without an answer are left out.
    """
    blocks, models = [], []
    for model, table in tables.items():
        right, known = metrics.gender_accuracy.of(table)
        if not known.any():
            continue
        part, gender = _part(table), _codes(table, "gender", 2)
        blocks.append((~right, known, np.where(part >= 0, 2 * part + gender, -1), 4))
        models.append(model)
    rows = []
    group = next(iter(tables.values()))["group"]
    for model, found, (wrong, known, cell, _) in zip(models, means(blocks, group) if blocks else [], blocks):
        for i, part in enumerate(PARTS):
            gap, p = _difference(found, 2 * i + 1, 2 * i)
            figures = {"gap": gap}
            for name, at in (("women", 2 * i + 1), ("men", 2 * i)):
                few = found.estimate(at)
                figures[name] = few if found.few[at] else metrics.proportion(wrong[known & (cell == at)])
            told = {f"{name}_{k}": v for name, figure in figures.items() for k, v in vars(figure).items()}
            rows.append({"model": model, "part": part, **told, "p": p})
    found = pd.DataFrame(rows)
    return found.assign(p_holm=metrics.holm(found["p"])) if len(found) else found


def direction_table(found: pd.DataFrame) -> pd.DataFrame:
    """`direction` for print."""
    rows = []
    for row in found.to_dict("records"):
        said = [
            _number({key: row[f"{name}_{key}"] for key in ("value", "low", "high", "n")}, 100)
            for name in ("women", "men", "gap")
        ]
        tested = "–" if np.isnan(row["p_holm"]) else chance(row["p_holm"]).removeprefix("p ")
        rows.append((row["model"], row["part"], *said, tested))
    columns = [
        "model",
        "among",
        "female taken for male (%)",
        "male for female (%)",
        "difference (points)",
        "p (Holm)",
    ]
    return pd.DataFrame(rows, columns=columns).set_index("model").rename_axis(index=None)


# Race, at the same ages


@dataclass(frozen=True)
class Standardised:
    """A figure of each race label, as if all had the same ages.

    `rates`: race, value, low, high, n. `pairs`: a, b, value = b - a, low, high, n, p, p_holm. `bands`: age
    bands that every one of the races has faces enough in; `share` of the faces with a race label that lie
    in them and are of these races. `few`: races with too few faces.
    """

    rates: pd.DataFrame
    pairs: pd.DataFrame
    bands: tuple[str, ...]
    share: float
    few: tuple[str, ...]


def by_race(table: pd.DataFrame, measure: Measure, draws: int = DRAWS, seed: int = 0) -> Standardised:
    """`measure` by race label, directly standardised over age bands, and the difference of each pair.

    Race and age go together in a collection such as UTKFace, and errors depend on age. So each race's figures
    in the age bands are averaged with the same weights for all: the bands' shares among the faces of all the
    races together (direct standardisation). Within a band ages may still differ. Races with fewer than
    TOO_FEW faces are left out, and then bands in which one of them has fewer, or faces of fewer than
    ``metrics.FEW`` groups. p: see `p_of`, Holm over the pairs. A share of a race that is 0 or 1 in every draw
    has Wilson's interval.
    """
    amount, known = measure.of(table)
    race, band = _codes(table, "race", len(faces.RACES)), faces.age_band(table["age"]).codes.astype(int)
    known = known & (race >= 0) & (band >= 0)
    count = len(faces.AGE_BANDS)
    cell = np.where(known, race * count + band, -1)
    (found,) = means(
        [(np.where(known, amount, 0), known, cell, len(faces.RACES) * count)], table["group"], draws, seed
    )
    n, enough = (part.reshape(-1, count) for part in (found.n, ~found.few))
    races = np.flatnonzero(n.sum(axis=1) >= TOO_FEW)
    few = tuple(faces.RACES[i] for i in np.flatnonzero((n.sum(axis=1) > 0) & (n.sum(axis=1) < TOO_FEW)))
    bands = np.flatnonzero(enough[races].all(axis=0)) if len(races) else np.empty(0, int)
    names = tuple(faces.age_band([]).categories[bands])
    total = int(n.sum())
    if len(races) < 2 or not len(bands):
        empty = pd.DataFrame(columns=["race", "value", "low", "high", "n"])
        return Standardised(empty, pd.DataFrame(columns=["a", "b", "p_holm"]), names, 0.0, few)
    part = n[np.ix_(races, bands)]
    weights = part.sum(axis=0) / part.sum()
    value = found.value.reshape(-1, count)[np.ix_(races, bands)] @ weights
    drawn = found.drawn.reshape(len(found.drawn), -1, count)[:, races][:, :, bands] @ weights
    rates = []
    for i, r in enumerate(races):
        figure = Estimate(float(value[i]), *metrics.interval(drawn[:, i]), int(part[i].sum()))
        if measure.share and value[i] in (0, 1):
            figure = metrics.proportion(np.full(figure.n, value[i] == 1))
        rates.append({"race": faces.RACES[r], **vars(figure)})
    pairs = []
    for i, j in itertools.combinations(range(len(races)), 2):
        gap = drawn[:, j] - drawn[:, i]
        figure = Estimate(float(value[j] - value[i]), *metrics.interval(gap), int(part[[i, j]].sum()))
        pairs.append({"a": faces.RACES[races[i]], "b": faces.RACES[races[j]], **vars(figure), "p": p_of(gap)})
    pairs = pd.DataFrame(pairs)
    pairs["p_holm"] = metrics.holm(pairs["p"])
    return Standardised(pd.DataFrame(rates), pairs, names, part.sum() / total, few)


def rates(found: Mapping[tuple[str, str], Standardised]) -> pd.DataFrame:
    """The `rates` by (model, measure), as ``figures.intervals`` takes them."""
    tables = [each.rates.assign(model=model, measure=measure) for (model, measure), each in found.items()]
    return pd.concat(tables, ignore_index=True)


# Labels


def copies_alone(run: Finished) -> bool:
    """Whether the groups of a run's table hold copies of one picture alone, and no one's other pictures."""
    kind = run.facts["data"].get("kind")
    return kind in (faces.UTKFACE, faces.AGE_GENDER_CSV) and not run.record["parameters"].get("person")


def label_gaps(table: pd.DataFrame) -> pd.DataFrame:
    """How far the labels of two faces of one group lie apart: i, j (positions), age_mean, age_gap (years).

    As from ``duplicates.label_gaps``, for the faces of a predictions table.
    """
    rows = table.reset_index(drop=True).reset_index(names="i")[["i", "group", "age"]]
    rows = rows[rows["group"].duplicated(keep=False)]
    pairs = rows.merge(rows.rename(columns={"i": "j", "age": "other"}), on="group")
    pairs = pairs[pairs["i"] < pairs["j"]]
    return pd.DataFrame({
        "i": pairs["i"], "j": pairs["j"],
        "age_mean": (pairs["age"] + pairs["other"]) / 2,
        "age_gap": (pairs["age"] - pairs["other"]).abs(),
    }).reset_index(drop=True)  # fmt: skip


def doubtful_genders(runs: Mapping[str, Finished], sure: float = SURE) -> pd.DataFrame:
    """Test faces of which every model that tells gender is sure that it is the other one than labelled.

    Columns: file, and agreed: the lowest probability that a model gives to the other gender, after its
    temperature (``calibration.temperature``); the surest first.
    """
    chances = []
    for run in runs.values():
        test = run.fold("test")
        if test["p_female"].isna().all():
            continue
        t = calibration.temperature(run.fold("val"))
        test = test if np.isnan(t) else calibration.with_temperature(test, t)
        female = test["gender"].to_numpy(np.float64, na_value=np.nan)
        p = test["p_female"].to_numpy(np.float64)
        chances.append(np.where(np.isnan(female), np.nan, np.where(female == 1, 1 - p, p)))
    if not chances:
        return pd.DataFrame({"file": [], "agreed": []})
    found = pd.DataFrame({"file": test["file"].to_numpy(), "agreed": np.min(chances, axis=0)})
    return found[found["agreed"] >= sure].sort_values("agreed", ascending=False, ignore_index=True)


def _agreed_error(runs: Mapping[str, Finished], fold: str) -> tuple[pd.Series, np.ndarray]:
    """Files (n,), and the error in years (n,) that no model falls short of; 0 where models err both ways."""
    tables = [run.fold(fold) for run in runs.values()]
    errors = [t["age_pred"] - t["age"] for t in tables if t["age_pred"].notna().any()]
    if not errors:
        return tables[0]["file"], np.full(len(tables[0]), np.nan)
    errors = np.stack([e.to_numpy(np.float64) for e in errors])
    lowest, highest = errors.min(axis=0), errors.max(axis=0)
    return tables[0]["file"], np.where(lowest > 0, lowest, np.where(highest < 0, highest, 0 * lowest))


def doubtful_ages(runs: Mapping[str, Finished], rare: float = RARE) -> tuple[pd.DataFrame, float]:
    """Test faces that every model that tells age puts the same way off their label, by rarely many years.

    The limit in years is what that `rare` share of the validation faces reach; NaN with fewer than 1 / `rare`
    of them. Returns a table (columns file, agreed: the error in years that no model falls short of; the
    largest first) and the limit.
    """
    _, seen = _agreed_error(runs, "val")
    seen = np.abs(seen[np.isfinite(seen)])
    if len(seen) * rare < 1:
        return pd.DataFrame({"file": [], "agreed": []}), np.nan
    limit = float(np.quantile(seen, 1 - rare))
    files, agreed = _agreed_error(runs, "test")
    found = pd.DataFrame({"file": files.to_numpy(), "agreed": agreed})
    found = found[(found["agreed"].abs() >= limit) & (found["agreed"] != 0)]
    return found.sort_values("agreed", key=np.abs, ascending=False, ignore_index=True), limit


def telling(runs: Mapping[str, Finished]) -> tuple[int, int]:
    """How many runs tell gender, and how many age."""
    return tuple(
        sum(run.fold("test")[column].notna().any() for run in runs.values())
        for column in ("p_female", "age_pred")
    )


def planted(source: faces.Faces, files) -> pd.DataFrame:
    """Which labels of `files` were drawn wrong, by the drawn sample's ``truth.csv``; empty for other faces.

    Columns: file, gender (whether its label is wrong), years (how far its age label is off, NaN where it was
    not made wrong on purpose).
    """
    if not source.drawn:
        return pd.DataFrame({"file": [], "gender": [], "years": []})
    truth = pd.read_csv(source.root / "truth.csv").set_index("file")
    files = [file for file in files if file in truth.index]
    truth = truth.loc[files]
    return pd.DataFrame({
        "file": files,
        "gender": (truth["labelled_gender"] != truth["gender"]).to_numpy(),
        "years": (truth["labelled_age"] - truth["age"]).abs().where(truth["noisy"]).to_numpy(np.float64),
    })  # fmt: skip


def answers(runs: Mapping[str, Finished], files: Sequence[str], why: str) -> pd.DataFrame:
    """Faces with label and each model's answer, in the models' order, for print; `why` heads the rows."""
    from agegender import labels

    tables = [run.predictions.set_index("file").loc[list(files)] for run in runs.values()]
    rows = []
    for file in files:
        said = []
        for table in tables:
            row = table.loc[file]
            age = "" if np.isnan(row["age_pred"]) else f"{row['age_pred']:.0f} "
            p = row["p_female"]
            said.append(f"{age}{'' if np.isnan(p) else 'mf'[int(p > 0.5)]}".strip() or "–")
        first = tables[0].loc[file]
        rows.append((why, labels.short(first["age"], first["gender"]), ", ".join(said), file))
    return pd.DataFrame(rows, columns=["doubtful", "label", "answers", "file"])


# Faces to show


def worst_and_best(table: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Files of the face farthest off in age and of the one closest to it, of each true age band."""
    known = table.dropna(subset=["age", "age_pred"])
    error = (known["age_pred"] - known["age"]).abs()
    by_band = error.groupby(faces.age_band(known["age"]), observed=True)
    worst, best = (list(known.loc[rows, "file"]) for rows in (by_band.idxmax(), by_band.idxmin()))
    return worst, best


def surest_errors(table: pd.DataFrame, count: int = 8) -> list[str]:
    """Files of the faces whose gender is told wrong with the most certainty."""
    right, known = metrics.gender_accuracy.of(table)
    wrong = table[known & ~right]
    sure = (wrong["p_female"] - 0.5).abs().sort_values(ascending=False, kind="stable")
    return list(wrong.loc[sure.index[:count], "file"])
