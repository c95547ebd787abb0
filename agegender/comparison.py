"""Runs side by side, from what they left behind: predictions, history and record. No picture, no framework."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from agegender import faces, metrics, predictions, provenance
from agegender.metrics import S0_EDGES, S4_EDGES, Measure
from agegender.places import home

if TYPE_CHECKING:
    from agegender.study import Effect

WITHIN = f"accuracy within {metrics.YEARS} years"
FIVE, SIX, OWN = (f"age group accuracy ({which} groups)" for which in ("5", "6", "own"))
TITLES = {  # of columns, with units
    "age MAE": "age MAE (years)",
    "age bias": "age bias (years)",
    WITHIN: f"within {metrics.YEARS} years (%)",
    "gender accuracy": "gender accuracy (%)",
    FIVE: "5 age groups (%)",
    SIX: "6 age groups (%)",
    OWN: "its own age groups (%)",
}


@dataclass(frozen=True)
class Finished:
    """A finished run of a model: its `predictions` (see that module), `history` and `record` (provenance)."""

    folder: Path
    predictions: pd.DataFrame
    history: pd.DataFrame
    record: dict

    @property
    def facts(self) -> dict:
        return self.record["facts"]

    @property
    def own(self) -> tuple[int, ...]:
        """Lower edges of the age groups that the model was trained to tell; empty where it was not."""
        return tuple(self.record.get("facts", {}).get("age_groups") or ())

    @property
    def epochs(self) -> int:
        """How many epochs it was trained for; the row of the history that judges averaged weights is none of them."""
        averaged = self.history.get("averaged")
        return len(self.history) if averaged is None else int((~averaged.astype(bool)).sum())

    def fold(self, name: str) -> pd.DataFrame:
        return self.predictions[self.predictions["fold"] == name]


def open_runs(folders: Sequence[str] = ()) -> dict[str, Finished]:
    """Finished runs by model name; several of one name get their seed or their folder's name as well.

    Without `folders`: the runs made by hand (``runs/own``), or, where there are none, the stored
    reference runs on UTKFace (``book/reference``). Raises ValueError where runs were not tested on the
    same faces: their figures could not be compared.
    """
    places = [home() / folder for folder in folders]
    for where in () if places else ("runs/own", "book/reference"):
        places = sorted(path.parent for path in (home() / where).glob("*/predictions.parquet"))
        if places:
            break
    if not places:
        raise FileNotFoundError(
            "no finished runs in runs/own: run notebooks 03, 04 and 05 first, or name folders in `runs`"
        )
    runs = [opened(place) for place in places]
    first, asked_about = runs[0], _test_faces(runs[0])
    for run in runs[1:]:
        if not _test_faces(run).equals(asked_about):
            raise ValueError(
                f"{run.folder.name} and {first.folder.name} were not tested on the same faces (splits "
                f"{run.facts['split']['digest']} and {first.facts['split']['digest']}): the same data, split and seed would be right"
            )
    return dict(zip(_names(runs), runs))


def opened(place: Path, history: bool = True) -> Finished:
    """The finished run in the folder `place`; `history`: False where it has none, since nothing was trained."""
    table = predictions.read(place)
    table["band"] = faces.age_band(table["age"])
    epochs = pd.read_parquet(place / "history.parquet") if history else pd.DataFrame()
    if history and "kept" not in epochs:  # of a run from before the column: then always the lowest validation loss
        epochs["kept"] = epochs["val_loss"] == epochs["val_loss"].min()
    return Finished(place, table, epochs, provenance.read(place))


def averaged(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table of what several models say on average of the same faces, row for row.

    Years, probabilities and the ends of intervals are averaged; groups told alone are left out. Raises ValueError where the
    faces differ.
    """
    first = tables[0]
    if any(not table["file"].reset_index(drop=True).equals(first["file"].reset_index(drop=True)) for table in tables):
        raise ValueError("the tables are not of the same faces in the same order: their answers have no mean")
    columns = [c for c in ("age_pred", "age_low", "age_high", "p_female") if c in first]
    means = {c: np.mean([table[c].to_numpy(np.float64, na_value=np.nan) for table in tables], axis=0) for c in columns}
    return first.assign(**means, age_group_pred=pd.array([pd.NA] * len(first), dtype="Int8"))


def _but_for_the_seed(run: Finished) -> str:
    """What a run was asked for, all but the seed: runs of which it is the same may be averaged over seeds."""
    asked = {k: v for k, v in run.record.get("parameters", {}).items() if k not in ("seed", "out")}
    return json.dumps([run.facts["model"], run.facts.get("weights"), asked], sort_keys=True)


def _settings(runs: Sequence[Finished]) -> list[tuple[list[Finished], list[str]]]:
    """Runs that were asked for the same but for the seed, and what tells them from other runs of their model: the folder
    of the first, or nothing where the model was asked for in one way alone."""
    alike: dict[str, list[Finished]] = {}
    for run in runs:
        alike.setdefault(_but_for_the_seed(run), []).append(run)
    models = [some[0].facts["model"] for some in alike.values()]
    return [(some, [some[0].folder.name] if models.count(model) > 1 else []) for model, some in zip(models, alike.values())]


def _called(run: Finished, tags: Sequence[str]) -> str:
    return f"{run.facts['model']} ({', '.join(tags)})" if tags else run.facts["model"]


def _several_seeds(some: Sequence[Finished]) -> bool:
    return len({run.record.get("parameters", {}).get("seed") for run in some}) == len(some) > 1


def _names(runs: Sequence[Finished]) -> list[str]:
    names = {}
    for some, tags in _settings(runs):
        for run in some:
            if _several_seeds(some):
                names[run.folder] = _called(run, [*tags, f"seed {run.record['parameters']['seed']}"])
            else:
                names[run.folder] = _called(run, tags if len(some) == 1 else [run.folder.name])
    return [names[run.folder] for run in runs]


def seeds(runs: Mapping[str, Finished]) -> dict[str, list[str]]:
    """Names of the runs that differ in their seed alone, by what they have in common, e.g. "model A"."""
    names = {run.folder: name for name, run in runs.items()}
    settings = [(some, tags) for some, tags in _settings(list(runs.values())) if _several_seeds(some)]
    return {_called(some[0], tags): [names[run.folder] for run in some] for some, tags in settings}


def over_seeds(measure: Measure, tables: Sequence[pd.DataFrame]) -> metrics.Estimate:
    """The mean of `measure` over runs of several seeds, with an interval for other faces and other seeds.

    `tables`: their answers about the same faces. See ``study.crossed_mean``.
    """
    from agegender.study import crossed_mean

    values = _by_seed(measure, tables)
    if values is None:
        return metrics.NOTHING
    found = crossed_mean(values, tables[0]["group"])
    return metrics.Estimate(found.value, found.low, found.high, found.n)


def seeds_apart(measure: Measure, tables: Sequence[pd.DataFrame], base: Sequence[pd.DataFrame]) -> Effect:
    """By how much `measure` of a setting's runs (`tables`) lies above that of another's (`base`), on the same faces.

    Several runs of a setting differ in their seed; its interval and p are for other faces, and for other seeds where
    there are several. See ``study.crossed_mean``. Raises ValueError where the faces differ.
    """
    from agegender.study import crossed_mean

    if any(not table["file"].reset_index(drop=True).equals(base[0]["file"].reset_index(drop=True)) for table in (*tables, *base)):
        raise ValueError("the tables are not of the same faces in the same order: nothing can be compared face by face")
    return crossed_mean(_by_seed(measure, tables), base[0]["group"], less=_by_seed(measure, base))


def _by_seed(measure: Measure, tables: Sequence[pd.DataFrame]) -> np.ndarray | None:
    """`measure` of each face in each of `tables`, (n, s), NaN where unknown; None of several columns, which have no mean."""
    values = []
    for table in tables:
        amount, counts = (np.asarray(part, dtype=np.float64) for part in measure.of(table))
        values.append(np.where(counts > 0, amount, np.nan))
    return np.stack(values, axis=1) if values[0].ndim == 1 else None


def settings(runs: Mapping[str, Finished]) -> pd.DataFrame:
    """Settings side by side on the test faces, for print: a row each, averaged over seeds where it has several.

    Index: the model; columns: parameters in which runs of one notebook differ, seeds (how many), measures of TITLES.
    Empty where no setting was run with several seeds: then the table of all models holds the same.
    """
    families = list(seeds(runs).values())
    if not families:
        return pd.DataFrame()
    asked = {name: run.record.get("parameters", {}) for name, run in runs.items()}
    by_notebook: dict[str, list[dict]] = {}
    for name, run in runs.items():
        by_notebook.setdefault(run.record.get("notebook", ""), []).append(asked[name])
    varied = [
        key
        for key in dict.fromkeys(key for each in asked.values() for key in each)
        if key not in ("seed", "out")
        and any(len({json.dumps(each.get(key)) for each in alike}) > 1 for alike in by_notebook.values())
    ]
    alone = [[name] for name in runs if not any(name in names for names in families)]
    rows = []
    for names in sorted([*families, *alone], key=lambda names: list(runs).index(names[0])):
        some = [runs[name] for name in names]
        tables = [run.fold("test") for run in some]
        found = {name: measure for name, measure in measures(some[0]).items() if not measure.median}
        if len(some) > 1:
            figures = {name: over_seeds(measure, tables) for name, measure in found.items()}
        else:
            figures = metrics.estimates(tables[0], found)
        said = {
            TITLES[name]: number(vars(figure), 100 if "accuracy" in name else 1)
            for name, figure in figures.items()
        }
        values = {key: str(asked[names[0]][key]) if key in asked[names[0]] else "–" for key in varied}
        rows.append({"model": some[0].facts["model"], **values, "seeds": str(len(some)), **said})
    table = pd.DataFrame(rows).fillna("–").set_index("model").rename_axis(index=None)
    return table.loc[:, (table != "–").any()]


def _test_faces(run: Finished) -> pd.DataFrame:
    """Files, groups and labels of a run's test part, for telling whether two runs had the same."""
    return run.fold("test")[["file", "group", "age", "gender"]].reset_index(drop=True)


def how(runs: Mapping[str, Finished]) -> pd.DataFrame:
    """How each run came about: one row per model, for print."""
    rows = {
        name: {
            "pixels": run.record["parameters"].get("size"),
            "epochs": run.epochs,
            "kept epoch": _kept(run),
            "started from": run.facts["weights"],
        }
        for name, run in runs.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def _kept(run: Finished) -> str:
    kept = run.history[run.history["kept"]].iloc[0]
    return "the averaged weights" if kept.get("averaged", False) else str(int(kept["epoch"]))


def costs(runs: Mapping[str, Finished]) -> pd.DataFrame:
    """What each model costs, one row each, NaN where its record does not say.

    Columns: pixels (per side), parameters, GFLOPs (of one picture's forward pass), faces per second and
    training minutes (both on the machine that the run was made on).
    """
    rows = {
        name: {
            "pixels": run.record["parameters"].get("size", np.nan),
            "parameters": run.facts["parameters"],
            "GFLOPs": run.facts.get("flops", np.nan) / 1e9,
            "faces per second": run.facts.get("faces_per_second", np.nan),
            "training minutes": run.facts["training_seconds"] / 60,
        }
        for name, run in runs.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").astype(float)


def costs_table(costs: pd.DataFrame) -> pd.DataFrame:
    """`costs` for print."""
    form = {"GFLOPs": "{:.3g}", "training minutes": "{:.1f}"}
    told = {
        column: costs[column].map(form.get(column, "{:,.0f}").format, na_action="ignore") for column in costs
    }
    return pd.DataFrame(told).astype(object).fillna("–")


# Figures of all models


def measures(run: Finished) -> dict[str, Measure]:
    """The measures of the table of all models: those of TITLES, as far as they can be asked of `run`.

    OWN: the age groups it was trained to tell, if these are neither of five nor of six (S0_EDGES, S4_EDGES).
    """
    own = run.own or None
    found = {
        **metrics.MEASURES,
        WITHIN: metrics.within_years(metrics.YEARS),
        FIVE: metrics.age_group_accuracy(S0_EDGES, own),
        SIX: metrics.age_group_accuracy(S4_EDGES, own),
        OWN: metrics.age_group_accuracy(own, own) if own and own not in (S0_EDGES, S4_EDGES) else None,
    }
    return {name: found[name] for name in TITLES if found[name]}


def figures_by(
    runs: Mapping[str, Finished],
    fold: str = "test",
    by: str | None = None,
    measures: Callable[[Finished], Mapping[str, Measure]] = lambda run: metrics.MEASURES,
) -> pd.DataFrame:
    """``metrics.summary`` of all runs on one fold, with a column model; all from the same bootstrap draws."""
    tables = {name: run.fold(fold) for name, run in runs.items()}
    asked = {name: measures(run) for name, run in runs.items()}
    if by is None:
        return together(tables, asked)
    parts = []
    for part in next(iter(tables.values()))[by].cat.categories:
        some = {name: table[table[by] == part] for name, table in tables.items()}
        parts.append(together(some, asked).assign(**{by: part}))
    return pd.concat(parts, ignore_index=True)


def together(
    tables: Mapping[str, pd.DataFrame], measures: Mapping[str, Mapping[str, Measure]]
) -> pd.DataFrame:
    """Figures of several models on the same faces, row for row, from the same draws, which saves time.

    Columns: model, measure, value, low, high, n (see ``metrics.estimates``).
    """

    def of_its_own(measure: Measure, table: pd.DataFrame) -> Measure:
        return replace(measure, of=lambda _: measure.of(table))

    asked = {
        (model, name): of_its_own(measure, tables[model])
        for model, of_model in measures.items()
        for name, measure in of_model.items()
    }
    found = metrics.estimates(next(iter(tables.values())), asked)
    return pd.DataFrame([{"model": m, "measure": name, **vars(e)} for (m, name), e in found.items()])


def number(row, scale: float = 1, decimals: int = 1, sign: str = "") -> str:
    """A row with value, low, high, n for a table: "5.6 [5.2, 6.0]"; "–" without faces."""
    if not row["n"] or not np.isfinite(row["value"]):
        return "–"
    value, low, high = (
        f"{round(row[c] * scale, decimals) + 0.0:{sign}.{decimals}f}" for c in ("value", "low", "high")
    )  # + 0.0: no "-0.0"
    return (
        f"{value} [{low}, {high}]" if np.isfinite(row["low"]) else f"{value}, too few faces for an interval"
    )


def if_any(table: pd.DataFrame) -> pd.DataFrame | None:
    """`table`, or nothing to show where it is empty."""
    return table if table.size else None


def figures_table(summary: pd.DataFrame) -> pd.DataFrame:
    """``figures_by`` for print: one row per model, one column per measure, each figure with its interval."""
    said = summary.apply(lambda row: number(row, 100 if "accuracy" in row["measure"] else 1), axis=1)
    table = summary.assign(said=said).pivot(index="model", columns="measure", values="said").fillna("–")
    kept = [measure for measure in dict.fromkeys(summary["measure"]) if (table[measure] != "–").any()]
    table = table.loc[list(dict.fromkeys(summary["model"])), kept]
    return table.rename(columns=TITLES).rename_axis(index=None, columns=None)


def naive(table: pd.DataFrame) -> dict[str, float]:
    """``metrics.naive``, and the share of test faces in the validation part's commonest age group."""
    val, test = (table[table["fold"] == fold] for fold in ("val", "test"))
    found = metrics.naive(table)
    for name, edges in ((FIVE, S0_EDGES), (SIX, S4_EDGES)):
        common = pd.Series(metrics.group_position(val["age"], edges)).mode()
        groups = metrics.group_position(test["age"].dropna(), edges)
        if len(common) and len(groups):
            found[name] = float((groups == common[0]).mean())
    return found


def leaders(runs: Mapping[str, Finished], fold: str = "val") -> dict[str, str]:
    """The model that does best by each measure that can be judged: chosen on validation faces.

    Keys, in this order: "age MAE", "gender accuracy", SIX, FIVE, OWN, less those that no run has answers to.
    Where no validation face has the label it is the first run with an answer. Raises ValueError where nothing
    at all can be judged.
    """
    found = {}
    for name in ("age MAE", "gender accuracy", SIX, FIVE, OWN):
        asked = {model: measures(run).get(name) for model, run in runs.items()}
        told = {model: point_estimate(asked[model], runs[model].fold("test")) for model in runs if asked[model]}
        scores = {
            model: point_estimate(asked[model], runs[model].fold(fold)) * (1 if name == "age MAE" else -1)
            for model, value in told.items()
            if np.isfinite(value)
        }
        if scores:
            found[name] = min(scores, key=lambda model: np.nan_to_num(scores[model], nan=np.inf))
    if not found:
        raise ValueError(
            "no test face has a label of age or gender and an answer: there is nothing to compare"
        )
    return found


def point_estimate(measure: Measure, table: pd.DataFrame) -> float:
    """The figure alone, without its interval."""
    amount, counts = measure.of(table)
    return float(amount[counts].mean()) if counts.any() else np.nan


# Differences


def differences(runs: Mapping[str, Finished], fold: str = "test", groups: Sequence[int] = ()) -> pd.DataFrame:
    """Every pair of models on the same faces, with intervals and tests: see ``metrics.paired``.

    `groups`: lower edges of age groups to compare them in as well. Rows without faces that both have answers
    to are left out.
    """
    asked = {
        "age MAE": dict.fromkeys(runs, metrics.age_mae),
        "gender accuracy": dict.fromkeys(runs, metrics.gender_accuracy),
    }
    if groups:
        asked[f"age group accuracy ({len(groups)} groups)"] = {
            name: metrics.age_group_accuracy(groups, run.own or None) for name, run in runs.items()
        }
    found = metrics.paired({name: run.fold(fold) for name, run in runs.items()}, measures=asked)
    return found[found["n"] > 0].reset_index(drop=True)


def chance(p: float) -> str:
    """ "p < 0.001", "p 0.023"."""
    return "p < 0.001" if p < 0.001 else f"p {p:.3f}"


def differences_table(differences: pd.DataFrame) -> pd.DataFrame:
    """``differences`` for print: one row per pair, a column per measure, "apart" where the test says so."""
    told = {}
    for row in differences.to_dict("records"):
        scale, unit = (100, "points") if "accuracy" in row["measure"] else (1, "years")
        p = row["p_holm"]
        tested = "" if np.isnan(p) else f", {chance(p)}" + (": apart" if p < metrics.LEVEL else "")
        column = f"{TITLES.get(row['measure'], row['measure']).partition(' (')[0]} ({unit})"
        told.setdefault(column, {})[f"{row['b']} − {row['a']}"] = number(row, scale, sign="+") + tested
    return pd.DataFrame(told).fillna("–")


def pick(table: pd.DataFrame, count: int, seed: int = 0) -> list[str]:
    """Files of `count` test faces, spread evenly over the labelled ages, by lot within equal parts."""
    test = table[table["fold"] == "test"].dropna(subset=["age"]).sort_values(["age", "file"])
    rng = np.random.default_rng(seed)
    return [part["file"].iloc[rng.integers(len(part))] for part in _parts(test, min(count, len(test)))]


def _parts(table: pd.DataFrame, count: int) -> list[pd.DataFrame]:
    edges = np.linspace(0, len(table), count + 1).astype(int)
    return [table.iloc[a:b] for a, b in zip(edges, edges[1:])]
