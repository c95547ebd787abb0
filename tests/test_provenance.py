"""The record of a run: what it holds, what it refuses, when it is there."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import stubs
import yaml

from agegender import provenance, report

TOP = Path(__file__).resolve().parents[1]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("AGEGENDER_HOME", str(tmp_path))
    return stubs.repository(tmp_path)


VALUES = {
    "data": "sample",
    "seed": np.int64(3),
    "epochs": 2,
    "rate": 0.1,
    "backbone": "small",
    "nap": 0.0,
    "out": "",
    "unrelated": object(),
}


def test_a_run_writes_down_what_it_was(home, monkeypatch):
    monkeypatch.setattr(provenance, "cores", lambda: 1)  # that it may use: a run can be held to fewer than there are
    run = provenance.start("03_model_a", VALUES)
    assert run.folder == home / "runs/own/03_model_a"
    (run.folder / "predictions.parquet").write_bytes(b"abc")
    with pytest.raises(ValueError, match="has not run to its end"):
        provenance.read("runs/own/03_model_a")
    run.finish(mae=np.float32(1.5), counts=np.array([1, 2]), where=Path("a/b"))
    record = provenance.read("runs/own/03_model_a")
    assert record["parameters"] == {key: VALUES[key] for key in VALUES if key != "unrelated"}
    assert record["facts"] == {"mae": 1.5, "counts": [1, 2], "where": "a/b"}
    assert list(record["files"]) == ["predictions.parquet"]
    assert record["files"]["predictions.parquet"].startswith("ba7816bf")
    assert record["notebook_sha256"] == provenance.code_digest(home / "notebooks/03_model_a.ipynb")
    assert {"agegender/places.py", "agegender/provenance.py"} <= set(record["sources"])
    assert record["code"] == {"commit": None, "changed": None}
    assert record["versions"]["python"] and record["peak_memory_mb"] > 10 and record["seconds"] >= 0
    assert record["started"].endswith("+00:00") and record["platform"].endswith(", 1 core")
    assert str(home) not in json.dumps(record)


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"mae": float("nan")}, "facts.mae is nan"),
        ({"scores": {"a": [1.0, np.inf]}}, r"facts.scores.a\[1\] is inf"),
        ({"thing": object()}, "facts.thing"),
    ],
)
def test_facts_that_are_no_facts(home, facts, word):
    run = provenance.start("03_model_a", VALUES)
    with pytest.raises(ValueError, match=word):
        run.finish(**facts)
    assert not (run.folder / "provenance.json").exists()


def test_a_new_start_takes_the_old_record_away_and_claims_no_old_files(home):
    run = provenance.start("03_model_a", VALUES, "runs/x")
    (run.folder / "history.parquet").write_text("1")
    run.finish()
    again = provenance.start("03_model_a", VALUES, "runs/x")
    assert not (run.folder / "provenance.json").exists()
    assert again.finish()["files"] == {}


def test_a_start_that_cannot_be(home):
    with pytest.raises(ValueError, match="no value for seed"):
        provenance.start("03_model_a", {key: value for key, value in VALUES.items() if key != "seed"})
    with pytest.raises(ValueError, match="there is no 03_modela.ipynb"):
        provenance.start("03_modela", VALUES)


def test_a_broken_record_is_named(home):
    (home / "runs/x").mkdir(parents=True)
    (home / "runs/x/provenance.json").write_text("{")
    with pytest.raises(ValueError, match="runs/x/provenance.json is broken"):
        provenance.read("runs/x")


@pytest.mark.parametrize("remote, address", [
    ("https://github.com/some-one/a.b.git", "https://github.com/some-one/a.b"),
    ("git@gitlab.com:some/thing.git", "https://gitlab.com/some/thing"),
    ("/elsewhere/on/the/disk", None),
    (None, None),
])  # fmt: skip
def test_links_lead_to_the_repository_there_is(tmp_path, monkeypatch, remote, address):
    monkeypatch.setenv("AGEGENDER_HOME", str(tmp_path))
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    if remote:
        subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", remote], check=True)
    assert provenance.web_address() == address
    config = yaml.safe_load((TOP / "_config.yml").read_text())
    made = report._at_home(config, address)
    assert ("launch_buttons" in made) == (made["html"].get("use_edit_page_button") is True) == bool(address)
    assert made.get("repository", {}).get("url") == address
