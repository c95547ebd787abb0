"""Sentences of the study of pre-processing, computed from its outcomes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from agegender import metrics, study
from agegender.words import capital, listing, percent

FACTOR_WORDS = {
    "copies": "leaving copies of held-out faces in training",
    "augmentation": "augmentation",
    "balancing": "balancing",
}


def design(faces: int, copied: int, removed: int, train: int) -> str:
    """How many held-out faces there are, how many of them have a copy in training, and what was taken out."""
    return (
        f"{faces:,} faces are held out. **{copied:,} of them ({percent(copied / faces)}) have a copy, or another "
        f"picture of the person, in training**; {removed:,} training faces have one among the held-out or validation "
        f"faces, and are taken out, or as many others by lot: {train:,} different faces are trained on in every case."
    )


def _row(table: pd.DataFrame, effect: str, population: str = "all"):
    return table[(table["effect"] == effect) & (table["population"] == population)].iloc[0]


def _said(row) -> str:
    return study.Effect(row["value"], row["low"], row["high"], row["p"], row["n"]).points()


def _verdict(row, what: str, of: str) -> str:
    """One effect in a sentence: what it does, or how much it could do at most without being seen here."""
    if not row["n"]:
        return f"no face has a label to judge {what} by"
    if not np.isfinite(row["low"]):
        return f"too few faces to say what {what} does to {of}"
    if row["p_holm"] < metrics.LEVEL:
        return f"{what} changes {of} by {_said(row)}"
    if row["low"] > 0 or row["high"] < 0:
        return f"{what} may change {of} ({_said(row)}), but not beyond chance among so many effects"
    return f"{what} is not shown to change {of} ({_said(row)})"


def effects_title(tables: dict[str, pd.DataFrame]) -> str:
    """A title: the main effects told from 0 over all faces, for each of what was judged."""
    parts = []
    for what, table in tables.items():
        rows = [(factor, _row(table, factor)) for factor in study.FACTORS]
        real = [f"{factor} {100 * row['value']:+.1f}" for factor, row in rows if row["p_holm"] < metrics.LEVEL]
        parts.append(f"{what}: {', '.join(real) + ' points' if real else 'no main effect told from 0'}")
    return "Over all faces: " + "; ".join(parts)


def effects(what: str, table: pd.DataFrame) -> str:
    """What each factor does over all faces, which interact, and where a population differs; `what` was judged."""
    of = f"{what.rpartition(', ')[2]} accuracy"
    verdicts = [_verdict(_row(table, factor), FACTOR_WORDS[factor], of) for factor in study.FACTORS]
    said = [f"**{capital(what)}.** {capital('; '.join(verdicts))}."]
    everyone, joint = table["population"] == "all", table["effect"].str.contains(" x ")
    crossed, beyond = table[joint & everyone], table["p_holm"] < metrics.LEVEL
    if beyond[joint & everyone].any():
        said.append("Effects are not simply added: " + "; ".join(_alone_and_together(row, table) for _, row in table[joint & everyone & beyond].iterrows()) + ".")
    elif crossed["p"].notna().any():
        widest = crossed[["low", "high"]].abs().max(axis=None) * 100
        said.append(f"Over all faces no interaction is told from 0, but one of up to {widest:.1f} points could be there.")
    told = [f"{_alone_and_together(row, table)} ({row['population']})" for _, row in table[~everyone & joint & beyond].iterrows()]
    part_of_one = {(row["population"], factor) for _, row in table[joint & beyond].iterrows() for factor in row["effect"].split(" x ")}
    told += [
        f"{row['effect']} {_said(row)} ({row['population']})"
        for _, row in table[~everyone & ~joint & beyond].iterrows()
        if (row["population"], row["effect"]) not in part_of_one
    ]
    if told:
        said.append(f"In parts of the faces: {'; '.join(told)}.")
    inside = table[~everyone & ~joint]
    few = [name for name in dict.fromkeys(inside["population"]) if inside[inside["population"] == name]["p"].isna().all()]
    if few:
        said.append(f"Too few faces for an interval: {listing(few)}.")
    return " ".join(said)


def _alone_and_together(row, table: pd.DataFrame) -> str:
    """An interaction, and for two factors the shares right that it is made of: with neither, with each alone, with both.

    These are the mean over all settings and half of each main effect, up or down, and a quarter of the interaction."""
    pair = row["effect"].split(" x ")
    said = f"{row['effect']} {_said(row)}"
    if len(pair) > 2:
        return said
    first, second = (_row(table, factor, row["population"])["value"] for factor in pair)
    parts = []
    for one, other, what in ((-1, -1, "neither"), (1, -1, f"{pair[0]} alone"), (-1, 1, f"{pair[1]} alone"), (1, 1, "both")):
        right = row["overall"] + one * first / 2 + other * second / 2 + one * other * row["value"] / 4
        parts.append(f"{100 * right:z.1f} % right with {what}")
    return f"{said}, that is {', '.join(parts)}"


def copies(what: str, table: pd.DataFrame) -> str:
    """What copies in training are worth to faces that have one, and to the accuracy over all."""
    rows = {row["faces"]: row for _, row in table.iterrows()}
    one, everyone, gap = rows["with a copy in training"], rows["all"], rows["with less without"]
    if not one["n"]:
        return f"No held-out face has a copy in training: nothing can be said of copies ({what})."
    chance = ""
    if one["p_holm"] < metrics.LEVEL:
        worth = "is worth"
    elif one["low"] > 0 or one["high"] < 0:
        worth, chance = "may be worth", ", which is not beyond chance among all that is asked here"
    else:
        worth = "is not shown to be worth anything:"
    text = f"**{capital(what)}.** A copy in training {worth} {_said(one)} to the {one['n']:,} faces that have one{chance}; "
    text += f"to the accuracy over all {everyone['n']:,} held-out faces, those with a copy among them, it adds {_said(everyone)}."
    if np.isfinite(gap["low"]):
        text += (
            f" In the leaking networks alone one would see the two kinds of faces {_said(gap)} apart, "
            "which mixes what a copy is worth with how hard these faces are."
        )
    return text


def steps_title(table: pd.DataFrame) -> str:
    """A title: which steps of augmentation do something alone."""
    known = table.dropna(subset=["p"])
    if known.empty:
        return "No step of augmentation was tried alone" if table.empty else "Too few faces to judge single steps"
    real = known[known["p_holm"] < metrics.LEVEL].sort_values("value", ascending=False)
    if real.empty:
        return f"Of {len(known)} steps of augmentation, none alone is told from none"
    told = listing(f"{row['step']} ({100 * row['value']:+.1f} points)" for _, row in real.iterrows())
    return f"Alone, {told} {'is' if len(real) == 1 else 'are'} told from no augmentation"


def scale(size: int, width: int, epochs: int, seeds: int, train: int) -> str:
    """At which scale all this was found."""
    seeds_said = f"{seeds} seeds" if seeds > 1 else "one seed, for which alone the intervals hold"
    return (
        f"All of this at {size} pixels, width {width}, {train:,} training faces, as many steps as {epochs} {'epoch' if epochs == 1 else 'epochs'} of them, "
        f"and {seeds_said}. What augmentation and balancing do depends on how long and how large a network is trained: "
        "another scale can give other answers."
    )
