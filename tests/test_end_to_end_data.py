"""The report from other faces than the drawn sample: real ones, one's own, and the stored runs."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys

import nbformat
import pandas as pd

import stubs
from agegender import sample
from test_end_to_end import TINY, copy, settings  # noqa: F401 (settings: a fixture of this module, too)


def test_real_faces_and_an_edition_without_them(utkface_5000, tmp_path):
    runs = {name: TINY[name] for name in ("01_exploration", "03_model_a")} | {
        "07_tuning": {"size": 32, "trials": 2, "epochs": 1},
        "08_comparison": {"runs": ["03_model_a"]},
    }
    folder = copy(tmp_path / "report", runs, stubs.FEW, data=str(utkface_5000), limit=400)
    said = stubs.report(folder, "show_faces=false")
    assert said.returncode == 0, said.stdout[-6000:]
    record = json.loads((folder / "runs/tiny/03_model_a/provenance.json").read_text())
    assert record["facts"]["data"]["title"] == "utkface_5000" and record["facts"]["data"]["drawn"] is False
    assert 350 < record["facts"]["data"]["read"] <= 400
    executed = nbformat.read(folder / "runs/tiny/03_model_a/notebook.ipynb", 4)
    shown = [
        o
        for c in executed.cells
        for o in c.get("outputs", [])
        if o.get("metadata", {}).get("image/png", {}).get("faces")
    ]
    assert shown  # the run itself has them
    page = (folder / "_build/tiny/html/notebooks/03_model_a.html").read_text()
    assert "Pictures of faces are left out of this edition." in page and "describe no people" not in page
    staged = {path.read_bytes() for path in (folder / "_build/tiny/html/_images").glob("*.png")}
    assert not any(base64.b64decode(o["data"]["image/png"]) in staged for o in shown)


def test_own_faces_with_ages_alone(tmp_path):
    """A labels.csv with bad rows and no gender at all: what is left is judged, what is wrong is set aside."""
    drawn = sample.folder()
    truth = pd.read_csv(drawn / "truth.csv", keep_default_na=False).sample(200, random_state=1)
    mine = tmp_path / "mine"
    mine.mkdir()
    for i, file in enumerate(truth["file"]):
        shutil.copy(drawn / file, mine / f"{i}.jpg")
    labels = pd.DataFrame({"path": [f"{i}.jpg" for i in range(200)], "age": truth["age"], "person": truth["person"]})
    labels.loc[len(labels)] = ["absent.jpg", 30, "x"]
    (mine / "broken.jpg").write_bytes((mine / "0.jpg").read_bytes()[:900])
    labels.loc[len(labels) + 1] = ["broken.jpg", 30, "y"]
    labels.to_csv(mine / "labels.csv", index=False)
    runs = {name: TINY[name] for name in list(TINY)[:3]} | {"08_comparison": {"runs": ["03_model_a"]}}
    folder = copy(tmp_path / "report", runs, stubs.FEW, data=str(mine))
    said = stubs.report(folder)
    assert said.returncode == 0, said.stdout[-6000:]
    facts = json.loads((folder / "runs/tiny/03_model_a/provenance.json").read_text())["facts"]
    assert facts["data"]["found"] == 202 and facts["data"]["set_aside"] == 2
    assert "val_age_MAE" in facts and "val_gender_accuracy" not in facts
    page = (folder / "_build/tiny/html/notebooks/01_exploration.html").read_text()
    assert "absent.jpg" in page and "broken.jpg" in page
    page = (folder / "_build/tiny/html/notebooks/08_comparison.html").read_text()
    assert "No test face has a label of gender" in page


def test_the_comparison_runs_alone_on_the_stored_runs(tmp_path):
    """From a fresh clone, by plain papermill, with its defaults."""
    folder = copy(tmp_path / "clone", {"08_comparison": {}})
    (folder / "runs").mkdir()
    said = subprocess.run(
        [sys.executable, "-m", "papermill", "notebooks/08_comparison.ipynb", "runs/mine.ipynb", "--no-progress-bar"],
        cwd=folder, env=stubs.environment(folder), capture_output=True, text=True,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr[-3000:]
    text = (folder / "runs" / "mine.ipynb").read_text()
    assert "20,708 faces found" in text and "closest in age, off by" in text
    assert "None shown: the pictures of these runs' faces are not in sample" in text
