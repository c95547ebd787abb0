"""The stored runs on UTKFace: every number on the book's page of results follows from their predictions."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import stubs
from agegender import profiles, reference

TOP = Path(__file__).resolve().parents[1]
STORED = TOP / "book" / "reference"
PAGE = TOP / "book" / "results.md"


@pytest.fixture(autouse=True)
def at_home(monkeypatch):
    monkeypatch.setenv("AGEGENDER_HOME", str(TOP))


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return {path.parent.name: pd.read_parquet(path) for path in STORED.rglob("predictions.parquet")}


def figures(table: pd.DataFrame, fold: str, own: tuple[int, ...] = ()) -> dict[str, float]:
    """Age MAE, gender accuracy and that of six age groups, by plain NumPy."""
    part, found = table[table["fold"] == fold], {}
    if part["age_pred"].notna().any():
        found["age"] = float(np.nanmean(np.abs(part["age_pred"] - part["age"])))
    if part["p_female"].notna().any():
        known = part.dropna(subset=["gender", "p_female"])
        found["gender"] = 100 * float(((known["p_female"] > 0.5) == (known["gender"] == 1)).mean())
    edges = [0, 6, 19, 31, 46, 66, np.inf]
    truth = np.digitize(part["age"], edges[1:])
    if own == (0, 6, 19, 31, 46, 66):
        found["six"] = 100 * float((part["age_group_pred"] == truth).mean())
    elif part["age_pred"].notna().any():
        found["six"] = 100 * float((np.digitize(part["age_pred"].clip(lower=0), edges[1:]) == truth).mean())
    return found


def of(entry: reference.Entry, tables: dict[str, pd.DataFrame], fold: str) -> dict[str, float]:
    """The same of an entry: of the mean of its answers, or over its seeds, as it stands for."""
    own = [tables[run.folder.name] for run in entry.runs]
    if not entry.averaged:
        return pd.DataFrame([figures(table, fold, entry.first.own) for table in own]).mean().to_dict()
    table = own[0].copy()
    if len(own) > 1:
        for column in ("age_pred", "p_female"):
            table[column] = np.mean([other[column] for other in own], axis=0)
    return figures(table, fold)


def first_number(cell: str) -> float:
    return float(re.search(r"-?\d+\.\d+", cell)[0])


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")]


def same(cell: str, truth: dict[str, float], key: str) -> None:
    if key in truth:
        assert first_number(cell) == pytest.approx(truth[key], abs=0.051), (cell, truth)
    else:
        assert not re.search(r"\d", cell)


def test_what_lies_in_one_folder_was_tested_on_the_same_faces():
    for place in [*(place for place, _ in reference.PROTOCOLS.values()), reference.PEERS]:
        tables = [pd.read_parquet(path) for path in (TOP / place).glob("*/predictions.parquet")]
        assert len({tuple(t.loc[t["fold"] == "test", "file"].sort_values()) for t in tables}) <= 1
    assert len(reference.folders("p1")) >= 3 and reference.folders("p2") and reference.peers()
    ours = set(reference.entries("p1")[0].first.fold("test")["file"])
    assert all(set(peer.first.fold("test")["file"]) == ours for peer in reference.peers())


def test_what_is_stored_is_what_the_runs_left_behind():
    records = list(STORED.rglob("provenance.json"))
    assert len(records) > 10
    for record in records:
        content = json.loads(record.read_text())
        for path in record.parent.glob("*.parquet"):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            assert content["files"][path.name] == digest, path
        assert content["facts"]["data"]["drawn"] is False
        assert not str(content["parameters"]["data"]).startswith("/")


def test_the_headline_follows_from_the_predictions(tables):
    lines = [cells(line) for line in reference.headline().splitlines() if re.match(r"\| (here|public tool)", line)]
    leading = [e for p in reference.PROTOCOLS for e in reference.entries(p) if e in reference._leading(reference.entries(p)).values()]
    shown = [*reference.peers(), *leading]
    assert len(lines) == len(shown) and len(leading) >= 4
    for (what, on, age, gender), entry in zip(lines, shown):
        assert entry.name.replace("_", r"\_") in what
        assert re.search(r"[\d,]+", on)[0] == f"{(tables[entry.first.folder.name]['fold'] == 'test').sum():,}"
        truth = of(entry, tables, "test")
        same(age, truth, "age")
        same(gender, truth, "gender")


def test_a_guesser_stands_beside_each_protocol(tables):
    """Years and genders mean little without what never looking would give on the same faces."""
    lines = [cells(line) for line in reference.headline().splitlines() if line.startswith("| always")]
    said = reference.answer().split("\n\n")
    assert len(lines) == len(reference.PROTOCOLS) == 3
    for line, protocol, text in zip(lines, reference.PROTOCOLS, said):
        table = tables[reference.entries(protocol)[0].first.folder.name]
        val, test = table[table["fold"] == "val"], table[table["fold"] == "test"]
        years = (test["age"] - val["age"].median()).abs().mean()
        right = 100 * (test["gender"] == val["gender"].mode()[0]).mean()
        assert protocol.upper() in line[0] and [float(cell) for cell in line[2:]] == pytest.approx([years, right], abs=0.051)
        assert f"commoner gender: {line[2]} years and {line[3]} %." in text


def test_who_is_said_to_be_ahead_is():
    """Typed on the page, for it is of a figure that others report: no longer true once P2 does better."""
    assert "FaRL, a network that had\nlearned from many more faces, is ahead of what was reached here (P2)" in (TOP / "book" / "results.md").read_text()
    [farl] = [float(claim.age) for claim in reference.CLAIMS if claim.what.startswith("FaRL")]
    assert all(reference.measured(entry, "test")["age MAE"].low > farl for entry in reference._leading(reference.entries("p2")).values())


def test_the_momentum_that_is_named_is_that_of_the_run():
    assert "model B here has 0.9." in reference.WHY["S1"]
    assert json.loads((STORED / "04_model_b" / "provenance.json").read_text())["facts"]["network"]["momentum"] == 0.9


def test_the_best_of_each_kind_is_chosen_on_validation_faces(tables):
    for protocol in ("p1", "p2"):
        entries = reference.entries(protocol)
        for entry in reference._leading(entries).values():
            kind = [other for other in entries if other.averaged == entry.averaged
                    and reference._pretrained(other.first) == reference._pretrained(entry.first)]  # fmt: skip
            errors = [of(other, tables, "val").get("age", np.inf) for other in kind]
            assert of(entry, tables, "val")["age"] == pytest.approx(min(errors))


def test_all_networks_of_a_kind_are_averaged_and_no_other(tables):
    records = {name: json.loads((STORED / name / "provenance.json").read_text()) for name in tables if (STORED / name).is_dir()}
    ages_and_genders = {name for name in records if {"age", "gender"} <= set(figures(tables[name], "test"))}
    of_model_a = {name for name, record in records.items() if record["notebook"] == "03_model_a"}
    from_imagenet = {name for name in ages_and_genders if "ImageNet" in records[name]["facts"]["weights"]}
    found = {e.name: {run.folder.name for run in e.runs} for e in reference.entries("p1") if e.averaged}
    assert found == {"mean of the model A networks": of_model_a, "mean of the pre-trained networks": from_imagenet}


def test_the_table_of_every_run_follows_from_the_predictions(tables):
    sections = reference.everything().split("### ")[1:]
    for protocol, text in zip(reference.PROTOCOLS, sections, strict=True):
        assert text.startswith(protocol.upper())
        for entry in reference.entries(protocol):
            begins = f"| {entry.name} ({entry.how}) |".replace("_", r"\_<wbr>")
            [line] = [cells(one) for one in text.splitlines() if one.startswith(begins)]
            for row, fold in ((line[1:3], "val"), (line[3:6], "test")):
                for cell, key in zip(row, ("age", "gender", "six")):
                    same(cell, of(entry, tables, fold), key)
    order = [of(entry, tables, "test").get("age", np.inf) for entry in reference.entries("p1")]
    assert order == sorted(order)


def test_copies_that_a_split_leaves_in_training_are_told_apart(tmp_path, monkeypatch):
    from test_comparison import better, faces, store

    monkeypatch.setenv("AGEGENDER_HOME", str(tmp_path))
    place = tmp_path / reference.PROTOCOLS["p3"][0] / "p3_model"
    store(place, "model", better(faces(400), 1))
    table = pd.read_parquet(place / "predictions.parquet")
    assert reference.leaked(reference.entries("p3")) == ""
    table["seen"] = np.random.default_rng(0).random(len(table)) < 0.3
    table.to_parquet(place / "predictions.parquet")
    reference._entries.cache_clear(), reference._opened.cache_clear()
    said = reference.leaked(reference.entries("p3"))
    test = table[table["fold"] == "test"]
    assert f"of its {len(test):,} test faces {test['seen'].sum():,} have a copy" in said
    row = cells(said.splitlines()[-1])
    for cell, part in zip(row[1:], (test, test[~test["seen"]], test[test["seen"]])):
        same(cell, figures(part, "test"), "age")


def test_the_projects_sections_follow_from_the_predictions(tables):
    for claim in reference.CLAIMS:
        if claim.who == "public":
            continue
        [line] = [cells(row) for row in reference.project(claim.who).splitlines() if row.startswith(f"| {claim.what} |")]
        assert all(text in line[1] for text in (claim.age, claim.gender, claim.group))
        if claim.run not in tables:
            assert line[2:] == ["not run", "not run"]
            continue
        entry = next(e for p in reference.PROTOCOLS for e in reference.entries(p)
                     if not e.averaged and claim.run in {run.folder.name for run in e.runs})  # fmt: skip
        for cell, fold in zip(line[2:], ("val", "test")):
            truth = of(entry, tables, fold)
            truth.pop("six", None)
            said = [float(n) for n in re.findall(r"(?<![\[\d.,] )(?<!\[)\b(\d+\.\d)(?= years| %)", cell)]
            assert said[: len(truth)] == pytest.approx(list(truth.values()), abs=0.051)


def test_the_figure_shows_all_that_tells_both_or_names_it_below(tables, tmp_path):
    alt, spots = reference.figure(tmp_path / "results.png")
    said, below = [what for *_, what in spots], reference._left_out()
    for protocol in reference.PROTOCOLS:
        for entry in reference.entries(protocol):
            truth = of(entry, tables, "test")
            if {"age", "gender"} <= set(truth):
                drawn = any(what.startswith(f"{protocol.upper()}: {entry.name}") for what in said)
                assert drawn == (truth["gender"] >= reference.LOWEST)
                assert (f" {entry.name}, {entry.how} (" in below) != drawn
    assert len(said) == alt.count("; ") + 1 and (tmp_path / "results.png").stat().st_size > 10_000


def test_what_sets_two_networks_apart_follows_from_their_predictions(tables):
    found = [next(e for e in reference.entries("p1") if e.first.folder.name == name and not e.averaged) for name in ("03_model_a", "04_model_b")]
    a, b = (reference.Entry(entry.name, (entry.first,)) for entry in found)  # one seed of each: well apart
    one, two = (of(entry, tables, "test") for entry in (a, b))
    said = reference._apart([a, b])
    years, points = (float(re.search(rf"is ([\d.]+) {unit}", said)[1]) for unit in ("years", "points"))
    assert years == pytest.approx(one["age"] - two["age"], abs=0.051) and re.search(r"years \[[\d., ]+\] smaller, and its gender", said)
    assert points == pytest.approx(two["gender"] - one["gender"], abs=0.051) and re.search(r"points \[[\d., ]+\] higher\.", said)
    assert said.startswith("Here, on the same test faces, model B is compared with model A: ")
    assert "They differ in their start (ImageNet weights or not), the size of pictures and the number of epochs as well: the networks alone" in said
    assert "Another seed could" in reference._apart([a, b])
    several = reference.Entry("several", (b.first, b.first))
    assert f"Another seed of {a.name} could" in reference._apart([a, several])
    assert "Another seed of several could" not in reference._apart([a, several])
    assert "Another seed" not in reference._apart([reference.Entry("alike", (a.first, a.first)), several])
    assert reference._apart([a]) == ""
    of_seeds = reference._apart(found)  # with their other seeds, whichever are stored
    for name, unit in (("age", "years"), ("gender", "points")):
        change = of(found[1], tables, "test")[name] - of(found[0], tables, "test")[name]
        apart = re.search(rf"is ([\d.]+) {unit} \[[\d., ]+\] (smaller|lower)?|apart \(([+-][\d.]+) \[[^]]+\] {unit}\)", of_seeds)
        value = float(apart[3]) if apart[3] else float(apart[1]) * (-1 if apart[2] else 1)
        assert value == pytest.approx(change, abs=0.051), of_seeds


def test_how_far_the_others_lie_from_the_best_follows_from_the_predictions(tables):
    some = [e for e in reference.entries("p1") if {"age", "gender"} <= set(of(e, tables, "test"))]
    best = min((e for e in some if not e.averaged), key=lambda e: of(e, tables, "val")["age"])
    said = reference.finding()
    assert f"compared with **{best.name}**" in said
    rows = [cells(line) for line in said.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == len(some) - 1
    others = [e for e in some if e is not best]
    p = reference._apart_by(best, others)["p"]
    order = p.sort_values()
    corrected = np.maximum.accumulate(order * np.arange(len(order), 0, -1))
    for row, entry in zip(rows, others):
        assert row[0].replace("<wbr>", "").replace("\\", "") == f"{entry.name} ({entry.how})"
        for cell, key in zip(row[1:], ("age", "gender")):
            truth = of(entry, tables, "test")[key] - of(best, tables, "test")[key]
            assert float(re.match(r"[+-]\d+\.\d", cell)[0]) == pytest.approx(truth, abs=0.051)
            low, high = map(float, re.search(r"\[([+-][\d.]+), ([+-][\d.]+)", cell.replace("\\", "").replace("\N{NO-BREAK SPACE}", " ")).groups())
            assert low <= truth + 0.051 and truth - 0.051 <= high
            by_itself, among_all = (found[entry.name, {"age": reference.AGE, "gender": reference.GENDER}[key]] for found in (p, corrected))
            assert (low >= 0 or high <= 0) if by_itself < 0.05 else low <= 0 <= high
            assert cell.rpartition(": ")[2] == (
                "not told apart" if by_itself >= 0.05 else "not once corrected" if among_all >= 0.05 else cell
            )
    several = [e for e in some if len(e.runs) > 1 and not e.averaged]
    assert several
    for entry in several:
        each = [figures(tables[run.folder.name], "test") for run in entry.runs]
        years, points = (np.ptp([one[key] for one in each]) for key in ("age", "gender"))
        assert f"{entry.name}: {years:.2f} years, {points:.1f} points of gender" in said


def test_what_the_search_found_follows_from_its_trials():
    trials = pd.read_parquet(STORED / reference.TUNING / "trials.parquet")
    found, said = json.loads((STORED / reference.TUNING / "recipe.json").read_text()), reference.tuning_found()
    assert f"in {len(trials)} trials of at most {found['epochs']} epochs" in said
    assert f"had {100 * trials['score'].min():.0f} % of a guesser's error" in said
    assert found["found"]["score"] == pytest.approx(trials["score"].min(), abs=1e-6)
    assert f"trial {trials.loc[trials['score'].idxmin(), 'trial']}," in said
    assert all(f"`{name}`" in said for name in found["changes"])


def test_what_the_search_is_worth_is_said_of_trainings_alone(tables, tmp_path, monkeypatch):
    stored = [names for names in reference.TUNED if set(names) <= set(tables)]
    assert reference.tuning_found().count("Here, on the same test faces") == len(stored)
    assert ("not known" in reference.tuning_found()) == (not stored)
    from test_comparison import better, faces, store

    monkeypatch.setenv("AGEGENDER_HOME", str(tmp_path))
    place = tmp_path / reference.FOLDER
    shutil.copytree(STORED / reference.TUNING, place / reference.TUNING)
    two, other = reference.TUNED[0], reference.TUNED[1][0]  # the second pair is not whole
    asked = {"recipe": "modern", "head": "linear", "changes": {"batch": 64}, "width": 16}
    for shift, name in enumerate((*two, other)):
        store(place / name, name, better(faces(400), 1 + shift))
        record = json.loads((place / name / "provenance.json").read_text())
        record["parameters"] |= asked
        (place / name / "provenance.json").write_text(json.dumps(record))
    said = reference.tuning_found()
    assert "not known" not in said and said.count("Here, on the same test faces") == 1
    rows = [cells(line) for line in said.splitlines() if line.startswith("| ")][2:]
    assert rows[0][0].startswith("people's: modern, head linear, batch 64 (") and rows[1][0].startswith("the search's: ")
    assert len(rows) == 2
    for row, name in zip(rows, two):
        table = pd.read_parquet(place / name / "predictions.parquet")
        for cell, fold in zip(row[1::2], ("val", "test")):
            same(cell, figures(table, fold), "age")


def test_the_cost_has_every_training_in_it():
    said, minutes = reference.scale(), {}
    for path in STORED.rglob("provenance.json"):
        record = json.loads(path.read_text())
        if path.is_relative_to(STORED / "peers") or "training_seconds" not in record["facts"]:
            continue
        assert f": {path.parent.name} |".replace("_", r"\_<wbr>") in said
        if record["devices"][0].startswith("cpu"):
            minutes[record["platform"]] = minutes.get(record["platform"], 0) + record["facts"]["training_seconds"] / 60
        if more := record["facts"].get("continued"):
            minutes[more["platform"]] = minutes.get(more["platform"], 0) + more["seconds"] / 60
    assert len(minutes) > 1
    for platform, spent in minutes.items():
        assert f"Training on {platform}: {spent:.0f} minutes in all" in said


def test_each_claim_names_a_run_of_the_profile():
    names = set(profiles.read("reference").runs)
    assert {claim.run for claim in reference.CLAIMS if claim.run} <= names
    assert {*(name for names in reference.TUNED for name in names), reference.TUNING, reference.STUDY} <= names


def test_aims_are_met_or_missed_as_the_figures_say(tables):
    [model_a] = [line for line in reference.aims().splitlines() if line.startswith("| P1, model A |")]
    some = [e for e in reference.entries("p1") if not e.averaged and e.first.folder.name.startswith("03_model_a")]
    best = min(some, key=lambda e: of(e, tables, "val")["age"])
    alone = model_a.replace("\\", "").partition(f"of single networks {best.name}: ")[2]
    assert first_number(alone) == pytest.approx(of(best, tables, "test")["age"], abs=0.0051)
    for line in [cells(line) for line in reference.aims().splitlines()[2:]]:
        aimed, *both = (cell.split("; ") for cell in line[1:])
        assert [len(cell) for cell in both] in ([len(aimed)] * 2, [2 * len(aimed)] * 2)  # the averaged networks, then single ones
        for aim, reached, verdict in zip(aimed * 2, *both):
            verdict = verdict.removeprefix("of single networks ")
            gap = first_number(reached.rpartition(":")[2]) - float(aim.split()[0])
            short = gap if "years" in aim else -gap
            assert verdict.startswith("yes" if short <= 0 else "missed by"), line
            if short > 0:
                assert first_number(verdict) == pytest.approx(short, abs=0.011)


def test_the_released_models_card_follows_from_its_run(tables):
    record = json.loads((TOP / reference.RELEASED).read_text())
    [run] = [p.parent.name for p in STORED.rglob("provenance.json") if json.loads(p.read_text()) == record]
    test = tables[run][tables[run]["fold"] == "test"]
    said = reference.card()
    assert record["facts"]["stopped"] in said.replace("\\", "") and "trained (batch 64, learning rate 0.0008) on" in said
    assert record["parameters"]["changes"] == {"batch": 64, "learning_rate": 0.0008}
    rows = {cells(line)[0]: cells(line) for line in said.splitlines() if line.startswith("| ")}
    for who, part in (("all", test), ("under 18", test[test["age"] < 18]), ("66+", test[test["age"] >= 66])):
        truth = figures(part, "test")
        assert rows[who][1] == f"{len(part):,}"
        same(rows[who][2], truth, "age")
        same(rows[who][4], truth, "gender")


def test_energy_is_the_area_under_the_power(tmp_path, monkeypatch):
    (tmp_path / reference.FOLDER).mkdir(parents=True)
    (tmp_path / reference.POWER).write_text("time,watts\n2026-01-01T00:00:00,100\n2026-01-01T00:30:00,300\n2026-01-01T01:00:00,300\n")
    monkeypatch.setenv("AGEGENDER_HOME", str(tmp_path))
    said = reference._energy({"Linux x86_64, 4 cores": 90.0}, 2)
    assert "for 60 minutes, 250 Wh" in said and "90 minutes in all, about 60 Wh" in said


def test_several_seeds_are_one_row_whose_interval_contains_them(tmp_path, monkeypatch):
    from test_comparison import better, faces, store

    monkeypatch.setenv("AGEGENDER_HOME", str(tmp_path))
    table = faces(300)
    for seed in range(3):
        run = tmp_path / reference.FOLDER / f"03_model_a_seed{seed}"
        store(run, "model A", better(table, 1 + seed / 4), (3.0, 2.0, 2.5, *[2.6] * seed))
        record = json.loads((run / "provenance.json").read_text())
        (run / "provenance.json").write_text(json.dumps(record | {"parameters": {"size": 64, "seed": seed}}))
    [entry] = reference.entries("p1")
    found = reference.measured(entry, "test")["age MAE"]
    each = [figures(run.predictions, "test")["age"] for run in entry.runs]
    assert "3 to 5 epochs, 3 seeds" in entry.how and found.value == pytest.approx(np.mean(each))
    assert found.low < min(each) and found.high > max(each)


def test_every_place_of_the_pages_is_filled_and_an_unknown_one_is_an_error(tmp_path):
    for page in (PAGE, TOP / "book" / "index.md"):
        filled = reference.filled(page.read_text(encoding="utf-8"), tmp_path)
        assert "<!-- results" not in filled
        assert f"{{image}} {reference.PICTURE}" in filled and (tmp_path / reference.PICTURE).stat().st_size > 10_000
    with pytest.raises(ValueError, match="'nothing' is no part"):
        reference.filled("<!-- results: nothing -->", tmp_path)


def test_without_stored_runs_the_page_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("AGEGENDER_HOME", str(tmp_path))
    assert reference.headline().startswith("No run on UTKFace is stored")
    filled = reference.filled(PAGE.read_text(encoding="utf-8"), tmp_path)
    assert "not run" in filled and reference.PICTURE not in filled


def test_finished_runs_are_stored_and_missing_ones_named(tmp_path, monkeypatch):
    home = stubs.repository(tmp_path / "home")
    monkeypatch.setenv("AGEGENDER_HOME", str(home))
    run = home / "runs" / "tiny" / "03_model_a"
    run.mkdir(parents=True)
    for name in ("provenance.json", "predictions.parquet", "model.keras", "notebook.ipynb"):
        (run / name).write_text("{}")
    done, missing = reference.store("tiny")
    assert done == ["03_model_a"] and set(missing) == {"04_model_b", "05_branched", "08_comparison"}
    kept = {path.name for path in (home / "book" / "reference" / "03_model_a").iterdir()}
    assert "model.keras" not in kept and "notebook.ipynb" not in kept
    assert (home / "book/reference/03_model_a/predictions.parquet").read_text() == "{}"
