"""Sentences that follow from the numbers: with other data they change, and stay true."""

from __future__ import annotations

from typing import Sequence

import numpy as np
import pandas as pd

from agegender import metrics
from agegender.labels import percent


def data(facts: dict) -> str:
    """What was read, from the facts of a ``Dataset``: counts, folds, digests, and whether the faces are drawn."""
    d, s = facts["data"], facts["split"]
    chosen = f" (chosen from {d['limited_from']:,})" if d["limited_from"] else ""
    text = (
        f"**{d['title']}**: {d['found']:,} faces found{chosen}, {d['read']:,} read, {d['set_aside']:,} set aside; "
        f"{s['train']:,} to train on, {s['val']:,} to validate, {s['test']:,} to test"
        f"{', ' + format(s['unused'], ',') + ' in none of the lists' if s.get('unused') else ''}. "
        f"Digest of the data `{d['digest']}`, of the split `{s['digest']}`."
    )
    return text + (
        " These faces are drawn; the numbers on this page describe no people." if d["drawn"] else ""
    )


def against(value: metrics.Estimate, guess: float, lower_is_better: bool) -> str:
    """ "better than", "worse than" or "not to be told from", by whether the interval leaves `guess` out."""
    if not (guess < value.low or guess > value.high):
        return "not to be told from"
    return "better than" if (value.value < guess) == lower_is_better else "worse than"


def headline(table: pd.DataFrame, what: str, groups: Sequence[int] = ()) -> str:
    """A title: how far off, and how often right, on the faces of `table`, called `what`.

    `groups`: lower edges of the age groups that the model was asked for.
    """
    age, gender = metrics.age_mae(table), metrics.gender_accuracy(table)
    group = metrics.age_group_accuracy(groups, groups)(table) if groups else metrics.NOTHING
    parts = [f"off by {age.value:.1f} years"] if age.n else []
    parts += [f"{percent(gender.value)} of genders right"] if gender.n else []
    parts += [f"{percent(group.value)} in the right one of {len(groups)} age groups"] if group.n else []
    return capital(f"{', '.join(parts) or 'no label to judge by'} on {len(table):,} {what}")


def model(name: str, table: pd.DataFrame, history: pd.DataFrame, groups: Sequence[int] = ()) -> str:
    """What a model's page found: its validation figures, beside a guesser's, and whether it overfits.

    `groups`: lower edges of the age groups that the model was asked for.
    """
    val = table[table["fold"] == "val"]
    age, gender = metrics.age_mae(val), metrics.gender_accuracy(val)
    group = metrics.age_group_accuracy(groups, groups)(val) if groups else metrics.NOTHING
    best, last = history[history["kept"]].iloc[0], history["epoch"].iloc[-1]
    said = []
    if age.n:
        median = val["age"].median()
        guess = (val["age"] - median).abs().mean()
        said.append(
            f"On {age.n:,} validation faces **{name} is off, on average, by {age.years()}**, "
            f"{against(age, guess, True)} always saying {median:g} ({guess:.1f} years)."
        )
    if gender.n:
        mode = val["gender"].mode()[0]
        guess = (val["gender"].dropna() == mode).mean()
        said.append(
            f"**{capital(name)} tells gender right in {gender.percent()}** of {gender.n:,}, "
            f"{against(gender, guess, False)} always saying {'female' if mode else 'male'} ({percent(guess)})."
        )
    if group.n:
        largest = pd.Series(metrics.age_group(val["age"], groups)).value_counts(normalize=True)
        said.append(
            f"**{capital(name)} puts {group.percent()} of {group.n:,} into the right one of {len(groups)} age "
            f"groups**, {against(group, largest.iloc[0], False)} always saying {largest.index[0]} years "
            f"({percent(largest.iloc[0])})."
        )
    said.append("In brackets: 95 % intervals." if said else "No validation face has a label to judge by.")
    if age.n:
        gap = best["val_age_mae"] - best["age_mae"]
        said.append(
            f"On the faces it trained on it was off by {best['age_mae']:.1f} years in the kept epoch, with "
            f"dropout, and augmentation where it is on, at work: {abs(gap):.1f} years {'less' if gap > 0 else 'more'} than on "
            "validation faces."
        )
    if best["averaged"]:
        said.append("Kept was the average of the last epochs' weights, which did best on validation faces.")
    else:
        said.append(
            f"The best epoch on validation faces was {best['epoch']:.0f} of {last}, whose weights were kept"
            + ("; as it was the last, more epochs might do better still." if best["epoch"] == last else ".")
        )
    return " ".join(said)


def named(model: str, recipe: str, own: str) -> str:
    """What a run's model is called: with its `recipe`, unless that is the source project's `own`."""
    return model if recipe == own else f"{model}, {recipe.rstrip('/').rpartition('/')[2]}"


def best_epoch(history: pd.DataFrame, monitor: str) -> str:
    """When what chose the epoch was best, e.g. "validation loss was best in epoch 7 of 10"; averaged weights are no epoch."""
    kept, epochs = history[history["kept"]].iloc[0], int((~history["averaged"]).sum())
    when = f"of the average of weights, after epoch {epochs}" if kept["averaged"] else f"in epoch {kept['epoch']:.0f} of {epochs}"
    what = monitor.replace("val_", "validation ").replace("_", " ").replace("mae", "MAE")
    return f"{what} was best {when}"


def momentum(trials: dict[str, pd.DataFrame]) -> str:
    """A title: how far the validation faces of an experiment's trainings are apart after their last epoch."""
    ends = {name: history.iloc[-1] for name, history in trials.items()}
    known = [("val_age_mae", "off by {:.1f} years", 1), ("val_gender_accuracy", "{:.0f} % of genders right", 100)]
    known = [figure for figure in known if all(figure[0] in end for end in ends.values())]
    said = [
        f"with {name}: " + ", ".join(text.format(end[column] * scale) for column, text, scale in known)
        for name, end in ends.items()
    ]
    first = next(iter(ends.values()))
    return f"After {first['epoch']:.0f} epochs, on validation faces, {'; '.join(said)}"


def extreme_band(summary: pd.DataFrame, measure: str, highest: bool) -> str | None:
    """The band whose value of `measure` is highest (or lowest), in words, from ``metrics.summary(by="band")``.

    Only bands with at least FEW faces and an interval are ranked; None if there are not two of them.
    """
    part = summary[(summary["measure"] == measure) & (summary["n"] >= metrics.FEW) & summary["low"].notna()]
    if len(part) < 2:
        return None
    row = part.loc[part["value"].idxmax() if highest else part["value"].idxmin()]
    estimate = metrics.Estimate(row["value"], row["low"], row["high"], int(row["n"]))
    said = estimate.percent() if "accuracy" in measure else estimate.years()
    return f"{row['band']} years ({said}, {estimate.n} faces)"


def band_title(name: str, summary: pd.DataFrame) -> str:
    """A title: in which age band a model errs most, if there are bands enough to say so."""
    if band := extreme_band(summary, "age MAE", highest=True):
        return f"{capital(name)} is off by the most at {band}"
    if band := extreme_band(summary, "gender accuracy", highest=False):
        return f"{capital(name)} tells gender right least often at {band}"
    if not summary["value"].notna().any():
        return f"{capital(name)} tells neither age nor gender of faces in age bands"
    return f"Too few faces to rank age bands: fewer than {metrics.FEW} with labels in all but one"


def bands(name: str, summary: pd.DataFrame) -> str:
    """Where a model errs most and least in age, and where it takes genders wrong most often."""
    worst, least = (extreme_band(summary, "age MAE", highest) for highest in (True, False))
    rarest = extreme_band(summary, "gender accuracy", highest=False)
    said = [f"{capital(name)} is off by the most at {worst} and by the least at {least}."] if worst else []
    said += [f"It tells gender right least often at {rarest}."] if rarest else []
    return " ".join(
        [*said, f"Bands with fewer than {metrics.FEW} labelled faces, or groups of them, are not ranked."]
    )


def ranking(summary: pd.DataFrame, differences: pd.DataFrame, measure: str) -> str:
    """Who does best by `measure` on the test faces, and which of the others the tests set it apart from."""
    part = summary[summary["measure"] == measure].dropna(subset=["value"])
    lower = measure == "age MAE"
    if part.empty:
        return f"No test face has a label of {measure.split()[0]} and an answer: nothing can be said of it."
    part = part.sort_values("value", ascending=lower)

    def said(row) -> str:
        estimate = metrics.Estimate(row["value"], row["low"], row["high"], int(row["n"]))
        return estimate.years() if lower else estimate.percent()

    best, alone = part.iloc[0], len(part) == 1
    what = {
        "age MAE": f"is {'' if alone else 'closest in age, '}off by {{}} on {{}} test faces",
        "gender accuracy": f"tells gender right{'' if alone else ' most often,'} in {{}} of {{}} test faces",
    }.get(measure)
    if what is None:
        into = f"into the right age group {measure[measure.find('(') :]}"
        what = f"puts {{}} of {{}} test faces {into}" if alone else f"puts most faces {into}, {{}} of {{}} test faces"
    start = f"**{capital(best['model'])}** {what.format(said(best), format(best['n'], ','))}"
    rest = []
    for _, row in part.iloc[1:].iterrows():
        pair = differences[
            (differences["measure"] == measure)
            & (differences[["a", "b"]].isin([best["model"], row["model"]]).all(axis=1))
        ]
        rest.append(f"{row['model']} ({said(row)}) {_behind(pair, best['model'], lower)}")
    return start + ("; " + "; ".join(rest) if rest else "") + ". Intervals are at 95 %, tests at 5 % over all pairs."


def _behind(pair: pd.DataFrame, best: str, lower: bool) -> str:
    """How far a model is behind the `best`, from the row of ``metrics.paired`` on the two, if there is one."""
    if pair.empty:
        return "has no answers to the same faces to be compared by"
    pair = pair.iloc[0]
    # how much worse the other is than the best, whichever came first
    sign = (1 if pair["a"] == best else -1) * (1 if lower else -1)
    low, high = sorted(sign * pair[["low", "high"]].to_numpy(float) * (1 if lower else 100))
    unit = "years" if lower else "points"
    if not np.isfinite(low):
        return "has too few faces to be told from it"
    if pair["p_holm"] < metrics.LEVEL:
        return f"is behind it by {f'{low:.1f} to {high:.1f}' if low > 0 else f'up to {high:.1f}'} {unit}"
    most = max(-low, high)
    return f"is not to be told from it: they do not differ by more than {most:.1f} {unit}"


def beyond_guessing(summary: pd.DataFrame, naive: dict[str, float]) -> str:
    """Which models do better than a guesser who never looks, by the intervals."""
    parts = []
    for measure, guess in naive.items():
        part = summary[summary["measure"] == measure].dropna(subset=["value"])
        lower = measure == "age MAE"
        better = part[(part["high"] < guess) if lower else (part["low"] > guess)]["model"].tolist()
        worse = [m for m in part["model"] if m not in better]
        guessed = f"{guess:.1f} years" if lower else percent(guess)
        what = {"age MAE": "the median age", "gender accuracy": "the commoner gender"}.get(
            measure, f"the commonest age group {measure[measure.find('('):]}"
        )
        if part.empty:
            continue
        text = f"Always saying {what} reaches {guessed}; "
        if not worse:
            text += "every model is better" if len(better) > 1 else f"{better[0]} is better"
        elif not better:
            text += "no model is shown to be better"
        else:
            text += f"{listing(better)} {'is' if len(better) == 1 else 'are'} better, {listing(worse)} not shown to be"
        parts.append(text + ".")
    return " ".join(parts)


def listing(names) -> str:
    """a, b and c; "" for nothing."""
    *most, last = list(names) or [""]
    return f"{', '.join(most)} and {last}" if most else last


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def overfitting(histories: dict[str, pd.DataFrame]) -> str:
    """Which model errs most more on validation than on training faces in its last epoch, if any does."""
    gaps = {
        name: h["val_age_mae"].iloc[-1] - h["age_mae"].iloc[-1] for name, h in histories.items() if "age_mae" in h
    }
    if not gaps:
        return "Learning curves"
    widest = max(gaps, key=gaps.get)
    if gaps[widest] <= 0:
        return "In the last epoch no model errs more on validation than on training faces"
    return (
        f"In the last epoch {widest} errs {gaps[widest]:.1f} years more on validation than on training faces"
    )
