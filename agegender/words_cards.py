"""Sentences for the page on what the models must not be used for: how far off they are, and on whom.

All from test faces with a label and an answer; where there are none, or too few, the sentence says so. Plain
text, since glued values are not read as Markdown.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from agegender import faces, metrics
from agegender.faces import ADULT
from agegender.words import capital

FAR = 10  # years: "far off"


def must_not(tables: Mapping[str, pd.DataFrame], leaders: Mapping[str, str]) -> dict[str, str]:
    """The page's sentences by the keys they are glued with, from each model's predictions of test faces.

    Of several models, those on age are about the one that did best in age on validation faces, those on gender
    about the one that did best there (`leaders`, see ``comparison.leaders``): what even these do wrong.
    `tables`: as ``predictions.table``, of the fold test.
    """
    age, gender = (led(tables, leaders, measure) for measure in ("age MAE", "gender accuracy"))
    said = {
        "must_far": far_off(age, tables[age], len(tables)) if age else f"{NO_AGE} how far off they are",
        "must_side": one_side(age, tables[age]) if age else f"{NO_AGE} to which side they err",
        "must_gender": wrong_gender(gender, tables[gender], len(tables))
        if gender
        else f"{NO_GENDER} how often they are wrong",
        "must_children": children(gender, tables[gender])
        if gender
        else f"{NO_GENDER} how often they are wrong there",
        "must_minors": minors(age, tables[age]) if age else f"{NO_AGE} whom they take for an adult",
    }
    return {key: text.removesuffix(".") + "." for key, text in said.items()}


NO_AGE = (
    "No test face of this edition has both a labelled age and an answer in years, so nothing is known here of"
)
NO_GENDER = (
    "No test face of this edition has both a labelled gender and an answer, so nothing is known here of"
)


def led(tables: Mapping[str, pd.DataFrame], leaders: Mapping[str, str], measure: str) -> str | None:
    """The model that `leaders` names for a measure of ``metrics.MEASURES``, or the first that has any face for it;
    None if none has."""
    having = [name for name, table in tables.items() if metrics.MEASURES[measure].of(table)[1].any()]
    leader = leaders.get(measure)
    return leader if leader in having else next(iter(having), None)


def far_off(name: str, table: pd.DataFrame, models: int = 1) -> str:
    """By how many years a model is off for half of the faces, and for how many by more than FAR."""
    measures = {"median": metrics.MORE["median age error"], "near": metrics.within_years(FAR)}
    found = metrics.estimates(table, measures)
    median, far = found["median"], other(found["near"])
    who = f"Of {models} models the one closest in age on validation faces is {name}: it" if models > 1 else capital(name)
    return (
        f"{who} is off by {median.years()} or more for half of {count(median.n, 'test face')}, "
        f"and by more than {FAR} years for {far.percent()}."
    )


def one_side(name: str, table: pd.DataFrame) -> str:
    """In which age band a model takes faces for older, or younger, by the most years."""
    table = table.assign(band=faces.age_band(table["age"]))
    rows = metrics.summary(table, "band", {"age bias": metrics.MEASURES["age bias"]})
    known = rows[rows["low"].notna()]
    sided = known[(known["low"] > 0) | (known["high"] < 0)]
    if known.empty:
        return f"In each age band there are too few faces to say to which side {name} errs."
    if sided.empty:
        return f"No age band is shown to be taken for older, or for younger, by {name}."
    row = sided.loc[sided["value"].abs().idxmax()]
    ends = sorted(abs(end) for end in (row["low"], row["high"]))
    size = metrics.Estimate(abs(row["value"]), *ends, int(row["n"]))
    side = "older" if row["value"] > 0 else "younger"
    return (
        f"Its errors do not cancel out: {count(size.n, 'test face')} labelled {row['band']} years "
        f"{'is' if size.n == 1 else 'are'} taken for {side} by {size.years()} on average."
    )


def wrong_gender(name: str, table: pd.DataFrame, models: int = 1) -> str:
    """How often a model tells gender wrong, of all and of those labelled female and male."""
    everyone = other(metrics.gender_accuracy(table))
    parts = []
    for code in (1, 0):
        part = other(metrics.gender_accuracy(table[(table["gender"] == code).fillna(False)]))
        if part.n:
            parts.append(f"{part.percent()} of those labelled {faces.GENDERS[code]}")
    who = (
        f"Of {models} models the one most often right about gender on validation faces is {name}: it"
        if models > 1
        else capital(name)
    )
    return (
        f"{who} gives {everyone.percent()} of {count(everyone.n, 'test face')} another gender than their "
        "label: "
        f"{' and '.join(parts)}."
    )


def children(name: str, table: pd.DataFrame) -> str:
    """How often a model tells the gender of the smallest children wrong, beside that of adults."""
    low, high = faces.AGE_BANDS[0]
    age = table["age"]
    small = other(metrics.gender_accuracy(table[age < high + 1]))
    grown = other(metrics.gender_accuracy(table[age >= ADULT]))
    who = f"labelled {low} to {high} years"
    if small.n < metrics.FEW:
        return (
            f"{capital(count(small.n, 'test face', none='no'))} with a gender to be judged by "
            f"{'is' if small.n == 1 else 'are'} {who}: too few to say how often "
            "a small child's gender is told wrong."
        )
    beside = f", against {grown.percent()} of {grown.n:,} labelled {ADULT} and older" if grown.n else ""
    told = f"the gender of {small.percent()} is told wrong{beside} ({name})"
    return f"Of {count(small.n, 'test face')} {who}, {told}."


def minors(name: str, table: pd.DataFrame) -> str:
    """How many faces labelled under 18 a model takes for adults, and how many young adults for minors."""
    known = table[table["age"].notna() & table["age_pred"].notna()]
    young = next(band for band in faces.AGE_BANDS if band[0] == ADULT)
    below = known[known["age"] < ADULT]
    above = known[(known["age"] >= young[0]) & (known["age"] < young[1] + 1)]
    said = []
    for part, who, wrong, taken in (
        (below, f"under {ADULT}", below["age_pred"] >= ADULT, f"{ADULT} or older"),
        (above, f"{young[0]} to {young[1]}", above["age_pred"] < ADULT, f"under {ADULT}"),
    ):
        if len(part) < metrics.FEW:
            said.append(f"{count(len(part), 'test face', none='no')} labelled {who}, too few to say")
        else:
            share = metrics.proportion(wrong)
            said.append(
                f"of {count(share.n, 'test face')} labelled {who}, {share.percent()} are taken for {taken}"
            )
    return capital(f"{'; '.join(said)} ({name}).")


def other(share: metrics.Estimate) -> metrics.Estimate:
    """1 - `share`, with its interval."""
    return metrics.Estimate(1 - share.value, 1 - share.high, 1 - share.low, share.n)


def count(n: int, what: str, none: str = "0") -> str:
    """ "1 test face", "1,200 test faces"; `none` stands for 0."""
    return f"{none if n == 0 else format(n, ',')} {what}{'' if n == 1 else 's'}"
