"""The cards and the glossary: filled from records and predictions, whatever runs there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from agegender import (
    calibration,
    cards,
    comparison,
    corruptions,
    faces,
    glossary,
    labels,
    metrics,
    predictions,
)

TOP = Path(__file__).resolve().parents[1]
# of tables made by hand, which leave out what may be missing
COLUMNS = {name: kind for name, kind in predictions.COLUMNS.items() if name != "seen"}
PAGES = [TOP / "book" / f"{name}.md" for name in ("data_card", "model_card", "glossary")]


def people(n: int = 200, seed: int = 0) -> pd.DataFrame:
    """Labelled faces with answers: 100 validation and n - 100 test faces, guessed 2 years too old."""
    rng = np.random.default_rng(seed)
    age = rng.integers(0, 80, n).astype(float)
    female = rng.integers(0, 2, n)
    return pd.DataFrame({
        "file": [f"{i:03}.jpg" for i in range(n)], "fold": np.where(np.arange(n) < 100, "val", "test"), "group": np.arange(n),
        "age": age, "gender": female, "race": rng.integers(0, 5, n), "age_pred": age + 2, "age_low": np.nan,
        "age_high": np.nan, "p_female": np.where(rng.random(n) < 0.9, female, 1 - female), "age_group_pred": None,
    }).astype(COLUMNS)  # fmt: skip


def ran(folder: Path, notebook: str, table: pd.DataFrame | None = None, drawn=False, **facts) -> cards.Ran:
    """A finished run of which only the record and, with `table`, the predictions are kept."""
    folder.mkdir(parents=True)
    if table is not None:
        predictions.write(table, folder / "predictions.parquet")
    data = {"title": "some|faces", "kind": faces.DRAWN if drawn else faces.UTKFACE, "drawn": drawn, "found": 300,
            "read": 299, "set_aside": 1, "limited_from": None, "digest": "abc"}  # fmt: skip
    split = {"digest": "def", "train": 99, "val": 100, "test": 100, "unused": 0}
    record = {
        "notebook": notebook, "facts": {"data": data, "split": split, **facts},
        "parameters": {"size": 64, "seed": 0, "split": "grouped"}, "devices": ["cpu:0"],
        "versions": {"python": "3.11", "keras": "3.1", "backend": "jax", "jax": "0.9"}, "platform": "Linux, 2 cores",
        "code": {"commit": "0123456789abcdef", "changed": True}, "finished": "2026-11-23T01:00:00+00:00",
        "files": {path.name: "" for path in folder.iterdir()},
    }  # fmt: skip
    return cards.Ran(folder, record)


def model(folder: Path, name: str = "model A", table: pd.DataFrame | None = None, **facts) -> cards.Ran:
    known = {
        "weights": "random start",
        "parameters": 12345,
        "recipe": "S1",
        "epochs": 3,
        "training_seconds": 90.0,
    }
    return ran(folder, "03_model_a", people() if table is None else table, model=name, **{**known, **facts})


def explored(folder: Path, table: pd.DataFrame, **facts) -> cards.Ran:
    folder.mkdir(parents=True)
    labels.census(table.assign(band=faces.age_band(table["age"]))).to_csv(folder / "census.csv", index=False)
    found = ran(
        folder / "x", "01_exploration", twin_groups=2, twin_faces=5, conflicts=1, genders_differ=1, **facts
    )
    return cards.Ran(folder, {**found.record, "files": {"census.csv": ""}})


def all_pages(edition: cards.Edition) -> str:
    return "\n".join(cards.filled(page.read_text(encoding="utf-8"), edition) for page in PAGES)


def rows(text: str) -> dict[str, list[str]]:
    """Lines of Markdown tables by their first cell; of equal ones the last."""
    cells = [
        [cell.strip(" ") for cell in line[2:-2].split(" | ")] for line in text.splitlines() if line[:1] == "|"
    ]
    return {line[0]: line[1:] for line in cells}


def test_every_place_on_the_pages_is_filled_and_every_part_has_its_place(tmp_path):
    marked = [name for page in PAGES for name in cards.MARK.findall(page.read_text(encoding="utf-8"))]
    assert sorted(marked) == sorted(cards.PARTS)
    edition = cards.Edition({"03_model_a": model(tmp_path / "a")})
    assert "<!--" not in all_pages(edition)
    with pytest.raises(ValueError, match="no part 'nothing' of a card"):
        cards.filled("<!-- card: nothing -->", edition)


def test_the_tables_hold_the_figures_of_the_predictions(tmp_path):
    table = people()
    edition = cards.Edition({"03_model_a": model(tmp_path / "a", table=table)})
    test = table[table["fold"] == "test"]
    text = cards.PARTS["overall"](edition)
    right = metrics.gender_accuracy(test)
    assert rows(text)["model A"] == [
        "100",
        *["2.0\N{NBSP}\\[2.0,\N{NBSP}2.0\\]"] * 2,
        cards.plain(cards.figure(right, True)),
    ]
    assert rows(text)["guesser, who never looks"][1] == f"{metrics.naive(table)['age MAE']:.1f}"
    groups = rows(cards.PARTS["groups"](edition))
    assert groups["under 18"][0] == str((test["age"] < 18).sum())
    women = test[(test["gender"] == 1) & (test["age"] >= 18)]
    share = f"{100 * metrics.gender_accuracy(women).value:.1f}"
    assert groups["female, 18 and older"][3].startswith(share)
    assert "race: Black" in groups


def test_groups_share_their_draws_with_the_comparison(tmp_path):
    """The row of all faces shows the interval that 08_comparison shows."""
    test = people().assign(age_pred=lambda t: t["age"] + np.random.default_rng(1).normal(0, 5, len(t)))
    found = cards.by_group(test, metrics.MEASURES)
    assert cards.figure(found.loc[0, "age MAE"], False) == cards.figure(metrics.age_mae(test), False)
    assert found.loc[0, "age MAE"].low == pytest.approx(
        metrics.age_mae(test).low, rel=1e-5
    )  # sums are float32
    minors = found[found["group"] == "under 18"].iloc[0]
    plain = metrics.age_mae(test[test["age"] < 18])
    assert minors["age MAE"].value == pytest.approx(plain.value) and minors["age MAE"].n == plain.n
    assert minors["age MAE"].low == pytest.approx(plain.low, abs=0.1)


def test_models_with_few_questions_or_few_labels(tmp_path):
    table = people()
    test = {
        "age alone": {"p_female": np.nan},
        "gender alone": {"age_pred": np.nan},
        "no races": {"race": pd.NA},
        "no genders": {"gender": pd.NA},
        "no ages": {"age": np.nan},
    }
    for name, change in test.items():
        edition = cards.Edition(
            {name: model(tmp_path / name, name, table.assign(**change).astype(COLUMNS))}
        )
        text = all_pages(edition)
        assert not re.search(r"\bnan\b", text), name
        shown = cards.PARTS["groups"](edition)
        assert ("gender right" in shown) == (name not in ("age alone", "no genders"))
        assert ("age MAE" in shown) == (name not in ("gender alone", "no ages"))
        assert ("No test face has a label of" in shown) == name.startswith("no ")
        assert ("race: White" in shown) == (name != "no races")


def test_age_groups_are_a_column_where_they_are_told(tmp_path):
    table = people()
    edges = (0, 40)
    table["age_group_pred"] = pd.array((table["age"] >= 40).astype(int), "Int8")
    runs = {
        "a": model(tmp_path / "a", age_groups=list(edges), tasks=["age_group"]),
        "b": model(tmp_path / "b", "other"),
    }
    predictions.write(table, tmp_path / "a" / "predictions.parquet")
    edition = cards.Edition(runs)
    assert rows(cards.PARTS["overall"](edition))["model A"][-1].startswith("100.0")
    assert rows(cards.PARTS["overall"](edition))["other"][-1] == ""
    assert rows(cards.PARTS["models"](edition))["model A"][0] == "2 age groups"


def test_a_group_too_small_is_named_but_not_judged(tmp_path):
    table = people()
    table["age"] = np.where(np.arange(200) < 195, 30.0, 5.0)
    groups = rows(cards.PARTS["groups"](cards.Edition({"a": model(tmp_path / "a", table=table)})))
    assert groups["under 18"] == ["5", "too few", "too few", "too few"]


def test_two_runs_of_one_model_are_told_apart_and_other_test_faces_are_not_compared(tmp_path):
    short = people().iloc[:-1]
    runs = {"one": model(tmp_path / "one"), "two": model(tmp_path / "two", table=short)}
    text = cards.PARTS["overall"](cards.Edition(runs))
    assert {"model A (one)", "model A (two)"} <= set(rows(text)) and "can't be compared" in text
    assert "guesser" not in text


def test_a_drawn_edition_says_so_on_both_cards(tmp_path):
    edition = cards.Edition({"a": ran(tmp_path / "a", "03_model_a", people(), drawn=True, model="model A")})
    data, models = (cards.filled(page.read_text(encoding="utf-8"), edition) for page in PAGES[:2])
    assert "belong to nobody" in data and "describe no people" in data and "non-commercial" not in data
    assert "drawn by a program" in models
    real = all_pages(cards.Edition({"b": model(tmp_path / "b")}))
    assert "describe no people" not in real and "non-commercial" in real


def test_a_source_nobody_knows_of_is_not_called_utkface(tmp_path):
    run = ran(tmp_path / "a", "03_model_a")
    run.facts["data"]["kind"] = faces.LABELS_CSV
    text = cards.filled(PAGES[0].read_text(encoding="utf-8"), cards.Edition({"a": run}))
    assert "Whoever gathered these faces has to say" in text and "UTKFace is offered" not in text


def test_the_exploration_counts_all_faces_and_without_it_the_card_says_which(tmp_path):
    everyone = pd.concat([people().assign(fold="train"), people()], ignore_index=True)
    runs = {"03_model_a": model(tmp_path / "a"), "01_exploration": explored(tmp_path / "e", everyone)}
    with_it, without = cards.Edition(runs), cards.Edition({"03_model_a": runs["03_model_a"]})
    text = cards.PARTS["composition"](with_it)
    counted = sum(
        int(line[0])
        for band, line in rows(text).items()
        if band in faces.age_band(everyone["age"]).categories
    )
    assert (
        counted == 400 and "300 faces were found; 299 could be read, 1 was set aside (the exploration" in text
    )
    assert "200 validation and test faces" in cards.PARTS["composition"](without)
    assert "5 (1.7 %) show what another one shows, in 2 groups; in 1 of these" in cards.PARTS["copies"](
        with_it
    )
    assert "no run of this edition recorded" in cards.PARTS["copies"](without)


def test_runs_on_other_faces_are_listed_and_not_mixed_in(tmp_path):
    runs = {"01_exploration": explored(tmp_path / "e", people()), "03_model_a": model(tmp_path / "a")}
    assert "other faces" not in cards.PARTS["data"](cards.Edition(runs))
    runs["07_tuning"] = ran(tmp_path / "t", "07_tuning")
    runs["07_tuning"].facts["data"]["digest"] = "other"
    assert "07\\_tuning" in cards.PARTS["data"](cards.Edition(runs))


@pytest.mark.parametrize("facts", [{}, {"data": {"title": "x", "drawn": True, "faces": 10}}])
def test_without_any_run_of_use_the_cards_say_so(tmp_path, facts):
    record = {"notebook": "08_comparison", "facts": facts, "parameters": {}, "files": {}}
    for runs in ({}, {"a": cards.Ran(tmp_path, record)}):
        text = all_pages(cards.Edition(runs))
        assert cards.NO_MODEL in text and "<!--" not in text


def test_signs_of_markdown_in_names_stay_plain():
    assert cards.plain("a|b *c* _d_ <e> [f]") == r"a\|b \*c\* \_d\_ \<e\> \[f\]"
    assert cards.table(["a", "b"], [["x|y", 1]], [1]).splitlines() == [
        "| a | b |",
        "| --- | ---: |",
        r"| x\|y | 1 |",
    ]


def test_the_stored_reference_runs_make_cards():
    folders = sorted((TOP / "book" / "reference").glob("*/provenance.json"))
    runs = {path.parent.name: cards.Ran(path.parent, json.loads(path.read_text())) for path in folders}
    text = all_pages(cards.Edition(runs))
    models = [path for path in folders if (path.parent / "predictions.parquet").is_file()]  # the study is none
    assert len(cards.Edition(runs).models) == len(models) > 0 and "nan" not in text


def test_census_says_what_is_unknown_or_in_no_list():
    table = people(4).assign(
        fold=["train", "", "train", "train"], age=[3, 3, np.nan, 3], gender=[1, 1, 0, 1], race=[0, 0, None, 0]
    )
    table["band"] = faces.age_band(table["age"])
    found = labels.census(table.astype({"gender": "Int8", "race": "Int8"})).sort_values(
        "faces", kind="stable"
    )
    assert found.to_numpy().tolist() == [
        ["unused", "0-5", "female", "White", 1],
        ["train", "unknown", "male", "unknown", 1],
        ["train", "0-5", "female", "White", 2],
    ]


# Glossary and statistics


def test_every_measure_of_the_package_is_in_the_glossary():
    found = {}
    for module in (metrics, calibration, comparison, corruptions):
        for name, value in vars(module).items():
            measures = value if isinstance(value, dict) else {name: value}
            found |= {key: one for key, one in measures.items() if isinstance(one, metrics.Measure)}
    listed = {one.meaning for one in glossary.MEASURES.values()}
    missing = [name for name, one in found.items() if one.meaning not in listed]
    assert not missing and len(found) >= 15
    page = glossary.measures()
    for name, measure in glossary.MEASURES.items():
        assert f"\n{name}\n  {measure.meaning[:1].upper()}{measure.meaning[1:]}." in page
    assert set(glossary.MEASURES) <= set(glossary.ENTRIES)


def test_constants_on_the_statistics_page_are_those_of_the_code():
    text = " ".join((TOP / "book" / "statistics.md").read_text(encoding="utf-8").split())
    assert f"Each of {metrics.DRAWS:,} draws" in text
    assert f"fewer than {metrics.FEW} groups" in text and f"corrected p is below {metrics.LEVEL}" in text
    assert f"in {['', '', '', '', 'four', 'five'][len(corruptions.SEVERITIES) - 1]} severities" in text


def test_every_reference_is_cited_and_every_citation_has_one():
    known = re.findall(r"^@\w+\{(.+),$", (TOP / "book" / "references.bib").read_text(encoding="utf-8"), re.M)
    text = "".join(page.read_text(encoding="utf-8") for page in (TOP / "book").glob("*.md"))
    text += (TOP / "agegender" / "cards.py").read_text(encoding="utf-8")
    cited = {key for keys in re.findall(r"\{cite:[pt]\}`([^`]+)`", text) for key in keys.split(",")}
    assert cited == set(known) and len(known) == len(set(known))
