"""All notebooks at a tiny size, through the pipeline into the book; then again, by nbval, with the same outputs."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest

import stubs

from agegender import predictions, sample

TOP = Path(__file__).resolve().parents[1]
TINY = {
    "01_exploration": {},
    "02_preprocessing": {},
    "03_model_a": {"epochs": 2, "width": 4},
    "04_model_b": {"epochs": 2, "momenta": [0.999], "momentum_epochs": 1},
    "05_branched": {"epochs": 2, "width": 8},
    "07_tuning": {"size": 32, "trials": 2, "epochs": 1},
    "08_comparison": {"runs": ["03_model_a", "04_model_b", "05_branched"]},
}


def copy(folder: Path, runs: dict, **common) -> Path:
    for name in ("agegender", "book", "notebooks"):
        shutil.copytree(
            TOP / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        )
    for name in ("Snakefile", "_config.yml"):
        shutil.copy(TOP / name, folder)
    stubs.write_profile(folder, runs, common={"seed": 0, **common})
    return folder


@pytest.fixture(scope="module", autouse=True)
def settings():
    """The drawn sample is drawn once for all; no progress bars, which differ from run to run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGEGENDER_CACHE", os.environ.get("AGEGENDER_CACHE") or str(TOP / ".cache"))
        patch.setenv("TQDM_DISABLE", "1")
        sample.folder()  # drawn here, so that no notebook shows its progress, once
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = copy(tmp_path_factory.mktemp("report"), TINY, data="sample", limit=260)
    said = stubs.report(folder)
    assert said.returncode == 0, said.stdout[-6000:]
    return folder


def test_every_run_leaves_what_the_report_needs(made):
    for name in TINY:
        run = made / "runs" / "tiny" / name
        record = json.loads((run / "provenance.json").read_text())
        assert record["facts"]["data"]["drawn"] is True
        assert (run / "log.txt").stat().st_size and (run / "benchmark.tsv").stat().st_size
    tables = {name: predictions.read(made / "runs" / "tiny" / name) for name in list(TINY)[2:5]}
    assert len({tuple(table["file"]) for table in tables.values()}) == 1
    log = (made / "runs/tiny/03_model_a/log.txt").read_text()
    assert re.search(r"epoch   2/2 .* validation: MAE", log)  # a line per epoch, to follow


def test_no_group_lies_on_both_sides(made):
    tables = [predictions.read(made / "runs" / "tiny" / name) for name in list(TINY)[2:5]]
    table = pd.concat(tables).drop_duplicates("file")
    assert table.groupby("group")["fold"].nunique().max() == 1


def test_the_pages_say_what_was_found_and_that_the_faces_are_drawn(made):
    pages = made / "_build" / "tiny" / "html"
    index = (pages / "book/index.html").read_text()
    facts = json.loads((made / "runs/tiny/08_comparison/provenance.json").read_text())["facts"]
    assert "closest in age, off by" in index and "describe no people" in index
    comparison = (pages / "notebooks/08_comparison.html").read_text()
    assert f"{facts['model_A_age_MAE']:.1f} years" in comparison
    for page in pages.glob("notebooks/*.html"):
        text = page.read_text()
        assert "describe no people" in text, page.name
        pictures = re.findall(r"<img [^>]*_images[^>]*>", text)
        assert pictures and all(re.search(r'alt="[^"]{20,}', p) for p in pictures), page.name
        assert str(made) not in text and str(TOP) not in text


def test_nbval_finds_the_same_outputs_again(made, tmp_path):
    """Strictly, on the executed notebooks; the comparison first, for the others train anew."""
    kept = list((made / "runs" / "tiny").rglob(".checkpoint.npz"))
    assert len(kept) == 6  # three models, the experiment on batch norm, and what tuning began with and found
    for state in kept:
        state.unlink()
    shutil.rmtree(made / "runs" / "tiny" / "07_tuning" / ".search")
    files = []
    for name in reversed(TINY):
        files.append(tmp_path / f"{name}.ipynb")
        shutil.copy(made / "runs" / "tiny" / name / "notebook.ipynb", files[-1])
    said = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={tmp_path}", "--nbval",
         f"--nbval-sanitize-with={TOP / 'tests' / 'sanitize.cfg'}", "--nbval-cell-timeout=300", *map(str, files)],
        cwd=tmp_path, env=stubs.environment(made), capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert said.returncode == 0, said.stdout[-8000:]
    cells = sum(cell.cell_type == "code" for file in files for cell in nbformat.read(file, 4).cells)
    assert f"{cells} passed" in said.stdout


def test_real_faces_and_an_edition_without_them(utkface_5000, tmp_path):
    runs = {name: TINY[name] for name in ("01_exploration", "03_model_a")} | {
        "07_tuning": {"size": 32, "trials": 2, "epochs": 1},
    "08_comparison": {"runs": ["03_model_a"]}
    }
    folder = copy(tmp_path / "report", runs, data=str(utkface_5000), limit=400)
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
    folder = copy(tmp_path / "report", runs, data=str(mine))
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
    assert "5,000 faces found" in text and "closest in age, off by" in text
    assert "None shown: the pictures of these runs' faces are not in sample" in text
