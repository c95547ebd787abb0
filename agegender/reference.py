"""The stored runs on UTKFace (``book/reference``): what the book says of them, computed from their predictions.

Runs that were tested on the same faces lie in one folder, a protocol; public tools asked about P1's test faces lie in
``peers``. Figures of others are typed here, with where they were measured; ours are never typed.
"""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from agegender import cards, comparison, faces, labels, metrics, profiles, provenance
from agegender.comparison import Finished
from agegender.metrics import S4_EDGES, Estimate
from agegender.places import home
from agegender.scale import stored as stored_scale

FOLDER = Path("book/reference")
PROTOCOLS = {  # where the runs of each lie, and what it is
    "p1": (FOLDER, "trained on the faces handed out in a coursework, tested on all others"),
    "p2": (FOLDER / "p2", "all faces at hand, copies kept together, 80/10/10"),
    "p3": (FOLDER / "p3", "ages 21 to 60, by the published lists of CORAL"),
}
LIMITS = {"p3": ", 21 to 60 years"}  # of the labelled ages, where a protocol has any
PEERS = FOLDER / "peers"
STUDY = "06_preprocessing_study"
TUNING = "07_tuning"
TUNED = (("03_model_a_untuned", "03_model_a_tuned"), ("03_model_a_modern", "03_model_a_tuned_64"))  # by people's recipe, by the found one
RELEASED = Path("agegender/models/weights/released.json")
POWER = FOLDER / "gpu_power.csv"  # time, watts of the whole board: nvidia-smi while the runs on the GPU went on
WATTS_PER_CORE = 10.0  # of a processor at work: assumed, nothing measured it
MARK = re.compile(r"<!-- results: (\w+) -->")
PICTURE = "results.png"
KEPT = ("predictions.parquet", "history.parquet", "outcomes.parquet", "trials.parquet", "recipe.json", provenance.FILE)
SIX = comparison.SIX
AGE, GENDER, OWN = "age MAE", "gender accuracy", "age group accuracy"


@dataclass(frozen=True)
class Claim:
    """What somebody reports: `age` MAE in years, `gender` and `group` accuracy in %, as reported; "" where not.

    With no figure at all it is a network that stands in for the one above it.
    """

    who: str
    what: str
    on: str
    age: str = ""
    gender: str = ""
    group: str = ""
    run: str = ""  # the stored run of the same model, by the same recipe


# Sources: the READMEs and logs of the projects; public notebooks on the same 5,000 faces.
CLAIMS = (
    Claim("S0", "gender alone, frozen VGG16", "1,000 test faces, other data", "", "91.73", "", "04_vgg16"),
    Claim("S0", "the same head and recipe behind MobileNetV2", "", run="04_gender"),
    Claim("S0", "branched, five age groups", "1,000 test faces, other data", "", "92.55", "86.98", "05_branched_s0"),
    Claim("S1", "own network (model A)", "its validation faces", "6-6.5", "86-87", "", "03_model_a"),
    Claim("S1", "MobileNetV2 (model B)", "its validation faces", "8-8.5", "82-83", "", "04_model_b"),
    Claim("S2", "branched", "its validation faces", "6.75", "85.2", "", "05_branched"),
    Claim("S2", "ResNet-50", "its validation faces", "5.82", "88.75", "", "04_resnet50"),
    Claim("S3", "ResNet-18", "a random test part that chose the model; all of UTKFace", "5.37", "", "", "p2_resnet18"),
    Claim("S4", "EfficientNetV2-S, six age groups", "its validation faces; all of UTKFace", "", "", "70.5", "04_efficientnet"),
    Claim("S4", "the same head and recipe on MobileNetV2", "", run="04_groups"),
    Claim("public", "best own network on the same 5,000 faces", "validation faces", "5.71", "90.7"),
    Claim("public", "pre-trained network best in age on the same 5,000 faces", "validation faces", "5.54", "85.4"),
    Claim("public", "pre-trained network best in gender on the same 5,000 faces", "validation faces", "5.87", "91.1"),
    Claim("public", "MobileNetV3-Small, ImageNet", "a random 80/20 of all of UTKFace", "4.73", "93.9"),
    Claim("public", "SENet50, pre-trained on VGGFace", "a stratified 80/10/10 of all of UTKFace", "4.58", "94.9"),
    Claim("public", "ResNet-50, pre-trained on IMDB (Paplhám and Franc 2024)", "five folds of 60/20/20 of all of UTKFace", "4.38"),
    Claim("public", "FaRL and a small head (Paplhám and Franc 2024)", "five folds of 60/20/20 of all of UTKFace", "3.87"),
    Claim("public", "MWR, ages 21 to 60", "the test list of CORAL", "4.37"),
    Claim("public", "VOLO-D1 (MiVOLO), ages 21 to 60", "the test list of CORAL", "4.23", "97.69"),
)  # fmt: skip



# What was aimed at on test faces: protocol, what, years, % of genders, % in six groups, how its run's name begins (None: any)
AIMS = (
    ("p1", "P1, model A", 5.6, 91.0, None, "03_model_a"),
    ("p1", "P1, best", 5.0, 93.5, None, None),
    ("p2", "P2, best", 4.5, 95.0, None, None),
    ("p1", "P1, six age groups", None, None, 75.0, None),
    ("p2", "P2, six age groups", None, None, 75.0, None),
)


@dataclass(frozen=True, eq=False)
class Entry:
    """What the tables have a row for: a model with its runs (of several seeds, if there are), networks whose answers are
    averaged (`averaged`), or a public tool (`peer`). All `runs` answered about the same faces."""

    name: str
    runs: tuple[Finished, ...]
    averaged: bool = False
    peer: bool = False

    @property
    def first(self) -> Finished:
        return self.runs[0]

    @property
    def how(self) -> str:
        """Pixels, epochs and seeds, for print."""
        if self.peer:
            return "not trained on UTKFace, as far as is said"
        if self.averaged:
            return f"{len(self.runs)} networks"
        facts, asked = self.first.facts, self.first.record["parameters"]
        start = ", random start" if "random weights" in facts["weights"] else ""  # of a backbone that others pre-train
        cut = ", not to its end" if facts.get("stopped") else ""
        seeds = f"{len(self.runs)} seeds" if len(self.runs) > 1 else "one seed"
        ran = [run.epochs for run in self.runs]
        epochs = " to ".join(map(str, sorted({min(ran), max(ran)})))
        more = ", asked for groups too" if {"age", "age_group"} <= set(facts.get("tasks", ())) else ""
        return f"{asked['size']} px, {epochs} epochs{cut}{start}{more}, {seeds}"


def folders(protocol: str) -> list[Path]:
    """The folders of a protocol's stored runs that have predictions, relative to `home`."""
    place = PROTOCOLS[protocol][0]
    return sorted(place / path.parent.name for path in (home() / place).glob("*/predictions.parquet"))


def opened(protocol: str = "p1") -> dict[str, Finished]:
    """The stored runs of a protocol by their models' names; read once."""
    return _opened(home(), tuple(folders(protocol)))


@cache
def _opened(top: Path, places: tuple[Path, ...]) -> dict[str, Finished]:
    return comparison.open_runs([place.as_posix() for place in places]) if places else {}


def runs(protocol: str = "p1") -> dict[str, Finished]:
    """The stored runs of a protocol by their folders' names."""
    return {run.folder.name: run for run in opened(protocol).values()}


def peers() -> list[Entry]:
    """The public tools that were asked about P1's faces, the closest in age on validation faces first."""
    return _peers(home())


@cache
def _peers(top: Path) -> list[Entry]:
    found = []
    for path in sorted((top / PEERS).glob("*/predictions.parquet")):
        run = comparison.opened(path.parent, history=False)
        found.append(Entry(run.facts["model"], (run,), peer=True))
    return sorted(found, key=lambda entry: _age_error(entry, "val"))


def entries(protocol: str = "p1") -> list[Entry]:
    """What was run under a protocol, the closest in age on its test faces first, those without ages last."""
    return _entries(home(), protocol)


@cache
def _entries(top: Path, protocol: str) -> list[Entry]:
    models = opened(protocol)
    families = comparison.seeds(models)
    found = [Entry(name, tuple(models[one] for one in names)) for name, names in families.items()]
    several = {one for names in families.values() for one in names}
    found += [Entry(name, (run,)) for name, run in models.items() if name not in several]
    for name, is_one in MEANS.items():
        alike = [run for run in models.values() if is_one(run)]
        if len(alike) > 1:
            found.append(Entry(name, tuple(alike), averaged=True))
    return sorted(found, key=_age_error)


def _pretrained(run: Finished) -> bool:
    """Whether a run started from ImageNet weights and tells age as well as gender."""
    told = run.predictions[["age_pred", "p_female"]].notna().any()
    return "ImageNet" in run.facts["weights"] and bool(told.all())


def _model_a(run: Finished) -> bool:
    return run.record.get("notebook") == "03_model_a"


# Whose answers are averaged: all of a kind, so that no result chose them
MEANS = {"mean of the pre-trained networks": _pretrained, "mean of the model A networks": _model_a}


def _tells_both(entry: Entry) -> bool:
    """Whether it says anything of both ages and genders of test faces."""
    return all(measured(entry, "test")[name].n for name in (AGE, GENDER))


def _age_error(entry: Entry, fold: str = "test") -> float:
    return float(np.nan_to_num(measured(entry, fold)[AGE].value, nan=np.inf))


@cache
def measured(entry: Entry, fold: str) -> dict[str, Estimate]:
    """Age MAE, gender accuracy, accuracy in six age groups (SIX) and in the groups a model was asked for (OWN), on one fold.

    Of several seeds the mean, with an interval for other faces and other seeds (``study.crossed_mean``).
    """
    own = entry.first.own or None
    asked = dict(metrics.MEASURES) | {SIX: metrics.age_group_accuracy(S4_EDGES, own)}
    if own:
        asked[OWN] = metrics.age_group_accuracy(own, own)
    tables = _tables(entry, fold)
    if len(tables) == 1:
        return metrics.estimates(tables[0], asked)
    return {name: comparison.over_seeds(measure, tables) for name, measure in asked.items() if not measure.median}


def _tables(entry: Entry, fold: str) -> list[pd.DataFrame]:
    """What each seed of an entry says of one fold; of an averaged one, what it says."""
    tables = [run.fold(fold) for run in entry.runs]
    return [comparison.averaged(tables)] if entry.averaged else tables


def _cells(entry: Entry, fold: str, names: Sequence[str] = (AGE, GENDER)) -> list[str]:
    found = measured(entry, fold)

    def said(name: str) -> str:
        estimate = found.get(name, metrics.NOTHING)
        return "" if not estimate.n else estimate.years() if name == AGE else estimate.percent()

    return [said(name) for name in names]


def _short(entry: Entry, fold: str, names: Sequence[str] = (AGE, GENDER)) -> list[str]:
    """The same without units, for columns that name them; a line breaks before the interval alone."""
    units = (" years", " %")
    cells = [re.sub("|".join(units), "", cell) for cell in _cells(entry, fold, names)]
    return [cell.replace(", ", ",\N{NO-BREAK SPACE}") for cell in cells]


def _count(entry: Entry) -> str:
    return f"{len(entry.first.fold('test')):,} test faces"


# Parts of the pages


def headline() -> str:
    """A table: guessing, the source projects, the best public figures, public tools, and the best of the stored runs."""
    found = {protocol: entries(protocol) for protocol in PROTOCOLS}
    if not found["p1"]:
        return "No run on UTKFace is stored in this copy of the report."
    rows = [
        (f"always the median age, always the commoner gender, {protocol.upper()}", _count(some[0]) + LIMITS.get(protocol, ""), *_guess(some[0]))
        for protocol, some in found.items()
        if some
    ]
    rows += [
        (f"{claim.who}: {claim.what}", claim.on, claim.age, claim.gender)
        for claim in CLAIMS
        if claim.age or claim.gender
    ]
    rows += [(f"public tool: {entry.name} ({entry.how})", _count(entry), *_short(entry, "test")) for entry in peers()]
    rows += [
        (f"here, {protocol.upper()}: {entry.name} ({entry.how})", _count(entry) + LIMITS.get(protocol, ""), *_short(entry, "test"))
        for protocol, some in found.items()
        for entry in some
        if entry in _leading(some).values()
    ]
    return cards.table(("model", "measured on", "age MAE (years)", "gender right (%)"), rows)


def _guess(entry: Entry) -> list[str]:
    """Of a guesser who never looks, on the test faces: years off and % of genders right, for print."""
    guess = metrics.naive(entry.first.predictions)
    return [f"{guess['age MAE']:.1f}", f"{100 * guess['gender accuracy']:.1f}"]


def _leading(some: Sequence[Entry]) -> dict[str, Entry]:
    """Of the `entries` of a protocol that tell age and gender: of each kind the closest in age on validation faces, by
    what kind it is."""
    kinds: dict[str, Entry] = {}
    for entry in sorted(some, key=lambda entry: _age_error(entry, "val")):
        if _tells_both(entry):
            what = "a pre-trained network" if _pretrained(entry.first) else "a network trained from nothing"
            if entry.averaged:
                what = f"the {entry.name.replace('of the', f'of the {len(entry.runs)}')}"
            kinds.setdefault(what, entry)
    return kinds


def answer() -> str:
    """The stored runs in words, for the first page: a paragraph for each protocol with the best of each kind, then the public tools."""
    said = []
    for protocol in PROTOCOLS:
        kinds = _leading(entries(protocol))
        if kinds:
            some = next(iter(kinds.values()))
            split, (years, right) = some.first.facts["split"], _guess(some)
            told = []
            for kind, entry in kinds.items():
                which = "" if entry.averaged else f" ({entry.name}; {entry.how})"
                age, gender = _cells(entry, "test")
                told.append(f"{kind}{which} {'by' if told else 'is off by'} {age} and {'in' if told else 'tells gender right in'} {gender}")
            said.append(
                f"Trained on {split['train']:,} faces and tested on {split['test']:,} others "
                f"({protocol.upper()}{LIMITS.get(protocol, '')}), {'; '.join(told)}. "
                f"Always answering the median age and the commoner gender: {years} years and {right} %."
            )
    if others := peers():
        age, gender = _cells(others[0], "test")
        said.append(
            f"The best of the {len(others)} public tools tried, {others[0].name}, which is not known to have learned from UTKFace, is off "
            f"by {age} and tells gender right in {gender} of P1's test faces."
        )
    return "\n\n".join(said)


def everything() -> str:
    """For each protocol that was run: whose faces, and a table of all its runs on validation and test faces."""
    from agegender import words

    parts = []
    for protocol, (_, what) in PROTOCOLS.items():
        rows = [
            (f"{entry.name} ({entry.how})", *_short(entry, "val"), *_short(entry, "test", (AGE, GENDER, SIX)))
            for entry in entries(protocol)
        ]
        title = f"### {protocol.upper()}: {what}"
        if not rows:
            parts.append(f"{title}\n\nNot run.")
            continue
        header = ("model", "years, val.", "gender %, val.", "years, test", "gender %, test", "6 groups %, test")
        data = words.data(entries(protocol)[0].first.facts)
        parts.append(f"{title}\n\n{data}\n\n{_breaking(cards.table(header, rows))}{leaked(entries(protocol))}")
    return "\n\n".join(parts)


def _breaking(table: str) -> str:
    """A Markdown table whose names may break a line after each underscore, so that it is no wider than the page."""
    return table.replace("\\_", "\\_<wbr>")


def leaked(some: Sequence[Entry]) -> str:
    """Where a split leaves copies of training faces in its test part: the figures of single runs with and without these."""
    test = some[0].first.fold("test")
    seen = test.loc[test["seen"].fillna(False), "file"]
    if seen.empty:
        return ""
    rows = []
    for run in (run for entry in some if not entry.averaged for run in entry.runs):
        table = run.fold("test")
        copied = table["file"].isin(seen)
        parts = (table, table[~copied], table[copied])
        found = [metrics.estimates(part) for part in parts]
        rows.append((run.folder.name, *(f"{each[AGE].years()}; {each[GENDER].percent()}" for each in found)))
    header = ("run", "all", "without a copy in training", "with one")
    return (
        f"\n\nThis split was published with copies on both sides: of its {len(test):,} test faces {len(seen):,} have a copy, or another "
        f"picture of the same group, in training.\n\n{cards.table(header, rows)}"
    )


def finding() -> str:
    """A table: how far the other entries of P1 lie from the network that is closest in age on validation faces, and which
    of them the tests set apart from it; then what another seed alone changes."""
    return _finding(home())


@cache
def _finding(top: Path) -> str:
    some = [entry for entry in entries() if _tells_both(entry)]
    single = [entry for entry in some if not entry.averaged]
    if len(single) < 2:
        return ""
    best = min(single, key=lambda entry: _age_error(entry, "val"))
    others = [entry for entry in some if entry is not best]
    found = _apart_by(best, others)
    rows = []
    for entry in others:
        cells = []
        for name, scale in ((AGE, 1), (GENDER, 100)):
            row = found.loc[(entry.name, name)]
            alone = "not once corrected" if row["p"] < metrics.LEVEL else "not told apart"
            apart = "" if row["p_holm"] < metrics.LEVEL else f": {alone}"
            cells.append(comparison.number(row, scale, sign="+").replace(", ", ",\N{NO-BREAK SPACE}") + apart)
        rows.append((f"{entry.name} ({entry.how})", *cells))
    table = _breaking(cards.table(("model", "years further off", "points more genders right"), rows))
    start = f"On the same test faces, compared with **{best.name}** ({best.how}), the network closest in age on validation faces:"
    return "\n\n".join(filter(None, [start, table, _other_seeds(single)]))


def _apart_by(base: Entry, others: Sequence[Entry]) -> pd.DataFrame:
    """By how much `others` lie above `base` on test faces: index entry's name and measure (AGE, GENDER), columns value,
    low, high, p, n, p_holm, the last corrected by Holm's method over all rows."""
    keys = [(entry, name) for entry in others for name in (AGE, GENDER)]
    rows = [
        vars(comparison.seeds_apart(metrics.MEASURES[name], _tables(entry, "test"), _tables(base, "test"))) for entry, name in keys
    ]
    found = pd.DataFrame(rows, index=pd.MultiIndex.from_tuples([(entry.name, name) for entry, name in keys]))
    return found.assign(p_holm=metrics.holm(found["p"]))


def _other_seeds(some: Sequence[Entry]) -> str:
    """How far the seeds of one setting lie apart on test faces, in words; "" where no setting has several."""
    spread = {
        entry.name: [
            np.ptp([comparison.point_estimate(metrics.MEASURES[name], table) for table in _tables(entry, "test")]) * scale
            for name, scale in ((AGE, 1), (GENDER, 100))
        ]
        for entry in some
        if len(entry.runs) > 1
    }
    if not spread:
        return ""
    said = "; ".join(f"{name}: {years:.2f} years, {points:.1f} points of gender" for name, (years, points) in spread.items())
    return f"How far the seeds of one setting lie apart: {said}. Where a model has one seed, its interval leaves that out."


def aims() -> str:
    """A table: what this report set out to reach on test faces, and whether it did."""
    rows = []
    for protocol, what, years, gender, group, one in AIMS:
        asked = [(AGE, years), (GENDER, gender), (SIX, group)]
        asked = [(name, aim) for name, aim in asked if aim]
        found = [entry for entry in entries(protocol) if one is None or any(run.folder.name.startswith(one) for run in entry.runs)]
        found = [entry for entry in found if all(measured(entry, "test").get(name, metrics.NOTHING).n for name, _ in asked)]
        aim = "; ".join(f"{value:g} years" if name == AGE else f"{value:g} %" for name, value in asked)
        if not found:
            rows.append((what, aim, "not run", ""))
            continue
        names = [name for name, _ in asked]
        best = {averaged: min((entry for entry in found if entry.averaged in (False, averaged)), key=lambda entry: _aim_score(entry, names[0]))
                for averaged in (True, False)}  # fmt: skip
        reached = [f"{entry.name}: {'; '.join(_finely(measured(entry, 'test')[name], name) for name in names)}" for entry in dict.fromkeys(best.values())]
        met = ["; ".join(_verdict(name, aim, measured(entry, "test")[name]) for name, aim in asked) for entry in dict.fromkeys(best.values())]
        rows.append((what, aim, *("; of single networks ".join(part) for part in (reached, met))))
    return cards.table(("protocol and model", "aim", "reached, by the model best on validation faces", "aim met?"), rows)


def _aim_score(entry: Entry, name: str) -> float:
    value = measured(entry, "val")[name].value
    return value if name == AGE else -value


def _finely(estimate: Estimate, name: str) -> str:
    """For print with two decimals, where one would hide on which side of an aim it lies."""
    return f"{comparison.number(vars(estimate), 1 if name == AGE else 100, 2)} {'years' if name == AGE else '%'}"


def _verdict(name: str, aim: float, found: Estimate) -> str:
    """Whether the value meets the aim, and whether the interval leaves that open."""
    scale, unit = (1.0, "years") if name == AGE else (100.0, "points")
    short = (scale * found.value - aim) * (1 if name == AGE else -1)
    low, high = scale * found.low - aim, scale * found.high - aim
    close = ", the interval leaves it open" if low < 0 < high else ""
    return f"yes{close}" if short <= 0 else f"missed by {short:.2f} {unit}{close}"


def tools() -> str:
    """A table of the public tools, and what they learned from, their licences and the part of the picture they were shown."""
    rows, notes = [], []
    for entry in peers():
        facts = entry.first.facts
        crop = facts["crop"]
        moved = f", {abs(crop['down']):.0%} {'below' if crop['down'] > 0 else 'above'} the middle" if crop["down"] else ""
        shown = f"{crop['side']:.0%} of the side{moved}".replace("%", " %")
        notes.append(
            f"- **{cards.plain(entry.name)}**. Trained on: {cards.plain(facts['trained_on'])}. Shown: {shown}; "
            f"{cards.plain(crop['use'])}. Licence: {cards.plain(facts['licence'])}."
        )
        rows.append((entry.name, *_short(entry, "val"), *_short(entry, "test")))
    header = ("tool", "years, val.", "gender %, val.", "years, test", "gender %, test")
    return "\n".join([cards.table(header, rows), "", *notes]) if rows else "No public tool was asked."


def card() -> str:
    """The card of the released model: what it is, what it learned from, and its errors by age band and gender."""
    path = home() / RELEASED
    if not path.is_file():
        return "No model is released with this copy."
    record = json.loads(path.read_text(encoding="utf-8"))
    run = next((run for p in PROTOCOLS for run in runs(p).values() if run.record == record), None)
    if run is None:
        raise ValueError(f"{path.name} is of no stored run: store its run with python -m agegender reference")
    how, facts, test = record["parameters"], record["facts"], run.fold("test")
    minor = np.where(test["age"] < faces.ADULT, "under 18", "18 and over")
    parts = [metrics.summary(table, by) for table, by in ((test.assign(who="all"), "who"), (test.assign(who=minor), "who"))]
    parts.append(metrics.summary(test, "band").rename(columns={"band": "who"}))
    found = pd.concat(parts).astype({"who": str})

    def said(who: str, measure: str) -> str:
        row = found[(found["who"] == who) & (found["measure"] == measure)].iloc[0]
        return comparison.number(row, 100 if measure == GENDER else 1).replace(", ", ",\N{NO-BREAK SPACE}")

    rows = [
        (who, f"{found[(found['who'] == who) & (found['measure'] == AGE)]['n'].iloc[0]:,}",
         *(said(who, measure) for measure in (AGE, "age bias", GENDER)))
        for who in dict.fromkeys(found["who"])
    ]  # fmt: skip
    size = path.with_suffix(".safetensors").stat().st_size / 2**20
    changed = f" ({', '.join(f'{name} {value}' for name, value in how['changes'].items())})".replace("_", " ") if how["changes"] else ""
    text = (
        f"{facts['parameters']:,} parameters, {size:.1f} MiB (kernels as float16): {facts['model']}, {how['size']} pixels, {facts['weights']}, "
        f"then trained{changed} on {facts['split']['train']:,} faces of UTKFace, with {facts['split']['val']:,} to choose the epoch (split "
        f"`{facts['split']['digest']}`, seed {how['seed']}). It tells "
        f"{' and '.join(task for task in ('age', 'gender') if task in facts['tasks'])}{', as the mean over a picture and its mirror image' if facts['flip_test'] else ''}."
    )
    if facts.get("stopped"):
        text += f" Its training stopped {cards.plain(facts['stopped'])}. To train it again gives another network, not these very weights."
    header = ("test faces", "number", "age MAE (years)", "age bias (years, + is too old)", "gender right (%)")
    return f"{text}\n\n{cards.table(header, rows, (1,))}"


def scale() -> str:
    """A table: how each stored run came about, and what it cost; then the energy."""
    rows, minutes, watched = [], {}, 0
    for protocol in PROTOCOLS:
        for name, run in runs(protocol).items():
            how, facts, record = run.record["parameters"], run.facts, run.record
            device = ", ".join(record["devices"])
            spent = facts["training_seconds"] / 60
            gpu = not device.startswith("cpu")
            watched += gpu
            if not gpu:
                minutes[record["platform"]] = minutes.get(record["platform"], 0) + spent
            on = ""
            if more := facts.get("continued"):  # a run that was cut off and went on elsewhere
                minutes[more["platform"]] = minutes.get(more["platform"], 0) + more["seconds"] / 60
                on = f"; then {more['seconds'] / 60:.0f} min on {more['platform']}"
            precision = "" if how.get("precision", "float32") == "float32" else f", {how['precision']}"
            rows.append((
                f"{protocol.upper()}: {name}", facts["weights"], f"{how['size']} px, {run.epochs} epochs, seed {how['seed']}{precision}",
                f"{spent:.0f} min, {device}{on}", _commit(record),
            ))  # fmt: skip
    if not rows:
        return ""
    for name in (STUDY, TUNING):  # many trainings each
        if not (home() / FOLDER / name / provenance.FILE).is_file():
            continue
        record = provenance.read(home() / FOLDER / name)
        how, facts, spent = record["parameters"], record["facts"], record["facts"]["training_seconds"] / 60
        if ", ".join(record["devices"]).startswith("cpu"):
            minutes[record["platform"]] = minutes.get(record["platform"], 0) + spent
        many = f"{facts['trainings']} trainings" if "trainings" in facts else f"{facts['trials']} trials"
        rows.append((
            f"P1: {name}", "random start", f"{how['size']} px, at most {how['epochs']} epochs, {many}",
            f"{spent:.0f} min, {', '.join(record['devices'])}", _commit(record),
        ))  # fmt: skip
    notes = [
        f"{protocol.upper()}, {name}: stopped {run.facts['stopped']}."
        for protocol in PROTOCOLS
        for name, run in runs(protocol).items()
        if run.facts.get("stopped")
    ]
    table = _breaking(cards.table(("run", "started from", "scale", "training", "commit"), rows))
    return "\n\n".join([table, *map(cards.plain, notes), _energy(minutes, watched)])


def _commit(record: Mapping) -> str:
    code = record["code"]
    return (code["commit"] or "unknown")[:12] + (", changed" if code["changed"] else "")


def _energy(minutes: Mapping[str, float], watched: int) -> str:
    """What all that took, in watt-hours: measured for a GPU, estimated for processors."""
    said = []
    if watched and (home() / POWER).is_file():
        log = pd.read_csv(home() / POWER, parse_dates=["time"])
        hours = (log["time"] - log["time"].iloc[0]).dt.total_seconds().to_numpy() / 3600
        said.append(
            f"The GPU's board drew {log['watts'].mean():.0f} W on average for {60 * hours[-1]:.0f} minutes, "
            f"{np.trapezoid(log['watts'], hours):.0f} Wh as it measures itself, for {watched} of the runs above and others that were "
            "not kept; they shared it, so that each took longer than it would alone."
        )
    for platform, spent in minutes.items():
        cores = int(match[1]) if (match := re.search(r"(\d+) cores?", platform)) else 1
        said.append(
            f"Training on {platform}: {spent:.0f} minutes in all, about {spent / 60 * cores * WATTS_PER_CORE:.0f} Wh if a core at work "
            f"takes {WATTS_PER_CORE:g} W, which is assumed."
        )
    return " ".join(said)


WHY = {
    "S0": "S0 tested on other faces, each person on one side only; its gender network rose from 73.55 % to 78.15 % with "
    "pre-processed pictures, and to 91.73 % once balanced as well, which added children's faces and more augmentation of old ones; a new "
    "split came with it. [The study](../notebooks/06_preprocessing_study.ipynb) takes split, augmentation and balancing apart:",
    "S1": "S1's figures are of the validation faces that chose the epoch, without intervals, and copies of a photograph lay "
    "on both sides. Its pre-trained network did worse than its own one; batch norm with a momentum of 0.999, which does not "
    "follow the weights in so few steps, is a likely reason ([model B's page](../notebooks/04_model_b.ipynb)); model B here has 0.9.",
    "S2": "S2's README gives one figure for both of its models; the ones here are from its logs, whose best epochs "
    "read 6.20 years and 87.9 % for the branched network, 5.61 years and 89.6 % for ResNet-50: our figures, of the best epoch too, are "
    "to be set beside these. Its generator showed half "
    "of the faces in each epoch, and its text claims augmentation that its code does not do.",
    "S3": "S3's test part chose the model, and its gender \"MAE\" is the mean distance of a probability from the label, not a "
    "share of errors.",
    "S4": "S4's figure is of the validation part whose best epoch was kept; its pictures had 48 grey pixels a side.",
}



def project(who: str) -> str:
    """A source project: claimed, the same on our validation faces, the test faces, and why they differ."""
    rows = []
    found = {
        run.folder.name: entry
        for protocol in PROTOCOLS
        for entry in entries(protocol)
        if not entry.averaged
        for run in entry.runs
    }
    for claim in (claim for claim in CLAIMS if claim.who == who):
        claimed = (f"{claim.age} years" if claim.age else "", f"{claim.gender} % gender" if claim.gender else "",
                   f"{claim.group} % groups" if claim.group else "")  # fmt: skip
        entry = found.get(claim.run)
        what, told = claim.what, "; ".join(filter(None, claimed))
        if entry is None:
            rows.append((what, told, "not run", "not run"))
            continue
        same, right = ("; ".join(filter(None, _cells(entry, fold, (AGE, GENDER, OWN)))) for fold in ("val", "test"))
        rows.append((what, told, same, f"{right} ({entry.how}; {entry.first.facts['weights']})"))
    table = cards.table(("model", "claimed", "here, on validation faces", "here, on test faces"), rows)
    theirs = [claim for claim in CLAIMS if claim.who == who and claim.run in found]
    unlike = [claim.what for claim in theirs if "random weights" in found[claim.run].first.facts["weights"]]
    start = f"{who}'s network was pre-trained, the one here is not ({'; '.join(unlike)}): that row says nothing of the claim." if unlike else ""
    return "\n\n".join(filter(None, [table, start, _apart([found[claim.run] for claim in theirs]), WHY[who]]))


def _apart(some: Sequence[Entry], these: str = "the networks") -> str:
    """What sets two runs apart that both tell age and gender, in words; "" of any other number of them.

    `these`: what they were run for, to compare them.
    """
    from agegender import words

    some = [entry for entry in some if _tells_both(entry)]
    if len(some) != 2:
        return ""
    found = _apart_by(some[0], some[1:]).loc[some[1].name]
    said = []
    for name, what, scale, unit, less, more in (
        (AGE, "age error", 1, "years", "smaller", "larger"), (GENDER, "gender accuracy", 100, "points", "lower", "higher"),
    ):  # fmt: skip
        row = found.loc[name]
        if row["p_holm"] < metrics.LEVEL:
            low, high = sorted(scale * abs(row[end]) for end in ("low", "high"))
            said.append(f"its {what} is {scale * abs(row['value']):.1f} {unit} [{low:.1f}, {high:.1f}] {less if row['value'] < 0 else more}")
        else:
            said.append(f"its {what} is not told apart ({comparison.number(row, scale, sign='+')} {unit})")
    differ = [
        what
        for what, values in {
            "their start (ImageNet weights or not)": {_pretrained(entry.first) for entry in some},
            "the size of pictures": {entry.first.record["parameters"]["size"] for entry in some},
            "the number of epochs": {entry.first.epochs for entry in some},
            "precision": {entry.first.record["parameters"].get("precision") for entry in some},
        }.items()
        if len(values) > 1
    ]
    note = f" They differ in {words.listing(differ)} as well: {these} alone do not explain it." if differ else ""
    if single := [entry.name for entry in some if len(entry.runs) == 1]:
        note += f" Another seed{f' of {single[0]}' if len(single) == 1 else ''} could move this further than the intervals say."
    return f"Here, on the same test faces, {some[1].name} is compared with {some[0].name}: {', and '.join(said)}.{note}"


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
    said += [words_study.copies(what, table) for what, table in study.worths(outcomes, judged).items()]
    train = record["facts"]["different_faces"]
    said.append(words_study.scale(how["size"], how["width"], how["epochs"], how["seeds"], train))
    return "\n\n".join(said)


def tuning_found() -> str:
    """What the stored search found, and what its recipe is worth on the test faces of P1, which the search never saw."""
    place = home() / FOLDER / TUNING
    if not (place / "trials.parquet").is_file():
        return "No search is stored here."
    how, trials = provenance.read(place)["parameters"], pd.read_parquet(place / "trials.parquet")
    recipe = json.loads((place / "recipe.json").read_text(encoding="utf-8"))
    found, changes = recipe["found"], "; ".join(f"`{name}`: `{json.dumps(value)}`" for name, value in recipe["changes"].items())
    build = "".join(f", {name} {value}" for name, value in how["build"].items())
    said = [
        f"{found['searched_by']} tried {trials['setting'].nunique()} settings of {how['network'].replace('_', ' ')} "
        f"({how['size']} px{build}) in {found['trials']} trials of at most {how['epochs']} epochs, "
        f"{found['trials'] - found['completed'] or 'none'} of which failed, in {trials['seconds'].sum() / 60:.0f} minutes. Each was judged "
        f"on P1's validation faces; the best, trial {found['trial']}, had {labels.percent(found['score'])} of a guesser's error, "
        f"averaged over age and gender. As a recipe it is `{recipe['recipe']}` with {changes}."
    ]
    ours = {run.folder.name: entry for entry in entries() if not entry.averaged for run in entry.runs}
    pairs = [[ours[name] for name in names] for names in TUNED if all(name in ours for name in names)]
    if not pairs:
        said.append("What it is worth on test faces is not known: nothing was trained by it and by a recipe that people wrote, to be compared.")
        return "\n\n".join(said)
    rows = []
    for pair in pairs:
        for entry, whose in zip(pair, ("people's", "the search's")):
            asked = entry.first.record["parameters"]
            changed = "".join(f", {name} {value}" for name, value in asked["changes"].items())
            by = f"{asked['recipe']}, head {asked['head']}{changed}" if whose == "people's" else "as above"
            rows.append((f"{whose}: {by} ({entry.how}, width {asked['width']})", *_short(entry, "val"), *_short(entry, "test")))
    header = ("recipe", "years, val.", "gender %, val.", "years, test", "gender %, test")
    return "\n\n".join([*said, cards.table(header, rows), *(_apart(pair, "the recipes") for pair in pairs)])


def filled(text: str, folder: Path) -> str:
    """A page's `text` with the places marked ``<!-- results: NAME -->`` filled; its picture goes into `folder`."""
    parts = {
        "answer": answer, "finding": finding, "headline": headline, "everything": everything, "scale": scale, "study": study_found,
        "aims": aims, "tools": tools, "card": card, "million": stored_scale, "tuning": tuning_found,
    }  # fmt: skip

    def part(mark: re.Match[str]) -> str:
        name = mark[1]
        if name in WHY:
            return project(name)
        if name == "figure":
            alt, spots = figure(folder / PICTURE)
            if not alt:
                return ""
            # quoted: in ![...](...) what is escaped would be lost
            picture = f"```{{image}} {PICTURE}\n:alt: {json.dumps(alt, ensure_ascii=False)}\n```"
            return f"````{{div}} spotted\n{picture}\n\n{_hover(spots)}\n````\n\n{cards.plain(_left_out())}"
        if name not in parts:
            raise ValueError(f"results: {name!r} is no part; {', '.join([*parts, 'figure', *WHY])} are")
        return parts[name]()

    return MARK.sub(part, text)


FILLED = {"p1": "o^", "p2": "*d", "p3": "XP", "peer": "sD"}  # the second where colours begin anew
OPEN = "sDdPX^v<>p"  # a marker for each claim
LOWEST = 75  # % of genders told right: what lies below is named under the figure, where it would press all else together


def figure(path: Path) -> tuple[str, list[tuple[float, float, str]]]:
    """Draw `headline` into the PNG at `path`, and return its alt text, "" where nothing is stored, and its points.

    Of each point: how far from the left and from the top of the picture, both from 0 to 1, and what it stands for.
    """
    import matplotlib.pyplot as plt

    from agegender.figures import COLOURS, DPI, WIDTH

    if not folders("p1"):
        return "", []
    told, spots, marks = [], [], {}
    some = {protocol: entries(protocol) for protocol in PROTOCOLS} | {"peer": peers()}
    points = [(kind, i, entry) for kind, those in some.items() for i, entry in enumerate(filter(_drawn, those))]
    # of claims on groups or one question alone there is nothing to draw
    claims = list(zip(OPEN, (claim for claim in CLAIMS if claim.age and claim.gender), strict=True))
    drawn, axis = plt.subplots(figsize=(WIDTH, 4.5 + 0.09 * len([*points, *claims])), dpi=DPI)  # the legend has two columns
    for kind, i, entry in points:
        age, gender = (measured(entry, "test")[name] for name in (AGE, GENDER))
        start = ", random start" if "random start" in entry.how else ""
        who = f"public tool: {entry.name}" if entry.peer else f"{kind.upper()}: {entry.name}{start}"
        bars = axis.errorbar(
            age.value, 100 * gender.value, xerr=[[age.value - age.low], [age.high - age.value]],
            yerr=[[100 * (gender.value - gender.low)], [100 * (gender.high - gender.value)]],
            fmt=FILLED[kind][i // len(COLOURS) % 2], ms=9 if kind == "p2" else 6, capsize=2, color=COLOURS[i % len(COLOURS)],
        )  # fmt: skip
        marks[who] = bars.lines[0]
        told.append(f"{who} {age.years()} and {gender.percent()}")
        spots.append((age.value, 100 * gender.value, f"{who}: {age.years()}, {gender.percent()}"))
    for marker, claim in claims:
        ends = [sorted(map(float, (text.split("-") * 2)[:2])) for text in (claim.age, claim.gender)]
        (age, gender), (x, y) = ([sum(pair) / 2 for pair in ends], [(b - a) / 2 for a, b in ends])
        label = f"{claim.who}: {claim.what}"
        bars = axis.errorbar(age, gender, xerr=x, yerr=y, ms=6, fmt=marker, mfc="none", color="0.35", lw=1.2)
        marks[label] = bars.lines[0]
        told.append(f"{claim.who}, {claim.what}, claims {claim.age} years and {claim.gender} %")
        spots.append((age, gender, f"{label}: {claim.age} years, {claim.gender} %, as claimed"))
    axis.set(xlabel="age MAE (years), smaller to the right", ylabel="gender told right (%)")
    axis.invert_xaxis()
    title = "filled: test faces, bars: 95 % intervals; open: as claimed, most of validation faces, bars: the range claimed"
    drawn.legend(marks.values(), marks, fontsize=7, loc="outside lower center", ncol=2, title=title, title_fontsize=8)
    drawn.draw_without_rendering()  # settles where everything lies
    box = drawn.get_tightbbox().padded(plt.rcParams["savefig.pad_inches"])
    drawn.savefig(path, dpi=DPI, bbox_inches=box)
    at = axis.transData.transform([spot[:2] for spot in spots]) / DPI  # inches
    spots = [((x - box.x0) / box.width, (box.y1 - y) / box.height, spot[2]) for (x, y), spot in zip(at, spots)]
    plt.close(drawn)
    return f"Age error against gender accuracy, better to the upper right: {'; '.join(told)}.", spots


def _drawn(entry: Entry) -> bool:
    return _tells_both(entry) and 100 * measured(entry, "test")[GENDER].value >= LOWEST


def _left_out() -> str:
    """What the figure does not show, in words."""
    everyone = [entry for protocol in PROTOCOLS for entry in entries(protocol)] + peers()
    low = [f"{entry.name}, {entry.how} ({'; '.join(_cells(entry, 'test'))})" for entry in everyone if _tells_both(entry) and not _drawn(entry)]
    said = "Not drawn: what tells or claims one of the two alone"
    return f"{said}{'; and below ' + str(LOWEST) + ' % of genders, ' + '; '.join(low) if low else ''}."


def _hover(spots: Sequence[tuple[float, float, str]]) -> str:
    """HTML over the picture that says what is under the mouse; to others the alt text and the table say it."""
    made = [
        f'<span style="left: {x:.2%}; top: {y:.2%}" class="{"west" if x > 0.5 else "east"}" data-says="{html.escape(says)}"></span>'
        for x, y, says in spots
    ]
    return "\n".join(['<div class="spots" aria-hidden="true">', *made, "</div>"])


def place_of(name: str) -> Path:
    """Where the run called `name` is stored: with those that were tested on the same faces."""
    return PROTOCOLS.get(name.partition("_")[0], PROTOCOLS["p1"])[0] / name


def store(profile: str = "reference") -> tuple[list[str], list[str]]:
    """Copy what the book keeps of the finished runs of `profile` to ``book/reference``: no weights, no pictures.

    Returns the names of the runs that were stored, and of those that are not finished.
    """
    done, missing = [], []
    for run in profiles.read(profile).runs.values():
        folder, target = home() / run.folder, home() / place_of(run.name)
        if not (folder / provenance.FILE).is_file():
            missing.append(run.name)
            continue
        target.mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, target / name)
        done.append(run.name)
    return done, missing
