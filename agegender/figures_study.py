"""Figures of the study of pre-processing."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from agegender import metrics, study
from agegender.figures import WIDTH, _finish, _looks, _nothing



def cells(table: pd.DataFrame, title: str) -> None:
    """Share told right in each cell of the design, one panel for each population; a marker for each `what`.

    `table` as from ``study.cells_table``, with a column what.
    """
    table = table.dropna(subset=["value"])
    if table.empty:
        return _nothing(title)
    everyone = table[table["population"] == table["population"].iloc[0]]
    said = "; ".join(
        f"{row.what}, {row.population}, {row.cell}: {metrics.Estimate(row.value, row.low, row.high, row.n).percent()}"
        for row in everyone.itertuples()
    )
    figure = _panels(table, "cell", "told right (%)")
    _finish(figure, title, f"Dots with 95 % intervals for each combination of what is on. {said}.")


def effects(table: pd.DataFrame, title: str) -> None:
    """Effects and interactions in points, one panel for each population; filled where told from 0 after Holm.

    `table` as from ``study.effects``, with a column what.
    """
    table = table.dropna(subset=["value"])
    if table.empty:
        return _nothing(title)
    real = table[table["p_holm"] < metrics.LEVEL]
    said = "; ".join(
        f"{row.what}, {row.population}: {row.effect} {_effect(row).points()}" for row in real.itertuples()
    )
    _finish(
        _panels(table, "effect", "points", zero=True),
        title,
        "Differences in points with 95 % intervals; filled dots are told from 0 after Holm's correction: "
        f"{said or 'none'}.",
    )


def _panels(table: pd.DataFrame, by: str, unit: str, zero: bool = False) -> plt.Figure:
    """A panel for each population, a row for each value of `by`, a marker for each `what`."""
    panels, names = list(dict.fromkeys(table["population"])), list(dict.fromkeys(table[by]))
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 3.6), sharey=True, squeeze=False)
    for axis, panel in zip(axes[0], panels):
        part = table[table["population"] == panel]
        if zero:
            axis.axvline(0, color="0.5", lw=1)
        _dots(axis, part, by, names, 100)
        axis.set_title(f"{panel} ({part['n'].max():,} faces)", fontsize=9)
        axis.set_xlabel(unit, fontsize=9)
    _legend(figure, axes[0, 0])
    return figure


def steps(table: pd.DataFrame, title: str) -> None:
    """What each step of augmentation alone adds, in points; `table` as from ``study.steps_table``."""
    table = table.dropna(subset=["value"])
    if table.empty:
        return _nothing(title)
    table = table.sort_values("value", ascending=False).assign(what="alone, against none")
    figure, axis = plt.subplots(figsize=(WIDTH, 0.9 + 0.3 * len(table)))
    axis.axvline(0, color="0.5", lw=1)
    _dots(axis, table, "step", list(table["step"]), 100)
    axis.set_xlabel("points of gender accuracy, against no augmentation")
    said = "; ".join(f"{row.step} {_effect(row).points()}" for row in table.itertuples())
    _finish(figure, title, f"Dots with 95 % intervals, filled where told from 0 after Holm's correction. {said}.")


def _effect(row) -> study.Effect:
    return study.Effect(row.value, row.low, row.high, row.p, row.n)


def _dots(axis, part: pd.DataFrame, by: str, names: list[str], scale: float) -> None:
    kinds = list(dict.fromkeys(part["what"]))
    for k, (what, look) in enumerate(_looks(kinds).items()):
        rows = part[part["what"] == what].set_index(by).reindex(names)
        y = np.arange(len(names)) + (k - (len(kinds) - 1) / 2) * 0.5 / len(kinds)
        value = rows["value"].to_numpy(float) * scale
        reach = np.abs(np.vstack([value - rows["low"] * scale, rows["high"] * scale - value]))
        real = rows["p_holm"].lt(metrics.LEVEL) if "p_holm" in rows else pd.Series(True, rows.index)
        colour = look["color"]
        axis.errorbar(value, y, xerr=reach, fmt="none", color=colour, lw=1.2, capsize=2)
        axis.scatter(value, y, s=22, marker=look["marker"], edgecolor=[colour], linewidth=1.1, zorder=3, label=what,
                     facecolor=[colour if yes else "white" for yes in real])  # fmt: skip
    axis.set(yticks=range(len(names)), yticklabels=names)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.tick_params(labelsize=8)


def _legend(figure, axis) -> None:
    handles, names = axis.get_legend_handles_labels()
    if len(names) > 1:
        for handle in handles:
            handle.set_facecolor(handle.get_edgecolor())
        figure.legend(handles, names, fontsize=8, loc="outside lower center", ncols=len(names), frameon=False)
