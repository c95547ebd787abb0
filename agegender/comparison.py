"""Runs side by side, from what they left behind: predictions, history and record. No picture, no framework."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

import numpy as np
import pandas as pd

from agegender import faces, metrics, predictions, provenance
from agegender.places import home


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


def open_runs(folders: Sequence[str] = ()) -> dict[str, Finished]:
    """Finished runs by model name; two of one name get their folder's name as well.

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
    runs = []
    for place in places:
        table = predictions.read(place)
        table["band"] = faces.age_band(table["age"])
        history = pd.read_parquet(place / "history.parquet")
        if "kept" not in history:  # of a run from before the column: then always the lowest validation loss
            history["kept"] = history["val_loss"] == history["val_loss"].min()
        runs.append(Finished(place, table, history, provenance.read(place)))
    first = runs[0]
    for run in runs[1:]:
        if test_faces(run) != test_faces(first):
            raise ValueError(
                f"{run.folder.name} and {first.folder.name} were not tested on the same faces (splits "
                f"{run.facts['split']['digest']} and {first.facts['split']['digest']}): the same data, split and seed would be right"
            )
    names = [run.facts["model"] for run in runs]
    return {n if names.count(n) == 1 else f"{n} ({r.folder.name})": r for n, r in zip(names, runs)}


def test_faces(run: Finished) -> tuple:
    """Files, groups and labels of a run's test part, for telling whether two runs had the same."""
    table = run.predictions[run.predictions["fold"] == "test"]
    return tuple(table[["file", "group", "age", "gender"]].astype(str).itertuples(index=False, name=None))


def how(runs: dict[str, Finished]) -> pd.DataFrame:
    """How each run came about: one row per model, for print."""
    rows = {
        name: {
            "pixels": run.record["parameters"].get("size"),
            "parameters": f"{run.facts['parameters']:,}",
            "epochs": run.facts["epochs"],
            "kept epoch": int(run.history.loc[run.history["kept"], "epoch"].iloc[0]),
            "training (min)": round(run.facts["training_seconds"] / 60, 1),
            "started from": run.facts["weights"],
        }
        for name, run in runs.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def figures_by(runs: dict[str, Finished], fold: str = "test", by: str | None = None) -> pd.DataFrame:
    """``metrics.summary`` of all runs on one fold, with a column model."""
    parts = [
        metrics.summary(run.predictions[run.predictions["fold"] == fold], by).assign(model=name)
        for name, run in runs.items()
    ]
    return pd.concat(parts, ignore_index=True)


def figures_table(summary: pd.DataFrame) -> pd.DataFrame:
    """``figures_by`` for print: one row per model, one column per measure, each figure with its interval."""
    said = [
        (e.percent() if "accuracy" in measure else e.years())
        for measure, e in zip(
            summary["measure"],
            (
                metrics.Estimate(*row)
                for row in summary[["value", "low", "high", "n"]].itertuples(index=False)
            ),
        )
    ]
    table = summary.assign(said=said).pivot(index="model", columns="measure", values="said")
    return table.loc[list(dict.fromkeys(summary["model"]))].rename_axis(index=None, columns=None)


def differences_table(differences: pd.DataFrame) -> pd.DataFrame:
    """``differences`` for print: one row per pair and measure, and whether the two are told apart."""
    rows = []
    for row in differences.itertuples():
        scale, unit = (100, "points") if "accuracy" in row.measure else (1, "years")
        interval = f"{row.value * scale:+.1f} {unit}, too few faces for an interval"
        if np.isfinite(row.low):
            interval = f"{row.value * scale:+.1f} {unit} [{row.low * scale:+.1f}, {row.high * scale:+.1f}]"
        elif not row.n:
            interval = "no labels"
        chance = "" if np.isnan(row.p_holm) else "< 0.001" if row.p_holm < 0.001 else f"{row.p_holm:.3f}"
        apart = "yes" if row.p_holm < metrics.LEVEL else "no"
        rows.append((f"{row.b} - {row.a}", row.measure, interval, chance, apart))
    columns = ["pair", "measure", "difference", "p (Holm)", "told apart"]
    return pd.DataFrame(rows, columns=columns).set_index("pair")


def differences(runs: dict[str, Finished], fold: str = "test") -> pd.DataFrame:
    """Every pair of models on the same faces, with intervals and tests: see ``metrics.paired``."""
    tables = {name: run.predictions[run.predictions["fold"] == fold] for name, run in runs.items()}
    return metrics.paired(tables)


def pick(table: pd.DataFrame, count: int, seed: int = 0) -> list[str]:
    """Files of `count` test faces, spread evenly over the labelled ages, by lot within equal parts."""
    test = table[table["fold"] == "test"].dropna(subset=["age"]).sort_values(["age", "file"])
    rng = np.random.default_rng(seed)
    return [part["file"].iloc[rng.integers(len(part))] for part in _parts(test, min(count, len(test)))]


def _parts(table: pd.DataFrame, count: int) -> list[pd.DataFrame]:
    edges = np.linspace(0, len(table), count + 1).astype(int)
    return [table.iloc[a:b] for a, b in zip(edges, edges[1:])]
