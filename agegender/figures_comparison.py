"""Figures of the comparison; see `figures` for how they are shown and told."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import LogNorm
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from agegender import audit, metrics
from agegender.comparison import TITLES
from agegender.figures import COLOURS, WIDTH, _finish, _legend_below, _looks, _nothing, intervals, predicted_faces

FEW = 6  # models up to which dots with intervals can be told apart
MANY = 2_000  # faces from which on dots would hide one another


def _errors(part: pd.DataFrame, scale: float) -> np.ndarray:
    value, low, high = (part[c].to_numpy(float) * scale for c in ("value", "low", "high"))
    return np.nan_to_num(np.vstack([value - low, high - value]))


def cost(
    summary: pd.DataFrame, costs: pd.Series, title: str, measures=("age MAE", "gender accuracy")
) -> None:
    """Each measure against the cost of an answer, on a logarithmic axis, with 95 % intervals.

    `summary`: model, measure, value, low, high, n; `costs`: by model, its name says what is counted.
    """
    known = summary[summary["value"].notna() & summary["model"].map(costs).notna()]
    measures = [m for m in measures if (known["measure"] == m).any()]
    if not measures:
        return _nothing(title)
    looks = _looks(dict.fromkeys(known["model"]))
    figure, axes = plt.subplots(1, len(measures), figsize=(WIDTH, 2.8), squeeze=False)
    told = []
    for axis, measure in zip(axes[0], measures):
        scale = 100 if "accuracy" in measure else 1
        for name, look in looks.items():
            part = known[(known["measure"] == measure) & (known["model"] == name)]
            axis.errorbar(
                part["model"].map(costs), part["value"] * scale, yerr=_errors(part, scale),
                ms=6, capsize=3, lw=1.4,
                label=name, color=look["color"], marker=look["marker"], ls="",
            )  # fmt: skip
            told += [
                f"{name}, {_rounded(costs[name])} {costs.name}: {measure} {row.value * scale:.1f}"
                for row in part.itertuples()
            ]
        axis.set_xscale("log")
        span = known["model"].map(costs)
        axis.set_xlim(span.min() / 2, span.max() * 2)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 3) if span.max() / span.min() < 100 else (1,)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.10g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.tick_params(axis="x", labelsize=9)
        axis.set(xlabel=f"{costs.name} (logarithmic)", ylabel=TITLES.get(measure, measure))
    _legend_below(figure, axes[0], looks)
    _finish(figure, title, f"Dots with 95 % intervals against {costs.name}: {'; '.join(told)}.")


def _rounded(x: float) -> str:
    return f"{x:,.0f}" if x >= 1000 else f"{x:.3g}"


def predicted_ages(table: pd.DataFrame, title: str) -> None:
    """Predicted against labelled age, the median of predictions at labelled ages, and the line of no error.

    With more than MANY faces hexagons, the darker the more faces (logarithmic), instead of dots.
    """
    known = table.dropna(subset=["age", "age_pred"])
    if known.empty:
        return _nothing(title)
    figure, axis = plt.subplots(figsize=(WIDTH * 0.72, 4.6))
    limit = max(known["age"].max(), known["age_pred"].max()) * 1.03
    if len(known) > MANY:
        drawn = axis.hexbin(
            known["age"], known["age_pred"], gridsize=50, extent=(0, limit, 0, limit), mincnt=1,
            norm=LogNorm(),
            cmap="Blues", lw=0,
        )  # fmt: skip
        figure.colorbar(drawn, label="faces (logarithmic)", format="{x:,.0f}")
    else:
        axis.scatter(known["age"], known["age_pred"], s=9, alpha=0.4, color=COLOURS[0], edgecolor="none")
    axis.plot([0, limit], [0, limit], color="0.35", lw=1, ls="--", label="no error")
    steps = (known["age"] // 5 * 5 + 2.5).rename("step")
    middle = known.groupby(steps)["age_pred"].agg(["median", "size"])
    middle = middle[middle["size"] >= metrics.FEW]
    axis.plot(
        middle.index, middle["median"], "o-", ms=3.5, lw=1.4, color=COLOURS[3], label="median, by five years"
    )
    axis.set(xlabel="labelled age (years)", ylabel="predicted age (years)", xlim=(0, limit), ylim=(0, limit))
    axis.legend(fontsize=8, loc="upper left")
    ends = "; ".join(f"{x - 2.5:.0f} to {x + 1.5:.0f} years: {m:.0f}" for x, m in middle["median"].items())
    _finish(
        figure,
        title,
        f"Predicted against labelled age of {len(known):,} faces, correlation "
        f"{known['age'].corr(known['age_pred']):.2f}. Median prediction at labelled ages "
        f"{ends or 'unknown'}.",
    )


def confusion(counts: pd.DataFrame, title: str) -> None:
    """Labelled (rows) against predicted (columns) age groups, each row in per cent."""
    if not counts.to_numpy().sum():
        return _nothing(title)
    rows = counts.sum(axis=1)
    shares = 100 * counts.div(rows.replace(0, np.nan), axis=0)
    figure, axis = plt.subplots(figsize=(WIDTH * 0.72, 1.2 + 0.42 * len(counts)))
    names = [f"{group} ({n:,})" for group, n in rows.items()]
    sns.heatmap(
        shares, annot=True, fmt=".0f", cmap="Blues", vmin=0, vmax=100, cbar=False, ax=axis, yticklabels=names,
        linewidths=0.5, annot_kws={"fontsize": 9},
    )  # fmt: skip
    axis.set(xlabel="predicted age group (years)", ylabel="labelled age group\n(faces); rows in %")
    axis.tick_params(axis="y", rotation=0)
    said = "; ".join(
        f"{group} years: " + ", ".join(f"{n:,} as {other}" for other, n in row.items() if n)
        for group, row in counts.iterrows()
        if row.sum()
    )
    _finish(figure, title, f"Faces by labelled and predicted age group. {said}.")


def bands(
    summary: pd.DataFrame, title: str, measures=("age MAE", "gender accuracy"), naive: Mapping[str, float] | None = None
) -> None:
    """Each measure by age band: dots with their intervals or, of more than FEW models, a map, which stays legible.

    `summary`: model, band, measure, value, low, high, n. `naive` as in ``figures.intervals``; a map has no room for it.
    """
    known = summary[summary["measure"].isin(measures) & summary["value"].notna()]
    models, names = (list(dict.fromkeys(known[c])) for c in ("model", "band"))
    if len(models) <= FEW:
        return intervals(summary, title, measures, by="band", naive=naive)
    measures = [m for m in measures if (known["measure"] == m).any()]
    asked = {m: list(dict.fromkeys(known.loc[known["measure"] == m, "model"])) for m in measures}
    rows = [len(asked[m]) for m in measures]
    figure, axes = plt.subplots(
        len(measures), 1, figsize=(WIDTH, 0.8 + sum(0.7 + 0.4 * n for n in rows)), squeeze=False, height_ratios=rows
    )
    said = []
    for axis, measure in zip(axes[:, 0], measures):
        part = known[known["measure"] == measure]
        scale = 100 if "accuracy" in measure else 1
        found = {key: row.iloc[0] for key, row in part.groupby(["model", "band"], sort=False)}
        ends = np.array([part["value"].min(), part["value"].max()]) * scale
        if measure == "age bias":
            ends = np.array([-1, 1]) * np.abs(ends).max()
        shade = plt.Normalize(*(ends if np.ptp(ends) else ends[0] + np.array([0, 1])))
        kind = "vlag" if measure == "age bias" else "cividis" if scale == 100 else "cividis_r"
        colours = sns.color_palette(kind, as_cmap=True)
        for y, model in enumerate(asked[measure]):
            for x, band in enumerate(names):
                row = found.get((model, band), {"low": np.nan, "n": 0})
                _cell(axis, x, y, row, scale, 0 if scale == 100 else 1, colours, shade)
                if (model, band) in found:
                    estimate = metrics.Estimate(*row[["value", "low", "high", "n"]])
                    told = estimate.percent() if scale == 100 else estimate.years()
                    said.append(f"{model}, {band} years: {measure} {told}")
        _squares(axis, [textwrap.fill(model, 34) for model in asked[measure]], names)
        axis.set_title(TITLES.get(measure, measure), fontsize=9)
    axes[-1, 0].set_xlabel("labelled age (years)")
    _finish(figure, title, f"Maps by model and age band, with 95 % intervals: {'; '.join(said)}.")


def _squares(axis, rows: list[str], columns: list[str]) -> None:
    axis.set(xlim=(0, len(columns)), ylim=(len(rows), 0))
    axis.set_yticks(np.arange(len(rows)) + 0.5, rows, fontsize=8)
    axis.set_xticks(np.arange(len(columns)) + 0.5, columns, fontsize=8)
    axis.tick_params(length=0)
    axis.grid(False)
    axis.spines[:].set_visible(False)


def cells(found: pd.DataFrame, measure: str, title: str) -> None:
    """A map of `measure` by race (rows) and age band (columns), one for each gender; see ``audit.cells``.

    Each cell: the figure, its 95 % interval below. Cells with too few faces are hatched, with their number.
    """
    part = found[found["measure"] == measure]
    if part["low"].notna().sum() < 2:
        return _nothing(title)
    scale = 100 if "accuracy" in measure else 1
    genders, races, bands = (list(dict.fromkeys(part[c])) for c in ("gender", "race", "band"))
    height = 0.5 * len(races)
    figure, axes = plt.subplots(
        len(genders), 1, figsize=(WIDTH, 1.1 + len(genders) * (0.35 + height)), squeeze=False, sharex=True
    )
    values = part["value"] * scale
    shade = plt.Normalize(values.min(), values.max() if values.max() > values.min() else values.min() + 1)
    colours = sns.color_palette("cividis" if scale == 100 else "cividis_r", as_cmap=True)
    decimals = 0 if scale == 100 else 1
    for axis, gender in zip(axes[:, 0], genders):
        for y, race in enumerate(races):
            for x, band in enumerate(bands):
                row = part[(part["gender"] == gender) & (part["race"] == race) & (part["band"] == band)].iloc[
                    0
                ]
                _cell(axis, x, y, row, scale, decimals, colours, shade)
        axis.set(ylabel=gender if gender != "all" else "")
        _squares(axis, races if races != ["all"] else ["all faces"], bands)
    axes[-1, 0].set_xlabel("labelled age (years)")
    colourbar = figure.colorbar(plt.cm.ScalarMappable(shade, colours), ax=axes[:, 0], fraction=0.03, pad=0.01)
    colourbar.set_label(TITLES.get(measure, measure), fontsize=8)
    colourbar.ax.tick_params(labelsize=8)
    known = part.dropna(subset=["low"])
    said = "; ".join(
        f"{row.race}, {row.gender}, {row.band} years: {row.value * scale:.{decimals}f} "
        f"[{row.low * scale:.{decimals}f}, {row.high * scale:.{decimals}f}]"
        for row in known.itertuples()
    )
    _finish(
        figure,
        title,
        f"A map of {TITLES.get(measure, measure)} by race, gender and age band: {said}. "
        f"{len(part) - len(known)} of {len(part)} cells are hatched, for too few faces.",
    )


def _cell(axis, x: int, y: int, row, scale: float, decimals: int, colours, shade) -> None:
    if not np.isfinite(row["low"]):
        axis.add_patch(plt.Rectangle((x, y), 1, 1, facecolor="0.95", edgecolor="0.8", hatch="///", lw=0))
        text = f"n = {row['n']}" if row["n"] else "none"
        axis.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=6.5, color="0.4",
                  bbox={"facecolor": "0.95", "lw": 0, "pad": 1})  # fmt: skip
        return
    colour = colours(shade(row["value"] * scale))
    ink = "w" if np.dot(colour[:3], (0.3, 0.59, 0.11)) < 0.5 else "k"
    axis.add_patch(plt.Rectangle((x, y), 1, 1, facecolor=colour, edgecolor="w", lw=0.8))
    axis.text(
        x + 0.5,
        y + 0.36,
        f"{row['value'] * scale:.{decimals}f}",
        ha="center",
        va="center",
        fontsize=9,
        color=ink,
    )
    between = (" to " if row["low"] < 0 else "–").join(f"{row[end] * scale:.{decimals}f}" for end in ("low", "high"))
    axis.text(x + 0.5, y + 0.74, between, ha="center", va="center", fontsize=6.5, color=ink)


def reliability(before: pd.DataFrame, after: pd.DataFrame, title: str) -> None:
    """Share labelled female against the probability of it, before and after the temperature.

    Tables as from ``calibration.reliability``.
    """
    if before.empty:
        return _nothing(title)
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.6), sharey=True)
    told = []
    for axis, table, name, look in zip(
        axes, (before, after), ("as the model gives them", "after the temperature"), _looks("ab").values()
    ):
        axis.plot([0, 100], [0, 100], color="0.5", ls=":", lw=1.2)
        axis.errorbar(
            table["predicted"] * 100, table["value"] * 100, yerr=_errors(table, 100), ms=5, capsize=3, lw=1.2,
            marker=look["marker"], ls="-", color=look["color"],
        )  # fmt: skip
        axis.set_title(name, fontsize=9, fontweight="normal")
        axis.set(xlabel="probability of female (%)", xlim=(-3, 103), ylim=(-3, 103))
        points = ", ".join(
            f"{100 * row.predicted:.0f} % said, {100 * row.value:.0f} % seen" for row in table.itertuples()
        )
        told.append(f"{name}: {points}")
    axes[0].set_ylabel("labelled female (%)")
    _finish(figure, title, f"Dots with 95 % intervals, equally many faces each. {'; '.join(told)}.")


def coverage(found: pd.DataFrame, title: str, promised: float = 0.9) -> None:
    """Share of labels inside their age interval, by true age band and kind, and what was promised.

    `found`: rows of one model of ``doubts.coverages``; bands of fewer than ``audit.TOO_FEW`` are left out.
    """
    part = found[(found["band"] != "all") & (found["n"] >= audit.TOO_FEW)]
    if part.empty:
        return _nothing(title)
    bands, kinds = (list(dict.fromkeys(part[c])) for c in ("band", "kind"))
    figure, axis = plt.subplots(figsize=(WIDTH, 4.0))
    axis.axhline(
        100 * promised, color="0.4", ls=":", lw=1.4, label=f"promised: {promised:.0%}".replace("%", " %")
    )
    told = []
    for k, (kind, look) in enumerate(_looks(kinds).items()):
        rows = part[part["kind"] == kind]
        x = np.array([bands.index(band) for band in rows["band"]]) + (k - (len(kinds) - 1) / 2) * 0.7 / len(
            kinds
        )
        axis.errorbar(x, rows["value"] * 100, yerr=_errors(rows, 100), ms=5, capsize=2, lw=1.3, ls="",
                      marker=look["marker"], color=look["color"], label=kind)  # fmt: skip
        told.append(
            f"{kind}: " + ", ".join(f"{r.band} years {100 * r.value:.0f} %" for r in rows.itertuples())
        )
    sizes = part.drop_duplicates("band").set_index("band")["n"]
    axis.set_xticks(range(len(bands)), [f"{band}\n{sizes[band]:,}" for band in bands])
    axis.set(
        xlabel=f"labelled age (years) of bands with {audit.TOO_FEW} faces or more, and how many",
        ylabel="in their interval (%)",
    )
    axis.set_ylim(None, 101.5)
    _legend_below(figure, [axis], columns=5)
    _finish(
        figure, title, f"Dots with 95 % intervals and a line at {100 * promised:.0f} %. {'; '.join(told)}."
    )


def risk(
    curves: Mapping[str, pd.DataFrame], task: str, title: str, shaded: str = "", declined: float = 0.1
) -> None:
    """Error of the surest answers by the share of faces answered, a line a model; see ``doubts.risk_curves``.

    The interval is drawn for the model called `shaded` alone.
    """
    curves = {name: curve for name, curve in curves.items() if len(curve)}
    if not curves:
        return _nothing(title)
    figure, axis = plt.subplots(figsize=(WIDTH, 3.3))
    scale, label = (100, "gender told wrong (%)") if task == "gender" else (1, "age MAE (years)")
    told = []
    for name, look in _looks(curves).items():
        curve = curves[name]
        x = curve["answered"] * 100
        axis.plot(x, curve["value"] * scale, color=look["color"], ls=look["ls"], marker=look["marker"], ms=4,
                  markevery=max(1, len(curve) // 8), lw=1.4, label=name)  # fmt: skip
        if name == shaded:
            axis.fill_between(
                x, curve["low"] * scale, curve["high"] * scale, color=look["color"], alpha=0.15, lw=0
            )
        ends = curve.iloc[[(curve["answered"] - share).abs().argmin() for share in (0.5, 1 - declined, 1)]]
        told.append(
            f"{name}: "
            + ", ".join(f"{100 * r.answered:.0f} % answered {r.value * scale:.1f}" for r in ends.itertuples())
        )
    axis.axvline(100 * (1 - declined), color="0.5", ls=":", lw=1.2)
    axis.set(xlabel="faces answered, the surest first (%)", ylabel=label, xlim=(0, 101))
    axis.set_ylim(0)
    _legend_below(figure, [axis])
    _finish(
        figure,
        title,
        f"Lines of {label} among the surest "
        f"answers{f'; shaded: 95 % interval of {shaded}' if shaded in curves else ''}. "
        f"{'; '.join(told)}.",
    )


def told_faces(pictures, table: pd.DataFrame, files, title: str, groups=()) -> None:
    """Faces with what a model says and, in brackets, the label; those of `files` whose picture is at hand.

    `pictures`: ``pixels.Pictures``; `table`: predictions; `groups`: edges of the model's own age groups.
    """
    there = pd.Index(pictures.faces.table["file"])
    known = [file for file in files if file in there]
    if not known:
        if files:
            title = "The pictures of these faces are not at hand"
        return _nothing(title)
    predicted_faces(
        pictures.pixels[there.get_indexer(known)], table.set_index("file").loc[known], title, groups
    )
