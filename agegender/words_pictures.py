"""Sentences on what was found with the pictures at hand: under damage, and on where answers come from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from agegender import corruptions, metrics
from agegender.labels import percent
from agegender.reopened import DRAWS, Map, Reopened, groups
from agegender.words import capital, listing

NEITHER = "nothing was computed from pictures"
ALIKE = 0.5  # a rank correlation: from here on two maps are called alike
_WHAT = {"age MAE": "age error", "gender accuracy": "share of genders told right"}


def opened(again: Mapping[str, Reopened], absent: Mapping[str, str], tested: int) -> str:
    """Which networks were opened again, on how many of the `tested` faces, and why others were not."""
    left = {why: [name for name, reason in absent.items() if reason == why] for why in absent.values()}
    why = "; ".join(f"{listing(names)}: {reason}" for reason, names in left.items())
    if not again:
        return f"No network was opened again ({why}), so {NEITHER}."
    count = len(next(iter(again.values())).table)
    said = (
        f"Opened again with their pictures: {listing(again)}, on {'all ' if count == tested else ''}{count:,}"
        f"{'' if count == tested else f' of {tested:,}'} test faces"
        f"{'' if count == tested else ', drawn by lot'}. On the pictures as they are, each says what its run said."
    )
    return said + (f" Not opened: {why}." if why else "")


# Robustness


def _amount(row, sign: int = 1) -> str:
    """ "5.1 years [4.3, 6.0]" or "12.0 points [9.1, 15.0]": a row of ``corruptions.rises``, times `sign`."""
    scale, unit = (1, "years") if row["measure"] == "age MAE" else (100, "points")
    low, high = sorted(sign * scale * row[["low", "high"]].to_numpy(float))
    said = f"{sign * scale * row['value']:.1f} {unit}"
    return f"{said} [{low:.1f}, {high:.1f}]" if np.isfinite(low) else f"{said}, too few faces for an interval"


def _damage(row) -> str:
    return f'"{row["corruption"]}" ({row["level"]:g} {row["unit"]})'


def damage_title(name: str, rises: pd.DataFrame, measure: str) -> str:
    """A title: which damage costs the model called `name` most at the severity of `rises`."""
    worse = _worse(rises, measure)
    if worse.empty:
        return f"No {_WHAT[measure]} under damage to show"
    row = worse.iloc[0]
    if not row["harm"] > 0:
        return f"No damage of middle severity is seen to cost {name} anything in {measure.split()[0]}"
    verb = "adds most to the age error of" if measure == "age MAE" else "costs most genders told right by"
    return (
        f"Of middle severity, {_damage(row)} {verb} {name}: {_amount(row, 1 if measure == 'age MAE' else -1)}"
    )


def _worse(rises: pd.DataFrame, measure: str) -> pd.DataFrame:
    """The rows of `measure`, the most harmful first, with `harm`: how much worse."""
    part = rises[rises["measure"] == measure]
    harm = part["value"].astype(float) * (1 if measure == "age MAE" else -1)
    return part.assign(harm=harm).sort_values("harm", ascending=False, kind="stable")


def damage(name: str, rises: pd.DataFrame) -> str:
    """What hurts the model called `name` most and least, and which changes are more than chance."""
    said = [
        text for measure in corruptions.MEASURES if (text := _hurts(name, _worse(rises, measure), measure))
    ]
    if not said:
        return f"No answer under damage was computed, so there is nothing to say of it here: {NEITHER}."
    text = " ".join(said)
    return capital(
        f"{text} Each change is estimated face by face, in brackets with its 95 % interval; tests at 5 % over all "
        "kinds of damage and both questions."
    )


def _hurts(name: str, worse: pd.DataFrame, measure: str) -> str:
    if worse.empty:
        return ""
    sign, verb = (1, "rises") if measure == "age MAE" else (-1, "falls")
    n, most, least = int(worse["n"].max()), worse.iloc[0], worse.iloc[-1]
    start = f"On {n:,} faces, **{name}'s {_WHAT[measure]} "

    # named by the direction it went, which may be the other one
    def moved(row) -> str:
        way = verb if row["harm"] > 0 else {"rises": "falls", "falls": "rises"}[verb]
        return f"{way} by {_amount(row, sign if row['harm'] > 0 else -sign)} under {_damage(row)}"

    if not np.round(worse["harm"].to_numpy(float), 9).any():
        return f"{start}is the same under every damage of middle severity**."
    text = f"{start}{moved(most)}**, which hurts most of what was tried at middle severity"
    if len(worse) > 1:
        text += f"; least does {_damage(least)}: it {moved(least).rpartition(' under ')[0]}"
    tested = worse[worse["p_holm"].notna()]
    if tested.empty:
        return f"{text}. There are too few faces to tell that from chance."
    real = tested[tested["p_holm"] < metrics.LEVEL]
    bad, good = (real.loc[side, "corruption"].tolist() for side in (real["harm"] > 0, real["harm"] < 0))
    of = f"of {len(tested)} kinds of damage"
    if len(bad) == len(tested):
        text += f". All {len(tested)} kinds of damage hurt more than chance would"
    elif bad:
        text += f". {len(bad)} {of} {'hurts' if len(bad) == 1 else 'hurt'} more than chance would"
        rest = [c for c in worse["corruption"] if c not in bad and c not in good]
        text += f"; not shown to: {listing(rest)}" if rest else ""
    else:
        text += f". None {of} is shown to hurt"
    return text + (f"; {listing(good)} {'does' if len(good) == 1 else 'do'} good" if good else "") + "."


def damage_table(rises: pd.DataFrame) -> pd.DataFrame:
    """``corruptions.rises`` for print: a row for each damage, the most harmful first; a column a measure."""
    table, shown = {}, [m for m in corruptions.MEASURES if (rises["measure"] == m).any()]
    for measure in shown:
        for _, row in _worse(rises, measure).iterrows():
            cells = table.setdefault(row["corruption"], {"severity": f"{row['level']:g} {row['unit']}"})
            p = row["p_holm"]
            chance = "" if np.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"
            kind = "age error" if measure == "age MAE" else "genders right"
            cells[f"{kind} changes by"], cells[f"p ({kind})"] = _amount(row), chance
    return pd.DataFrame.from_dict(table, orient="index").fillna("")


# Explanation


def ninths(values: np.ndarray) -> np.ndarray:
    """Shares of a map (h, w) in each field of three by three, (3, 3), summing to 1; NaN of a map of zeros."""
    rows = [np.array_split(band, 3, axis=1) for band in np.array_split(np.asarray(values, float), 3)]
    sums = np.array([[field.sum() for field in row] for row in rows])
    return sums / sums.sum() if sums.sum() > 0 else np.full((3, 3), np.nan)


def place(values: np.ndarray) -> str:
    """Where most of a map lies: "middle centre (24 %)"; the share of that ninth of the picture."""
    shares = ninths(values)
    if np.isnan(shares).any():
        return "nowhere"
    row, column = np.unravel_index(shares.argmax(), (3, 3))
    where = " ".join((("top", "middle", "bottom")[row], ("left", "centre", "right")[column]))
    return f"{where.replace('middle centre', 'centre')} ({percent(shares.max())})"


def explained(
    name: str, maps: Mapping[str, Map], averages: Mapping[tuple, np.ndarray], seen: Reopened | None
) -> str:
    """How a model's maps of the faces of `seen` were made, where each mean map lies, and what is left out."""
    if seen is None or not maps:
        return (
            f"No map of where answers come from was computed: {NEITHER}, or no network has a feature map to show."
        )
    parts = []
    for output, made in maps.items():
        text = (
            f"On average over {len(made.maps):,} faces, the map of **{name} for {output}** ({made.method}) lies "
            f"mostly at the {place(averages[name, output, 'all'])} of three by three fields; spread evenly each "
            f"would hold {percent(1 / 9)}."
        )
        if made.empty:
            text += f" For {made.empty:,} of the faces nothing in the last feature map speaks for the answer."
        parts.append(text)
    if any(made.method == "HiResCAM" for made in maps.values()):
        parts.append(
            "HiResCAM is used where a dense layer reads the map laid flat: there Grad-CAM, which takes a "
            "channel's mean slope, may point where the network does not look."
        )
    if small := [group for group in groups(seen.table, 1) if group not in groups(seen.table)]:
        parts.append(f"Groups of fewer than {metrics.FEW} faces have no mean map: {', '.join(small)}.")
    return " ".join([*parts, "No map says why an answer was given."])


def checked(name: str, table: pd.DataFrame, draws: int = DRAWS) -> str:
    """Whether maps change when weights are drawn anew: a sentence for each output of ``reopened.check``."""
    if table.empty:
        return "No map was computed, so there is none to check."
    return " ".join(
        _checked(name, output, part, draws) for output, part in table.groupby("output", sort=False)
    )


def _checked(name: str, output: str, part: pd.DataFrame, draws: int) -> str:
    rows = {row["drawn"]: row for _, row in part.iterrows()}
    every, other = rows.get("all"), rows.get("")
    said = f"**{capital(name)}'s maps for {output}"
    if every is None or not every["n"]:
        return f"{said} cannot be checked**: with weights drawn anew, no map has anything in it to compare."
    figure = f"rank correlation {correlation(every)}"
    # far below 0, too, one map follows from the other; and one network drawn may be unlike the others
    far = np.abs(every[["low", "high", "least", "most"]].to_numpy(float)).max()
    if np.isnan(far):
        text = f"{said} are too few to check** ({figure})"
    elif far < ALIKE:
        text = f"{said} change when all weights are drawn anew** ({figure})"
    elif every["low"] >= ALIKE or every["high"] <= -ALIKE:
        text = (
            f"{said} stay much the same when all weights are drawn anew** ({figure}): they tell of the picture, "
            "not of what was learned"
        )
    else:
        text = f"{said} may or may not depend on what was learned** ({figure})"
    if draws > 1 and np.isfinite(every["least"]):
        text += f"; over the networks drawn the means go from {every['least']:.2f} to {every['most']:.2f}"
    if other is not None and other["n"]:
        text += f". For comparison: two different faces' maps by {name} itself have {correlation(other)}"
    if every["left_out"] > 0:
        text += f". Left out: {percent(every['left_out'])} of the pairs, one of whose maps is empty"
    return text + "."


def correlation(row) -> str:
    """ "0.12 [0.08, 0.16]"."""
    if not row["n"] or not np.isfinite(row["value"]):
        return "unknown"
    said = f"{row['value']:.2f}"
    return f"{said} [{row['low']:.2f}, {row['high']:.2f}]" if np.isfinite(row["low"]) else said


def check_title(name: str, table: pd.DataFrame) -> str:
    """A title: how alike a model's maps are to those of networks with weights drawn anew."""
    every = table[(table["drawn"] == "all") & (table["n"] > 0)] if len(table) else table
    if not len(every):
        return "No maps to compare"
    said = "; ".join(f"{row['output']} {row['value']:.2f}" for _, row in every.iterrows())
    return f"Rank correlation of {name}'s maps with those of redrawn weights: {said}"
