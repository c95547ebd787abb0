"""Sentences and titles of the comparison: computed, so that with other data they change, and stay true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from agegender import audit, labels, metrics
from agegender.comparison import SIX, chance
from agegender.labels import percent
from agegender.metrics import LEVEL, Estimate
from agegender.words import capital, listing

LEFT_OUT = f"cells with fewer than {audit.TOO_FEW} faces, or with faces of fewer than {metrics.FEW} groups"


def _estimate(row) -> Estimate:
    return Estimate(*(row[column] for column in ("value", "low", "high")), int(row["n"]))


def _said(row, measure: str) -> str:
    """A row with value, low, high and n, with its unit."""
    return _estimate(row).percent() if "accuracy" in measure else _estimate(row).years()


def _faces(n: int) -> str:
    return "1 face" if n == 1 else f"{n:,} faces"


# The runs


def left_out(test: pd.DataFrame) -> str:
    """How many test faces lack a label, and so are judged in less than all the others are."""
    said = [
        f"{missing:,} {'has' if missing == 1 else 'have'} no label of {name}"
        for name in ("age", "gender", "race")
        if (missing := int(test[name].isna().sum()))
    ]
    if not said:
        return f"All {len(test):,} test faces have labels of age, gender and race."
    return f"Of {len(test):,} test faces {listing(said)}: they do not count there."


def chosen(leaders: Mapping[str, str], count: int) -> str:
    """Which of `count` models are looked at more closely below, and that validation faces chose them."""
    if count == 1:
        return f"There is one model, {next(iter(leaders.values()))}: the rest of this page is of it."
    what = {"age MAE": "age", "gender accuracy": "gender"}
    by_model: dict[str, list[str]] = {}
    for measure, model in leaders.items():
        task = what.get(measure, "age groups")
        if task not in by_model.setdefault(model, []):
            by_model[model].append(task)
    said = [f"{model} ({listing(tasks)})" for model, tasks in by_model.items()]
    one = len(said) == 1
    return (
        f"Looked at more closely below {'is' if one else 'are'} {listing(said)}, which did best on "
        "validation faces: the test faces choose nothing."
    )


def seeds(summary: pd.DataFrame, families: Mapping[str, Sequence[str]]) -> str:
    """How far figures move with the seed, where runs differ in nothing else; else that it isn't known."""
    said = []
    for model, names in families.items():
        parts = []
        for measure in ("age MAE", "gender accuracy", SIX):
            part = summary[(summary["measure"] == measure) & summary["model"].isin(names)]["value"].dropna()
            if len(part) > 1:
                scale, unit = (100, "points") if "accuracy" in measure else (1, "years")
                low, high = scale * part.min(), scale * part.max()
                parts.append(f"{measure} from {low:.1f} to {high:.1f}, {high - low:.1f} {unit} apart")
        said.append(
            f"{len(names)} runs of {model} differ in nothing but their seed: "
            f"{'; '.join(parts) or 'no figures'}."
        )
    whole = set(summary["model"]) <= {name for names in families.values() for name in names}
    alone = "One seed stands behind each run" if not said else "Behind every other run stands one seed"
    return " ".join([
        *said,
        *([] if whole else [f"{alone}: another seed moves the figures too, and the intervals do not contain that."]),
        "Models of different size, start or number of pixels differ in more than their architecture; the "
        "table of "
        "the runs says in what.",
    ])  # fmt: skip


# Cost and differences


def cheap_and_good(summary: pd.DataFrame, costs: pd.Series, measure: str) -> list[str]:
    """Models that no other beats in `measure` without costing more, the cheapest first."""
    part = summary[summary["measure"] == measure].dropna(subset=["value"]).set_index("model")["value"]
    good = part if measure == "age MAE" else -part
    order = (
        pd.DataFrame({"cost": costs.reindex(good.index), "error": good})
        .dropna()
        .sort_values(["cost", "error"])
    )
    found, best = [], np.inf
    for name, row in order.iterrows():
        if row["error"] < best:
            found, best = [*found, name], row["error"]
    return found


def cost(summary: pd.DataFrame, costs: pd.Series, measure: str = "age MAE") -> str:
    """A title: which models give the most for what they cost; `costs`: by model, named by what is counted."""
    front = cheap_and_good(summary, costs, measure)
    what = {"age MAE": "closer in age", "gender accuracy": "right about gender more often"}.get(
        measure, "right about age groups more often"
    )
    if not front:
        return "No model has both a cost and a figure to set against it"
    if len(costs.dropna()) == 1:
        return f"One model only: {front[0]}"
    unit = {"GFLOPs": "operations", "parameters": "parameters"}.get(costs.name, costs.name)
    return f"No model is {what} than {listing(front)} with as few {unit} or fewer"


def pairs(differences: pd.DataFrame) -> str:
    """How many pairs of models were compared, and how many of them are told apart."""
    if differences.empty:
        return "There are no two models with answers to the same question: nothing is compared."
    said = []
    for measure, part in differences.groupby("measure", sort=False):
        apart, tested = int((part["p_holm"] < LEVEL).sum()), int(part["p_holm"].notna().sum())
        what = {"age MAE": "age", "gender accuracy": "gender"}.get(measure, "age groups")
        how_many = "1 pair of models was" if len(part) == 1 else f"{len(part)} pairs of models were"
        told = (
            "none"
            if not apart
            else "it"
            if apart == len(part) == 1
            else "all"
            if apart == len(part)
            else apart
        )
        text = (
            f"In {what} {how_many} compared, and {told} {'is' if told in ('none', 'it', 1) else 'are'} "
            f"told apart"
        )
        untested = len(part) - tested
        said.append(
            text + (f" ({untested} could not be tested, for too few faces)" if untested else "") + "."
        )
    return " ".join(said)


def bias(summary: pd.DataFrame) -> str:
    """A title of the bias by age band; `summary` as from ``comparison.figures_by``."""
    if not summary.loc[summary["measure"] == "age bias", "value"].notna().any():
        return "No model has answers of age to faces with such a label"
    return "Above 0: taken for older than labelled; below: for younger"


# Age groups


def groups(summary: pd.DataFrame, measures: Sequence[str]) -> str:
    """A title: which model puts most test faces into the right age group."""
    said = []
    for measure in measures:
        part = summary[summary["measure"] == measure].dropna(subset=["value"])
        if len(part):
            best = part.loc[part["value"].idxmax()]
            which = measure[measure.find("(") + 1 :].rstrip(")").replace("own groups", "its own groups")
            said.append(f"{percent(best['value'])} in the right one of {which} ({best['model']})")
    return f"At best {'; '.join(said)}" if said else "No model has answers to put into age groups"


def confusion(name: str, counts: pd.DataFrame) -> str:
    """A title: how often the right age group is told, or the one beside it, and which is missed most."""
    total = counts.to_numpy().sum()
    if not total:
        return f"No face has a label and an answer of {name} to put into age groups"
    rows = counts.sum(axis=1)
    right = pd.Series(np.diag(counts), counts.index) / rows.replace(0, np.nan)
    off = np.abs(np.subtract.outer(*[np.arange(len(counts))] * 2)) <= 1
    share, near = np.trace(counts.to_numpy()) / total, counts.to_numpy()[off].sum() / total
    ranked = right[rows >= audit.TOO_FEW]
    least = f"; fewest at {ranked.idxmin()} years ({percent(ranked.min())})" if len(ranked) > 1 else ""
    return (
        f"{capital(name)} puts {percent(share)} into the right one of {len(counts)} age groups, "
        f"{percent(near)} into it or the next{least}"
    )


# Groups of people


def _cell(row) -> str:
    parts = [part for part in (row["race"], row["gender"]) if part != "all"]
    return ", ".join([*parts, f"{row['band']} years"])


def cells(found: pd.DataFrame, measure: str) -> str:
    """A title: where a model errs most and least among the cells with faces enough."""
    part = found[found["measure"] == measure]
    known = part.dropna(subset=["low"])
    if not part["n"].sum():
        return f"No face has the labels and answers for {measure} by group"
    if len(known) < 2:
        return f"Too few faces for {measure} by group"
    worst, best = known["value"].idxmax(), known["value"].idxmin()
    if measure == "gender accuracy":
        worst, best = best, worst
    start, end = (
        ("Gender is told right least", "most often")
        if measure == "gender accuracy"
        else ("Age is off by the most", "by the least")
    )
    return (
        f"{start} {'often ' if 'right' in start else ''}for {_cell(part.loc[worst])}, {end} for "
        f"{_cell(part.loc[best])}"
    )


def cells_left(found: pd.DataFrame, measure: str, table: pd.DataFrame) -> str:
    """The worst and best cells with their intervals, and how many cells are too small to say anything.

    `table`: the predictions that ``audit.cells`` found them in.
    """
    part = found[found["measure"] == measure]
    known = part.dropna(subset=["low"])
    if not part["n"].sum():
        return f"No face has the labels and answers for {measure} by group."
    left = f"{len(part) - len(known)} of {len(part)} cells say nothing: {LEFT_OUT}."
    if (part["race"] == "all").all() and table["race"].notna().any():
        left += (
            " Race labels are put together here, since by race, too, fewer than two cells had faces enough."
        )
    if len(known) < 2:
        return capital(left)
    low, high = part.loc[known["value"].idxmin()], part.loc[known["value"].idxmax()]
    apart = "do not overlap" if low["high"] < high["low"] else "overlap"
    return (
        f"{capital(measure)} runs from {_said(low, measure)} ({_cell(low)}, {_faces(low['n'])}) to "
        f"{_said(high, measure)} ({_cell(high)}, {_faces(high['n'])}); as the ends of {len(known)} cells "
        f"they lie "
        f"farther apart than two chosen beforehand would, and their intervals {apart}. {left}"
    )


def labels_of_race(table: pd.DataFrame) -> str:
    """What is known of race, for the head of the section."""
    known = int(table["race"].notna().sum())
    if not known:
        return "No face has a label of race: what follows is by age and gender alone."
    unknown = f", {len(table) - known:,} have none" if known < len(table) else ""
    return (
        f"{known:,} of {len(table):,} test faces have a label of race{unknown}. It is what somebody "
        f"guessed from "
        "the picture, in five words, and no model was given it."
    )


def minors_of(found: pd.DataFrame, leaders: Mapping[str, str]) -> str:
    """`minors` of the model that leads in age, and of the one that leads in gender."""
    by_model: dict[str, list[str]] = {}
    for measure in ("age MAE", "gender accuracy"):
        if measure in leaders:
            by_model.setdefault(leaders[measure], []).append(measure)
    said = [minors(found, model, measures) for model, measures in by_model.items()]
    if not said:
        return "No model tells age or gender, so that nothing can be said of minors and adults."
    return " ".join([*said, f"Minors are those labelled under {audit.ADULT} years."])


def minors(found: pd.DataFrame, name: str, measures: Sequence[str] = ("age MAE", "gender accuracy")) -> str:
    """Whether a model errs differently on minors and adults, by the difference's interval; see ``audit``."""
    said = []
    for measure in measures:
        part = found[(found["model"] == name) & (found["measure"] == measure)].set_index("part")
        young, old, gap = (part.loc[key] for key in (*audit.PARTS, "adults - minors"))
        if not (young["n"] + old["n"]):
            continue
        if not np.isfinite(gap["low"]):
            said.append(
                f"has answers to too few minors ({young['n']:,}) or adults ({old['n']:,}) to compare its "
                f"{measure} on them"
            )
            continue
        figures = f"{_said(young, measure)} on minors, {_said(old, measure)} on adults"
        scale, unit = (1, "years") if measure == "age MAE" else (100, "points")
        between = f"by {abs(scale * gap['value']):.1f} {unit} [{{:.1f}}, {{:.1f}}]".format(
            *sorted(abs(scale * gap[end]) for end in ("low", "high"))
        )
        if gap["p"] < LEVEL and gap["low"] * gap["high"] > 0:
            worse = "more" if gap["value"] > 0 else "less"
            verb = "is off" if measure == "age MAE" else "is right about gender"
            often = " often" if measure != "age MAE" else ""
            said.append(f"{verb} {worse}{often} on adults than on minors, {between}: {figures}")
        else:
            said.append(f"is not shown to differ between minors and adults in {measure}: {figures}")
    if not said:
        return f"No test face has the labels and answers to judge {name} on minors and adults."
    return f"**{capital(name)}** {'. It '.join(said)}."


def direction(found: pd.DataFrame, name: str) -> str:
    """Which gender a model takes for the other more often, by minors and adults, by ``audit.direction``."""
    if not len(found) or name not in set(found["model"]):
        return (
            "No model has answers of gender to faces with such a label: nothing can be said of the "
            "direction of errors."
        )
    said = []
    for row in found[found["model"] == name].to_dict("records"):
        whom = f"Among {row['part']} {name} takes"
        women, men = (
            _estimate({k: row[f"{g}_{k}"] for k in ("value", "low", "high", "n")}) for g in ("women", "men")
        )
        if np.isnan(row["gap_low"]):
            said.append(
                f"Among {row['part']} there are too few labelled female ({women.n:,}) or male ({men.n:,}) to "
                "compare the two directions."
            )
            continue
        one, other = "female for male", "male for female"
        figures = f"{women.percent()} of those labelled {one} and {men.percent()} of those labelled {other}"
        if row["p_holm"] < LEVEL:
            low, high = sorted(abs(100 * row[f"gap_{end}"]) for end in ("low", "high"))
            gap = f"{abs(100 * row['gap_value']):.1f} points [{low:.1f}, {high:.1f}]"
            more = one if row["gap_value"] > 0 else other
            said.append(f"{whom} {figures}: {more} more often, by {gap}, {chance(row['p_holm'])}.")
        else:
            said.append(f"{whom} {figures}: neither is shown to be more frequent ({chance(row['p_holm'])}).")
    return " ".join(said)


def races(found: audit.Standardised, measure: str) -> str:
    """The largest gap between two races at the same ages, and whether it is more than chance."""
    few = f" Too few faces to be compared: {listing(found.few)}." if found.few else ""
    if not len(found.pairs):
        return (
            f"No two races have faces enough in the same age bands to compare their {measure}: "
            f"{audit.TOO_FEW} of each in a band were needed.{few}"
        )
    widest = found.pairs.loc[found.pairs["value"].abs().idxmax()]
    rates = found.rates.set_index("race")
    low, high = sorted((widest["a"], widest["b"]), key=lambda race: rates.loc[race, "value"])
    scale, unit = (100, "points") if "accuracy" in measure else (1, "years")
    ends = sorted(abs(scale * widest[end]) for end in ("low", "high"))
    if widest["low"] * widest["high"] <= 0:
        ends = [-min(abs(scale * widest[end]) for end in ("low", "high")), ends[1]]
    gap = f"{abs(scale * widest['value']):.1f} {unit} [{ends[0]:.1f}, {ends[1]:.1f}]"
    apart = int((found.pairs["p_holm"] < LEVEL).sum())
    verdict = "more than chance" if widest["p_holm"] < LEVEL else "not shown to be more than chance"
    return (
        f"At the same ages (the band{'s' * (len(found.bands) > 1)} {', '.join(found.bands)}, with "
        f"{percent(found.share)} of the labelled faces), "
        f"{measure} is lowest for {low} ({_said(rates.loc[low], measure)}) and highest for {high} "
        f"({_said(rates.loc[high], measure)}). That largest gap, {gap}, is {verdict} "
        f"({chance(widest['p_holm'])}); {apart} of {len(found.pairs)} pairs are told apart.{few}"
    )


def races_title(age: audit.Standardised, gender: audit.Standardised) -> str:
    """A title of the figures by race."""
    said = []
    for found, name in ((age, "age MAE"), (gender, "gender accuracy")):
        if len(found.pairs):
            apart = int((found.pairs["p_holm"] < LEVEL).sum())
            said.append(f"{apart or 'none'} of {len(found.pairs)} in {name}")
    if not said:
        return "Too few faces of different race labels to compare them at the same ages"
    return f"Pairs of race labels that are told apart at the same ages: {', '.join(said)}"


# Labels


def noise(copies_alone: bool, gaps: pd.DataFrame, gap: Estimate, bands: pd.DataFrame) -> str:
    """How far two labels of one photograph lie apart, in validation and test; from ``audit.label_gaps``."""
    if not copies_alone:
        return (
            "How noisy the labels themselves are can't be told here: the groups of these faces hold other "
            "pictures of "
            "one person as well, or may, taken at other ages."
        )
    known = int(gaps["age_gap"].notna().sum())
    if not np.isfinite(gap.low):
        return (
            f"{known} pairs of copies among validation and test faces are too few to say how noisy "
            f"labels are."
        )
    at = f" {labels.gaps_in_words(bands)}." if len(bands) else ""
    least, low, high = (x / np.sqrt(2) for x in (gap.value, gap.low, gap.high))
    return (
        f"{labels.gap_in_words(gap)}.{at} If both err independently and normally, whoever knew the true "
        f"age would still "
        f"be off by {least:.1f} years [{low:.1f}, {high:.1f}] on average from labels like these. Copies "
        f"are no random "
        "sample, and their ages may not be those of the other faces: an indication, no measurement."
    )


# Doubts


def calibration(found: pd.DataFrame, name: str) -> str:
    """Whether probabilities of gender can be taken at their word; `found`: ``doubts.calibrations``."""
    part = found[found["model"] == name]
    if part.empty:
        return "No model gives probabilities of gender for faces with such a label."
    rows = part.set_index(["when", "measure"])
    t = part["temperature"].iloc[0]

    def off(when: str) -> tuple[str, bool]:
        ece, by_chance = rows.loc[(when, "ECE")], rows.loc[(when, "ECE by chance")]
        more = bool(ece["value"] > by_chance["high"])
        return (
            f"{100 * ece['value']:.1f} points, "
            f"{'more than' if more else 'no more than'} the {100 * by_chance['high']:.1f} that chance "
            f"explains",
            more,
        )

    before, wrong = off("before")
    text = f"**{capital(name)}**'s probabilities of gender are off by {before}"
    if np.isnan(t):
        return text + ". There are too few validation faces to correct them."
    sure = "too sure" if t > 1 else "not sure enough"
    text += f", and it was {sure} on validation faces (temperature {t:.2f})" if wrong else ""
    after, _ = off("after")
    by = "it" if wrong else f"the temperature learnt on validation faces, {t:.2f},"
    return (
        text
        + f". Corrected by {by} they are off by {after}."
    )


def reliability(found: pd.DataFrame, name: str) -> str:
    """A title for the figure of a model's probabilities before and after."""
    rows = found[(found["model"] == name) & (found["measure"] == "ECE")].set_index("when")
    if rows.empty:
        return "No model gives probabilities of gender for faces with such a label"
    before, after = (100 * rows.loc[when, "value"] for when in ("before", "after"))
    return f"{capital(name)}: probabilities off by {before:.1f} points, after the temperature by {after:.1f}"


def coverage(found: pd.DataFrame, name: str, kinds: int = 9, promised: float = 0.9) -> str:
    """Whether age intervals hold what they promise, and for whom they do not; `found`: ``doubts.coverages``.

    `kinds`: how many kinds of interval to speak of at most, in their order.
    """
    said = []
    for kind, part in list(found[found["model"] == name].groupby("kind", sort=False))[:kinds]:
        every = part[part["band"] == "all"].iloc[0]
        if not every["n"]:
            continue
        e = _estimate(every)
        kept = (
            "as promised" if e.low <= promised <= e.high else
            "fewer than promised" if e.value < promised else "more than promised"
        )  # fmt: skip
        bands = part[(part["band"] != "all") & (part["n"] >= audit.TOO_FEW)]
        short = bands[bands["high"] < promised]
        text = f"With {kind} they hold {e.percent()} of the labels, {kept}"
        text += f", and are {every['width']:.1f} years wide on average" if np.isfinite(every["width"]) else ""
        if len(short):
            least = short.loc[short["value"].idxmin()]
            where = f", least at {least['band']}" if len(short) > 1 else ""
            text += (
                f"; fewer than promised at {listing(short['band'])} years{where} "
                f"({_estimate(least).percent()})"
            )
        elif len(bands):
            text += "; in no age band are they shown to hold fewer"
        said.append(text + ".")
    if not said:
        return "No model has ages for faces with such a label: there are no intervals."
    return (
        f"**{capital(name)}**'s age intervals are to hold {percent(promised)} of the labels. "
        f"{' '.join(said)}"
    )


def coverage_title(found: pd.DataFrame, name: str, promised: float = 0.9) -> str:
    """A title: in which bands intervals of the first kind, of one width, hold fewer labels than promised."""
    part = found[(found["model"] == name) & (found["band"] != "all") & (found["n"] >= audit.TOO_FEW)]
    if part.empty:
        return "Too few faces to measure the coverage of age intervals by band"
    part = part[part["kind"] == part["kind"].iloc[0]]
    short = part[part["high"] < promised]["band"]
    where = f"At {listing(short)} years" if len(short) else "In no age band"
    return (
        f"{where} intervals of one width {'hold' if len(short) else 'are shown to hold'} fewer labels "
        f"than promised"
    )


def abstaining(found: pd.DataFrame, name: str, task: str) -> str:
    """What it buys to leave out the answers a model is least sure of; `found`: ``doubts.abstentions``."""
    part = found[(found["task"] == task) & (found["model"] == name)].set_index("measure")
    if part.empty:
        return f"{capital(name)} gives no doubts of its own about {task}."
    every, surest, gain, declined = (
        part.loc[k] for k in ("error, all answered", "error, surest answered", "gain", "share declined")
    )
    if not surest["n"]:
        return f"{capital(name)} has no test face that it is sure enough of to answer."
    right = 1 - 2 * (task == "gender")
    scale, unit, close = (
        (100, "points", " % of genders right") if task == "gender" else (1, "years", " years off in age")
    )
    values = [f"{scale * ((1 - row['value']) if right < 0 else row['value']):.1f}" for row in (surest, every)]
    text = (
        f"**{capital(name)}**, without the {percent(declined['value'])} of faces it is least sure of: "
        f"{values[0]}{close} instead of {values[1]}"
    )
    if not np.isfinite(gain["low"]):
        return text + ", from too few faces for an interval."
    gained = f"{scale * gain['value']:.1f} {unit} [{scale * gain['low']:.1f}, {scale * gain['high']:.1f}]"
    if gain["low"] > 0:
        return text + f", a gain of {gained}."
    if gain["high"] < 0:
        return text + f", a loss ({gained})."
    return text + f"; it is not shown to gain anything ({gained})."


def risk(found: pd.DataFrame, task: str) -> str:
    """A title of the curves: what the models gain by leaving out their least sure answers."""
    part = found[(found["task"] == task) & (found["measure"] == "gain")]
    if part.empty:
        return f"No model gives doubts of its own about {task}"
    gains = int((part["low"] > 0).sum())
    if gains == len(part):
        who = f"all {gains} models tell" if gains > 1 else f"{part['model'].iloc[0]} tells"
    else:
        who = (
            f"{gains} of {len(part)} models {'tells' if gains == 1 else 'tell'}"
            if gains
            else "no model is shown to tell"
        )
    return f"Without the answers of most doubt, {who} {task} better"


# Labels that may be wrong


def _many(count: int, n: int) -> str:
    return f"Of {count:,} of {n:,} test faces ({percent(count / n)})" if count else f"Of none of {n:,} test faces"


def doubtful(genders: pd.DataFrame, ages: pd.DataFrame, limit: float, models: tuple[int, int], n: int) -> str:
    """How many test faces all models contradict; from ``audit.doubtful_genders`` and ``doubtful_ages``.

    `models`: how many tell gender, and how many age; `n` test faces.
    """
    said = []
    for count, task in zip(models, ("gender", "age")):
        if count == 1:
            said.append(
                f"One model alone tells {task}, so that its own errors and those of the labels cannot be "
                f"parted."
            )
    if models[0]:
        said.append(
            f"{_many(len(genders), n)} every model that tells gender gives {percent(audit.SURE)} or more to the "
            "other one than labelled."
        )
    if models[1] and np.isnan(limit):
        said.append(
            f"With fewer than {1 / audit.RARE:.0f} validation faces no limit can be set for doubtful ages."
        )
    elif models[1]:
        said.append(
            f"{_many(len(ages), n)} every model that tells age is off the same way by {limit:.1f} years or more, "
            f"as of {percent(audit.RARE)} of the validation faces."
        )
    return " ".join(said) or "No model has answers that could contradict a label."


def planted(truth: pd.DataFrame, genders: pd.DataFrame, ages: pd.DataFrame, limit: float) -> str:
    """How many of the doubtful labels were drawn wrong, where the truth is known: a check of the method."""
    if truth.empty:
        return (
            "The truth behind these labels is not known: a doubtful label is one to look at, not one "
            "to change."
        )
    said = []
    for name, found, wrong in (
        ("gender", genders, truth["gender"].astype(bool)),
        ("age", ages, truth["years"].notna()),
    ):
        files = set(truth.loc[wrong, "file"])
        hits = sum(file in files for file in found["file"])
        total = len(files)
        text = f"No label of {name} is doubtful; {total} were drawn wrong on purpose among the test faces"
        if len(found):
            text = (
                f"Of {len(found)} doubtful labels of {name} {hits} {'was' if hits == 1 else 'were'} drawn "
                f"wrong on purpose, of {total} among the test faces"
            )
        if name == "age" and np.isfinite(limit) and total:
            far = int((truth["years"] >= limit).sum())
            text += f" ({far} of them by {limit:.1f} years or more)"
        said.append(text + ".")
    return "These faces are drawn, so the truth is known. " + " ".join(said)


def extremes(table: pd.DataFrame, files: Sequence[str], name: str) -> str:
    """A title for the faces whose age is told worst and best; `files` as from ``audit.worst_and_best``."""
    rows = table.set_index("file").loc[list(files)]
    if not len(rows):
        return "No test face has a label and an answer of age"
    error = (rows["age_pred"] - rows["age"]).abs()
    return (
        f"Of each age band the worst and the best told face by {name}: off by up to {error.max():.0f} years"
    )


def surest(table: pd.DataFrame, files: Sequence[str], name: str) -> str:
    """A title for the faces whose gender is told wrong with the most certainty."""
    p = table.set_index("file").loc[list(files), "p_female"]
    if not len(p):
        return f"No test face's gender is told wrong by {name}, or none has a label and an answer"
    sure = np.maximum(p, 1 - p)
    return f"Told wrong by {name}, and sure of it: {_percents(sure.min(), sure.max())} for the other gender"


def _percents(low: float, high: float) -> str:
    low, high = f"{100 * low:.1f}", f"{100 * high:.1f}"
    return f"{low} %" if low == high else f"{low} to {high} %"


def listed(found: pd.DataFrame, names: Sequence[str], total: int) -> str:
    """What the table of doubtful labels shows, of `total` of them."""
    if not len(found):
        return "There is nothing to list."
    which = (
        "All are listed"
        if len(found) == total
        else f"{len(found)} of {total:,} are listed, the most contradicted"
    )
    return f"{which}. Answers are those of {'; '.join(names)}, in this order."


def doubtful_title(found: pd.DataFrame, name: str) -> str:
    """A title for the faces with doubtful labels."""
    if not len(found):
        return "No label is contradicted by all models"
    kinds = found["doubtful"].value_counts()
    said = listing(f"{n} for {kind}" for kind, n in kinds.items())
    return f"Faces whose labels all models contradict, {said}; what {name} says of them"


def found_out(
    splits: pd.DataFrame, calibrations: pd.DataFrame, coverages: pd.DataFrame, leaders: Mapping[str, str]
) -> list[str]:
    """The closing sentences on minors and adults, calibration and coverage, as far as there are answers."""
    said = [minors_of(splits, leaders)]
    if gender := leaders.get("gender accuracy"):
        said.append(calibration(calibrations, gender))
    if age := leaders.get("age MAE"):
        said.append(coverage(coverages, age, kinds=2))
    return said
