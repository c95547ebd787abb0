"""Figures, each shown with the alt text that says what it shows.

Colours are seaborn's colour-blind palette. A picture carries its alt text, and whether it shows faces,
in the notebook's output metadata, from where the book takes them.
"""

from __future__ import annotations

import base64
import io
import textwrap
from typing import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Markdown, display
from matplotlib.ticker import LogLocator, NullLocator

from agegender import labels, metrics

DPI = 144
WIDTH = 8.0  # inches: the text column of the book
COLOURS = sns.color_palette("colorblind")
GENDER_COLOURS = {"male": COLOURS[0], "female": COLOURS[1]}
MARKERS = "osD^vP*X<>p"
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))

sns.set_theme(
    style="whitegrid",
    palette="colorblind",
    rc={"figure.figsize": (WIDTH, 3.6), "axes.titlelocation": "left", "axes.titleweight": "bold",
        "axes.titlesize": 11, "grid.linewidth": 0.6, "grid.color": "0.88", "axes.spines.top": False,
        "axes.spines.right": False, "figure.constrained_layout.use": True},
)  # fmt: skip


def show(figure: plt.Figure, alt: str, faces: bool = False) -> None:
    """Display `figure` as a PNG with the alternative text `alt`, and close it.

    `faces`: whether it shows pictures of faces, which an edition for publishing leaves out.
    """
    if not alt.strip():
        raise ValueError("a figure needs an alt text: say what it shows, to somebody who can't see it")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight")
    plt.close(figure)
    width = (
        int.from_bytes(buffer.getvalue()[16:20], "big") * 96 // DPI
    )  # shown at its size, with pixels to spare
    display(
        {"image/png": base64.b64encode(buffer.getvalue()).decode()},
        raw=True,
        metadata={"image/png": {"alt": alt, "faces": faces, "width": width}},
    )


def _title(figure: plt.Figure, title: str) -> None:
    figure.suptitle(textwrap.fill(title, 84), x=0.01, ha="left", fontsize=11, fontweight="bold")


def _looks(names: Iterable[str]) -> dict[str, dict]:
    """A colour, marker and line style for each name: no two alike in print."""
    return {
        name: {
            "color": COLOURS[i % len(COLOURS)],
            "marker": MARKERS[i % len(MARKERS)],
            "ls": LINES[i % len(LINES)],
        }
        for i, name in enumerate(names)
    }


def _legend_below(
    figure: plt.Figure, axes: Iterable[plt.Axes], names: Iterable[str] = (), columns: int = 3, title: str = ""
) -> None:
    """One legend for all that `axes` hold, in the order of `names`; the figure grows by what it takes.

    In as many columns as fit, `columns` at most.
    """
    held = {}
    for axis in axes:
        for handle, name in zip(*axis.get_legend_handles_labels()):
            held.setdefault(name, handle)
    names = [name for name in names if name in held] or list(held)
    said = [textwrap.fill(name, 42) for name in names]
    longest = max(len(line) for name in said for line in name.split("\n"))
    columns = min(columns, len(said), max(1, 110 // (8 + longest)))
    lines = sum(name.count("\n") + 1 for name in said)
    figure.set_figheight(figure.get_figheight() + 0.17 * (-(-lines // columns) + bool(title)))
    figure.legend([held[name] for name in names], said, fontsize=8, loc="outside lower center", ncols=columns,
                  frameon=False, title=title or None, title_fontsize=8)  # fmt: skip


def face_grid(pixels, captions, title: str, columns: int = 8, alt: str = "") -> None:
    """Show faces, uint8 (n, size, size, 3), in rows of `columns`, each with a caption of a line or two."""
    rows = -(-len(pixels) // columns)
    lines = max((caption.count("\n") + 1 for caption in captions), default=0)
    figure, axes = plt.subplots(
        rows, columns, figsize=(WIDTH, rows * (WIDTH / columns + 0.16 * lines) + 0.3), squeeze=False
    )
    for axis, face, caption in zip(axes.flat, pixels, captions):
        axis.imshow(np.clip(face, 0, 255).astype(np.uint8))
        axis.set_title(caption, fontsize=7.5, fontweight="normal", loc="center", pad=4)
    for axis in axes.flat:
        axis.axis("off")
    _title(figure, title)
    show(
        figure,
        alt or f"{len(pixels)} faces, captioned: {'; '.join(c.replace(chr(10), ', ') for c in captions[:8])}",
        faces=True,
    )


def predicted_faces(pixels, table: pd.DataFrame, title: str, groups: Sequence[int] = ()) -> None:
    """Show faces with what was predicted and, in brackets, what is labelled; `table` as from ``predictions``.

    `groups`: lower edges of the age groups that were predicted, which are named where no age was.
    """
    captions = []
    names = metrics.age_group([], groups).categories if groups else []
    for row in table.itertuples():
        years, label = labels.short(row.age, row.gender).split()
        age = "" if np.isnan(row.age_pred) else f"{row.age_pred:.0f} ({years})\n"
        if not age and len(names) and not pd.isna(row.age_group_pred):
            age = f"{names[row.age_group_pred]} ({years})\n"
        female = row.p_female > 0.5
        chance = row.p_female if female else 1 - row.p_female
        captions.append(age + ("" if np.isnan(chance) else f"{'mf'[int(female)]} {chance:.0%} ({label})"))
    said = "; ".join(caption.replace("\n", ", ") for caption in captions)
    face_grid(
        pixels,
        captions,
        title,
        alt=f"Faces, each with predicted and, in brackets, labelled age and gender: {said}.",
    )


def _answer(row) -> str:
    """Predicted age and gender of a row of predictions, what there is of them: "31 f"."""
    age = "" if np.isnan(row["age_pred"]) else f"{row['age_pred']:.0f}"
    gender = "" if np.isnan(row["p_female"]) else "mf"[int(row["p_female"] > 0.5)]
    return f"{age} {gender}".strip()


def compared_faces(pixels, tables: dict[str, pd.DataFrame], title: str) -> None:
    """Show faces with the label, then a line for each model (a table from ``predictions`` with the same rows)."""
    captions = []
    for i in range(len(pixels)):
        rows = {name: table.iloc[i] for name, table in tables.items()}
        first = next(iter(rows.values()))
        lines = [labels.short(first["age"], first["gender"])]
        lines += [f"{name}: {_answer(row)}" for name, row in rows.items()]
        captions.append("\n".join(lines))
    said = "; ".join(caption.replace("\n", ", ") for caption in captions)
    face_grid(
        pixels, captions, title, columns=6, alt=f"Faces with the label, then each model's answer: {said}."
    )


def learning_curves(histories: dict[str, pd.DataFrame], title: str) -> None:
    """Age MAE and gender accuracy by epoch, on training (dashed) and validation (solid) faces, one colour a model.

    A question without labels, whose figures are 0 throughout, has no panel.
    """
    panels = {
        "age_mae": ("age MAE (years)", 1),
        "gender_accuracy": ("gender accuracy (%)", 100),
        "age_group_accuracy": ("age group accuracy (%)", 100),
    }
    panels = {
        c: p for c, p in panels.items() if any(c in h and h[[c, f"val_{c}"]].any(axis=None) for h in histories.values())
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 3.3), squeeze=False)
    looks = _looks(histories)
    for axis, (column, (label, scale)) in zip(axes[0], panels.items()):
        for name, history in histories.items():
            if column not in history:
                continue
            look = {"color": looks[name]["color"], "marker": looks[name]["marker"]}
            kept = [int(history["kept"].to_numpy().argmax())]
            axis.plot(history["epoch"], history[column] * scale, "--", color=look["color"], alpha=0.6)
            axis.plot(history["epoch"], history[f"val_{column}"] * scale, markevery=kept, label=name, **look)
        axis.set(xlabel="epoch", ylabel=label)
        axis.xaxis.get_major_locator().set_params(integer=True)
    _legend_below(figure, axes[0], histories, title="solid: validation, dashed: training, mark: the epoch kept")
    _title(figure, title)
    told = []
    for name, history in histories.items():
        ends = {column: history[f"val_{column}"].iloc[[0, -1]] for column in panels if column in history}
        parts = [f"age MAE from {a:.1f} to {b:.1f} years" for c, (a, b) in ends.items() if c == "age_mae"]
        parts += [
            f"{c.replace('_', ' ')} from {a:.0%} to {b:.0%}" for c, (a, b) in ends.items() if c != "age_mae"
        ]
        told.append(f"{name}: validation {', '.join(parts)}")
    longest = max(len(history) for history in histories.values())
    show(figure, f"Learning curves over {longest} epochs. {'; '.join(told)}. Marks stand at the kept epoch.")


def predicted_against_true(table: pd.DataFrame, title: str, groups: Sequence[int] = ()) -> None:
    """Predicted against labelled age, the probability of female by labelled gender and, where there are `groups`
    (their lower edges), predicted against labelled age group; as far as there are answers."""
    known = table.dropna(subset=["age", "age_pred"])
    sexes = table.dropna(subset=["gender", "p_female"])
    grouped = table.dropna(subset=["age", "age_group_pred"]) if groups else table[:0]
    panels = [panel for panel, faces in (("age", known), ("gender", sexes), ("group", grouped)) if len(faces)]
    if not panels:
        return _nothing(title)
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH * len(panels) / 2, 3.6), squeeze=False)
    axes, told = dict(zip(panels, axes[0])), []
    if axis := axes.get("age"):
        limit = max(known["age"].max(), known["age_pred"].max()) * 1.03
        axis.plot([0, limit], [0, limit], color="0.6", lw=1)
        axis.scatter(known["age"], known["age_pred"], s=9, alpha=0.4, color=COLOURS[0], edgecolor="none")
        axis.set(
            xlabel="labelled age (years)", ylabel="predicted age (years)", xlim=(0, limit), ylim=(0, limit)
        )
        slope = known["age"].corr(known["age_pred"])
        told.append(f"Predicted against labelled age of {len(known)} faces, correlation {slope:.2f}.")
    if axis := axes.get("gender"):
        for code, name in enumerate(GENDER_COLOURS):
            chances = sexes.loc[sexes["gender"] == code, "p_female"]
            axis.hist(
                chances,
                np.linspace(0, 1, 21),
                alpha=0.6,
                label=f"labelled {name}",
                color=GENDER_COLOURS[name],
            )
        axis.set(xlabel="predicted probability of female", ylabel="faces")
        axis.legend(fontsize=8)
        right = ((sexes["p_female"] > 0.5) == (sexes["gender"] == 1)).mean()
        told.append(f"The probability of female for both labels; {right:.0%} lie on the side of their label.")
    if axis := axes.get("group"):
        names = metrics.age_group([], groups).categories
        true = metrics.age_group(grouped["age"], groups).codes
        counts = np.zeros((len(names), len(names)))
        np.add.at(counts, (true, grouped["age_group_pred"].to_numpy(int)), 1)
        shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        sns.heatmap(shares, annot=True, fmt=".0f", cmap="Blues", vmin=0, vmax=100, cbar=False, ax=axis,
                    annot_kws={"fontsize": 8}, xticklabels=names, yticklabels=names)  # fmt: skip
        axis.set(xlabel="predicted age group", ylabel="labelled age group (rows: %)")
        axis.tick_params(labelsize=8)
        right = "; ".join(f"{n} years {s:.0f} %" for n, s, c in zip(names, np.diag(shares), counts.sum(1)) if c)
        told.append(f"Predicted against labelled age group of {len(grouped)} faces; right: {right}.")
    _title(figure, title)
    show(figure, " ".join(told))


def intervals(
    summary: pd.DataFrame, title: str, measures=("age MAE", "gender accuracy"), by: str = "model", naive=None
) -> None:
    """Each measure with its 95 % interval, one row per value of `by`; rows with more than one `model` side by side.

    `summary` as from ``metrics.summary``; `naive` (measure -> value) draws the line of a guesser who never looks.
    """
    measures = [m for m in measures if summary.loc[summary["measure"] == m, "value"].notna().any()]
    if not measures:
        return _nothing(title)
    names = list(dict.fromkeys(summary[by]))
    models = list(dict.fromkeys(summary["model"])) if by != "model" else [None]
    figure, axes = plt.subplots(
        1, len(measures), figsize=(WIDTH, 0.9 + len(names) * max(0.34, 0.15 * len(models))), sharey=True
    )
    for axis, measure in zip(np.atleast_1d(axes), measures):
        scale = 100 if "accuracy" in measure else 1
        for m, (model, look) in enumerate(_looks(models).items()):
            part = summary[summary["measure"] == measure]
            part = part if model is None else part[part["model"] == model]
            part = part.set_index(by).reindex(names)
            y = np.arange(len(names)) + (m - (len(models) - 1) / 2) * 0.7 / len(models)
            value = part["value"].to_numpy(float) * scale
            errors = np.abs(np.vstack([value - part["low"] * scale, part["high"] * scale - value]))
            axis.errorbar(value, y, xerr=errors, ms=4, capsize=2, lw=1.4, label=model, **{**look, "ls": "none"})
        if naive and measure in naive:
            axis.axvline(naive[measure] * scale, color="0.5", ls=":", lw=1.2)
        axis.set(
            xlabel=f"{measure} ({'%' if scale == 100 else 'years'})",
            yticks=range(len(names)),
            yticklabels=(rows := [textwrap.fill(str(name), 34) for name in names]),
        )
        axis.yaxis.set_tick_params(labelsize=8.5 if any("\n" in name for name in rows) else None)
        axis.xaxis.label.set_size(9.5 if len(measure) > 20 else 12)
        axis.set_ylim(len(names) - 0.4, -0.6)
    if len(models) > 1:
        _legend_below(figure, np.atleast_1d(axes), models, columns=4)
    _title(figure, title)
    parts = [
        f"{row[by]}{'' if by == 'model' else ', ' + str(row['model'])}: {row['measure']} "
        + getattr(metrics.Estimate(*row[["value", "low", "high", "n"]]), "percent" if "accuracy" in row["measure"] else "years")()
        for _, row in summary[summary["measure"].isin(measures) & summary["value"].notna()].iterrows()
    ]  # fmt: skip
    show(figure, "Dots with 95 % intervals. " + "; ".join(parts))


# Of the exploration and of preprocessing: ages, age_bands, heaping, shares, light, faces_by_band, face_pairs,
# age_gaps, picture_table, balance.

GREY = (0.6, 0.6, 0.6)


def _nothing(title: str) -> None:
    """In place of a figure for which there are no labels: `title`, which says so, as a sentence."""
    display(Markdown(title.rstrip(".") + ", so there is no figure."))


def _finish(figure: plt.Figure, title: str, alt: str, faces: bool = False) -> None:
    _title(figure, title)
    show(figure, f"{title}. {alt}", faces)


def ages(counts: pd.DataFrame, title: str) -> None:
    """Faces per year of age, stacked by gender; `counts` as from ``labels.by_year``."""
    if not len(counts):
        return _nothing(title)
    figure, axis = plt.subplots(figsize=(WIDTH, 3.2))
    below = np.zeros(len(counts))
    for name, colour in {**GENDER_COLOURS, "unknown": GREY}.items():
        if counts[name].any():
            axis.bar(counts.index, counts[name], 1.0, bottom=below, label=name, color=colour, lw=0)
            below += counts[name].to_numpy()
    axis.set(xlabel="labelled age (years)", ylabel="faces", xlim=(-1, len(counts)))
    axis.legend(fontsize=8, title="labelled gender", title_fontsize=8)
    said = ", ".join(f"{counts[name].sum():,} {name}" for name in counts if counts[name].any())
    _finish(
        figure,
        title,
        f"Bars, one for each year of age from 0 to {counts.index[-1]}, stacked by gender: {said}.",
    )


def age_bands(counts: pd.DataFrame, title: str) -> None:
    """One bar per row of `counts` (columns: age bands), parted by the share of each band."""
    counts = counts.loc[counts.sum(axis=1) > 0, counts.any()]
    if not counts.size:
        return _nothing(title)
    figure, axis = plt.subplots(figsize=(WIDTH, 1.3 + 0.32 * len(counts)))
    shares = counts.div(counts.sum(axis=1), axis=0) * 100
    left = np.zeros(len(counts))
    for band, colour in zip(counts, sns.color_palette("cividis", len(counts.columns))):
        axis.barh(
            range(len(counts)),
            shares[band],
            0.75,
            left=left,
            color=colour,
            label=band,
            edgecolor="white",
            lw=0.5,
        )
        dark = np.dot(colour, (0.3, 0.59, 0.11)) < 0.5
        for y, (x, share) in enumerate(zip(left, shares[band])):
            if share >= 4:
                axis.text(
                    x + share / 2,
                    y,
                    f"{share:.0f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="w" if dark else "k",
                )
        left += shares[band].to_numpy()
    names = [f"{row} ({n:,})" for row, n in counts.sum(axis=1).items()]
    axis.set(yticks=range(len(counts)), yticklabels=names, xlabel="share of faces (%)", xlim=(0, 100))
    axis.invert_yaxis()
    axis.grid(False)
    figure.legend(
        *axis.get_legend_handles_labels(),
        title="age (years)",
        loc="outside right upper",
        fontsize=8,
        title_fontsize=8,
    )
    said = "; ".join(
        f"{name}: {', '.join(f'{band} {share:.0f} %' for band, share in row.items())}"
        for name, (_, row) in zip(names, shares.iterrows())
    )
    _finish(figure, title, f"Bars parted by age band in years, with the number of faces: {said}.")


def heaping(counts: pd.DataFrame, marked: dict[str, list[int]], title: str) -> None:
    """Faces per year of age, the years in `marked` coloured, with what the four years around each suggest."""
    total = counts.sum(axis=1)
    if not len(total):
        return _nothing(title)
    figure, axis = plt.subplots(figsize=(WIDTH, 3.2))
    axis.bar(total.index, total, 0.85, color="0.8", lw=0, label="other ages")
    for (name, at), colour in zip(marked.items(), (COLOURS[1], COLOURS[2])):
        at = [age for age in at if age in total.index]
        axis.bar(at, total[at], 0.85, color=colour, lw=0, label=name)
        around = [total.reindex([a - 2, a - 1, a + 1, a + 2], fill_value=0).mean() for a in at]
        axis.hlines(around, np.array(at) - 0.8, np.array(at) + 0.8, color="k", lw=1.4)
    axis.plot([], [], color="k", lw=1.4, label="mean of the two ages\nbelow and two above")
    axis.set(xlabel="labelled age (years)", ylabel="faces", xlim=(-1, len(total)))
    axis.legend(fontsize=8)
    said = " and ".join(marked)
    _finish(
        figure,
        title,
        f"Bars of faces per year of age; {said} stand out in colour, black lines mark the mean of the "
        "ages around each.",
    )


def shares(
    table: pd.DataFrame,
    title: str,
    ylabel: str,
    line: float | None = None,
    scale: float = 100,
    of: str = "faces",
) -> None:
    """Dots with 95 % intervals over age bands; `table`: band, value, low, high, n. `line` is drawn across."""
    if not len(table):
        return _nothing(title)
    figure, axis = plt.subplots(figsize=(WIDTH, 3.0))
    value, low, high = (table[column].to_numpy(float) * scale for column in ("value", "low", "high"))
    if line is not None:
        axis.axhline(line * scale, color="0.5", ls=":", lw=1.2)
    axis.errorbar(
        range(len(table)), value, yerr=[value - low, high - value], fmt="o", ms=5, capsize=3, color=COLOURS[0]
    )
    axis.set(ylabel=ylabel, xlabel=f"age band (years), and how many {of}")
    axis.set_xticks(range(len(table)), [f"{row.band}\n{row.n:,}" for row in table.itertuples()])
    axis.set_ylim(0, max(np.nanmax([*high, *value]) * 1.05, 1e-9))
    d = 0 if scale == 100 else 1  # decimals
    said = "; ".join(
        f"{b} years: {v:.{d}f} [{lo:.{d}f}, {hi:.{d}f}]"
        for b, v, lo, hi in zip(table["band"], value, low, high)
    )
    _finish(figure, title, f"Dots with 95 % intervals, {ylabel}: {said}.")


def light(info: pd.DataFrame, title: str) -> None:
    """Brightness and contrast of the pictures; `info` as ``Pictures.info``."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.8), sharey=True)
    for axis, column, label in zip(
        axes, ("brightness", "contrast"), ("mean brightness", "contrast (standard deviation)")
    ):
        top = 256 if column == "brightness" else 128
        axis.hist(info[column], np.linspace(0, top, 33), color=COLOURS[0], lw=0)
        for edge in info[column].quantile([0.05, 0.95]):
            axis.axvline(edge, color="k", lw=1.2, ls="--")
        axis.set(xlabel=f"{label}, grey levels", xlim=(0, top))
    axes[0].set_ylabel("faces")
    low, high = info["contrast"].quantile([0.05, 0.95])
    _finish(
        figure,
        title,
        f"Two histograms; dashed lines enclose nine in ten faces. Contrast: {low:.0f} to {high:.0f}.",
    )


def faces_by_band(pixels, table: pd.DataFrame, rows: int = 3, seed: int = 0) -> None:
    """Up to `rows` faces of each age band, drawn at random, a column a band; `table` has the column band."""
    columns = [c for c in table["band"].cat.categories if (table["band"] == c).any()]
    if not columns:
        return _nothing("No face has an age")
    shown, captions, at = [], [], []
    picked = [
        table.index[table["band"] == c].to_series().sample(frac=1, random_state=seed)[:rows] for c in columns
    ]
    for row in range(max(map(len, picked))):
        for band, some in zip(columns, picked):
            face = some.iloc[row] if row < len(some) else None
            at += [face] if face is not None else []
            head = f"{band} years\n" if row == 0 else ""
            label = "" if face is None else labels.short(table["age"][face], table["gender"][face])
            shown.append(np.full(pixels.shape[1:], 255, np.uint8) if face is None else pixels[face])
            captions.append(head + label)
    ages = table.loc[at, "age"]
    span = f"{ages.min():.0f} to {ages.max():.0f} years"
    title = f"{len(at)} faces of {len(columns)} age bands, drawn at random: {span}"
    said = "; ".join(f"{labels.short(row.age, row.gender)}" for row in table.loc[at].itertuples())
    face_grid(
        shown,
        captions,
        title,
        len(columns),
        f"{title}. Faces captioned with labelled age and gender, a column for each band: {said}.",
    )


def face_pairs(pixels, table: pd.DataFrame, pairs: pd.DataFrame, title: str, columns: int = 4) -> None:
    """Pairs of pictures side by side with kind and labels; `pairs`: i, j (positions), kind."""
    if not len(pairs):
        return _nothing(title)
    figure, axes = plt.subplots(
        rows := -(-len(pairs) // columns),
        columns,
        figsize=(WIDTH, 0.4 + rows * (WIDTH / columns / 2 + 0.14)),
        squeeze=False,
    )
    captions = []
    for axis, pair in zip(axes.flat, pairs.itertuples()):
        one, two = (labels.short(table["age"].iloc[k], table["gender"].iloc[k]) for k in (pair.i, pair.j))
        gap = np.full((pixels.shape[1], max(1, pixels.shape[1] // 32), 3), 255, np.uint8)
        axis.imshow(np.concatenate([pixels[pair.i], gap, pixels[pair.j]], axis=1))
        captions.append(f"{pair.kind}: {one}, {two}")
        axis.set_title(captions[-1], fontsize=8, fontweight="normal", loc="center", pad=4)
    for axis in axes.flat:
        axis.axis("off")
    _finish(
        figure,
        title,
        f"Pairs of pictures, captioned with labelled age and gender of each: {'; '.join(captions)}.",
        faces=True,
    )


def age_gaps(gaps: pd.DataFrame, title: str) -> None:
    """How far two labels of one photograph lie apart; `gaps` as from ``duplicates.label_gaps``."""
    known = gaps.dropna(subset=["age_gap"])
    if not len(known):
        return _nothing(title)
    figure, axis = plt.subplots(figsize=(WIDTH, 2.8))
    bins = np.arange(-0.5, max(known["age_gap"].max(), 5) + 1.5)
    kinds = [kind for kind in ("identical", "near", "mirrored") if (known["kind"] == kind).any()]
    axis.hist(
        [known.loc[known["kind"] == kind, "age_gap"] for kind in kinds],
        bins,
        stacked=True,
        label=kinds,
        color=COLOURS[: len(kinds)],
        lw=0,
    )
    axis.yaxis.get_major_locator().set_params(integer=True)
    axis.set(xlabel="years between the two labels", ylabel="pairs", xlim=(bins[0], bins[-1]))
    axis.legend(fontsize=8)
    same = (known["age_gap"] == 0).mean()
    _finish(
        figure,
        title,
        f"Histogram of years between two labels, by kind of copy; {same:.0%} of the pairs agree, the "
        f"widest gap is {known['age_gap'].max():.0f} years.",
    )


def picture_table(pictures, rows, columns, title: str) -> None:
    """Pictures in rows and columns with names, shown alike in size, pixel for pixel; "" leaves a name out."""
    figure, axes = plt.subplots(
        len(rows),
        len(columns),
        figsize=(WIDTH, 0.5 + len(rows) * WIDTH / (len(columns) + 0.1 * any(rows))),
        squeeze=False,
    )
    for r, row in enumerate(rows):
        for c, column in enumerate(columns):
            axes[r, c].imshow(np.clip(pictures[r][c], 0, 255).astype(np.uint8), interpolation="nearest")
            axes[r, c].set(xticks=[], yticks=[])
            axes[r, c].spines[:].set_visible(False)
            if r == 0:
                axes[r, c].set_title(column, fontsize=8.5, fontweight="normal", loc="center", pad=3)
        axes[r, 0].set_ylabel(row, fontsize=8.5)
    down = f"{len(rows)} rows" + (f" ({', '.join(rows)})" if any(rows) else "")
    across = f"{len(columns)} columns" + (f" ({', '.join(columns)})" if any(columns) else "")
    _finish(figure, title, f"Pictures of faces in {down} and {across}.", faces=True)


def balance(table: pd.DataFrame, title: str) -> None:
    """Faces per age band before and after balancing; `table` as from ``splits.balance_table``."""
    if not table["share_before"].notna().any():
        return _nothing(title)
    figure, axis = plt.subplots(figsize=(WIDTH, 3.0))
    at = np.arange(len(table))
    axis.bar(at - 0.2, table["before"], 0.4, label="before", color=COLOURS[0], lw=0)
    axis.bar(at + 0.2, table["after"], 0.4, label="after, with repeats", color=COLOURS[1], lw=0)
    axis.set(
        xlabel="age band (years), and how often its faces come at most",
        ylabel="training faces",
        ylim=(0, table["after"].max() * 1.3),
    )
    axis.set_xticks(at, [f"{row.Index}\n× {row.at_most}" for row in table.itertuples()])
    axis.legend(fontsize=8, ncols=2, loc="upper right")
    said = "; ".join(f"{row.Index}: {row.before:,} to {row.after:,}" for row in table.itertuples())
    _finish(figure, title, f"Bars of training faces per age band, before and after balancing: {said}.")


# Of tuning: tuning_trials, tuning_scores, tuning_importance. Tables as from ``tuning.trials`` and ``tuning.importance``.


def tuning_trials(table: pd.DataFrame, title: str) -> None:
    """Score of each trial, in the order they ran, coloured by their epochs; a line for the best so far."""
    done = table[table["score"].notna()]
    failed = table[table["status"] == "FAILED"]
    figure, axis = plt.subplots(figsize=(WIDTH, 3.2))
    axis.step(done["trial"], done["score"].cummin(), where="post", color="0.6", lw=1.2, label="best so far")
    lengths = done["epochs"].astype(int)
    sns.scatterplot(x=done["trial"], y=done["score"], hue=lengths, palette="viridis_r", s=45, legend="full", ax=axis, zorder=3)
    if len(failed):
        axis.plot(failed["trial"], [done["score"].max()] * len(failed), "x", color=COLOURS[3], label="failed")
    axis.set(xlabel="trial", ylabel="score (1: a guesser's errors)")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(title="epochs of the trial", fontsize=8, title_fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    best = done.loc[done["score"].idxmin()]
    _finish(
        figure,
        title,
        f"Scores of {len(done)} trials between {done['score'].min():.3f} and {done['score'].max():.3f}; lowest in trial "
        f"{best['trial']}, of {best['epochs']:.0f} epochs. {len(failed)} failed.",
    )


def tuning_scores(table: pd.DataFrame, names: Sequence[str], logarithmic: Sequence[str], title: str) -> None:
    """Score against each hyperparameter in `names`, a panel for each; those in `logarithmic` on such an axis, the others,
    which have few values, side by side. Darker dots had more epochs."""
    done = table[table["score"].notna()]
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, 2.7 * rows), sharey=True, squeeze=False)
    lengths = done["epochs"].astype(int)
    told = []
    for axis, name in zip(axes.flat, names):
        values = done[name]
        known = values.notna()
        common = dict(y=done["score"][known], hue=lengths[known], palette="viridis_r", legend=False, ax=axis)
        if name in logarithmic:
            sns.scatterplot(x=values[known].astype(float), s=30, **common)
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_locator(NullLocator())
            axis.tick_params(axis="x", labelsize=9)
            together = values[known].rank().corr(done["score"][known].rank())
            told.append(f"{name.replace('_', ' ')}: rank correlation {together:.2f}")
        else:
            order = sorted(values[known].unique())
            sns.stripplot(x=values[known].astype(str), order=[str(v) for v in order], size=5, **common)
            means = done["score"].groupby(values).mean()
            told.append(f"{name.replace('_', ' ')}: " + ", ".join(f"{v} {means[v]:.3f}" for v in order) + " on average")
        axis.set(xlabel=name.replace("_", " "), ylabel="score")
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    _finish(figure, title, f"Score, lower is better, against {len(names)} hyperparameters. {'; '.join(told)}.")


def tuning_importance(found: pd.DataFrame, title: str) -> None:
    """A bar for each hyperparameter's importance, with the range over the forests, if these know anything."""
    if found.empty or found["foreseen"].iloc[0] <= 0:
        return _nothing(title)
    figure, axis = plt.subplots(figsize=(WIDTH, 0.9 + 0.28 * len(found)))
    value = found["importance"].to_numpy(float)
    errors = np.abs(np.vstack([value - found["low"], found["high"] - value]))
    axis.barh(range(len(found)), value, 0.7, xerr=errors, color=COLOURS[0], ecolor="0.3", capsize=2)
    axis.axvline(0, color="0.3", lw=1)
    axis.set(yticks=range(len(found)), yticklabels=found["hyperparameter"].str.replace("_", " "),
             xlabel="error added by mixing the values up (share of the scores' variance)")  # fmt: skip
    axis.invert_yaxis()
    said = "; ".join(
        f"{row.hyperparameter.replace('_', ' ')} {row.importance:.2f} [{row.low:.2f}, {row.high:.2f}]" for row in found.itertuples()
    )
    _finish(figure, title, f"Bars of importance, with the range over forests: {said}.")
