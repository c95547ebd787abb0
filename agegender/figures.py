"""Figures, each shown with the alt text that says what it shows.

Colours are seaborn's colour-blind palette. A picture carries its alt text, and whether it shows faces,
in the notebook's output metadata, from where the book takes them.
"""

from __future__ import annotations

import base64
import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import display

DPI = 144
WIDTH = 8.0  # inches: the text column of the book
COLOURS = sns.color_palette("colorblind")
GENDER_COLOURS = {"male": COLOURS[0], "female": COLOURS[1]}

sns.set_theme(
    style="whitegrid",
    palette="colorblind",
    rc={"figure.figsize": (WIDTH, 3.6), "axes.titlelocation": "left", "axes.titleweight": "bold",
        "axes.titlesize": 11, "grid.linewidth": 0.6, "grid.color": "0.88", "axes.spines.top": False, "axes.spines.right": False, "figure.constrained_layout.use": True},
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
    width = int.from_bytes(buffer.getvalue()[16:20], "big") * 96 // DPI  # shown at its size, with pixels to spare
    display(
        {"image/png": base64.b64encode(buffer.getvalue()).decode()},
        raw=True,
        metadata={"image/png": {"alt": alt, "faces": faces, "width": width}},
    )


def face_grid(pixels, captions, title: str, columns: int = 8, alt: str = "") -> None:
    """Show faces, uint8 (n, size, size, 3), in rows of `columns`, each with a caption of a line or two."""
    rows = -(-len(pixels) // columns)
    lines = max((caption.count("\n") + 1 for caption in captions), default=0)
    figure, axes = plt.subplots(
        rows, columns, figsize=(WIDTH, rows * (WIDTH / columns + 0.16 * lines) + 0.3), squeeze=False
    )
    for axis, face, caption in zip(axes.flat, pixels, captions):
        axis.imshow(np.clip(face, 0, 255).astype(np.uint8))
        axis.set_title(caption, fontsize=7.5, fontweight="normal", loc="center", pad=2)
    for axis in axes.flat:
        axis.axis("off")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    show(figure, alt or f"{len(pixels)} faces, captioned: {'; '.join(c.replace(chr(10), ', ') for c in captions[:8])}", faces=True)


def predicted_faces(pixels, table: pd.DataFrame, title: str) -> None:
    """Show faces with what was predicted and, in brackets, what is labelled; `table` as from ``predictions``."""
    captions = []
    for row in table.itertuples():
        age = "" if np.isnan(row.age_pred) else f"{row.age_pred:.0f} ({row.age:.0f})\n"
        label = "?" if pd.isna(row.gender) else "mf"[row.gender]
        female = row.p_female > 0.5
        chance = row.p_female if female else 1 - row.p_female
        captions.append(age + ("" if np.isnan(chance) else f"{'mf'[int(female)]} {chance:.0%} ({label})"))
    said = "; ".join(caption.replace("\n", ", ") for caption in captions)
    face_grid(pixels, captions, title, alt=f"Faces, each with predicted and, in brackets, labelled age and gender: {said}.")


def compared_faces(pixels, tables: dict[str, pd.DataFrame], title: str) -> None:
    """Show faces with the label, then a line for each model (a table from ``predictions`` with the same rows)."""
    captions = []
    for i in range(len(pixels)):
        rows = {name: table.iloc[i] for name, table in tables.items()}
        first = next(iter(rows.values()))
        label = "?" if pd.isna(first["gender"]) else "mf"[first["gender"]]
        lines = [f"{first['age']:.0f} {label}"]
        lines += [f"{name}: {row['age_pred']:.0f} {'mf'[int(row['p_female'] > 0.5)]}" for name, row in rows.items()]
        captions.append("\n".join(lines))
    said = "; ".join(caption.replace("\n", ", ") for caption in captions)
    face_grid(pixels, captions, title, columns=6, alt=f"Faces with the label, then each model's answer: {said}.")


def learning_curves(histories: dict[str, pd.DataFrame], title: str) -> None:
    """Age MAE and gender accuracy by epoch, on training (dashed) and validation (solid) faces, one colour a model."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.4))
    for (name, history), colour in zip(histories.items(), COLOURS):
        for axis, column, scale in ((axes[0], "age_mae", 1), (axes[1], "gender_accuracy", 100)):
            axis.plot(history["epoch"], history[column] * scale, "--", color=colour, alpha=0.6)
            axis.plot(history["epoch"], history[f"val_{column}"] * scale, "-", color=colour, label=name)
            best = history["val_loss"].idxmin()
            axis.plot(history["epoch"][best], history[f"val_{column}"][best] * scale, "o", color=colour)
    axes[0].set(xlabel="epoch", ylabel="age MAE (years)")
    axes[1].set(xlabel="epoch", ylabel="gender accuracy (%)")
    for axis in axes:
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].legend(title="solid: validation\ndashed: training", fontsize=8, title_fontsize=8)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    said = "; ".join(
        f"{name}: validation age MAE from {h['val_age_mae'].iloc[0]:.1f} to {h['val_age_mae'].iloc[-1]:.1f} years, "
        f"gender accuracy from {h['val_gender_accuracy'].iloc[0]:.0%} to {h['val_gender_accuracy'].iloc[-1]:.0%}"
        for name, h in histories.items()
    )
    show(figure, f"Learning curves over {max(len(h) for h in histories.values())} epochs. {said}. Dots mark the kept epoch.")


def predicted_against_true(table: pd.DataFrame, title: str) -> None:
    """Predicted against labelled age, and the spread of the probability of female by labelled gender."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.6))
    known = table.dropna(subset=["age", "age_pred"])
    limit = max(known["age"].max(), known["age_pred"].max()) * 1.03
    axes[0].plot([0, limit], [0, limit], color="0.6", lw=1)
    axes[0].scatter(known["age"], known["age_pred"], s=9, alpha=0.4, color=COLOURS[0], edgecolor="none")
    axes[0].set(xlabel="labelled age (years)", ylabel="predicted age (years)", xlim=(0, limit), ylim=(0, limit))
    sexes = table.dropna(subset=["gender", "p_female"])
    bins = np.linspace(0, 1, 21)
    for code, name in enumerate(GENDER_COLOURS):
        chances = sexes.loc[sexes["gender"] == code, "p_female"]
        axes[1].hist(chances, bins, alpha=0.6, label=f"labelled {name}", color=GENDER_COLOURS[name])
    axes[1].set(xlabel="predicted probability of female", ylabel="faces")
    axes[1].legend(fontsize=8)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    correlation = known["age"].corr(known["age_pred"])
    right = ((sexes["p_female"] > 0.5) == (sexes["gender"] == 1)).mean()
    show(
        figure,
        f"Left: predicted against labelled age of {len(known)} faces, correlation {correlation:.2f}. "
        f"Right: histogram of the probability of female for both labels; {right:.0%} lie on the side of their label.",
    )


def intervals(summary: pd.DataFrame, title: str, measures=("age MAE", "gender accuracy"), by: str = "model", naive=None) -> None:
    """Each measure with its 95 % interval, one row per value of `by`; rows with more than one `model` side by side.

    `summary` as from ``metrics.summary``; `naive` (measure -> value) draws the line of a guesser who never looks.
    """
    names = list(dict.fromkeys(summary[by]))
    models = list(dict.fromkeys(summary["model"])) if by != "model" else [None]
    figure, axes = plt.subplots(1, len(measures), figsize=(WIDTH, 0.9 + len(names) * max(0.34, 0.15 * len(models))), sharey=True)
    for axis, measure in zip(np.atleast_1d(axes), measures):
        scale = 100 if "accuracy" in measure else 1
        for m, model in enumerate(models):
            part = summary[summary["measure"] == measure]
            part = part if model is None else part[part["model"] == model]
            part = part.set_index(by).reindex(names)
            y = np.arange(len(names)) + (m - (len(models) - 1) / 2) * 0.7 / len(models)
            value = part["value"].to_numpy(float) * scale
            errors = np.abs(np.vstack([value - part["low"] * scale, part["high"] * scale - value]))
            colours = COLOURS[m] if model is not None else COLOURS[0]
            axis.errorbar(value, y, xerr=errors, fmt="o", ms=4, capsize=2, lw=1.4, color=colours, label=model)
        if naive and measure in naive:
            axis.axvline(naive[measure] * scale, color="0.5", ls=":", lw=1.2)
        axis.set(xlabel=f"{measure} ({'%' if scale == 100 else 'years'})", yticks=range(len(names)), yticklabels=names)
        axis.set_ylim(len(names) - 0.4, -0.6)
    if models != [None]:
        np.atleast_1d(axes)[-1].legend(fontsize=8, loc="best")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    parts = [
        f"{row[by]}{'' if by == 'model' else ', ' + str(row['model'])}: {row['measure']} "
        + (f"{row['value']:.0%} [{row['low']:.0%}, {row['high']:.0%}]" if "accuracy" in row["measure"]
           else f"{row['value']:.1f} [{row['low']:.1f}, {row['high']:.1f}] years")
        for _, row in summary[summary["measure"].isin(measures) & summary["value"].notna()].iterrows()
    ]  # fmt: skip
    show(figure, "Dots with 95 % intervals. " + "; ".join(parts))
