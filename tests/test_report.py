"""The gate, the staged pages, and the whole engine on stub notebooks: Snakemake, papermill, jupyter-book."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from urllib.parse import unquote

import nbformat
import psutil
import pytest
import stubs
import yaml

from agegender import profiles, provenance, report

RUNS = {
    "03_model_a": {},
    "a_long": {"notebook": "03_model_a", "epochs": 9},
    "08_comparison": {"runs": ["03_model_a", "a_long"]},
}


# ------------------------------------------------------------------------ gate and staging, nothing executed


def pretend(home: Path, run: profiles.Run, drawn: bool = True) -> None:
    """Leave a run's folder as papermill and the notebook would."""
    notebook = nbformat.read(run.source, as_version=4)
    injected = nbformat.v4.new_code_cell(
        f"data = '{run.parameters.get('data')}'", metadata={"tags": ["injected-parameters"]}
    )
    notebook.cells.insert(2, injected)
    shown = [output("image/png", "A face", True), output("image/png", "A curve", False)]
    for count, cell in enumerate(cell for cell in notebook.cells if cell.cell_type == "code"):
        cell.execution_count = count + 1
        if "display({" in cell.source:
            cell.outputs = [shown.pop(0)]
        if "careful" in cell.source:
            cell.outputs = [
                nbformat.v4.new_output("stream", name="stderr", text="careful"),
                nbformat.v4.new_output("stream", name="stdout", text=f"read {home}/x\n"),
            ]
        if "glue(" in cell.source:
            cell.outputs = [
                stored(key, value)
                for key, value in (
                    ("finding", "'x'"),
                    ("n_test", "4"),
                    ("n_faces", "10"),
                    ("data_title", "'y'"),
                    ("starts", "'z'"),
                    *((f"must_{of}", "'w'") for of in ("far", "side", "gender", "children", "minors")),
                )
            ]
    notebook.metadata["papermill"] = {"exception": None, "input_path": str(run.source)}
    record = provenance.start(run.notebook.stem, run.parameters, run.folder.as_posix())
    nbformat.write(notebook, record.folder / "notebook.ipynb")
    (record.folder / "predictions.parquet").write_text("1")
    record.finish(**({} if run.needs else {"data": {"title": "some faces", "drawn": drawn}}))


def output(mime: str, alt: str | None, faces: bool | None) -> nbformat.NotebookNode:
    said = {key: value for key, value in (("alt", alt), ("faces", faces)) if value is not None}
    return nbformat.v4.new_output(
        "display_data", {mime: "iVBORw0KGgo=", "text/plain": "p"}, metadata={mime: said}
    )


def stored(key: str, value: str) -> nbformat.NotebookNode:
    prefix = "application/papermill.record/"
    return nbformat.v4.new_output(
        "display_data",
        {prefix + "text/plain": value},
        metadata={"scrapbook": {"name": key, "mime_prefix": prefix}},
    )


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("AGEGENDER_HOME", str(tmp_path))
    monkeypatch.setattr(profiles, "PACKAGE", tmp_path / "agegender")
    return stubs.repository(tmp_path, RUNS)


@pytest.fixture
def profile(home):
    read = profiles.read("tiny")
    for run in read.runs.values():
        pretend(home, run)
    return read


def test_good_runs_pass_the_gate(profile):
    report.check(profile)


def edit(change):
    """A fault in the executed notebook of a run."""

    def apply(home: Path) -> None:
        path = home / "runs/tiny/03_model_a/notebook.ipynb"
        notebook = nbformat.read(path, as_version=4)
        change(notebook, [cell for cell in notebook.cells if cell.cell_type == "code"])
        nbformat.write(notebook, path)

    return apply


def record(change):
    """A fault in the record of a run."""

    def apply(home: Path) -> None:
        path = home / "runs/tiny/03_model_a/provenance.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return apply


def source(home: Path) -> None:
    path = home / "notebooks/03_model_a.ipynb"
    path.write_text(path.read_text().replace("time.sleep", "time.nap"))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (edit(lambda _, code: code[2].update(execution_count=None)), "was not executed"),
        (
            edit(
                lambda _, code: code[2].outputs.append(
                    nbformat.v4.new_output("error", ename="ValueError", evalue="bad", traceback=[])
                )
            ),
            "failed: ValueError: bad",
        ),
        (
            edit(lambda notebook, _: notebook.metadata.papermill.update(exception=True)),
            "papermill says that it failed",
        ),
        (
            edit(lambda _, code: code[2].outputs.append(output("image/png", "", False))),
            "(image/png) without alt text",
        ),
        (
            edit(lambda _, code: code[2].outputs.append(output("image/svg+xml", None, False))),
            "(image/svg+xml) without alt",
        ),
        (
            edit(lambda _, code: code[2].outputs.append(output("image/jpeg", "A", None))),
            "whether faces are on it",
        ),
        (
            edit(lambda _, code: code[2].outputs.extend([output("image/png", "A", False)] * 2)),
            "shows 2 pictures",
        ),
        (
            edit(
                lambda _, code: code[2].outputs.append(
                    nbformat.v4.new_output(
                        "display_data", {"text/html": "<p><img src='data:image/png;base64,x'></p>"}
                    )
                )
            ),
            "hides a picture in text/html",
        ),
        (
            edit(
                lambda _, code: code[2].outputs.append(
                    nbformat.v4.new_output(
                        "display_data",
                        {"application/papermill.record/image/png": "x"},
                        metadata={"scrapbook": {"name": "f"}},
                    )
                )
            ),
            "glues a picture",
        ),
        (edit(lambda _, code: code[2].outputs.append(stored("mae", "nan"))), "the glued mae is nan"),
        (
            edit(lambda _, code: code[2].outputs.append(stored("best", "'inf years'"))),
            "the glued best is 'inf years'",
        ),
        (
            edit(lambda _, code: code[2].update(source="print(1)")),
            "the code of notebooks/03_model_a.ipynb has changed",
        ),
        (source, "the code of notebooks/03_model_a.ipynb has changed"),
        (
            lambda home: (home / "agegender/tiny.py").write_text("#"),
            "changed since it ran: agegender/tiny.py",
        ),
        (
            lambda home: stubs.write_profile(home, RUNS | {"03_model_a": {"epochs": 4}}),
            "it ran with epochs = 3, the profile says 4",
        ),
        (record(lambda content: content["facts"].update(mae=float("nan"))), "facts.mae is nan"),
        (record(lambda content: content["facts"].pop("data")), "whether its faces are drawn"),
        (lambda home: (home / "runs/tiny/03_model_a/provenance.json").unlink(), "holds no provenance.json"),
        (lambda home: (home / "runs/tiny/03_model_a/notebook.ipynb").unlink(), "it has not run"),
        (
            lambda home: (home / "runs/tiny/03_model_a/predictions.parquet").write_text("2"),
            "predictions.parquet has changed",
        ),
        (
            lambda home: (home / "runs/tiny/03_model_a/predictions.parquet").unlink(),
            "predictions.parquet is gone",
        ),
    ],
)
def test_the_gate_names_the_fault(home, profile, spoil, said):
    spoil(home)
    with pytest.raises(ValueError) as raised:
        report.check(profiles.read("tiny"))
    assert said in str(raised.value) and "- 03_model_a:" in str(raised.value)


def test_the_gate_names_all_faults(home, profile):
    shutil.rmtree(home / "runs/tiny")
    with pytest.raises(ValueError) as raised:
        report.check(profile)
    assert str(raised.value).count("it has not run") == 3


def test_staged_pages(home, profile):
    report.stage(profile, home / "site")
    toc = yaml.safe_load((home / "site/_toc.yml").read_text())
    chapters = {entry["file"]: entry for part in toc["parts"] for entry in part["chapters"]}
    assert chapters["notebooks/03_model_a"]["sections"] == [{"file": "notebooks/a_long", "title": "a_long"}]
    assert "notebooks/05_branched" not in chapters and "notebooks/08_comparison" in chapters
    text = (home / "site/notebooks/03_model_a.ipynb").read_text()
    assert str(home) not in text and 'careful"' not in text and "read ./x" in text
    page = nbformat.read(home / "site/notebooks/03_model_a.ipynb", as_version=4)
    assert page.cells[0].source.startswith("# Stub of 03_model_a\n\n```{admonition} Drawn faces")
    assert page.cells[1].metadata.tags == ["parameters", "remove-cell"]
    assert page.cells[2].metadata.tags == ["injected-parameters", "hide-input"]
    alts = [
        cell.metadata.mystnb.image.alt for cell in page.cells if "image" in cell.metadata.get("mystnb", {})
    ]
    assert alts == ["A face", "A curve"]
    assert list(report.glued(nbformat.read(home / "site/notebooks/08_comparison.ipynb", as_version=4))) == [
        "finding",
        "n_test",
        "n_faces",
        "data_title",
        "starts",
        "must_far",
        "must_side",
        "must_gender",
        "must_children",
        "must_minors",
    ]
    for name in ("index", "status", "data_card", "model_card", "must_not"):
        assert "describe no people" in (home / f"site/book/{name}.md").read_text()
    status = (home / "site/book/status.md").read_text()
    assert (
        "| epochs | `9` |" in status
        and "| data: title | `some faces` |" in status
        and str(home) not in status
    )
    assert "[the branched network]" not in (home / "site/book/index.md").read_text()  # not run: no link


def test_an_edition_without_faces_has_none(home, profile):
    report.stage(profile, home / "site", show_faces=False)
    page = nbformat.read(home / "site/notebooks/03_model_a.ipynb", as_version=4)
    shown = [
        output
        for cell in page.cells
        for output in cell.get("outputs", [])
        if output.output_type == "display_data"
    ]
    assert [list(output.data) for output in shown] == [["text/plain"], ["image/png", "text/plain"]]
    assert shown[0].data["text/plain"] == report.LEFT_OUT
    assert shown[1].metadata["image/png"]["faces"] is False
    assert "| pictures of faces | left out |" in (home / "site/book/status.md").read_text()


def test_real_faces_carry_no_warning_and_no_path(home, profile):
    read = profiles.read("tiny", {"data": "/secret/place/faces"})
    for run in read.runs.values():
        pretend(home, run, drawn=False)
    report.stage(read, home / "site")
    for page in (home / "site").rglob("*.*"):
        text = page.read_text(encoding="utf-8", errors="replace")  # one is a picture
        assert "describe no people" not in text or page.name == "data.md", page
        assert "/secret" not in text, page


def test_a_page_that_takes_what_no_run_gives_is_named(home, profile):
    (home / "book/data.md").write_text("# D\n\n{glue:text}`../notebooks/08_comparison.ipynb::nothing:.2f`")
    with pytest.raises(
        ValueError, match="data.md takes nothing from notebooks/08_comparison.ipynb, which does not"
    ):
        report.stage(profile, home / "site")


def test_a_notebook_that_lacks_a_place_in_the_book_is_named(home, profile):
    toc = home / "book/_toc.yml"
    toc.write_text(toc.read_text().replace("03_model_a", "05_branched"))
    with pytest.raises(ValueError, match="notebooks/03_model_a.ipynb is missing in book/_toc.yml"):
        report.stage(profile, home / "site")


def test_a_notebooks_own_page_is_its_first_run_if_none_bears_its_name(home):
    stubs.write_profile(home, {"one": {"notebook": "03_model_a"}, "two": {"notebook": "03_model_a"}})
    assert {page: run.name for page, run in report.pages(profiles.read("tiny")).items()} == {
        "notebooks/03_model_a": "one",
        "notebooks/two": "two",
    }


def test_a_sweep_is_jobs_of_their_own_and_sections_of_its_page(tmp_path, monkeypatch):
    monkeypatch.setenv("AGEGENDER_HOME", str(tmp_path))
    swept = {"sweep": {"rate": [0.1, 0.25], "seed": [0, 1]}, "resources": {"gpu": 1}}
    folder = stubs.repository(tmp_path, {"03_model_a": swept, "08_comparison": {"runs": ["03_model_a"]}})
    profile = profiles.read("tiny")
    said = stubs.report(folder, "-n")
    assert said.returncode == 0, said.stdout
    assert re.search(r"^total +7$", said.stdout, re.M)
    assert all(re.search(rf"^{re.escape(name)} +1$", said.stdout, re.M) for name in profile.runs)
    toc = report._toc(yaml.safe_load((folder / "book/_toc.yml").read_text()), report.pages(profile))
    [entry] = [e for part in toc["parts"] for e in part["chapters"] if e["file"] == "notebooks/03_model_a"]
    assert [section["title"] for section in entry["sections"]] == list(profile.runs)[1:4]


# ------------------------------------------------------------------------------------- the engine for real


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A copy with its report made: runs, gate, pages."""
    folder = stubs.repository(tmp_path_factory.mktemp("home"), RUNS)
    for words in (["init", "-q"], ["remote", "add", "origin", "git@github.com:some-one/faces.git"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    result = stubs.report(folder)
    assert result.returncode == 0, result.stdout
    assert "The report: " in result.stdout and re.search(r"a_long +\d+ +\d+ MB", result.stdout)
    return folder


def html(folder: Path, page: str) -> str:
    return (folder / "_build/tiny/html" / f"{page}.html").read_text(encoding="utf-8")


def test_the_pages_are_what_the_settings_say(made):
    index, page = html(made, "book/index"), html(made, "notebooks/03_model_a")
    assert "a_long errs by 1.00 years." in index
    assert 'alt="A curve"' in page and 'alt="A face"' in page and "careful\n" not in page
    for button in ("colab.research.google.com", "mybinder.org", "github.com/some-one/faces/edit/main/notebooks/03_model_a.ipynb"):
        assert button in page, "a misplaced key in _config.yml is ignored without a word"
    assert "custom.css" in page and "/issues/new" in page
    assert "Zhang" in html(made, "book/references")
    card = html(made, "book/model_card")
    assert "03_model_a (a_long)" in card and "1.0\N{NBSP}[1.0,\N{NBSP}1.0]" in card  # its age MAE
    assert "mean absolute error of age" in html(made, "book/glossary").lower()
    assert "Nobody knows of must_children." in html(made, "book/must_not")
    for file in (made / "_build/tiny/html").rglob("*.html"):
        assert str(made) not in file.read_text(encoding="utf-8"), file


def test_links_to_the_repository_lead_to_files_that_are_there(made):
    """Edit, Colab and Binder; and a further run of a notebook leads to that notebook."""
    for page in listed_pages(made):
        links = [unquote(link) for link in re.findall(r'href="(https?://[^"]*)"', html(made, page))]
        links = [link for link in links if "some-one/faces" in link]
        files = re.findall(r"(?:/(?:edit|blob)/main/|urlpath=lab/tree/)([^?#\n]+)", "\n".join(links))
        kinds = 3 if page.startswith("notebooks/") else 1
        assert len(files) == kinds and all((made / file).is_file() for file in files), (page, links)
        assert any("/issues/new?title=" in link for link in links)
    assert "blob/main/notebooks/03_model_a.ipynb" in html(made, "notebooks/a_long")
    assert "_sources/notebooks/a_long.ipynb" in html(made, "notebooks/a_long")  # to download: as it was run


def test_what_the_theme_leaves_nameless_has_a_name(made):
    index, references = html(made, "book/index"), html(made, "book/references")
    assert "<summary><" not in index and '<summary aria-label="Further pages">' in index
    assert 'role="listitem"' in references and "doc-biblioentry" not in references


def listed_pages(folder: Path) -> list[str]:
    built = folder / "_build/tiny/html"
    return [path.relative_to(built).with_suffix("").as_posix() for part in ("book", "notebooks")
            for path in sorted((built / part).glob("*.html"))]  # fmt: skip


def test_again_runs_nothing_and_a_change_only_what_depends_on_it(made):
    before = {path: path.stat().st_mtime_ns for path in made.glob("runs/tiny/*/notebook.ipynb")}
    assert "Nothing to be done" in stubs.report(made).stdout

    stubs.write_profile(made, RUNS | {"a_long": {"notebook": "03_model_a", "epochs": 4}})
    result = stubs.report(made, "show_faces=false")
    assert result.returncode == 0, result.stdout
    changed = {path.parent.name for path, stamp in before.items() if path.stat().st_mtime_ns != stamp}
    assert changed == {"a_long", "08_comparison"}
    assert "a_long errs by 2.00 years." in html(made, "book/index"), "a number follows on a sibling page"
    page = html(made, "notebooks/03_model_a")
    assert report.LEFT_OUT in page and 'alt="A face"' not in page and 'alt="A curve"' in page


def test_the_hand_in_of_an_edition_without_faces_shows_none(made):
    assert stubs.report(made, "show_faces=false").returncode == 0
    words = ["-m", "agegender.handin", "--profile=tiny", "--name=Ada", "--id=1", "--course=ML", "--pdf=false"]

    def handed_in(show_faces):
        command = [sys.executable, *words, f"--show-faces={show_faces}"]
        return subprocess.run(command, cwd=made, env=stubs.environment(made), capture_output=True, text=True)

    said = handed_in("false")
    assert said.returncode == 0, said.stderr
    with zipfile.ZipFile(made / "_build/tiny/hand-in/ada-1.zip") as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    page = texts["ada-1/report.html"]
    assert report.LEFT_OUT in page and 'alt="A face"' not in page and 'alt="A curve"' in page
    assert page.count("data:image/png") == page.count("<img") and "Pictures of faces</dt><dd dir=\"auto\">left out" in page
    assert not [name for name, text in texts.items() if str(made) in text]
    said = handed_in("true")
    assert said.returncode == 1 and "with show_faces=true: make it first" in said.stderr


def test_a_wrong_profile_stops_before_anything_runs(made):
    stubs.write_profile(made, {"03_model_a": {"epoch": 3}}, name="wrong")
    result = stubs.report(made, profile="wrong")
    assert result.returncode != 0 and "did you mean epochs?" in result.stdout
    assert not (made / "runs/wrong").exists()


def test_after_a_kill_nothing_is_trusted_nobody_writes_and_the_same_command_goes_on(made):
    stubs.write_profile(made, {"03_model_a": {}, "05_branched": {"epochs": 0}}, name="killed")
    folder = made / "runs/killed/03_model_a"
    log, hold = folder / "log.txt", made / "hold"
    hold.touch()
    first = subprocess.Popen(
        stubs.command("runs/killed/03_model_a/provenance.json", profile="killed"),
        cwd=made,
        env=stubs.environment(made),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: log.is_file() and "Executing Cell 5" in log.read_text(), 60)
        second = stubs.report(made, profile="killed")
        assert second.returncode != 0 and "another report is being made in this folder" in second.stdout
        below = psutil.Process(first.pid).children(recursive=True)
        assert len(below) >= 2, "papermill and its kernel"
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    until(lambda: not any(process.is_running() and process.status() != "zombie" for process in below), 10)
    hold.unlink()
    assert not (folder / "notebook.ipynb").exists() and not (folder / "provenance.json").exists()

    again = stubs.report(made, profile="killed")  # one run is good now, the other fails by itself
    assert (folder / "notebook.ipynb").is_file() and (folder / "provenance.json").is_file(), again.stdout
    assert again.returncode != 0
    assert "05_branched failed. The end of runs/killed/05_branched/log.txt" in again.stdout
    assert "nothing to train" in again.stdout and "Not finished: runs/killed/05_branched." in again.stdout
    assert not (made / "runs/killed/05_branched/notebook.ipynb").exists()
    assert (made / "runs/killed/05_branched/.failed.ipynb").is_file()
    assert not (made / "_build/killed/html").exists()


def until(happens, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
