"""How far each model's own doubts can be trusted, all models side by side; the methods are in `calibration`.

What is fitted (temperatures, widths of intervals, limits of doubt) is fitted on validation faces.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from agegender import audit, calibration, comparison, metrics
from agegender.comparison import Finished, number

ALPHA = 0.1  # age intervals are to hold 90 % of the labels
DECLINED = 0.1  # share of validation faces that a model is to give no answer for
ONE_WIDTH, BY_AGE = "one width for all", "a width by predicted age"
OWN, SCALED = "the model's own widths", "the model's own, scaled"


def _with_gender(runs: Mapping[str, Finished]) -> dict[str, Finished]:
    """Runs with an answer and a label of gender on both validation and test faces."""
    return {
        name: run
        for name, run in runs.items()
        if all(run.fold(fold)[["gender", "p_female"]].notna().all(axis=1).any() for fold in ("val", "test"))
    }


def _with_age(runs: Mapping[str, Finished]) -> dict[str, Finished]:
    return {
        name: run
        for name, run in runs.items()
        if all(run.fold(fold)[["age", "age_pred"]].notna().all(axis=1).any() for fold in ("val", "test"))
    }


# Probabilities of gender


def calibrated(run: Finished) -> tuple[float, pd.DataFrame, pd.DataFrame]:
    """The temperature fitted on validation faces, and the test faces before and after it.

    With too few validation faces it is NaN, and nothing is changed.
    """
    t, test = calibration.temperature(run.fold("val")), run.fold("test")
    return t, test, test if np.isnan(t) else calibration.with_temperature(test, t)


def calibrations(runs: Mapping[str, Finished]) -> pd.DataFrame:
    """Calibration of gender on test faces before and after the temperature.

    Columns: model, temperature, when ("before", "after"), measure ("ECE", "ECE by chance", "Brier score"),
    value, low, high, n. Models without gender are left out.
    """
    tables, temperatures = {}, {}
    for name, run in _with_gender(runs).items():
        temperatures[name], *both = calibrated(run)
        tables |= {(name, when): table for when, table in zip(("before", "after"), both)}
    if not tables:
        return pd.DataFrame(columns=["model", "temperature", "when", "measure", "value", "low", "high", "n"])
    brier = comparison.together(tables, {key: {"Brier score": calibration.BRIER} for key in tables})
    rows = [
        {"model": key, "measure": measure, **vars(figure)}
        for key, figures in calibration.eces(tables).items()
        for measure, figure in zip(("ECE", "ECE by chance"), figures)
    ]
    found = pd.concat([pd.DataFrame(rows), brier], ignore_index=True)
    found["when"] = [when for _, when in found["model"]]
    found["model"] = [name for name, _ in found["model"]]
    return found.assign(temperature=found["model"].map(temperatures))


def calibrations_table(found: pd.DataFrame) -> pd.DataFrame:
    """`calibrations` for print, one row per model: ECE in points, beside the most that chance explains."""
    rows = {}
    for name, part in found.groupby("model", sort=False):
        of = {(row["when"], row["measure"]): row for row in part.to_dict("records")}
        t = part["temperature"].iloc[0]
        rows[name] = {
            "ECE (points)": number(of["before", "ECE"], 100),
            "by chance up to": f"{100 * of['before', 'ECE by chance']['high']:.1f}",
            "Brier score": number(of["before", "Brier score"], decimals=3),
            "temperature": "–" if np.isnan(t) else f"{t:.2f}",
            "ECE after": number(of["after", "ECE"], 100),
            "Brier after": number(of["after", "Brier score"], decimals=3),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


# Intervals of age


def intervals(run: Finished, alpha: float = ALPHA) -> dict[str, tuple[pd.DataFrame, str]]:
    """Test faces with age intervals of each kind, and a sentence on where they have no limit.

    ONE_WIDTH and BY_AGE learn widths from validation residuals; models with a distribution over ages also
    have their OWN, from 5 to 95 % of it, and these SCALED to hold what they promise.
    """
    val, test = run.fold("val"), run.fold("test")
    kinds = {ONE_WIDTH: {}, BY_AGE: {"by_band": True}}
    own = test[["age_low", "age_high"]].notna().all(axis=1)[test["age_pred"].notna()].all()
    own = own and val["age_low"].notna()[val["age_pred"].notna()].all()
    found = {}
    for kind, how in kinds.items() if not own else {**kinds, SCALED: {"scaled": True}}.items():
        fitted = calibration.age_intervals(val, alpha, **how)
        found[kind] = fitted(test), fitted.words()
    return {**found, OWN: (test, "")} if own else found


def coverages(runs: Mapping[str, Finished], alpha: float = ALPHA) -> pd.DataFrame:
    """Coverage and width of the age intervals of each kind, on all test faces and by true age band.

    Columns: model, kind, band ("all" or a band), value, low, high (coverage, 95 %, Wilson), n, width (mean in
    years, of those with a limit), unlimited (share).
    """
    rows = []
    for name, run in _with_age(runs).items():
        for kind, (table, _) in intervals(run, alpha).items():
            for band in ("all", *table["band"].cat.categories):
                part = table if band == "all" else table[table["band"] == band]
                figures = {m: measure.of(part) for m, measure in calibration.INTERVALS.items()}
                means = {m: a[known].mean() if known.any() else np.nan for m, (a, known) in figures.items()}
                hits, known = figures["coverage"]
                rows.append({
                    "model": name, "kind": kind, "band": band, **vars(metrics.proportion(hits[known])),
                    "width": means["interval width"], "unlimited": means["without limit"],
                })  # fmt: skip
    return pd.DataFrame(
        rows, columns=["model", "kind", "band", "value", "low", "high", "n", "width", "unlimited"]
    )


def coverages_table(found: pd.DataFrame) -> pd.DataFrame:
    """`coverages` for print: a row per model and kind, with the least covered band of enough faces."""
    rows = []
    for (name, kind), part in found.groupby(["model", "kind"], sort=False):
        every = part[part["band"] == "all"].iloc[0]
        bands = part[(part["band"] != "all") & (part["n"] >= audit.TOO_FEW)]
        least = bands.loc[bands["value"].idxmin()] if len(bands) else None
        width = "–" if np.isnan(every["width"]) else f"{every['width']:.1f}"
        unlimited = f" ({100 * every['unlimited']:.1f} % without limit)" if every["unlimited"] else ""
        worst = "–" if least is None else f"{least['band']} years: {number(least, 100)}"
        rows.append((name, kind, number(every, 100), width + unlimited, worst))
    columns = ["model", "width learnt", "coverage (%)", "mean width (years)", "least covered band (%)"]
    return pd.DataFrame(rows, columns=columns).set_index("model").rename_axis(index=None)


# Abstaining


def _doubting(runs: Mapping[str, Finished], task: str) -> dict[str, Finished]:
    """Runs with doubts of their own: probabilities of gender, or intervals of age."""
    if task == "gender":
        return _with_gender(runs)
    columns = ["age_low", "age_high"]
    return {
        name: run
        for name, run in _with_age(runs).items()
        if all(run.fold(fold)[columns].notna().all(axis=1).any() for fold in ("val", "test"))
    }


def abstentions(runs: Mapping[str, Finished], share: float = DECLINED) -> pd.DataFrame:
    """``calibration.abstaining`` of models with doubts: columns task, model, measure, value, low, high, n."""
    parts = []
    for task in ("gender", "age"):
        folds = {name: (run.fold("val"), run.fold("test")) for name, run in _doubting(runs, task).items()}
        of_models = calibration.abstaining_each(folds, task, share)
        parts += [part.assign(task=task, model=name) for name, part in of_models.items()]
    columns = ["task", "model", "measure", "value", "low", "high", "n"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def abstentions_table(found: pd.DataFrame) -> pd.DataFrame:
    """`abstentions` for print: errors with all and with the surest answered, and what it buys."""
    rows = []
    for (task, name), part in found.groupby(["task", "model"], sort=False):
        of = {row["measure"]: row for row in part.to_dict("records")}
        scale, unit = (100, "%") if task == "gender" else (1, "years")
        columns = ("error, all answered", "error, surest answered", "gain")
        rows.append((name, f"{task} ({unit})", *(number(of[c], scale) for c in columns),
                     number(of["share declined"], 100)))  # fmt: skip
    columns = ["model", "error in", "all answered", "surest answered", "gain", "declined (%)"]
    return pd.DataFrame(rows, columns=columns).set_index("model").rename_axis(index=None)


def risk_curves(runs: Mapping[str, Finished], draws: int = 2000) -> dict[str, dict[str, pd.DataFrame]]:
    """``calibration.risk_coverage`` by task and model, of those that have doubts."""
    return {
        task: {
            name: calibration.risk_coverage(run.fold("test"), task, draws=draws)[0]
            for name, run in some.items()
        }
        for task in ("gender", "age")
        for some in [_doubting(runs, task)]
    }


# Age groups


def confusion(run: Finished, edges) -> pd.DataFrame:
    """Test faces by labelled (rows) and predicted (columns) age group; ages in groups begun by `edges`."""
    test = run.fold("test")
    said = metrics.group_answer(test, edges, run.own or None)[0]
    true = metrics.group_position(test["age"], edges)
    names = list(metrics.age_group([], edges).categories)
    known = np.isfinite(said) & np.isfinite(true)
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (true[known].astype(int), said[known].astype(int)), 1)
    return pd.DataFrame(counts, names, names)


def edges_of(name: str, run: Finished) -> tuple[int, ...]:
    """Lower edges of the age groups that the measure `name` of ``comparison.measures`` judges."""
    return {comparison.FIVE: metrics.S0_EDGES, comparison.SIX: metrics.S4_EDGES}.get(name, run.own)
