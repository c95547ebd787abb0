"""Figures of what was found with the pictures at hand: errors under damage, and where answers come from."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, NullLocator

from agegender import corruptions, labels
from agegender.figures import COLOURS, WIDTH, _finish, _looks, _nothing
from agegender.reopened import COLUMNS, Map, Reopened, groups
from agegender.words_pictures import NEITHER, correlation, place


def damage(errors: pd.DataFrame, measure: str, title: str) -> None:
    """A panel for each corruption: `measure` by severity, a line for each model; dotted: pictures as they are.

    `errors` as from ``corruptions.errors``.
    """
    errors = errors[errors["measure"] == measure]
    kinds = [name for name in corruptions.CORRUPTIONS if (errors["corruption"] == name).any()]
    if not kinds:
        what = "age" if measure == "age MAE" else "gender"
        return _nothing(f"No error in {what} under damage: {NEITHER}, or no face has a label and an answer")
    scale, unit = (1, "years") if measure == "age MAE" else (100, "%")
    models = list(dict.fromkeys(errors["model"]))
    value = errors.set_index(["model", "corruption", "severity"])["value"] * scale
    severities = sorted(set(errors["severity"]) - {0})
    columns = min(4, len(kinds) + (len(kinds) % 4 == 0))
    rows = -(-(len(kinds) + 1) // columns)  # one place is kept for the legend
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, 1.9 * rows + 0.3), sharey=True, squeeze=False)
    at = range(len(severities) + 1)
    for axis, kind in zip(axes.flat, kinds):
        for model, look in _looks(models).items():
            before = value[model, "", 0]
            axis.axhline(before, lw=0.9, ls=":", color=look["color"])
            line = [before, *(value.get((model, kind, s), np.nan) for s in severities)]
            axis.plot(at, line, ms=4, lw=1.3, label=model, **look)
        how = corruptions.CORRUPTIONS[kind]
        axis.set_title(kind, fontsize=9)
        axis.set_xticks(at, ["as is", *(f"{how.level(s):g}" for s in severities)], fontsize=7.5)
        axis.set_xlabel(textwrap.fill(how.unit, 30), fontsize=7.5)
        axis.tick_params(axis="y", labelsize=8)
    for axis in axes[:, 0]:
        axis.set_ylabel(f"{measure} ({unit})", fontsize=8)
    if measure == "age MAE" and (value > 0).all():  # errors grow by factors
        axes[0, 0].set_yscale("log")
        axes[0, 0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes[0, 0].yaxis.set_major_formatter("{x:g}")
        axes[0, 0].yaxis.set_minor_locator(NullLocator())
    empty = list(axes.flat)[len(kinds) :]
    for axis in empty:
        axis.axis("off")
    empty[0].legend(*axes[0, 0].get_legend_handles_labels(), fontsize=8, loc="center left", frameon=False,
                    title="dotted: pictures as they are", title_fontsize=8)  # fmt: skip
    last = severities[-1]
    said = "; ".join(
        f"{model}: {value[model, '', 0]:.1f} {unit} as they are, at the highest severity "
        + ", ".join(f"{kind} {value.get((model, kind, last), np.nan):.1f}" for kind in kinds)
        for model in models
    )
    _finish(figure, title, f"{measure} against severity, {len(kinds)} panels. {said}.")


def overlays(
    cells: Sequence[Sequence], rows: Sequence[str], columns: Sequence[str], title: str, alt: str
) -> None:
    """A table of pictures under maps. `cells`: by row and column, None or (picture, map, caption).

    Pictures (s, s, 3) of 0 to 255; under a map, (s, s) in [0, 1] or None, they are grey. The line is drawn at
    half of the map's maximum.
    """
    wide = max(len(columns), 4)
    side = (WIDTH - 0.6) / wide
    lines = max(caption.count("\n") + 1 for caption in columns)
    low = 0.17 * any(cell and cell[2] for row in cells for cell in row)
    figure, axes = plt.subplots(
        len(rows), wide, figsize=(WIDTH, (side + low) * len(rows) + 0.17 * lines + 0.4), squeeze=False
    )
    for y, (name, row) in enumerate(zip(rows, cells)):
        for axis, cell in zip(axes[y], [*row, *[None] * (wide - len(row))]):
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            if cell is None:
                axis.axis("off")
                continue
            picture, values, caption = cell
            for spine in axis.spines.values():
                spine.set_visible(False)
            if values is None:
                axis.imshow(np.clip(picture, 0, 255).astype(np.uint8))
            else:
                _overlay(axis, picture, values)
            axis.set_xlabel(caption, fontsize=7.5, labelpad=2)
        axes[y, 0].set_ylabel(name, fontsize=8.5)
    for axis, caption in zip(axes[0], columns):
        axis.set_title(caption, fontsize=7.5, fontweight="normal", loc="center", pad=4)
    _finish(figure, title, alt, faces=True)


def _overlay(axis, picture: np.ndarray, values: np.ndarray) -> None:
    grey = np.asarray(picture, np.float32) @ (0.299, 0.587, 0.114)
    axis.imshow(grey, cmap="gray", vmin=0, vmax=255)
    top = float(values.max())
    if top <= 0:
        return
    values = values / top
    axis.imshow(values, cmap="inferno", vmin=0, vmax=1, alpha=0.15 + 0.5 * values)
    axis.contour(values, [0.5], colors="white", linewidths=0.9)


def explained_faces(opened: Reopened, maps: Mapping[str, Map], title: str) -> None:
    """A face of each age band (without ages: the first few), and below it the maps for each of its answers.

    Below each map stands whose evidence it is; above the face its label, and the model's answer.
    """
    if not maps:
        return _nothing(f"No maps of examples: {NEITHER}, or the network has no feature map to show")
    table = opened.table.iloc[: len(next(iter(maps.values())).maps)].reset_index(drop=True)
    each = {name: rows[0] for name, rows in groups(table, 1).items() if name not in ("men", "women")}
    chosen = list(each.values()) or list(range(min(8, len(table))))
    captions, cells = [], [[(opened.pixels[row], None, "") for row in chosen]]
    for row in chosen:
        face = table.iloc[row]
        answer = [f"{face['age_pred']:.0f}"] if pd.notna(face[COLUMNS["age"]]) else []
        answer += ["mf"[int(face["p_female"] > 0.5)]] if pd.notna(face[COLUMNS["gender"]]) else []
        captions.append(f"{labels.short(face['age'], face['gender'])}\nsaid: {' '.join(answer)}")
    told = []
    for output, made in maps.items():
        sides = made.sides(output)
        cells.append([(opened.pixels[row], made.maps[row], sides[row]) for row in chosen])
        told.append(f"{output}: " + "; ".join(f"{sides[row]}, {place(made.maps[row])}" for row in chosen))
    said = "; ".join(caption.replace("\n", ", ") for caption in captions)
    overlays(
        cells, ["face", *maps], captions, title,
        f"{len(chosen)} faces, labelled: {said}. Below each the maps; where most of each lies, for "
        f"{'. For '.join(told)}.",
    )  # fmt: skip


def mean_maps(
    name: str, opened: Reopened, maps: Mapping[str, Map], averages: Mapping[tuple, np.ndarray], title: str
) -> None:
    """A model's mean map for each question (rows) and group of faces (columns), on these faces' mean."""
    if not maps:
        return _nothing(f"No mean maps: {NEITHER}, or the network has no feature map to show")
    count = len(next(iter(maps.values())).maps)
    parts = {"all": np.arange(count), **groups(opened.table.iloc[:count])}
    means = {group: opened.pixels[rows].mean(0) for group, rows in parts.items()}
    cells = [[(means[group], averages[name, output, group], "") for group in parts] for output in maps]
    told = ". ".join(
        f"For {output}: " + "; ".join(f"{group}, {place(averages[name, output, group])}" for group in parts)
        for output in maps
    )
    columns = [f"{group}\n{len(rows):,} faces" for group, rows in parts.items()]
    overlays(cells, list(maps), columns, title, f"Mean maps on mean faces; where most of each lies. {told}.")


def models_maps(
    again: Mapping[str, Reopened],
    maps: Mapping[str, Mapping[str, Map]],
    averages: Mapping[tuple, np.ndarray],
    title: str,
) -> None:
    """Each model's mean map over all faces (columns), for each question (rows), on the mean face."""
    if not maps:
        return _nothing(f"No mean maps of the models: {NEITHER}, or no network has a feature map to show")
    outputs = [output for output in COLUMNS if any(output in made for made in maps.values())]
    cells, told = [], []
    for output in outputs:
        row = []
        for name, made in maps.items():
            if output not in made:
                row.append(None)
                continue
            picture = again[name].pixels[: len(made[output].maps)].mean(0)
            row.append((picture, averages[name, output, "all"], made[output].method))
            told.append(f"{name}, {output}: {place(averages[name, output, 'all'])}")
        cells.append(row)
    columns = [textwrap.fill(name, 15) for name in maps]
    overlays(
        cells,
        outputs,
        columns,
        title,
        f"Mean maps on the mean face; where most of each lies. {'; '.join(told)}.",
    )


_DRAWN = {"": "another face,\nnetwork as it is", "upper half": "same face, upper half\nof the layers redrawn",
          "all": "same face,\nall layers redrawn"}  # fmt: skip


def check(table: pd.DataFrame, title: str) -> None:
    """Rank correlations of ``reopened.check`` with 95 % intervals, and over the networks drawn (grey)."""
    known = table[table["n"] > 0] if len(table) else table
    if not len(known):
        return _nothing("No maps to compare with those of weights drawn anew")
    outputs, kinds = list(dict.fromkeys(known["output"])), [k for k in _DRAWN if (known["drawn"] == k).any()]
    figure, axis = plt.subplots(figsize=(WIDTH, 0.9 + 0.5 * len(kinds)))
    for o, (output, look) in enumerate(_looks(outputs).items()):
        part = known[known["output"] == output].set_index("drawn").reindex(kinds)
        y = np.arange(len(kinds)) + (o - (len(outputs) - 1) / 2) * 0.3
        value = part["value"].to_numpy(float)
        axis.hlines(y, part["least"], part["most"], color="0.75", lw=5, zorder=1)
        errors = np.abs(np.vstack([value - part["low"], part["high"] - value]))
        axis.errorbar(
            value, y, xerr=errors, ms=5, capsize=2, lw=1.4, label=output, **{**look, "ls": "none"}
        )
    axis.axvline(0, color="0.5", lw=1, ls=":")
    axis.set(yticks=range(len(kinds)), yticklabels=[_DRAWN[k] for k in kinds], xlim=(-1, 1),
             xlabel="rank correlation with the map of the face by the network as it is (1: the same)")  # fmt: skip
    axis.set_ylim(len(kinds) - 0.5, -0.5)
    axis.legend(fontsize=8, title="map for", title_fontsize=8)
    said = "; ".join(
        f"{row['output']}, {_DRAWN[row['drawn']].replace(chr(10), ' ')}: {correlation(row)}, over networks "
        f"{row['least']:.2f} to {row['most']:.2f}"
        for _, row in known.iterrows()
    )
    _finish(figure, title, f"Dots with 95 % intervals: {said}.")


def photographs(pictures: Mapping[str, np.ndarray], title: str) -> None:
    """Photographs by name, boxes and answers drawn in (``predict.pictures``), two in a row."""
    if not pictures:
        return _nothing(title)
    columns = min(2, len(pictures))
    rows = -(-len(pictures) // columns)
    tallest = max(image.shape[0] / image.shape[1] for image in pictures.values())
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, rows * (WIDTH / columns * min(tallest, 1.3) + 0.3)), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, image) in zip(axes.flat, pictures.items()):
        axis.imshow(image)
        axis.set_title(name, fontsize=8, fontweight="normal")
    said = f"{len(pictures)} photographs with a numbered box and an answer for each face: {', '.join(pictures)}."
    _finish(figure, title, said, faces=True)


def crop_effect(found: pd.DataFrame, title: str) -> None:
    """Age error and bias by how wide a crop is; `found` as from ``crops.figures``."""
    from agegender import crops

    panels = ("age MAE", "age bias", "gender accuracy")
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 2.9))
    plain = found[found["picture"] == "plain"]
    said = []
    for axis, measure in zip(axes, panels):
        scale = 100 if measure == "gender accuracy" else 1
        part = plain[plain["measure"] == measure]
        upright = part[part["crop"] == crops.UPRIGHT].sort_values("amount")
        axis.fill_between(upright["amount"], upright["low"] * scale, upright["high"] * scale, color=COLOURS[0], alpha=0.2, lw=0)
        axis.plot(upright["amount"], upright["value"] * scale, "o-", color=COLOURS[0], ms=4, label="found, set upright")
        before = part.loc[part["crop"] == crops.ALIGNED, "value"].iloc[0] * scale
        axis.axhline(before, color="0.4", ls=":", lw=1.2, label="as UTKFace has it")
        axis.set_xlabel("times as wide as UTKFace's", fontsize=8.5)
        axis.set_ylabel(f"{measure} ({'%' if scale == 100 else 'years'})", fontsize=8.5)
        axis.tick_params(labelsize=8)
        values = ", ".join(f"{row.value * scale:.1f} at {row.amount:g}" for row in upright.itertuples())
        said.append(f"{measure}: {values}; as UTKFace has it {before:.1f}")
    axes[0].legend(fontsize=7.5, frameon=False)
    _finish(figure, title, f"Three lines by width of the crop. {'. '.join(said)}.")
