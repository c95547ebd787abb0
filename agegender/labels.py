"""What the labels of a collection give away before any model is trained on them, as numbers and in words.

The words go into titles and sentences of pages: with other faces they change, and stay true. Where labels are
missing they say so.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import chi2_contingency

from agegender import duplicates
from agegender.faces import GENDERS, RACES, Faces, age_band
from agegender.metrics import FEW, NOTHING, Estimate, mean_over_groups, proportion

ROUND = tuple(range(5, 116, 5))  # ages ending in 0 or 5 that have two neighbours on either side


def percent(share: float) -> str:
    """ "13 %"; "2.8 %" below ten per cent."""
    return f"{100 * share:.{1 if 0 < share < 0.0995 else 0}f} %"


def short(age: float, gender) -> str:
    """A face's labels as a caption: "26 f", "3 m", "? f"."""
    return f"{'?' if pd.isna(age) else int(age)} {'?' if pd.isna(gender) else GENDERS[gender][0]}"


# Faces set aside, and sizes


def aside_in_words(faces: Faces) -> str:
    """How many faces were set aside, for which reasons, and what a reader should know of the source."""
    counts = faces.counts()
    text = f"{counts['read']:,} read + {counts['set_aside']:,} set aside = {counts['found']:,} found. "
    if not counts["set_aside"]:
        text += "None is set aside."
    else:
        # "labels.csv, row 7: age '300' is impossible: ..." and its like are counted as one reason
        plain = faces.aside["reason"].str.replace(r"^[^:]*, row \d+: ", "", regex=True)
        reasons = plain.str.split(":").str[0].str.replace(r"'[^']*'|\d+", "…", regex=True).value_counts()
        text += "Reasons: " + "; ".join(f"{reason} ({n:,})" for reason, n in reasons.head(5).items())
        text += f"; and {len(reasons) - 5} others." if len(reasons) > 5 else "."
        if counts["set_aside"] > 50:
            text += " Fifty are listed here, all of them in `set_aside.csv`."
    return " ".join([text, *faces.notes])


def sizes_in_words(info: pd.DataFrame, size: int) -> str:
    """How large the pictures are, and what becomes of them at `size`; `info` as ``Pictures.info``."""
    shorter = info[["width", "height"]].min(axis=1)
    kinds = len(info[["width", "height"]].drop_duplicates())
    text = (
        f"All pictures are {info['width'].iloc[0]} × {info['height'].iloc[0]} pixels"
        if kinds == 1
        else f"There are {kinds:,} sizes, from {shorter.min()} to {shorter.max()} pixels on the shorter side"
    )
    text += f"; here they are looked at with {size} × {size}."
    if enlarged := (shorter < size).sum():
        text += f" {enlarged:,} are smaller than that, and enlarging adds no detail."
    if uneven := (info["width"] != info["height"]).sum():
        text += f" {uneven:,} are not square and are cut to the square in their middle."
    return text


# Ages


def by_year(table: pd.DataFrame) -> pd.DataFrame:
    """Faces per completed year of age, 0 to the oldest: columns male, female, unknown. Empty without ages."""
    known = table.dropna(subset=["age"])
    gender = known["gender"].astype("Int8").map(dict(enumerate(GENDERS))).astype(object).fillna("unknown")
    counts = pd.crosstab(np.floor(known["age"]).astype(int), gender.to_numpy())
    oldest = counts.index.max() if len(counts) else -1
    return counts.reindex(index=range(oldest + 1), columns=[*GENDERS, "unknown"], fill_value=0).rename_axis(
        "age"
    )


def ages_in_words(table: pd.DataFrame) -> str:
    """Where half of the ages lie, and the commonest."""
    ages = np.floor(table["age"].dropna())
    if not len(ages):
        return "No face has an age"
    commonest = ages.value_counts()
    return (
        f"Half of the faces are {ages.quantile(0.25):.0f} to {ages.quantile(0.75):.0f} years old; "
        f"the commonest age is {commonest.index[0]:.0f} ({commonest.iloc[0]:,} of {len(ages):,})"
    )


def heaping(ages, at: int | Sequence[int]) -> Estimate:
    """How many times as common the ages `at` are as the mean of the two ages below and the two above each.

    1 is no heaping. `ages` (n,) in years, missing ones left out; `at`: whole years five apart or more, as
    the neighbours of two must not overlap. The interval is Wilson's for the share of `at` among the five
    years, carried over; `n` is the faces of these years. NaN where the neighbours have no faces.
    """
    at = np.sort(np.atleast_1d(at))
    if (np.diff(at) < 5).any():
        raise ValueError(
            f"at: {at.tolist()} lie too close for neighbours of their own; five years apart is right"
        )
    years = np.floor(pd.Series(ages, dtype=float).dropna().to_numpy())
    share = proportion(np.isin(years[np.isin(years, at[:, None] + np.arange(-2, 3))], at))
    if not share.value < 1:
        return NOTHING
    return Estimate(*(4 * p / (1 - p) for p in (share.value, share.low, share.high)), share.n)


def times(heap: Estimate) -> str:
    """A result of `heaping` for print: "1.9 times [1.6, 2.2] as common as the ages around suggest"."""
    if not heap.n:
        return "not to be judged: the ages around have no faces"
    chance = ", within chance of no heaping" if heap.low <= 1 <= heap.high else ""
    interval = f"[{heap.low:.2f}, {heap.high:.2f}]"
    return f"{heap.value:.2f} times {interval} as common as the ages around suggest{chance}"


def heaping_in_words(ages) -> str:
    """Heaping at round ages and at 26 as a title."""
    rounded, special = heaping(ages, ROUND), heaping(ages, 26)
    if not rounded.n:
        return "Whether ages heap can't be told: no round age has neighbours with faces"
    text = f"Ages ending in 0 or 5 are {rounded.value:.1f} times as common as their neighbours"
    return text + (f", age 26 {special.value:.1f} times" if special.n else "")


# Gender and race


def women_by_band(table: pd.DataFrame) -> pd.DataFrame:
    """Share of women per age band that occurs, with Wilson's interval: band, value, low, high, n (faces)."""
    known = table.dropna(subset=["age", "gender"])
    parts = (known["gender"] == 1).groupby(age_band(known["age"]), observed=True)
    rows = [{"band": band, **vars(proportion(women))} for band, women in parts]
    return pd.DataFrame(rows, columns=["band", "value", "low", "high", "n"])


def women_in_words(women: pd.DataFrame) -> str:
    """The bands with the largest and the smallest share of women, from `women_by_band`."""
    if not len(women):
        return "No face has both an age and a gender"
    most, least = (women.loc[women["value"].agg(which)] for which in ("idxmax", "idxmin"))
    if most["value"] == least["value"]:
        return f"{percent(most['value'])} of the faces of every age are labelled female"
    return (
        f"{percent(most['value'])} of the faces of {most['band']} years are labelled female, "
        f"{percent(least['value'])} of those of {least['band']}"
    )


def confounding(women: pd.DataFrame) -> str:
    """Whether age tells something of gender: bands whose interval leaves out the share of women over all."""
    if not len(women):
        return "Whether gender and age go together can't be told: no face has both labels."
    over_all = np.average(women["value"], weights=women["n"])
    text = f"Of the faces with both labels {percent(over_all)} are labelled female; "
    if not 0 < over_all < 1 or len(women) < 2:
        return text + "there is nothing for age to go together with."
    counts = np.vstack([women["value"] * women["n"], (1 - women["value"]) * women["n"]])
    chance = chi2_contingency(counts).pvalue  # one test over all bands: eight would cry wolf one time in three
    if chance >= 0.05:
        return text + f"that the share differs between age bands is not shown (chi-square test, p = {chance:.2f})."
    said = "p < 0.001" if chance < 0.001 else f"p = {chance:.3f}"
    return text + (
        f"the share differs between age bands by more than chance (chi-square test, {said}), "
        "so that a model can learn something of one label from the other."
    )


def races(table: pd.DataFrame, brightness) -> pd.DataFrame:
    """Per race label that occurs: faces, share of all, share of women, age (median, years), mean brightness.

    `brightness` (n,) of the pictures, 0 to 255. Shares and ages of no known label are NaN.
    """
    values = pd.DataFrame({
        "race": table["race"].astype("Int8").map(dict(enumerate(RACES))).astype(object).fillna("unknown"),
        "women": table["gender"].to_numpy(dtype=float, na_value=np.nan),
        "age": table["age"].to_numpy(dtype=float),
        "brightness": np.asarray(brightness, dtype=float),
    })  # fmt: skip
    rows = values.groupby("race").agg(
        faces=("race", "size"),
        women=("women", "mean"),
        age=("age", "median"),
        brightness=("brightness", "mean"),
    )
    rows.insert(1, "share", rows["faces"] / len(table))
    return rows.reindex([race for race in [*RACES, "unknown"] if race in rows.index])


def races_in_words(rows: pd.DataFrame) -> str:
    """Shares and median ages of the race labels, from `races`."""
    known = rows.drop(index="unknown", errors="ignore")
    if not len(known):
        return "No face has a race label"
    if len(known) == 1 or not known["age"].notna().any():
        return f"{percent(known['share'].max())} of the faces are labelled {known['share'].idxmax()}"
    old, young = known["age"].idxmax(), known["age"].idxmin()
    ends = [
        f"{known['age'][race]:.0f}"
        + (f" ({race})" if (known["age"] == known["age"][race]).sum() == 1 else "")
        for race in (young, old)
    ]
    return (
        f"{percent(known['share'].max())} are labelled {known['share'].idxmax()}; "
        f"median ages run from {ends[0]} to {ends[1]} years"
    )


def bands_by_race(table: pd.DataFrame) -> pd.DataFrame:
    """Faces per race label (rows) and age band (columns), where both are known."""
    known = table.dropna(subset=["age", "race"])
    counts = pd.crosstab(
        known["race"].astype(int).map(dict(enumerate(RACES))), age_band(known["age"]), dropna=False
    )
    return counts.reindex([race for race in RACES if race in counts.index])


def races_for_print(rows: pd.DataFrame) -> pd.DataFrame:
    """`races` with units and rounded, unknown figures as a dash."""
    told = pd.DataFrame({
        "faces": rows["faces"].map("{:,}".format),
        "share": rows["share"].map(percent),
        "women": rows["women"].map(percent, na_action="ignore"),
        "median age": rows["age"].map("{:.0f} years".format, na_action="ignore"),
        "mean brightness": rows["brightness"].map("{:.0f}".format),
    })  # fmt: skip
    return told.astype(object).fillna("–")


def light_in_words(table: pd.DataFrame, brightness) -> str:
    """Whether brightness tells something of the labels: correlation with age, and women against men."""
    values = pd.DataFrame(
        {"age": table["age"], "gender": table["gender"].astype("Int8"), "light": np.asarray(brightness)}
    )
    said = []
    if values["age"].nunique() > 1 and values["light"].nunique() > 1:
        said.append(
            f"Brightness and age correlate by {values['age'].corr(values['light']):+.2f}".replace("-", "−")
        )
    means = values.dropna(subset=["gender"]).groupby("gender")["light"].mean()
    if len(means) == 2:
        gap = means[1] - means[0]
        light = (
            f"{abs(gap):.0f} levels {'brighter' if gap > 0 else 'darker'} than"
            if abs(gap) >= 0.5
            else "as bright as"
        )
        said.append(f"faces labelled female are {light} those labelled male")
    return "; ".join(said).capitalize() + "." if said else "No labels are known to compare brightness with."


# Copies


def twins_in_words(n: int, pairs: pd.DataFrame, counts: pd.Series) -> str:
    """What ``duplicates.find`` found among n faces, and whether labels agree (``duplicates.summary``)."""
    if not len(pairs):
        return f"Among {n:,} pictures no two show the same photograph."
    kinds = pairs["kind"].value_counts()
    names = {"identical": "of equal bytes", "near": "nearly alike", "mirrored": "mirrored"}
    named = ", ".join(f"{kinds[kind]:,} {name}" for kind, name in names.items() if kind in kinds)
    return (
        f"{counts['faces']:,} of {n:,} pictures ({percent(counts['faces'] / n)}) show what another shows: "
        f"{counts['groups']:,} groups, "
        f"the largest of {counts['largest']:,} pictures. Pairs: {named}. Groups whose labels contradict "
        "one another: "
        f"{counts['conflicts']:,} (ages differ in {counts['ages_differ']:,}, genders in "
        f"{counts['genders_differ']:,})."
    )


def people_in_words(table: pd.DataFrame) -> str:
    """Whether it is known who is in the pictures, which decides what a split can keep apart."""
    people = table["person"].dropna().value_counts()
    if not len(people):
        return (
            "No label says who is in a picture, so other pictures of the same person, where they are no "
            "copies, may lie "
            "on both sides of the split."
        )
    return (
        f"For {people.sum():,} of {len(table):,} faces the person is known: {len(people):,} people with "
        f"up to {people.iloc[0]} pictures each, which stay on one side of the split as copies do."
    )


def mean_gap(gaps: pd.DataFrame, group: np.ndarray) -> Estimate:
    """Mean age_gap of ``duplicates.label_gaps`` in years; its interval from whole groups, `group` (n,)."""
    known = gaps.dropna(subset=["age_gap"])
    return mean_over_groups(known["age_gap"], np.asarray(group)[known["i"]])


def gap_in_words(gap: Estimate) -> str:
    """A result of `mean_gap` as a title."""
    if not gap.n:
        return "No photograph has two known ages"
    return f"Two labels of one photograph lie {gap.years()} apart on average ({gap.n:,} pairs)"


def floor_in_words(gap: Estimate) -> str:
    """What a gap between two labels says of the least error anybody can be shown to make.

    Two labels with independent normal errors of standard deviation s differ by 2 s / sqrt(pi) on average, and
    each from the truth by s sqrt(2 / pi): less by the square root of two.
    """
    if not np.isfinite(gap.low):
        return f"{gap.n} pairs with two known ages are too few to say how noisy labels are."
    low, high = gap.low / np.sqrt(2), gap.high / np.sqrt(2)
    return (
        f"If both labels err independently and normally, whoever knew the true age would still be off by "
        f"{gap.value / np.sqrt(2):.1f} years [{low:.1f}, {high:.1f}] on average: no model can be shown to "
        "be better than "
        "that. Copies are no random sample, and their labels may not be independent: an indication, no "
        "measurement."
    )


def gaps_by_band(gaps: pd.DataFrame, group: np.ndarray) -> pd.DataFrame:
    """`mean_gap` per band of the pairs' mean age, where it has an interval: band, value, low, high, n."""
    known = gaps.dropna(subset=["age_gap"])
    parts = known.groupby(age_band(known["age_mean"]), observed=True)
    rows = [{"band": band, **vars(mean_gap(part, group))} for band, part in parts]
    rows = [row for row in rows if np.isfinite(row["low"])]
    return pd.DataFrame(rows, columns=["band", "value", "low", "high", "n"])


def gaps_in_words(bands: pd.DataFrame) -> str:
    """Where labels of one photograph lie closest and farthest, from `gaps_by_band`."""
    if not len(bands):
        return f"No age band has {FEW} photographs with two known ages each"
    most, least = (bands.loc[bands["value"].agg(which)] for which in ("idxmax", "idxmin"))
    if len(bands) == 1:
        return f"At {most['band']} years two labels lie {most['value']:.1f} years apart"
    return (
        f"Two labels lie {least['value']:.1f} years apart at {least['band']} years, "
        f"{most['value']:.1f} at {most['band']}"
    )


def shown_in_words(shown: int, pairs: int) -> str:
    """Title for `shown` of all `pairs` of copies."""
    if not pairs:
        return "No two pictures are copies of one another"
    if shown == pairs:
        return "The one pair found to be copies" if pairs == 1 else f"All {pairs} pairs found to be copies"
    return f"{shown} of {pairs:,} pairs found to be copies, drawn at random from each kind"


def widest_in_words(pairs: pd.DataFrame) -> str:
    """Title for the pairs with the widest gaps."""
    if not len(pairs):
        return "No two ages of one photograph differ"
    low, high = pairs["age_gap"].min(), pairs["age_gap"].max()
    return f"The {len(pairs)} pairs whose ages differ most: by {low:.0f} to {high:.0f} years"


def planted(faces: Faces, table: pd.DataFrame, group: np.ndarray) -> pd.DataFrame:
    """``duplicates.evaluate`` against the drawn sample's ``truth.csv``; empty for other faces."""
    if not faces.drawn:
        return pd.DataFrame()
    return duplicates.evaluate(table, group, pd.read_csv(faces.root / "truth.csv"))


def planted_in_words(scores: pd.DataFrame) -> str:
    """How well planted copies were found, from `planted`."""
    if not len(scores):
        return "These faces are not drawn, so there is no truth to hold the search against."
    score = scores.loc["all"]
    if not score["planted"]:
        return "None of the planted copies is among these faces."
    text = f"{score['found']:.0f} of {score['planted']:.0f} planted copies were found"
    if score["together"]:
        right = percent(score["precision"])
        text += f"; of {score['together']:,.0f} pairs put together, {right} show one picture"
        if score["precision"] < 0.5:
            text += (
                ". **So most of what was called a copy above is none**: gaps between labels are then those "
                "of different pictures"
            )
        elif score["precision"] < 0.8:
            text += ". **Some of what was called a copy above is none**; gaps between labels look too wide"
    return text + "."


# Augmentation, split, balancing


def change_in_words(change: pd.Series, n: int, at_rest: float) -> str:
    """What augmentation changes in `n` faces on average, and whether it leaves faces alone outside training.

    `change`: grey levels per step, "all together" last. `at_rest`: the largest difference outside training.
    """
    alone = change.drop("all together")
    if not change.any():
        return "Augmentation is off: every picture stays as it is."
    rest = "nothing" if at_rest == 0 else f"up to {at_rest:.1f} levels"
    return (
        f"Of the single steps, {alone.idxmax()} changes the pixels most ({alone.max():.1f} of 255 grey "
        "levels on average over "
        f"{n} faces), {alone.idxmin()} least ({alone.min():.1f}); all together change "
        f"{change['all together']:.1f}. Outside "
        f"training the same layers change {rest}."
    )


def leaks_in_words(leaks: pd.DataFrame) -> str:
    """How much of the test part training has seen, from ``splits.leaks`` by kind of split and fold."""
    said = []
    for kind, part in leaks.groupby(level=0, sort=False):
        row = part.loc[(kind, "test")]
        seen = f"{row['either']:,.0f} of {row['faces']:,.0f} test faces ({percent(row['share'])})"
        said.append(seen if row["faces"] else "nothing, as there is no test part,")
        said[-1] += f" with the {kind} split"
    return "A copy or another picture of the same person is in training for " + "; for ".join(said) + "."


def folds_in_words(bands: pd.DataFrame) -> str:
    """How alike the parts are in age as a title; `bands`: faces per part (rows) and age band (columns)."""
    bands = bands.drop(index="not used", errors="ignore")
    bands = bands[bands.sum(axis=1) > 0]
    if not bands.size:
        return "No face has an age to compare parts by"
    shares = bands.div(bands.sum(axis=1), axis=0) * 100
    apart = shares.max() - shares.min()
    most = f"{apart.max():.1f} points at most ({apart.idxmax()} years)"
    return f"Shares of age bands differ between parts by {most}"


def women_by_fold(table: pd.DataFrame) -> str:
    """Share of women per part, with its interval."""
    known = table.dropna(subset=["gender"])
    said = [
        f"{proportion(genders == 1).percent()} of {len(genders):,} in {fold}"
        for fold in ("train", "val", "test")
        if len(genders := known.loc[known["fold"] == fold, "gender"])
    ]
    return f"Labelled female are {'; '.join(said)}." if said else "No face has a gender to compare parts by."


def balance_in_words(balanced: pd.DataFrame) -> str:
    """What balancing does to the shares of age bands as a title, from ``splits.balance_table``."""
    shares = balanced.dropna(subset=["share_before"])
    if not len(shares):
        return "No training face has an age to balance by"
    before, after = (
        (shares[f"share_{when}"].max(), shares[f"share_{when}"].min()) for when in ("before", "after")
    )
    was, now = (f"{percent(low)} to {percent(high)}" for high, low in (before, after))
    if np.allclose(before, after):
        return f"Nothing is balanced: the shares of age bands stay at {was}"
    if np.isclose(*after, atol=0.005):
        return f"Every age band becomes {100 * after[0]:.1f} % of training; before, they held {was}"
    return f"Age bands hold {now} of training; before, {was}"


def cost_in_words(balanced: pd.DataFrame) -> str:
    """What balancing costs: a longer epoch, and faces that come again and again."""
    before, after = balanced["before"].sum(), balanced["after"].sum()
    if before == after:
        return f"An epoch has {before:,} faces, each of them once."
    rarest = balanced["at_most"].idxmax()
    return (
        f"An epoch grows from {before:,} to {after:,} faces, {after / before:.1f} times as many, and "
        "takes longer by as much. "
        f"Each of the {balanced.loc[rarest, 'before']:,} faces of {rarest} years comes up to "
        f"{balanced['at_most'].max()} times: "
        "repeats add no new face, so a model may learn these few by heart."
    )


# For the data card


def census(table: pd.DataFrame) -> pd.DataFrame:
    """How many faces of which labels: one row per fold, band, gender and race that occur together, and `faces`.

    `table` as in ``Dataset.table``. Labels in words, "unknown" where there is none; a fold of "" is "unused".
    """
    words = pd.DataFrame({
        "fold": table["fold"].replace("", "unused"),
        "band": age_band(table["age"]),
        "gender": table["gender"].astype("Int8").map(dict(enumerate(GENDERS))),
        "race": table["race"].astype("Int8").map(dict(enumerate(RACES))),
    }).astype(object).fillna("unknown")  # fmt: skip
    return words.groupby(list(words), sort=False).size().rename("faces").reset_index()
