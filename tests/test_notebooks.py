"""The contract of every notebook and profile in this repository (no notebooks: it fails)."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import nbformat
import pytest
import yaml

from agegender import profiles

TOP = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((TOP / "notebooks").glob("*.ipynb"))
PROFILES = sorted((TOP / "notebooks" / "profiles").glob("*.yml"))
LINE = re.compile(r"\w+: [\w\[\], |]+ = .+  # \S.+")


@pytest.fixture(autouse=True)
def at_home(monkeypatch):
    monkeypatch.setenv("AGEGENDER_HOME", str(TOP))


def test_there_are_notebooks_and_profiles():
    assert NOTEBOOKS and PROFILES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        assert not cell.outputs and cell.execution_count is None, (
            f"outputs are not kept here: {cell.source[:60]}"
        )
    assert notebook.metadata.kernelspec.name == "python3"
    assert "papermill" not in notebook.metadata and "widgets" not in notebook.metadata

    titles = [
        (number, line)
        for number, cell in enumerate(notebook.cells)
        if cell.cell_type == "markdown"
        for line in re.sub(r"```.*?```", "", cell.source, flags=re.S).splitlines()
        if line.startswith("# ")
    ]
    assert len(titles) == 1 and titles[0][0] == 0, f"one H1, in the first cell: {titles}"

    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1, "one cell tagged parameters"
    lines = [line for line in tagged[0].source.splitlines() if line.strip() and not line.startswith("#")]
    for line in lines:
        assert LINE.fullmatch(line), f"should be `name: type = default  # meaning`: {line}"
    found = profiles.parameters(path)
    names = [node.target.id for node in ast.parse(tagged[0].source).body]
    assert list(found) == names
    for parameter in found.values():
        assert profiles.fits(parameter.default, parameter.type), parameter
        assert not parameter.choices or parameter.default in parameter.choices, parameter

    rest = "\n".join(
        re.sub(r"^\s*[%!].*$", "pass", cell.source, flags=re.M) for cell in code if cell not in tagged
    )
    used = {node.id for node in ast.walk(ast.parse(rest)) if isinstance(node, ast.Name)}
    assert set(names) <= used, f"parameters nothing uses: {sorted(set(names) - used)}"
    assert f'provenance.start("{path.stem}", globals(), out)' in rest
    assert "run.finish(" in rest


def first_code(path: Path) -> nbformat.NotebookNode:
    return next(cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")


@pytest.fixture
def colab(monkeypatch, tmp_path):
    """Runs the first cell as in Colab, with a stand-in for it, for git and for pip; returns what it called."""
    called, programs = tmp_path / "called.txt", tmp_path / "bin"
    programs.mkdir()
    called.touch()
    for name in ("git", "pip"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@" >> "{called}"\nexit ${name}_fails\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.setenv("pip_fails", "0")
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    monkeypatch.setattr("builtins.input", lambda prompt: "some-one/faces")

    def run(installed: bool = False, git_fails: int = 0) -> list[str]:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if installed else None)
        monkeypatch.setenv("git_fails", str(git_fails))
        restart = types.SimpleNamespace(do_shutdown=lambda again: called.open("a").write(f"restart {again}\n"))
        try:
            exec(first_code(NOTEBOOKS[0]).source, {"get_ipython": lambda: types.SimpleNamespace(kernel=restart)})
        finally:
            said = called.read_text().splitlines()
        return said

    return run


def test_the_first_cell_is_the_same_everywhere_and_on_no_page():
    cells = [first_code(path) for path in NOTEBOOKS]
    assert len({cell.source for cell in cells}) == 1 and len(cells[0].source.splitlines()) <= 5
    assert all(cell.metadata.tags == ["remove-cell"] for cell in cells)


def test_elsewhere_the_first_cell_does_nothing(monkeypatch):
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    monkeypatch.setattr(subprocess, "run", None)  # called, it would fail
    exec(first_code(NOTEBOOKS[0]).source, {})


@pytest.mark.skipif(os.name != "posix", reason="stands in for programs of Colab's system")
def test_in_colab_the_first_cell_fetches_installs_and_restarts(colab):
    assert colab() == [
        "git clone -q https://github.com/some-one/faces /content/report",
        "pip install -q -e /content/report",
        "restart True",
    ]


@pytest.mark.skipif(os.name != "posix", reason="stands in for programs of Colab's system")
def test_in_colab_with_all_installed_the_first_cell_does_nothing(colab):
    assert colab(installed=True) == []


@pytest.mark.skipif(os.name != "posix", reason="stands in for programs of Colab's system")
def test_in_colab_a_repository_that_is_not_there_is_named(colab, tmp_path):
    with pytest.raises(subprocess.CalledProcessError, match="git clone -q https://github.com/some-one/faces"):
        colab(git_fails=128)
    called = (tmp_path / "called.txt").read_text().splitlines()
    assert [line.split()[0] for line in called] == ["git"]


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_profile(path):
    runs = profiles.read(path.stem).runs
    assert runs, "every key of a profile exists, with a value of its type"
    assert "08_comparison" in runs, "the book's first page takes its numbers from there"


def test_every_notebook_has_its_place_in_the_book():
    toc = yaml.safe_load((TOP / "book" / "_toc.yml").read_text())
    listed = {entry["file"] for part in toc["parts"] for entry in part["chapters"]}
    assert {f"notebooks/{path.stem}" for path in NOTEBOOKS} <= listed
    for page in listed:
        assert page.startswith("notebooks/") or (TOP / f"{page}.md").is_file(), page
