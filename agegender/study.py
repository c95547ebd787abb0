"""The study of pre-processing: a factorial experiment, and what its outcomes say.

S0 asked what pre-processing does, and changed the split, augmentation and balancing at once. Here each is on or off
apart from the others, in all eight combinations, with several seeds and the same number of training steps, and all
networks answer about the same held-out faces. Every effect is then a mean over faces of differences face by face.

`FACTORS`: "copies": faces stay in training of which a copy (or another picture of the person) is held out, as in a
random split; off, they are taken out, as in a grouped one. With it on, as many faces are taken out by lot.
"augmentation" and "balancing": as S0's recipe has them.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from agegender import metrics, splits

if TYPE_CHECKING:  # what the outcomes say needs no framework
    from agegender.augment import Augmentation

FACTORS = ("copies", "augmentation", "balancing")
NETWORKS = ("gender", "branched")
POPULATIONS = {"all": (0, np.inf), "under 5": (0, 5), "13 to 19": (13, 20), "66 and older": (66, np.inf)}  # years
RECIPE = "s0_branched"
# limits of each step where it is tried alone; those of S0's five are S0's here
STEPS = {
    "flip": True, "rotation": 10.0, "shift": 0.08, "blur": 1.0, "noise": 0.04,
    "zoom": 0.1, "brightness": 0.15, "contrast": 0.2, "erase": 0.15,
}  # fmt: skip


@dataclass(frozen=True)
class Training:
    """One training of the study: what is trained, with which levels of the factors, from which seed."""

    network: str
    levels: tuple[bool, bool, bool]
    seed: int
    step: str = ""  # of STEPS, alone: then no factor is on

    @property
    def augmentation(self) -> Augmentation:
        from agegender.augment import PRESETS

        if self.step:
            return replace(PRESETS["none"], **{self.step: STEPS[self.step]})
        return PRESETS["s0" if self.levels[1] else "none"]

    @property
    def cell(self) -> str:
        """What is on, e.g. "copies, augmentation"; "nothing" where all is off."""
        return self.step or named(self.levels)

    @property
    def name(self) -> str:
        return f"{self.network}: {self.cell}: seed {self.seed}"


def named(levels: Sequence[bool]) -> str:
    """Which factors are on, in words."""
    return ", ".join(itertools.compress(FACTORS, levels)) or "nothing"


def plan(networks: Sequence[str], seeds: int, steps: Sequence[str] = (), first_seed: int = 0) -> list[Training]:
    """All trainings of a study: the eight cells for each network and seed; then each of `steps` alone, for the first
    network. Seed by seed, so that a study broken off is whole for the seeds it has."""
    for name, given, known in (("networks", networks, NETWORKS), ("steps", steps, tuple(STEPS))):
        if unknown := [value for value in given if value not in known]:
            raise ValueError(f"{name}: {unknown[0]!r} is none of {', '.join(known)}")
    if seeds < 1 or not networks:
        raise ValueError(f"{seeds} seeds of {len(networks)} networks: at least one of each would be right")
    cells = list(itertools.product((False, True), repeat=3))
    trainings = []
    for seed in range(first_seed, first_seed + seeds):
        trainings += [Training(network, levels, seed) for network in networks for levels in cells]
        trainings += [Training(networks[0], cells[0], seed, step) for step in steps]
    return trainings


# Who is trained on


def held_out(table: pd.DataFrame) -> np.ndarray:
    """Positions of the faces to test on: the test fold and, of a published split, the copies of its training and
    validation faces that it leaves out, for here they are what is looked at."""
    unused = (table["fold"] == splits.UNUSED) & _kin(table, ["train", "val"])
    return np.flatnonzero((table["fold"] == "test") | unused)


def _kin(table: pd.DataFrame, folds: Sequence[str]) -> pd.Series:
    """Which faces share a group with a face of `folds`."""
    return table["group"].isin(table.loc[table["fold"].isin(folds), "group"])


def leaking(table: pd.DataFrame) -> np.ndarray:
    """Which training faces, bool (n,), share a group with a held-out or validation face."""
    others = np.union1d(held_out(table), np.flatnonzero(table["fold"] == "val"))
    return ((table["fold"] == "train") & table["group"].isin(table["group"].iloc[others])).to_numpy()


def training_rows(table: pd.DataFrame, levels: Sequence[bool], balance: float = 1.0, seed: int = 0) -> np.ndarray:
    """Positions of the faces to train on, with repeats where balanced: every age band, and the genders in it, alike.

    With and without copies there are equally many different faces.
    """
    copies, _, balancing = levels
    train = np.flatnonzero(table["fold"] == "train")
    leaks = leaking(table)[train]
    if leaks.all():
        raise ValueError(f"all {len(train)} training faces have a copy held out: a larger share of training is right")
    if copies:
        lots = np.random.default_rng([seed, len(train)]).permutation(len(train))
        rows = np.sort(train[lots[leaks.sum() :]])
    else:
        rows = train[~leaks]
    if balancing:
        rows = rows[splits.balance(table.iloc[rows].reset_index(drop=True), strength=balance, seed=seed, parity=True)]
    return rows


def seen(table: pd.DataFrame, rows: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Which of the faces at `rows` have a copy among those at `training`: bool (len(rows),)."""
    return table["group"].iloc[rows].isin(set(table["group"].iloc[training])).to_numpy()


def epochs_of(epochs: int, rows: np.ndarray) -> int:
    """How many passes over `rows` make about as many steps as `epochs` passes over their different faces."""
    return max(1, round(epochs * len(np.unique(rows)) / len(rows)))


def run(
    training: Training,
    dataset,
    folder: Path | str,
    size: int,
    width: int,
    epochs: int,
    balance: float = 1.0,
) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Train, and say which held-out faces were told right: {"gender": (n,), "age group": (n,)} as float64, 1 right, 0
    wrong, NaN without a label; and the history. `folder` keeps the training (see ``training.train``)."""
    import keras

    from agegender import explain, recipes
    from agegender import training as engine
    from agegender.models import branched, model_a

    table = dataset.table
    rows = training_rows(table, training.levels, balance, training.seed)
    changes = {"augmentation": dict(vars(training.augmentation)), "stop_after": 0}
    recipe = recipes.read(RECIPE, epochs_of(epochs, rows), changes)
    groups = metrics.S0_EDGES if training.network == "branched" else ()
    tasks = dataset.tasks(["gender"], groups=groups)
    keras.backend.clear_session()
    build = {"gender": model_a.build, "branched": branched.build_s0}[training.network]
    model = build(size, width, tasks=tasks, augmentation=recipe.augmentation, seed=training.seed)
    place = Path(folder) / training.name.replace(": ", "-").replace(", ", "+").replace(" ", "_")
    place.mkdir(parents=True, exist_ok=True)
    val = dataset.rows("val")
    with open(place / "log.txt", "w", encoding="utf-8") as log, contextlib.redirect_stdout(log), explain.quiet():
        history = engine.train(model, dataset.pixels, table, tasks, rows, val, recipe, place, training.seed)
    test = held_out(table)
    with explain.quiet():
        said, faces = engine.predict(model, dataset.pixels, test), table.iloc[test]
    gender = faces["gender"].to_numpy(np.float64, na_value=np.nan)
    right = {"gender": np.where(np.isnan(gender), np.nan, (said["gender"] > 0.5) == (gender == 1))}
    if groups:
        group = metrics.group_position(faces["age"].to_numpy(np.float64), groups)
        right["age group"] = np.where(np.isnan(group), np.nan, said["age_group"].argmax(1) == group)
    return right, history


# What the outcomes say


@dataclass(frozen=True)
class Effect:
    """A difference in shares of faces told right (1 is 100 points), its 95 % interval, and p of "no difference"."""

    value: float
    low: float
    high: float
    p: float
    n: int

    def points(self) -> str:
        """For print: "+2.1 points [+1.5, +2.8]"."""
        if self.n == 0:
            return "no labels"
        if not np.isfinite(self.low):
            return f"{100 * self.value:+.1f} points, too few faces for an interval"
        return f"{100 * self.value:+.1f} points [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"


def crossed_mean(values: np.ndarray, group, less: np.ndarray | None = None) -> Effect:
    """Mean of `values` (n faces, s seeds), with an interval for other faces *and* other seeds.

    `less` (n faces, t seeds): those of another setting about the same faces, from seeds of its own; then the mean is of
    the difference, values - less. Faces and seeds are crossed: each seed has answered about each face. The variance of the
    mean is the part due to faces (whole groups of them; Liang and Zeger 1986) and that due to each setting's seeds, estimated
    by moments and not below 0 (Cameron, Gelbach and Miller 2011); the interval is Student's, with degrees of freedom by
    Satterthwaite (1946), for three seeds know little of how seeds vary. Of a setting with a single seed it holds for
    that seed alone. Faces with a NaN are left out; with fewer than ``metrics.FEW`` groups, or where all values are alike,
    there is no interval.
    """
    sides = [np.asarray(side, dtype=np.float64) for side in (values, less) if side is not None]
    known = np.isfinite(np.hstack(sides)).all(axis=1)
    sides = [side[known] for side in sides]
    codes = np.unique(np.asarray(group)[known], return_inverse=True)[1]
    n, count = len(codes), int(codes.max(initial=-1)) + 1
    if n == 0:
        return Effect(np.nan, np.nan, np.nan, np.nan, 0)
    by_face = sides[0].mean(axis=1) - sum(side.mean(axis=1) for side in sides[1:])
    mean = by_face.mean()
    if count < metrics.FEW:
        return Effect(float(mean), np.nan, np.nan, np.nan, n)
    more = count / (count - 1)
    faces = more * (np.bincount(codes, by_face - mean) ** 2).sum() / n**2
    parts = [(faces, count - 1)] + [(_due_to_seeds(side, codes, more), side.shape[1] - 1) for side in sides]
    parts = [(variance, free) for variance, free in parts if variance]
    total = sum(variance for variance, _ in parts)
    if total == 0:  # all alike: that says nothing of how faces vary
        return Effect(float(mean), np.nan, np.nan, np.nan, n)
    free = total**2 / sum(variance**2 / free for variance, free in parts)
    error = np.sqrt(total)
    reach = stats.t.ppf(0.975, free) * error
    return Effect(float(mean), mean - reach, mean + reach, float(2 * stats.t.sf(abs(mean) / error, free)), n)


def _due_to_seeds(values: np.ndarray, codes: np.ndarray, more: float) -> float:
    """The part of the variance of the mean of `values` (n, s) that is due to seeds; 0 of a single one."""
    n, s = values.shape
    if s == 1:
        return 0.0
    by_seed = values.mean(axis=0)
    rest = values - values.mean(axis=1, keepdims=True) - by_seed + values.mean()
    both = sum((np.bincount(codes, column) ** 2).sum() for column in rest.T)
    return max(0.0, by_seed.var(ddof=1) / s - both * more * s / (s - 1) / (n * s) ** 2)


def share(right: np.ndarray, group) -> metrics.Estimate:
    """Share of faces told right, from outcomes (n, s) of 0 and 1: as `crossed_mean`, within 0 and 1; where all are
    alike, Wilson's interval of the faces."""
    found = crossed_mean(right, group)
    if found.n and np.isnan(found.low) and found.value in (0, 1):
        return metrics.proportion(np.repeat(found.value, found.n))
    return metrics.Estimate(found.value, max(found.low, 0.0), min(found.high, 1.0), found.n)


def contrasts() -> dict[str, dict[tuple[bool, ...], float]]:
    """For each effect, the weight of each cell.

    A main effect is the mean with the factor on less the mean with it off. An interaction of two is the effect of one
    with the other on, less its effect with the other off; of three, the same once more.
    """
    cells = list(itertools.product((False, True), repeat=len(FACTORS)))
    found = {}
    for size in range(1, len(FACTORS) + 1):
        for part in itertools.combinations(range(len(FACTORS)), size):
            signs = {cell: np.prod([1 if cell[f] else -1 for f in part]) for cell in cells}
            found[" x ".join(FACTORS[f] for f in part)] = {
                cell: float(sign * 2**size / len(cells)) for cell, sign in signs.items()
            }
    return found


def array(outcomes: pd.DataFrame, network: str, measure: str, cell: str) -> np.ndarray:
    """Outcomes of a cell, (faces, seeds) float64, from the columns "NETWORK: CELL: seed S: MEASURE"."""
    start, end = f"{network}: {cell}: seed ", f": {measure}"
    columns = [name for name in outcomes if name.startswith(start) and name.endswith(end)]
    if not columns:
        raise ValueError(f"no outcomes of {network!r} with {cell!r} for {measure!r}: that training is not there")
    return outcomes[columns].to_numpy(np.float64)


def measures(outcomes: pd.DataFrame, network: str) -> list[str]:
    """What a network was judged by: "gender", "age group"."""
    names = {name.rpartition(": ")[2] for name in outcomes if name.startswith(f"{network}: ")}
    return [name for name in ("gender", "age group") if name in names]


def judged(outcomes: pd.DataFrame, networks: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Network and measure of all that was judged, by what it is called: "branched network, age group"."""
    return {f"{n} network, {m}": (n, m) for n in networks for m in measures(outcomes, n)}


def populations(outcomes: pd.DataFrame) -> dict[str, np.ndarray]:
    """Which faces are in each of POPULATIONS, by labelled age; the first also holds faces without one."""
    age = outcomes["age"].to_numpy(np.float64)
    return {
        name: np.ones(len(age), bool) if name == "all" else (age >= low) & (age < high)
        for name, (low, high) in POPULATIONS.items()
    }


def cells_table(outcomes: pd.DataFrame, network: str, measure: str = "gender") -> pd.DataFrame:
    """Share told right in each cell and population: columns cell, population, value, low, high, n.

    One row per cell, in the order of switching on; intervals as in `share`.
    """
    rows = []
    for population, inside in populations(outcomes).items():
        for levels in itertools.product((False, True), repeat=3):
            right = array(outcomes, network, measure, named(levels))[inside]
            rows.append({"cell": named(levels), "population": population, **vars(share(right, outcomes["group"][inside]))})
    return pd.DataFrame(rows)


def effects(outcomes: pd.DataFrame, network: str, measure: str = "gender") -> pd.DataFrame:
    """Main effects and interactions in each population: columns effect, population, value, low, high, p, n, overall, p_holm.

    overall: the mean over all settings. p_holm is corrected by Holm's method over all rows with a p.
    """
    cells = {
        levels: array(outcomes, network, measure, named(levels))
        for levels in itertools.product((False, True), repeat=3)
    }
    rows = []
    for population, inside in populations(outcomes).items():
        group = outcomes["group"][inside]
        overall = crossed_mean(sum(values[inside] for values in cells.values()) / len(cells), group).value
        for effect, weights in contrasts().items():
            values = sum(weight * cells[levels][inside] for levels, weight in weights.items())
            rows.append({"effect": effect, "population": population, **vars(crossed_mean(values, group)), "overall": overall})
    table = pd.DataFrame(rows)
    return table.assign(p_holm=metrics.holm(table["p"]))


def steps_table(outcomes: pd.DataFrame, network: str) -> pd.DataFrame:
    """What each step of augmentation alone adds to nothing, in gender told right: columns step, value, low, high, p,
    n, p_holm; empty where none was tried."""
    nothing = array(outcomes, network, "gender", named((False,) * 3))
    tried = [step for step in STEPS if any(name.startswith(f"{network}: {step}: seed ") for name in outcomes)]
    rows = []
    for step in tried:
        values = array(outcomes, network, "gender", step) - nothing
        rows.append({"step": step, **vars(crossed_mean(values, outcomes["group"]))})
    table = pd.DataFrame(rows, columns=["step", "value", "low", "high", "p", "n"])
    return table.assign(p_holm=metrics.holm(table["p"]))


def worths(outcomes: pd.DataFrame, judged: Mapping[str, tuple[str, str]]) -> dict[str, pd.DataFrame]:
    """`worth_of_copies` for all that was `judged`, with a column p_holm: p corrected by Holm's method over all of it."""
    tables = {what: worth_of_copies(outcomes, *which) for what, which in judged.items()}
    together = pd.concat(tables)
    corrected = together.assign(p_holm=metrics.holm(together["p"]))
    return {what: corrected.loc[what] for what in tables}


def worth_of_copies(outcomes: pd.DataFrame, network: str, measure: str = "gender") -> pd.DataFrame:
    """What copies in training are worth: columns faces, what, value, low, high, p, n.

    Of the held-out faces with a copy in training (column "copy"), and of those without: the difference between networks
    that had the copies in training and networks that had not, face by face ("same faces"). And, of the networks that
    had them, the raw gap between the two kinds of faces ("same networks"): that is what one sees in a leaking split
    alone, and it mixes the copies with how hard these faces are.
    """
    on, off = (
        np.mean([array(outcomes, network, measure, named(levels)) for levels in _cells(copies)], axis=0)
        for copies in (True, False)
    )
    copy = outcomes["copy"].to_numpy(bool)
    kinds = {"with a copy in training": copy, "without one": ~copy, "all": np.ones(len(copy), bool)}
    rows = [
        {"faces": kind, "what": "same faces", **vars(crossed_mean((on - off)[inside], outcomes["group"][inside]))}
        for kind, inside in kinds.items()
    ]
    one, two = (crossed_mean(on[inside], outcomes["group"][inside]) for inside in (copy, ~copy))
    gap, spread = one.value - two.value, np.hypot(*((e.high - e.low) / 2 for e in (one, two)))
    rows.append(
        {"faces": "with less without", "what": "same networks", "value": gap, "low": gap - spread,
         "high": gap + spread, "p": np.nan, "n": one.n + two.n}
    )  # fmt: skip
    return pd.DataFrame(rows)


def _cells(copies: bool) -> list[tuple[bool, ...]]:
    return [levels for levels in itertools.product((False, True), repeat=3) if levels[0] == copies]


# S0's own table (its README; see the page of the methods), shares told right. None: not reported.
S0_ROWS = {
    "as they are": (True, False, False),
    "split and augmented, not balanced": (False, True, False),
    "split, augmented and balanced": (False, True, True),
}
AGES = [f"age group, {group}" for group in metrics.age_group([], metrics.S0_EDGES).categories]
S0_CLAIMS: Mapping[tuple[str, str], dict[str, float | None]] = {
    ("gender", "as they are"): {"gender": 0.7355, "gender, women": 0.7425, "gender, men": 0.73},
    ("gender", "split and augmented, not balanced"): {
        "gender": 0.7815, "gender, women": 0.8004, "gender, men": 0.7655, "gender, girls under 5": 0.4914,
        "gender, boys under 5": 0.4824,
    },
    ("gender", "split, augmented and balanced"): {
        "gender": 0.9173, "gender, women": 0.92, "gender, men": 0.9162, "gender, girls under 5": 0.9124,
        "gender, boys under 5": 0.9217,
    },
    ("branched", "as they are"): {
        "gender": 0.7255, "gender, women": 0.7125, "gender, men": 0.7354, "gender, girls under 5": 0.4963,
        "gender, boys under 5": 0.4879, "age group": 0.7824,
        **dict(zip(AGES, (0.8004, 0.7455, 0.7641, 0.7842, 0.7987))),
    },
    ("branched", "split, augmented and balanced"): {
        "gender": 0.9255, "gender, women": 0.9344, "gender, men": 0.9212, "gender, girls under 5": 0.9142,
        "gender, boys under 5": 0.9354, "age group": 0.8698,
        **dict(zip(AGES, (0.8875, 0.7912, 0.8452, 0.8654, 0.8874))),
    },
}  # fmt: skip


def beside_s0(outcomes: pd.DataFrame, network: str) -> pd.DataFrame:
    """S0's table and ours: columns data, measure, s0 (share or NaN), value, low, high, n; a row for each of S0's kinds
    of data and measures. S0's data are others, so only the directions can be compared."""
    gender, age = (outcomes[name].to_numpy(np.float64, na_value=np.nan) for name in ("gender", "age"))
    everyone = np.ones(len(age), bool)
    parts = {
        "gender": everyone, "gender, women": gender == 1, "gender, men": gender == 0,
        "gender, girls under 5": (gender == 1) & (age < 5), "gender, boys under 5": (gender == 0) & (age < 5),
        "age group": everyone,
        **{name: metrics.group_position(age, metrics.S0_EDGES) == i for i, name in enumerate(AGES)},
    }  # fmt: skip
    rows = []
    for data, levels in S0_ROWS.items():
        claims = S0_CLAIMS.get((network, data), {})
        for measure, inside in parts.items():
            told = measure.partition(",")[0]
            if told not in measures(outcomes, network):
                continue
            right = array(outcomes, network, told, named(levels))[inside]
            found = vars(share(right, outcomes["group"][inside]))
            rows.append({"data": data, "measure": measure, "s0": claims.get(measure, np.nan), **found})
    return pd.DataFrame(rows)


def beside_for_print(table: pd.DataFrame) -> pd.DataFrame:
    """``beside_s0`` of some networks (index level network) for print: S0's figure, then ours with its interval."""
    rows = table.reset_index("network").assign(
        theirs=[f"{100 * s0:.2f}" if np.isfinite(s0) else "-" for s0 in table["s0"]],
        ours=[
            f"{100 * r.value:.1f} [{100 * r.low:.1f}, {100 * r.high:.1f}]" if np.isfinite(r.low)
            else "too few faces" if r.n else "no labels"
            for r in table.itertuples()
        ],
    )  # fmt: skip
    rows = rows.rename(columns={"theirs": "S0 (%)", "ours": "here (%)"})
    return rows.set_index(["network", "data", "measure"])[["S0 (%)", "here (%)", "n"]]
