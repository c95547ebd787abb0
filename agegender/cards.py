"""The data card and the model card: what the book says of its faces and models, from the runs' own records.

A page marks a place by ``<!-- card: NAME -->``; staging puts there what PARTS[NAME] makes of the edition's
runs. What no run recorded is said to be unknown: a profile may lack any notebook.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agegender import faces, glossary, metrics, predictions
from agegender.faces import ADULT
from agegender.labels import percent
from agegender.metrics import FEW, Estimate, Measure
from agegender.words import listing

MARK = re.compile(r"<!-- card: ([a-z ]+) -->")
UNKNOWN = "unknown"
BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
NO_MODEL = "No run of this edition trained a model."


@dataclass(frozen=True)
class Ran:
    """A finished run: its `folder` and its `record` (see provenance)."""

    folder: Path
    record: dict[str, Any]

    @property
    def facts(self) -> dict[str, Any]:
        return self.record["facts"]


@dataclass(frozen=True)
class Model:
    """A run that trained a model, and its predictions of test faces."""

    run: str
    ran: Ran
    test: pd.DataFrame
    table: pd.DataFrame  # of validation and test faces

    @property
    def groups(self) -> tuple[int, ...]:
        """Lower edges of the age groups that the model tells; empty if it was not asked for any."""
        return tuple(self.ran.facts.get("age_groups") or ())


@dataclass(frozen=True)
class Edition:
    """The runs of a book, by their names."""

    runs: Mapping[str, Ran]

    @cached_property
    def models(self) -> dict[str, Model]:
        """Models by name; two of one name get their run's name as well."""
        found = [
            (name, ran)
            for name, ran in self.runs.items()
            if "model" in ran.facts and "predictions.parquet" in ran.record["files"]
        ]
        names = [ran.facts["model"] for _, ran in found]
        models = {}
        for run, ran in found:
            table, name = predictions.read(ran.folder), ran.facts["model"]
            test = table[table["fold"] == "test"].reset_index(drop=True)
            models[name if names.count(name) == 1 else f"{name} ({run})"] = Model(run, ran, test, table)
        return models

    @cached_property
    def read(self) -> dict[str, Ran]:
        """The runs that read faces themselves."""
        return {name: ran for name, ran in self.runs.items() if ran.facts.get("data", {}).get("title")}

    @cached_property
    def data(self) -> dict[str, Any]:
        """Data of the exploration, or else of the first run that read any; {} if none did."""
        first = [ran for ran in self.read.values() if ran.record.get("notebook") == "01_exploration"]
        chosen = first or list(self.read.values())
        return chosen[0].facts if chosen else {}

    @cached_property
    def explored(self) -> Ran | None:
        """The exploration of just these faces, if it ran and counted them."""
        for ran in self.read.values():
            if ran.facts is self.data and "census.csv" in ran.record["files"]:
                return ran
        return None

    @cached_property
    def census(self) -> pd.DataFrame | None:
        """``labels.census`` of all faces; without an exploration, of a model's validation and test faces."""
        if self.explored:
            return pd.read_csv(self.explored.folder / "census.csv", keep_default_na=False)
        for model in self.models.values():
            if model.ran.facts["data"].get("digest") == self.data["data"].get("digest"):
                from agegender.labels import census

                return census(model.table)
        return None

    @property
    def kind(self) -> Kind:
        data = self.data.get("data", {})
        return KINDS.get(faces.DRAWN if data.get("drawn") else data.get("kind"), OTHER)


def filled(text: str, edition: Edition) -> str:
    """A page's `text` with its marked places filled. ValueError for a mark that is none of PARTS."""

    def part(mark: re.Match[str]) -> str:
        if mark[1] not in PARTS:
            raise ValueError(f"there is no part {mark[1]!r} of a card: one of {', '.join(PARTS)} is right")
        return PARTS[mark[1]](edition)

    return MARK.sub(part, text)


# Markdown


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], numbers: Sequence[int] = ()) -> str:
    """A Markdown table of plain text; the columns at `numbers` are set to the right."""
    lines = [header, ["---:" if i in numbers else "---" for i in range(len(header))], *rows]
    return "\n".join(
        "| " + " | ".join(str(cell) if i == 1 else plain(cell) for cell in line) + " |"
        for i, line in enumerate(lines)
    )


def plain(text: Any) -> str:
    """`text` such that Markdown takes no sign in it for its own; spaces that do not break a line stay."""
    return re.sub(r"([\\`*_\[\]<>|#$~])", r"\\\1", re.sub(r"[ \t\r\n]+", " ", str(text)).strip())


# The data card


@dataclass(frozen=True)
class Kind:
    """What is known of a source of faces beforehand, in Markdown."""

    motive: str
    origin: str
    licence: str
    limits: str


UTKFACE = Kind(
    "UTKFace was gathered for research on how faces change with age {cite:p}`zhang2017age`. Whether this "
    "folder is UTKFace, or "
    "a part of it, only its owner knows: it is named in its manner.",
    "If it is UTKFace: the pictures come from the web and from older collections. Age, gender and race were "
    "estimated by an algorithm "
    "and checked by people. The people in the pictures were not asked, neither for the picture nor for the "
    "labels. A face was "
    "found, cut out and aligned by a program, so faces it did not find are missing.",
    "UTKFace is offered for **non-commercial research** only; the rights to each picture remain with its "
    "owner, and a picture is to be "
    "taken out if its owner asks. This book shows some of them unless it is built without pictures of faces "
    "([run it again](rerun.md) says how).",
    "Pictures found on the web are no sample of any population: actors and public people are common, and so "
    "are young adults. "
    "Labels are others' guesses.",
)
OTHER = Kind(
    "Whoever gathered these faces has to say.",
    "Nothing is recorded of how these faces were gathered, who gave the labels, and whether the people in "
    "them agreed. Whoever gathered them "
    "has to say.",
    "Not known here. Without the consent of the people in the pictures: nobody.",
    "Of a collection of unknown origin nothing can be carried over to other people.",
)
KINDS = {
    faces.UTKFACE: UTKFACE,
    faces.AGE_GENDER_CSV: Kind(
        UTKFACE.motive.split(" Whether")[0]
        + " The file `age_gender.csv` holds its faces as 48x48 grey pixels.",
        UTKFACE.origin,
        UTKFACE.licence,
        UTKFACE.limits + " Of 48x48 grey pixels much of what tells an age is gone.",
    ),
    faces.LABELS_CSV: OTHER,
    faces.DRAWN: Kind(
        "**These faces are drawn by a program and belong to nobody.** They were made so that every step can "
        "be run, and checked "
        "against a known truth, without any photograph.",
        "`agegender/sample.py` draws them from a seed: features grow with age and differ with gender by "
        "rules that are invented. "
        "Copies, contradicting labels and wrong labels are planted. Gender and age are what the program was "
        "told to draw.",
        "Anybody, under the licence of this repository: no person is shown.",
        "**The numbers of this edition describe no people.** They show that the machinery works, and nothing "
        "of how well a model "
        "does on photographs.",
    ),
}


def _data(edition: Edition) -> str:
    if not edition.data:
        return "No run of this edition recorded which faces it read."
    data, split = edition.data["data"], edition.data.get("split", {})
    rows = [
        ("faces", data["title"] + (" (drawn by a program, nobody's faces)" if data.get("drawn") else "")),
        ("source", data.get("kind", "")),
        ("digest of pictures and labels", data.get("digest", "")),
        ("digest of the split", split.get("digest", "")),
    ]
    text = table(("", ""), [row for row in rows if row[1]])
    return "\n\n".join(filter(None, [text, _others(edition)]))


def _others(edition: Edition) -> str:
    """Which runs read other faces than the card tells of, or divided them otherwise."""

    def key(facts: dict[str, Any]) -> tuple:
        return facts["data"]["title"], facts["data"].get("digest"), facts.get("split", {}).get("digest")

    apart: dict[tuple, list[str]] = {}
    for name, ran in edition.read.items():
        if key(ran.facts) != key(edition.data):
            apart.setdefault(key(ran.facts), []).append(name)
    if not apart:
        return ""
    rows = []
    for (title, digest, split), names in apart.items():
        facts = edition.runs[names[0]].facts
        read = facts["data"].get("read")
        rows.append((title, "" if read is None else f"{read:,}", digest or "", split or "", ", ".join(names)))
    return (
        "Some runs read other faces, or divided them in another way; this card does not tell of theirs:\n\n"
        + table(("faces", "read", "digest", "digest of the split", "runs"), rows, numbers=[1])
    )


def _composition(edition: Edition) -> str:
    data = edition.data.get("data", {})
    said = []
    if "found" in data:
        of = f", chosen from {data['limited_from']:,}" if data.get("limited_from") else ""
        aside = data["set_aside"]
        said.append(
            f"{data['found']:,} faces were found{of}; {data['read']:,} could be read, {aside:,} "
            f"{'was' if aside == 1 else 'were'} set aside"
            + (" (the exploration lists them, with the reason)." if aside and edition.explored else ".")
        )
    said.append(
        "One row is one picture of one face, with labels of age in years, gender and, in some collections, "
        "race."
    )
    census = edition.census
    if census is None:
        return " ".join([*said, "Nothing in this edition counted their labels."])
    total = census["faces"].sum()
    if not edition.explored:
        said.append(
            f"No exploration was run: the counts below are of the {total:,} validation and test faces that a "
            "model "
            "answered for, not of the training faces."
        )
    known = {
        label: census.loc[census[label] != UNKNOWN, "faces"].sum() for label in ("band", "gender", "race")
    }
    said.append(
        "Labelled are "
        + listing(
            [
                f"{percent(n / total)} with {name}"
                for n, name in zip(known.values(), ("an age", "a gender", "a race"))
            ]
        )
        + "."
    )
    parts = [" ".join(said)]
    if known["band"] or known["gender"]:
        parts += [f"### Ages and genders\n\n{_counts(census, 'band', 'age')}"]
    if known["race"]:
        parts += [f"### Races, as labelled\n\n{_counts(census, 'race', 'race')}"]
    return "\n\n".join(parts)


def _counts(census: pd.DataFrame, by: str, title: str) -> str:
    """Faces and their genders by a label, as a Markdown table."""
    counts = census.pivot_table(index=by, columns="gender", values="faces", aggfunc="sum", fill_value=0)
    bands = list(faces.age_band([low for low, _ in faces.AGE_BANDS]).categories)
    order = [label for label in [*bands, *faces.RACES, UNKNOWN] if label in counts.index]
    genders = [gender for gender in [*faces.GENDERS, UNKNOWN] if gender in counts]
    total = counts.to_numpy().sum()
    rows = [
        [label, f"{row.sum():,}", percent(row.sum() / total), *(f"{row[gender]:,}" for gender in genders)]
        for label, row in counts.loc[order].iterrows()
    ]
    names = [gender if gender != UNKNOWN else "gender unknown" for gender in genders]
    return table((title, "faces", "share", *names), rows, numbers=range(1, 3 + len(genders)))


def _copies(edition: Edition) -> str:
    facts = edition.explored.facts if edition.explored else {}
    if "twin_groups" not in facts:
        return "How many copies there are, no run of this edition recorded."
    groups, read = facts["twin_groups"], facts["data"]["read"]
    if not groups:
        return f"Among {read:,} pictures no two show the same photograph."
    text = (
        f"Of {read:,} pictures, {facts['twin_faces']:,} ({percent(facts['twin_faces'] / read)}) show what "
        "another one shows, in "
        f"{groups:,} {'group' if groups == 1 else 'groups'}; in {facts['conflicts']:,} of these the labels "
        "contradict one another"
    )
    text += f", in {facts['genders_differ']:,} that of gender." if "genders_differ" in facts else "."
    return f"{text} {facts['label_gap']}." if facts.get("label_gap") else text


def _folds(edition: Edition) -> str:
    split = edition.data.get("split")
    if not split:
        return "How they were divided, no run of this edition recorded."
    named = {
        "train": "to train on",
        "val": "to validate",
        "test": "to test",
        "unused": "in none of the lists",
    }
    sizes = [f"{split[fold]:,} {name}" for fold, name in named.items() if split.get(fold)]
    return f"The faces are divided into {listing(sizes)}; the digest of the split says which are where."


def _data_limits(edition: Edition) -> str:
    census, few = edition.census, ""
    if census is not None:
        bands = census[census["band"] != UNKNOWN].groupby("band")["faces"].sum()
        if len(bands):
            order = [band for band in faces.age_band([low for low, _ in faces.AGE_BANDS]).categories]
            rarest = min(order, key=lambda band: bands.get(band, 0))
            few = (
                f" Fewest are of {rarest} years ({percent(bands.get(rarest, 0) / bands.sum())} of the "
                "labelled ages counted here): "
                "what is said of them is least certain."
            )
    return edition.kind.limits + few


# The model card


def _asked(model: Model) -> str:
    facts = model.ran.facts
    outputs = facts.get("tasks")
    if outputs is None:
        said = [
            name
            for name, column in (("age", "age_pred"), ("gender", "p_female"))
            if model.table[column].notna().any()
        ]
    else:
        said = [name for name in ("age", "gender") if name in outputs]
    if "age_distribution" in (outputs or ()):
        said = ["age as a distribution" if name == "age" else name for name in said] or [
            "age as a distribution"
        ]
    return ", ".join([*said, *([f"{len(model.groups)} age groups"] if model.groups else [])])


def _models(edition: Edition) -> str:
    if not edition.models:
        return NO_MODEL
    operations = any("flops" in model.ran.facts for model in edition.models.values())
    rows = []
    for name, model in edition.models.items():
        facts, size = model.ran.facts, model.ran.record["parameters"].get("size", "")
        cost = [_number(facts["flops"] / 1e6) if "flops" in facts else ""] if operations else []
        rows.append(
            [name, _asked(model), size, _number(facts.get("parameters")), *cost, facts.get("weights", "")]
        )
    cost = ["million operations a face"] if operations else []
    text = table(
        ["model", "tells", "pixels a side", "parameters", *cost, "started from"],
        rows,
        numbers=range(2, 4 + len(cost)),
    )
    return (
        text
        + "\n\nEach run's page shows the network layer by layer; [what was run](status.md) lists all its "
        "parameters."
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _training(edition: Edition) -> str:
    if not edition.models:
        return ""
    rows = []
    for name, model in edition.models.items():
        facts, record = model.ran.facts, model.ran.record
        seconds = facts.get("training_seconds")
        rows.append(
            (name, model.run, facts.get("recipe", ""), _number(facts.get("epochs")),
             "" if seconds is None else f"{seconds / 60:.1f}", ", ".join(record.get("devices", [])),
             record["parameters"].get("seed", ""))
        )  # fmt: skip
    header = ("model", "run", "recipe", "epochs", "training, minutes", "device", "seed")
    return table(header, rows, numbers=[3, 4, 6]) + "\n\n" + _made_with(edition)


def _made_with(edition: Edition) -> str:
    """Versions, platform and commits of the models' runs, in a sentence or two."""
    said = {}
    for name, model in edition.models.items():
        record = model.ran.record
        versions = record.get("versions", {})
        backend = versions.get("backend", "")
        named = {
            "agegender": "agegender",
            "python": "Python",
            "keras": "Keras",
            backend: BACKENDS.get(backend, backend),
        }
        parts = [f"{title} {versions[key]}" for key, title in named.items() if versions.get(key)]
        commit = (record.get("code") or {}).get("commit")
        parts.append(
            f"commit {commit[:12]}{' with changes' if record['code'].get('changed') else ''}"
            if commit
            else "an unknown commit"
        )
        said.setdefault(f"{', '.join(parts)}, on {record.get('platform', 'an unknown platform')}", []).append(
            name
        )
    if len(said) == 1:
        return f"All were made with {plain(next(iter(said)))}."
    return "\n".join(f"- {plain(listing(names))}: {plain(text)}." for text, names in said.items())


def _evaluated(edition: Edition) -> str:
    if not edition.models:
        return NO_MODEL
    rows: dict[tuple, list[str]] = {}
    for name, model in edition.models.items():
        facts, parameters = model.ran.facts, model.ran.record["parameters"]
        split = facts.get("split", {})
        kind = parameters.get("split", "")
        kind = {
            "grouped": "by lot, copies kept together", "random": "by plain lot, copies on both sides",
            "published": f"as listed in {parameters.get('split_list')}",
        }.get(kind, kind)  # fmt: skip
        key = (facts["data"]["title"], kind, split.get("train"), split.get("val"), len(model.test))
        rows.setdefault(key, []).append(name)
    body = [
        (title, kind, *(_number(n) for n in sizes), "all" if len(rows) == 1 else ", ".join(names))
        for (title, kind, *sizes), names in rows.items()
    ]
    header = ("faces", "divided", "to learn from", "to choose by", "to judge by", "models")
    text = table(header, body, numbers=[2, 3, 4])
    return (
        f"{text}\n\nTest faces chose nothing, neither epochs nor settings: they are for "
        "[the comparison](../notebooks/08_comparison.ipynb) and this card alone. More of them stands in [the "
        "data card](data_card.md)."
    )


def _measures(model: Model) -> dict[str, Measure]:
    found = dict(metrics.MEASURES)
    if model.groups:
        found["age groups"] = metrics.age_group_accuracy(model.groups, model.groups)
    return found


HEADERS = {
    "age MAE": "age MAE, years",
    "age bias": "age bias, years",
    "gender accuracy": "gender right, %",
    "age groups": "age group right, %",
}


def figure(estimate: Estimate, share: bool) -> str:
    """For a cell: "5.6 [5.2, 6.0]", in per cent if a `share`; "" without labels or answers."""
    if estimate.n == 0:
        return ""
    if estimate.n < FEW or np.isnan(estimate.low):
        return "too few"
    scale = 100 if share else 1
    # kept on one line: a cell broken within its interval is hard to read
    value, low, high = (scale * part for part in (estimate.value, estimate.low, estimate.high))
    return f"{value:.1f}\N{NBSP}[{low:.1f},\N{NBSP}{high:.1f}]"


def _overall(edition: Edition) -> str:
    if not edition.models:
        return NO_MODEL
    found = {name: metrics.estimates(model.test, _measures(model)) for name, model in edition.models.items()}
    shown = [
        measure for measure in HEADERS if any(one.get(measure, metrics.NOTHING).n for one in found.values())
    ]
    if not shown:
        return "No test face has a label to judge by."
    rows = []
    for name, one in found.items():
        rows.append(
            [name, f"{len(edition.models[name].test):,}", *(_cell(one, measure) for measure in shown)]
        )
    first = next(iter(edition.models.values()))
    alike = all(set(model.test["file"]) == set(first.test["file"]) for model in edition.models.values())
    if alike:
        guess = metrics.naive(first.table)
        scales = {"age MAE": 1, "gender accuracy": 100}
        rows.append(
            ["guesser, who never looks", f"{len(first.test):,}",
             *(f"{guess[m] * scales[m]:.1f}" if m in guess and m in scales else "" for m in shown)]
        )  # fmt: skip
    header = ["model", "test faces", *(HEADERS[measure] for measure in shown)]
    note = "" if alike else " The models were not tested on the same faces: these rows can't be compared."
    return table(header, rows, numbers=range(1, len(header))) + f"\n\nIn brackets: 95 % intervals.{note}"


def _cell(found: Mapping[str, Estimate], measure: str) -> str:
    return (
        figure(found[measure], share="accuracy" in measure or measure == "age groups")
        if measure in found
        else ""
    )


def slices(test: pd.DataFrame) -> dict[str, np.ndarray]:
    """Groups of test faces as labelled, masks (n,) bool: minors, genders, both, races; without empty ones."""
    grown = {f"under {ADULT}": test["age"] < ADULT, f"{ADULT} and older": test["age"] >= ADULT}
    gender = {name: test["gender"] == code for code, name in enumerate(faces.GENDERS)}
    both = {f"{sex}, {age}": one & two for sex, one in gender.items() for age, two in grown.items()}
    race = {f"race: {name}": test["race"] == code for code, name in enumerate(faces.RACES)}
    masks = {name: mask.fillna(False).to_numpy(bool) for name, mask in (grown | gender | both | race).items()}
    return {name: mask for name, mask in masks.items() if mask.any()}


def by_group(test: pd.DataFrame, measures: Mapping[str, Measure]) -> pd.DataFrame:
    """Figures of each of `slices`, from the same draws: group, faces, then an Estimate of each measure."""
    masks = {"all": np.ones(len(test), bool)} | slices(test)

    def within(measure: Measure, mask: np.ndarray) -> Measure:
        def of(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
            amount, counts = measure.of(table)
            return amount, counts & mask

        return Measure(of, measure.meaning, measure.share)

    asked = {
        (group, name): within(one, mask) for group, mask in masks.items() for name, one in measures.items()
    }
    found = metrics.estimates(test, asked)
    rows = [
        {"group": group, "faces": int(mask.sum()), **{name: found[group, name] for name in measures}}
        for group, mask in masks.items()
    ]
    return pd.DataFrame(rows)


def _groups(edition: Edition) -> str:
    if not edition.models:
        return NO_MODEL
    parts = []
    for name, model in edition.models.items():
        measures = _measures(model)
        rows = by_group(model.test, measures)
        shown = [measure for measure in measures if any(one.n for one in rows[measure])]
        if not shown:
            parts.append(f"### {plain(name)}\n\nNo test face has a label to judge by.")
            continue
        body = [
            [row["group"], f"{row['faces']:,}", *(_cell(row, measure) for measure in shown)]
            for _, row in rows.iterrows()
        ]
        header = ["group", "test faces", *(HEADERS[measure] for measure in shown)]
        parts.append(f"### {plain(name)}\n\n{table(header, body, numbers=range(1, len(header)))}")
    first = next(iter(edition.models.values())).test
    lacking = [what for what in ("age", "gender", "race") if first[what].isna().all()]
    if lacking:
        parts.append(
            f"No test face has a label of {' or of '.join(lacking)}: errors by {listing(lacking)} are not "
            "known."
        )
    return "\n\n".join(parts)


def _model_limits(edition: Edition) -> str:
    said = [
        "- One seed stands behind each run. Another seed moves the figures too, and the intervals do not "
        "contain that.",
        "- The figures hold for faces like those of the test part. Before any other use, measure on the "
        "people concerned.",
        "- Faces that answers were wrong about do not look wrong: a probability or an interval says more "
        "than an answer "
        "alone. How far those can be trusted: [statistics](statistics.md).",
    ]
    if edition.data.get("data", {}).get("drawn"):
        said.insert(0, "- **All faces are drawn by a program: nothing here describes people.**")
    starts = [str(model.ran.facts.get("weights", "")) for model in edition.models.values()]
    if any("imagenet" in start.lower() for start in starts):
        said.append(
            "- Some weights started from ImageNet's pictures of things, with whatever is one-sided in these; "
            "the table says which."
        )
    return "\n".join(said)


PARTS: dict[str, Callable[[Edition], str]] = {
    "data": _data,
    "motive": lambda edition: edition.kind.motive,
    "composition": _composition,
    "origin": lambda edition: edition.kind.origin,
    "copies": _copies,
    "folds": _folds,
    "licence": lambda edition: edition.kind.licence,
    "data limits": _data_limits,
    "models": _models,
    "training": _training,
    "evaluated": _evaluated,
    "overall": _overall,
    "groups": _groups,
    "model limits": _model_limits,
    "measures": lambda _: glossary.measures(),
    "words": lambda _: glossary.words(),
}
