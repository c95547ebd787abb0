"""The measures of this report in words, for the book's glossary: what each is, and where it misleads."""

from __future__ import annotations

from typing import NamedTuple

from agegender import calibration, metrics
from agegender.faces import AGE_BANDS
from agegender.metrics import Measure

MEASURES: dict[str, Measure] = {
    **metrics.MEASURES,
    **metrics.MORE,
    "Brier score": calibration.BRIER,
    "log loss": calibration.LOG_LOSS,
    **calibration.INTERVALS,
}


class Entry(NamedTuple):
    """`good`: the unit, and which direction is good; `misleads`: where the figure does so; `meaning`: in words,
    where no Measure says it."""

    good: str
    misleads: str
    meaning: str = ""


GROUPS = (
    "Groups are of unequal width and size: who always names the largest is often right. Two sets of groups "
    "can't be compared."
)
ONE_OFF = "With few groups almost everything is within one of them."

ENTRIES: dict[str, Entry] = {
    "age MAE": Entry(
        "In years; lower is better.",
        "A mean over mostly young adults hides children and older people: look at it by age band. It depends "
        "on the ages in "
        "the collection, so figures from two collections can't be compared.",
    ),
    "age bias": Entry(
        "In years; 0 is best.",
        "Over all faces, too old and too young cancel out: 0 can stand for two large errors. Look at it by "
        "age band.",
    ),
    "gender accuracy": Entry(
        "A share; higher is better.",
        "Easy adults outnumber hard children. Where one gender is rarer, it can be told badly and the figure "
        "still be high.",
    ),
    "median age error": Entry(
        "In years; lower is better.", "It says nothing of how far off the other half is."
    ),
    f"accuracy within {metrics.YEARS} years": Entry(
        "A share; higher is better.",
        "Five years are much for a child and little for somebody of 70. A face 6 years off counts like one "
        "40 years off.",
    ),
    "balanced gender accuracy": Entry(
        "A share; higher is better, and one half is guessing.",
        "Women and men count alike, ages still do not.",
    ),
    "age group accuracy (5 groups)": Entry("A share; higher is better.", GROUPS),
    "age group accuracy (6 groups)": Entry("A share; higher is better.", GROUPS),
    "one-off age group accuracy (5 groups)": Entry("A share; higher is better.", ONE_OFF),
    "one-off age group accuracy (6 groups)": Entry("A share; higher is better.", ONE_OFF),
    "Brier score": Entry(
        "From 0 to 1; lower is better, and always saying one half gives 0.25.",
        "It mixes two things, being right and knowing when: a model may be better in one and worse in the "
        "other.",
    ),
    "log loss": Entry(
        "In nats; lower is better, and always saying one half gives 0.69.",
        "A few faces told wrong with great certainty can make up most of it.",
    ),
    "coverage": Entry(
        "A share; as promised (90 % where an interval of 90 % is given) is best.",
        "It is promised over all faces together, not for any group: small children or older people may be "
        "covered less.",
    ),
    "interval width": Entry(
        "In years; lower is better at the same coverage.",
        "Narrow intervals that do not cover are worth nothing.",
    ),
    "without limit": Entry(
        "A share; lower is better.",
        "It grows where few validation faces were alike, which is no fault of the model.",
    ),
    "ECE": Entry(
        "From 0 to 1; lower is better.",
        "Chance alone lifts it above 0, the more so with few faces: hold it against the ECE by chance. A "
        "model that gives every "
        "face the same probability can have an ECE of 0.",
        "expected calibration error: mean gap between the probability of female and the share of women, in "
        "bins of equally many "
        "faces",
    ),
    "ECE by chance": Entry(
        "From 0 to 1; neither direction is good.",
        "It says what the ECE would be of a model whose probabilities are true, for so many faces.",
        "the ECE that remains if labels are drawn from the model's own probabilities",
    ),
    "area under the risk-coverage curve": Entry(
        "In the unit of the error; lower is better.",
        "It rewards a small error as well as knowing one's doubts: hold it against the error over all faces.",
        "mean error while answering the surest faces first, from none to all",
    ),
}


WORDS = {
    "fold": (
        "A part of the faces: *training* faces teach a model, *validation* faces choose between settings and "
        "epochs, *test* faces judge. They choose nothing."
    ),
    "group of copies": (
        "Pictures that show one photograph, and pictures of one person where the data name persons. Unless a "
        "run asks for another split, a group stays in one fold. The bootstrap draws whole groups."
    ),
    "95 % interval": (
        "Made such that, over many sets of test faces, 95 of 100 such intervals hold the true figure. It "
        "contains the chance of which faces were tested, not that of another seed, other training faces or "
        "another collection."
    ),
    "told apart": (
        "Two models are told apart where the test's p value, corrected for all pairs looked at, is below "
        f"{metrics.LEVEL:g}. Not told apart does not mean equal: the interval of the difference says how far "
        "apart they may still be."
    ),
    "guesser": (
        "Somebody who never looks at a face, and always says the validation faces' median age, or their "
        "commoner gender. A model that is no better has learned nothing of use."
    ),
    "age band": (
        f"One of the {len(AGE_BANDS)} ranges of labelled age by which errors are shown, from "
        f"{AGE_BANDS[0][0]}-{AGE_BANDS[0][1]} to {AGE_BANDS[-1][0]}+ years. Age *groups* are what a model is "
        "asked for; bands are not."
    ),
    "calibrated": (
        "A model is calibrated if, of the faces to which it gives a probability of 0.8, 80 % are indeed so "
        "labelled."
    ),
}


def measures() -> str:
    """All measures as MyST's glossary. KeyError for a measure that has no entry."""
    said = {}
    for name in [*MEASURES, *(name for name in ENTRIES if name not in MEASURES)]:
        entry = ENTRIES[name]
        meaning = MEASURES[name].meaning if name in MEASURES else entry.meaning
        said[name] = f"{meaning[:1].upper()}{meaning[1:]}. {entry.good} *Misleads:* {entry.misleads}"
    return _glossary(said)


def words() -> str:
    """The other words as MyST's glossary."""
    return _glossary(WORDS)


def _glossary(said: dict[str, str]) -> str:
    return "```{glossary}\n" + "\n\n".join(f"{term}\n  {text}" for term, text in said.items()) + "\n```"
