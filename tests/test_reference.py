"""The stored runs on UTKFace: every number on the book's page of results follows from their predictions."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import stubs
from agegender import reference

TOP = Path(__file__).resolve().parents[1]
STORED = TOP / "book" / "reference"
PAGE = TOP / "book" / "results.md"


@pytest.fixture(autouse=True)
def at_home(monkeypatch):
    monkeypatch.setenv("AGEGENDER_HOME", str(TOP))


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return {path.parent.name: pd.read_parquet(path) for path in STORED.glob("*/predictions.parquet")}


def figures(table: pd.DataFrame, fold: str) -> dict[str, float]:
    """Age MAE and gender accuracy by plain NumPy."""
    part, found = table[table["fold"] == fold], {}
    if part["age_pred"].notna().any():
        found["age"] = float(np.nanmean(np.abs(part["age_pred"] - part["age"])))
    if part["p_female"].notna().any():
        known = part.dropna(subset=["gender", "p_female"])
        found["gender"] = 100 * float(((known["p_female"] > 0.5) == (known["gender"] == 1)).mean())
    return found


def first_number(cell: str) -> float:
    return float(re.search(r"-?\d+\.\d", cell)[0])


def test_there_are_stored_runs_all_tested_on_the_same_faces(tables):
    assert len(tables) >= 3
    files = {tuple(t.loc[t["fold"] == "test", "file"].sort_values()) for t in tables.values()}
    assert len(files) == 1


def test_what_is_stored_is_what_the_runs_left_behind():
    for record in STORED.glob("*/provenance.json"):
        content = json.loads(record.read_text())
        for path in record.parent.glob("*.parquet"):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            assert content["files"][path.name] == digest, path
        assert content["facts"]["data"]["drawn"] is False
        assert not str(content["parameters"]["data"]).startswith("/")


def test_the_headline_follows_from_the_predictions(tables):
    lines = [line.split(" | ") for line in reference.headline().splitlines() if "here: " in line]
    assert len(lines) == len(tables)
    runs = reference.by_age()
    for (what, on, age, gender), (name, run) in zip(lines, runs.items()):
        assert name.replace("_", r"\_") in what
        truth = figures(tables[run.folder.name], "test")
        assert re.search(r"[\d,]+", on)[0] == f"{(tables[run.folder.name]['fold'] == 'test').sum():,}"
        for said, key in ((age, "age"), (gender, "gender")):
            if key in truth:
                assert first_number(said) == pytest.approx(truth[key], abs=0.051)
            else:
                assert not re.search(r"\d", said)
    order = [figures(tables[run.folder.name], "test").get("age", np.inf) for run in runs.values()]
    assert order == sorted(order)


def test_the_projects_sections_follow_from_the_predictions(tables):
    for claim in reference.CLAIMS:
        if claim.who == "public":
            continue
        [line] = [row for row in reference.project(claim.who).splitlines() if claim.what in row]
        cells = line.split(" | ")
        assert all(text in cells[1] for text in (claim.age, claim.gender, claim.group))
        if claim.run not in tables:
            assert cells[2:] == ["not run", "not run |"]
            continue
        for cell, fold in zip(cells[2:], ("val", "test")):
            truth = figures(tables[claim.run], fold)
            said = [float(n) for n in re.findall(r"(?<![\[\d.,] )(?<!\[)\b(\d+\.\d)(?= years| %)", cell)]
            assert said[: len(truth)] == pytest.approx(list(truth.values()), abs=0.051)


def test_every_place_of_the_pages_is_filled_and_an_unknown_one_is_an_error(tmp_path):
    for page in (PAGE, TOP / "book" / "index.md"):
        filled = reference.filled(page.read_text(encoding="utf-8"), tmp_path)
        assert "<!-- results" not in filled
        assert f"]({reference.PICTURE})" in filled and (tmp_path / reference.PICTURE).stat().st_size > 10_000
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
