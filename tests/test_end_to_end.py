"""All notebooks at a tiny size, through the pipeline into the book; then again, by nbval, with the same outputs."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import filelock
import nbformat
import pandas as pd
import pypdf
import pytest
from bs4 import BeautifulSoup

import stubs
from test_handin import browser_or_skip, check_pdf

from agegender import handin, predictions, profiles, sample

TOP = Path(__file__).resolve().parents[1]
TINY = {
    "01_exploration": {},
    "02_preprocessing": {},
    "03_model_a": {"epochs": 2, "width": 4},
    "04_model_b": {"epochs": 2, "momenta": [0.999], "momentum_epochs": 1},
    "05_branched": {"epochs": 2, "width": 8, "changes": {"batch": 8}},  # steps enough to be traced into a graph
    "06_preprocessing_study": {"networks": ["branched"], "epochs": 1, "seeds": 1, "steps": []},
    "07_tuning": {"size": 32, "trials": 2, "epochs": 1},
    "08_comparison": {"runs": ["03_model_a", "04_model_b", "05_branched"]},
    "09_your_photographs": {"model": "04_model_b", "limit": 4},
}


def copy(folder: Path, runs: dict, stored: tuple[str, ...] = (), **common) -> Path:
    """A copy of this repository with the profile `tiny` of `runs`; `stored` as in ``stubs.copied``."""
    for name in ("agegender", "book", "notebooks"):
        stubs.copied(name, folder, stored)
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
    """The tiny report, made once for this file and for ``test_browser``, whichever comes first."""
    top = tmp_path_factory.getbasetemp()
    top = top.parent if "PYTEST_XDIST_WORKER" in os.environ else top  # what the workers of a session share
    folder, log = top / "tiny", top / "tiny.txt"
    with filelock.FileLock(top / "tiny.lock"):
        if not log.exists():
            log.write_text(stubs.report(copy(folder, TINY, data="sample", limit=260)).stdout)
    assert (folder / "_build" / "tiny" / "html" / "index.html").is_file(), log.read_text()[-6000:]
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
    assert re.search(r"epoch   2/2 .* val MAE", log)  # a line per epoch, to follow


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


def test_it_is_handed_in_whole(made, monkeypatch):
    browser_or_skip()
    who = handin.Student("Zoë Łuczak", "12345", "ML 101")
    said = subprocess.run(
        [sys.executable, "-m", "agegender.handin", "--profile=tiny", f"--name={who.name}", "--id=12345", "--course=ML 101"],
        cwd=made, env=stubs.environment(made), capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    with zipfile.ZipFile(made / "_build/tiny/hand-in/zoe-luczak-12345.zip") as archive:
        files = {name.removeprefix("zoe-luczak-12345/"): archive.read(name) for name in archive.namelist()}
    for name in TINY:
        assert f"notebooks/{name}.ipynb" in files and f"provenance/{name}.json" in files
    page = BeautifulSoup(files["report.html"], "html.parser")
    assert handin.fetched(page) == []
    monkeypatch.setenv("AGEGENDER_HOME", str(made))
    reader = pypdf.PdfReader(io.BytesIO(files["report.pdf"]))
    check_pdf(reader, who, handin._pages(profiles.read("tiny")))
    drawn = sum(
        item.get_object()["/Subtype"] == "/Image"
        for each in reader.pages
        for item in each["/Resources"].get("/XObject", {}).values()
    )
    assert drawn == len(page.select("img")), "each picture is on one page, whole"
    facts = json.loads((made / "runs/tiny/08_comparison/provenance.json").read_text())["facts"]
    assert f"{facts['model_A_age_MAE']:.1f} years" in re.sub(r"\s+", " ", "".join(p.extract_text() for p in reader.pages))
    for name, content in files.items():
        assert str(made).encode() not in content and str(TOP).encode() not in content, name


def test_nbval_finds_the_same_outputs_again(made, tmp_path):
    """Strictly, on the executed notebooks; the comparison first, for the others train anew (not the study)."""
    kept = [p for p in (made / "runs" / "tiny").rglob(".checkpoint.npz") if "06_preprocessing_study" not in p.parts]
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
