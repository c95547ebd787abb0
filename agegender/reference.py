"""The stored runs on UTKFace (``book/reference``): what the book says of them, computed from their predictions.

Figures of others are typed here, with where they were measured; ours are never typed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from agegender import cards, comparison, metrics, profiles, provenance
from agegender.places import home

FOLDER = Path("book/reference")
STUDY = "06_preprocessing_study"
MARK = re.compile(r"<!-- results: (\w+) -->")
PICTURE = "results.png"
KEPT = ("predictions.parquet", "history.parquet", "outcomes.parquet", provenance.FILE)


@dataclass(frozen=True)
class Claim:
    """What somebody reports: `age` MAE in years, `gender` and `group` accuracy in %, as reported; "" where not."""

    who: str
    what: str
    on: str
    age: str = ""
    gender: str = ""
    group: str = ""
    run: str = ""  # the stored run of the same model, by the same recipe


# Sources: the READMEs and logs of the projects; public notebooks on the same 5,000 faces.
CLAIMS = (
    Claim("S0", "branched, five age groups", "1,000 test faces, other data", "", "92.55", "86.98", "05_branched_s0"),
    Claim("S1", "own network (model A)", "its validation faces", "6-6.5", "86-87", "", "03_model_a"),
    Claim("S1", "MobileNetV2 (model B)", "its validation faces", "8-8.5", "82-83", "", "04_model_b"),
    Claim("S2", "branched", "its validation faces", "6.75", "85.2", "", "05_branched"),
    Claim("S2", "ResNet-50", "its validation faces", "5.82", "88.75", "", "04_resnet50"),
    Claim("S3", "ResNet-18", "a random test part that chose the model; all of UTKFace", "5.37", "", "", "04_resnet18"),
    Claim("S4", "EfficientNetV2-S, six age groups", "its validation faces; all of UTKFace", "", "", "70.5", "04_efficientnet"),
    Claim("public", "best own network on the same 5,000 faces", "validation faces", "5.71", "90.7"),
    Claim("public", "pre-trained network best in age on the same 5,000 faces", "validation faces", "5.54", "85.4"),
    Claim("public", "pre-trained network best in gender on the same 5,000 faces", "validation faces", "5.87", "91.1"),
)  # fmt: skip


def names() -> list[str]:
    """The stored runs with predictions, by their folders' names."""
    return sorted(path.parent.name for path in (home() / FOLDER).glob("*/predictions.parquet"))


def opened() -> dict[str, comparison.Finished]:
    """The stored runs by their models' names; read once."""
    return _opened(home(), tuple(names()))


@cache
def _opened(top: Path, folders: tuple[str, ...]) -> dict[str, comparison.Finished]:
    return comparison.open_runs([(FOLDER / name).as_posix() for name in folders])


def runs() -> dict[str, comparison.Finished]:
    """The stored runs by their folders' names."""
    return {run.folder.name: run for run in opened().values()}


def measured(name: str, fold: str) -> dict[str, metrics.Estimate]:
    """Age MAE, gender accuracy and the accuracy of the age groups it was asked for, of a stored run on one fold."""
    return _measured(home(), name, fold)


@cache
def _measured(top: Path, name: str, fold: str) -> dict[str, metrics.Estimate]:
    run = opened()[name]
    asked = dict(metrics.MEASURES)
    if run.own:
        asked["age group accuracy"] = metrics.age_group_accuracy(run.own, run.own)
    return metrics.estimates(run.fold(fold), asked)


def _cells(found: Mapping[str, metrics.Estimate]) -> tuple[str, str, str]:
    def said(name: str, form: str) -> str:
        estimate = found.get(name, metrics.NOTHING)
        return getattr(estimate, form)() if estimate.n else ""

    return said("age MAE", "years"), said("gender accuracy", "percent"), said("age group accuracy", "percent")


def headline() -> str:
    """A table: guessing, the source projects, the best public figures, and the stored runs on their test faces."""
    if not names():
        return "No run on UTKFace is stored in this copy of the report."
    first = next(iter(runs().values()))
    guess = metrics.naive(first.predictions)
    rows = [("always the median age, always the commoner gender", f"{_count(first)} test faces",
             f"{guess['age MAE']:.1f} years", f"{guess['gender accuracy']:.1%}".replace("%", " %"))]  # fmt: skip
    rows += [
        (f"{claim.who}: {claim.what}", claim.on, f"{claim.age} years" if claim.age else "", f"{claim.gender} %" if claim.gender else "")
        for claim in CLAIMS
        if claim.age or claim.gender
    ]
    for name, run in by_age().items():
        age, gender, _ = _cells(measured(name, "test"))
        how = f"{run.record['parameters']['size']} px, {run.facts['epochs']} epochs, one seed"
        rows.append((f"here: {name} ({how})", f"{_count(run)} test faces", age, gender))
    return cards.table(("model", "measured on", "age MAE", "gender"), rows)


def by_age() -> dict[str, comparison.Finished]:
    """The stored runs by their models' names, the closest in age first, those without ages last."""
    found = opened()
    order = sorted(found, key=lambda name: np.nan_to_num(measured(name, "test")["age MAE"].value, nan=np.inf))
    return {name: found[name] for name in order}


def _count(run: comparison.Finished) -> str:
    return f"{len(run.fold('test')):,}"


def finding() -> str:
    """The stored runs in a paragraph: the best in age, and what the tests set it apart from."""
    if not names():
        return ""
    return _finding(home())


@cache
def _finding(top: Path) -> str:
    from agegender import words

    models = opened()
    summary, differences = comparison.figures_by(models), comparison.differences(models)
    return " ".join(words.ranking(summary, differences, measure) for measure in ("age MAE", "gender accuracy"))


def protocol() -> str:
    """Which faces the stored runs learned from, chose by and were tested on."""
    from agegender import words

    return words.data(next(iter(runs().values())).facts) if names() else ""


def scale() -> str:
    """A table: how each stored run came about, and what it cost."""
    if not names():
        return ""
    rows = []
    for name, run in runs().items():
        how, facts = run.record["parameters"], run.facts
        rows.append((
            name, facts["weights"], f"{how['size']} px, {facts['epochs']} epochs",
            f"{facts['training_seconds'] / 60:.0f} min on {', '.join(run.record['devices'])} ({run.record['platform']})",
            str(how["seed"]),
            (run.record["code"]["commit"] or "unknown")[:12] + (", changed" if run.record["code"]["changed"] else ""),
        ))  # fmt: skip
    return cards.table(("run", "started from", "scale", "training", "seed", "commit"), rows)


WHY = {
    "S0": "S0 tested on other faces, each person on one side only; its figures rose with a split, augmentation and "
    "balancing that were changed at once. [The study](../notebooks/06_preprocessing_study.ipynb) takes them apart.",
    "S1": "S1's figures are of the validation faces that chose the epoch, without intervals, and copies of a photograph lay "
    "on both sides. Its pre-trained network does no better than a linear model on frozen features of the same network does "
    "elsewhere; batch norm with a momentum of 0.999, which does not follow the weights in so few steps, is a likely reason "
    "([model B's page](../notebooks/04_model_b.ipynb)).",
    "S2": "S2's README gives one figure for both of its models; the ones here are from its logs. Its generator showed half "
    "of the faces in each epoch, and its text claims augmentation that its code does not do.",
    "S3": "S3's test part chose the model, and its gender \"MAE\" is the mean distance of a probability from the label, not a "
    "share of errors.",
    "S4": "S4's figure is of the validation part whose best epoch was kept; its pictures had 48 grey pixels a side.",
}


def project(who: str) -> str:
    """A source project: claimed, the same on our validation faces, the test faces, and why they differ."""
    rows = []
    for claim in (claim for claim in CLAIMS if claim.who == who):
        claimed = (f"{claim.age} years" if claim.age else "", f"{claim.gender} % gender" if claim.gender else "",
                   f"{claim.group} % groups" if claim.group else "")  # fmt: skip
        model = next((name for name, run in opened().items() if run.folder.name == claim.run), "") if names() else ""
        if not model:
            rows.append((claim.what, "; ".join(filter(None, claimed)), "not run", "not run"))
            continue
        same, right = ("; ".join(filter(None, _cells(measured(model, fold)))) for fold in ("val", "test"))
        rows.append((claim.what, "; ".join(filter(None, claimed)), same, right))
    table = cards.table(("model", "claimed", "here, on validation faces", "here, on test faces"), rows)
    return f"{table}\n\n{WHY[who]}"


def study_found() -> str:
    """What the stored outcomes of the pre-processing study say, and at which scale."""
    from agegender import study, words_study

    place = home() / FOLDER / STUDY
    if not (place / "outcomes.parquet").is_file():
        return "The study of pre-processing is not stored here."
    outcomes, record = pd.read_parquet(place / "outcomes.parquet"), provenance.read(place)
    how = record["parameters"]
    judged = study.judged(outcomes, how["networks"])
    said = [words_study.effects(what, study.effects(outcomes, *which)) for what, which in judged.items()]
    said += [words_study.copies(what, study.worth_of_copies(outcomes, *which)) for what, which in judged.items()]
    train = record["facts"]["different_faces"]
    said.append(words_study.scale(how["size"], how["width"], how["epochs"], how["seeds"], train))
    return "\n\n".join(said)


def filled(text: str, folder: Path) -> str:
    """A page's `text` with the places marked ``<!-- results: NAME -->`` filled; its picture goes into `folder`."""
    parts = {
        "finding": finding, "headline": headline, "protocol": protocol, "scale": scale, "study": study_found,
    }  # fmt: skip

    def part(mark: re.Match[str]) -> str:
        name = mark[1]
        if name in WHY:
            return project(name)
        if name == "figure":
            alt = figure(folder / PICTURE)
            return f"![{cards.plain(alt)}]({PICTURE})" if alt else ""
        if name not in parts:
            raise ValueError(f"results: {name!r} is no part; {', '.join([*parts, 'figure', *WHY])} are")
        return parts[name]()

    return MARK.sub(part, text)


# Of claims on other faces or groups only there is nothing to draw.
MARKED = {"S0": "^", "S1": "s", "S2": "D", "S3": "v", "public": "P"}


def figure(path: Path) -> str:
    """Draw `headline` into the PNG at `path`, and return its alt text; "" where nothing is stored."""
    import matplotlib.pyplot as plt

    from agegender.figures import COLOURS, DPI, WIDTH

    if not names():
        return ""
    drawn, axis = plt.subplots(figsize=(WIDTH, 4.2))
    told = []
    for i, name in enumerate(by_age()):
        found = measured(name, "test")
        age, gender = found["age MAE"], found["gender accuracy"]
        if not (age.n and gender.n):
            continue
        axis.errorbar(
            age.value, 100 * gender.value, xerr=[[age.value - age.low], [age.high - age.value]],
            yerr=[[100 * (gender.value - gender.low)], [100 * (gender.high - gender.value)]],
            fmt="o", ms=5, capsize=2, color=COLOURS[i % len(COLOURS)], label=f"here: {name}",
        )  # fmt: skip
        told.append(f"{name} {age.years()} and {gender.percent()}")
    for claim in CLAIMS:
        if claim.age and claim.gender:
            ends = [sorted(map(float, (text.split("-") * 2)[:2])) for text in (claim.age, claim.gender)]
            (age, gender), (x, y) = ([sum(pair) / 2 for pair in ends], [(b - a) / 2 for a, b in ends])
            axis.errorbar(age, gender, xerr=x, yerr=y, ms=6, fmt=MARKED[claim.who], mfc="none", color="0.35", lw=1.2)
            axis.annotate(f"{claim.who}: {claim.what}", (age, gender), (6, 3), textcoords="offset points", fontsize=7)
            told.append(f"{claim.who}, {claim.what}, claims {claim.age} years and {claim.gender} %")
    axis.set(xlabel="age MAE (years)", ylabel="gender told right (%)")
    axis.invert_xaxis()
    axis.legend(fontsize=8, loc="lower right", title="filled: test faces, 95 %; open: as claimed, bars: its range", title_fontsize=8)
    drawn.savefig(path, dpi=DPI, bbox_inches="tight")
    plt.close(drawn)
    return f"Age error against gender accuracy, better to the upper right: {'; '.join(told)}."


def store(profile: str = "reference") -> tuple[list[str], list[str]]:
    """Copy what the book keeps of the finished runs of `profile` to ``book/reference``: no weights, no pictures.

    Returns the names of the runs that were stored, and of those that are not finished.
    """
    done, missing = [], []
    for run in profiles.read(profile).runs.values():
        folder, target = home() / run.folder, home() / FOLDER / run.name
        if not (folder / provenance.FILE).is_file():
            missing.append(run.name)
            continue
        target.mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, target / name)
        done.append(run.name)
    return done, missing
