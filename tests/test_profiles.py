"""Profiles: each fault is named before anything runs; the modules a notebook uses are found."""

from __future__ import annotations

import nbformat
import pytest
import stubs

from agegender import profiles


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("AGEGENDER_HOME", str(tmp_path))
    return stubs.repository(tmp_path)


def fault(home, runs, overrides=None, **more) -> str:
    stubs.write_profile(home, runs, **more)
    with pytest.raises(ValueError) as raised:
        profiles.read("tiny", overrides)
    assert "profile tiny" in str(raised.value)
    return str(raised.value)


def test_a_recipe_may_be_what_another_run_of_the_profile_finds(home):
    book = stubs.notebook("Trains", 'recipe: str = "s1_a"  # how\nout: str = ""  # folder', "run = (recipe, out)")
    nbformat.write(book, home / "notebooks" / "09_trains.ipynb")
    stubs.write_profile(home, {"03_model_a": {}, "tuned": {"notebook": "09_trains", "recipe": "03_model_a"}, "09_trains": {}})
    runs = profiles.read("tiny").runs
    assert runs["tuned"].needs == ("03_model_a",) and runs["tuned"].parameters["recipe"] == "runs/tiny/03_model_a"
    assert runs["09_trains"].needs == () and runs["09_trains"].parameters["recipe"] == "s1_a"


def test_a_list_of_seeds_is_a_run_of_each(home):
    stubs.write_profile(home, {"03_model_a": {"seed": [3, 1], "epochs": 5}, "08_comparison": {"runs": ["03_model_a", "03_model_a_seed1"]}})
    runs = profiles.read("tiny").runs
    assert list(runs) == ["03_model_a", "03_model_a_seed1", "08_comparison"]
    assert [run.parameters["seed"] for run in list(runs.values())[:2]] == [3, 1]
    assert runs["03_model_a_seed1"].notebook == runs["03_model_a"].notebook
    assert runs["08_comparison"].needs == ("03_model_a", "03_model_a_seed1")
    assert "seed = ['x']" in fault(home, {"03_model_a": {"seed": [["x"]]}})


def test_a_profile_becomes_runs_with_every_parameter(home):
    stubs.write_profile(
        home,
        {
            "03_model_a": {"epochs": 5, "rate": 1},
            "a_large": {"notebook": "03_model_a", "backbone": "large"},
            "08_comparison": {"runs": ["03_model_a", "a_large"]},
        },
    )
    runs = profiles.read("tiny", {"data": "../faces"}).runs
    assert runs["03_model_a"].parameters == {
        "data": "../faces",
        "seed": 0,
        "epochs": 5,
        "rate": 1.0,
        "backbone": "small",
        "nap": 0.1,
        "out": "runs/tiny/03_model_a",
    }
    assert isinstance(runs["03_model_a"].parameters["rate"], float)
    assert runs["a_large"].notebook.as_posix() == "notebooks/03_model_a.ipynb"
    assert runs["08_comparison"].parameters["runs"] == ["runs/tiny/03_model_a", "runs/tiny/a_large"]
    assert runs["08_comparison"].needs == ("03_model_a", "a_large")
    assert profiles.read(home / "notebooks/profiles/tiny.yml").runs.keys() == runs.keys()


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ({"epoch": 3}, ["epoch", "did you mean epochs?"]),
        ({"epochs": "many"}, ["epochs = 'many'", "is str", "should be int", "passes over the faces"]),
        ({"epochs": True}, ["epochs = True", "is bool", "should be int"]),
        ({"epochs": 2.5}, ["epochs = 2.5", "should be int"]),
        ({"rate": "0.1"}, ["rate = '0.1'", "should be float"]),
        ({"backbone": "smal"}, ["backbone = 'smal'", "did you mean small?", "one of small, large"]),
        ({"notebook": "03_modela"}, ["notebooks/03_modela.ipynb", "did you mean 03_model_a?"]),
        ({"out": "elsewhere"}, ["out = 'elsewhere'", "leave out away"]),
        (["epochs"], ["should be parameters as keys and values"]),
    ],
)
def test_a_wrong_run_is_refused(home, run, words):
    said = fault(home, {"03_model_a": run})
    for word in ["run 03_model_a", *words]:
        assert word in said


def test_wrong_dependencies_are_refused(home):
    assert "03_model is no run of this profile (did you mean 03_model_a?)" in fault(
        home, {"03_model_a": {}, "08_comparison": {"runs": ["03_model"]}}
    )
    assert "circle" in fault(
        home,
        {
            "08_comparison": {"runs": ["again"]},
            "again": {"notebook": "08_comparison", "runs": ["08_comparison"]},
        },
    )


def test_wrong_common_keys_and_overrides_are_refused(home):
    assert "common: sed is a parameter of no notebook of this profile (did you mean seed?)" in fault(
        home, {"03_model_a": {}}, common={"sed": 1}
    )
    assert "command line: dta is a parameter of no" in fault(home, {"03_model_a": {}}, {"dta": "x"})
    assert "seed = 'x' is str; it should be int" in fault(home, {"03_model_a": {}}, {"seed": "x"})
    assert "titel is no key of a profile (did you mean title?)" in fault(home, {"03_model_a": {}}, titel="x")


def test_all_faults_come_at_once(home):
    said = fault(home, {"03_model_a": {"epochs": "x"}, "04_model_b": {"epoch": 1}})
    assert "run 03_model_a" in said and "run 04_model_b" in said


def test_a_profile_that_is_not_there_or_no_profile(home):
    with pytest.raises(ValueError, match=r"no profile tinny \(did you mean tiny\?\)"):
        profiles.read("tinny")
    with pytest.raises(ValueError, match="no profile file other.yml"):
        profiles.read("other.yml")
    path = home / "notebooks/profiles/tiny.yml"
    for text in ("runs:", "- a", ""):
        path.write_text(text)
        with pytest.raises(ValueError, match="at least one run"):
            profiles.read("tiny")
    path.write_text("runs:\n  03_model_a: {}\n  03_model_a: {epochs: 2}\n")
    with pytest.raises(ValueError, match="03_model_a is given twice"):
        profiles.read("tiny")


def test_a_notebook_without_usable_parameters_is_refused(home):
    path = home / "notebooks/03_model_a.ipynb"
    for cell, word in (("x: int = 2 * 3  # computed", "plain value"), ("", "has no parameters")):
        nbformat.write(stubs.notebook("x", cell), path)
        assert word in fault(home, {"03_model_a": {}})


@pytest.mark.parametrize(
    ("value", "kind", "right"),
    [
        (1, "int", True),
        (1, "float", True),
        (True, "int", False),
        (True, "float", False),
        (0, "bool", False),
        (None, "str | None", True),
        ("a", "str | None", True),
        (1, "str | None", False),
        ([1, 2], "list[int]", True),
        ([1, "2"], "list[int]", False),
        ({"a": 1}, "dict[str, float]", True),
        ({"a": "b"}, "dict[str, float]", False),
        ("abc", "list", False),
    ],
)
def test_types(value, kind, right):
    assert profiles.fits(value, kind) is right


def test_a_type_nobody_can_check_is_an_error():
    with pytest.raises(ValueError, match="Literal"):
        profiles.fits(1, "Literal[1]")


def test_sources_follow_imports_through_modules_and_functions(home, monkeypatch):
    package = home / "agegender"
    monkeypatch.setattr(profiles, "PACKAGE", package)
    (package / "models" / "m.py").write_text("from ..top import x\n")
    (package / "top.py").write_text("def x():\n    from . import deep\n    from agegender import report\n")
    (package / "deep.py").write_text("import numpy\nimport agegender.places as p\n")
    (package / "other.py").write_text("")
    path = home / "notebooks" / "x.ipynb"
    nbformat.write(
        stubs.notebook(
            "x", "a: int = 1  # a", "%matplotlib inline\nfrom agegender.models import m", "%%time\nnot python"
        ),
        path,
    )
    names = [module.relative_to(package).as_posix() for module in profiles.sources(path)]
    assert names == ["__init__.py", "deep.py", "models/__init__.py", "models/m.py", "places.py", "top.py"]


def test_switch():
    assert profiles.switch("show_faces", "False") is False and profiles.switch("show_faces", True) is True
    with pytest.raises(ValueError, match="show_faces=maybe: it should be true or false"):
        profiles.switch("show_faces", "maybe")
