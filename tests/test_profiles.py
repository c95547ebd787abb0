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


def test_a_sweep_is_a_run_of_every_combination_and_is_compared_by_its_name(home):
    swept = {"sweep": {"backbone": ["small", "large"], "epochs": [2, 3], "seed": [0, 1]}, "rate": 0.2}
    stubs.write_profile(home, {"04_model_b": swept, "08_comparison": {"runs": ["04_model_b"]}})
    runs = profiles.read("tiny").runs
    assert list(runs)[:3] == ["04_model_b_small_epochs2_seed0", "04_model_b_small_epochs2_seed1", "04_model_b_small_epochs3_seed0"]
    assert len(runs) == 9 and runs["08_comparison"].needs == tuple(list(runs)[:8])
    last = runs["04_model_b_large_epochs3_seed1"]
    assert last.notebook.as_posix() == "notebooks/04_model_b.ipynb" and last.folder.name == last.name
    assert {"backbone": "large", "epochs": 3, "seed": 1, "rate": 0.2}.items() <= last.parameters.items()


def test_a_pattern_takes_the_runs_that_it_matches_and_a_seed_list_goes_with_a_sweep(home):
    runs = {"a": {"notebook": "03_model_a", "sweep": {"epochs": [1, 2]}, "seed": [0, 1]}, "b": {"notebook": "04_model_b"}}
    stubs.write_profile(home, runs | {"08_comparison": {"runs": ["a_*seed1", "b", "a_epochs1*"]}})
    found = profiles.read("tiny").runs
    assert list(found)[:4] == ["a_epochs1", "a_epochs1_seed1", "a_epochs2", "a_epochs2_seed1"]
    assert found["08_comparison"].needs == ("a_epochs1_seed1", "a_epochs2_seed1", "b", "a_epochs1")
    assert "a_x* is no run of this profile" in fault(home, runs | {"08_comparison": {"runs": ["a_x*"]}})


def test_lists_can_be_swept_too(home):
    book = stubs.notebook("Trains", 'tasks: list[str] = ["age"]  # what\nchanges: dict = {}  # of the recipe\nseed: int = 0  # chance', "pass")
    nbformat.write(book, home / "notebooks" / "09_trains.ipynb")
    stubs.write_profile(home, {"t": {"notebook": "09_trains", "sweep": {"tasks": [["age"], ["age", "gender"], []], "changes": [{"rate": 0.1}]}}})
    runs = profiles.read("tiny").runs
    assert list(runs) == ["t_tasks-age_changes-rate-0.1", "t_tasks-age-gender_changes-rate-0.1", "t_tasks_changes-rate-0.1"]
    assert [run.parameters["tasks"] for run in runs.values()] == [["age"], ["age", "gender"], []]


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ({"sweep": [1, 2]}, ["sweep = [1, 2]", "each with a list of values"]),
        ({"sweep": {}}, ["sweep = {}", "each with a list of values"]),
        ({"sweep": {"epochs": 3}}, ["sweep: epochs = 3 should be a list of values"]),
        ({"sweep": {"epochs": []}}, ["sweep: epochs = [] should be a list of values"]),
        ({"sweep": {"epochs": [1, 2]}, "epochs": 3}, ["sweep: epochs has a value in the run as well, 3"]),
        ({"sweep": {"epoch": [1, 2]}}, ["epoch = 1", "did you mean epochs?"]),
        ({"sweep": {"epochs": [1, "many"]}}, ["epochs = 'many' is str; it should be int"]),
        ({"sweep": {"rate": [0.1, -0.1]}}, ["two runs the name 03_model_a_rate0.1"]),
    ],
)
def test_a_wrong_sweep_is_refused(home, run, words):
    said = fault(home, {"03_model_a": run})
    for word in ["run 03_model_a: ", *words]:
        assert word in said
    assert said.count("it should be int") <= 1  # once for all runs of the sweep


def test_a_swept_parameter_is_not_overridden_and_no_two_runs_share_a_name(home):
    for given, key in (({"sweep": {"epochs": [1, 2]}}, "epochs"), ({"seed": [0, 1]}, "seed")):
        said = fault(home, {"03_model_a": given}, {key: 5})
        assert f"{key} = 5 on the command line, but this entry is a run of each {key}" in said
    twice = {"03_model_a": {"sweep": {"epochs": [1]}}, "03_model_a_epochs1": {"notebook": "03_model_a"}}
    assert "03_model_a_epochs1 is the name of two runs" in fault(home, twice)


def test_what_a_run_asks_of_a_cluster_is_checked_and_no_parameter(home):
    stubs.write_profile(home, {"03_model_a": {"resources": {"gpu": 1, "mem_mb": 9000}}, "04_model_b": {}},
                        common={"seed": 0, "resources": {"mem_mb": 4000}})  # fmt: skip
    runs = profiles.read("tiny").runs
    assert runs["03_model_a"].resources == {"mem_mb": 9000, "gpu": 1} and runs["04_model_b"].resources == {"mem_mb": 4000}
    assert "resources" not in runs["03_model_a"].parameters
    for given, words in (({"gpus": 1}, "did you mean gpu?"), ({"gpu": "1"}, "gpu = '1': it should be a whole number from 1"),
                         ({"gpu": 0}, "a whole number from 1"), ({"constraint": 3}, "constraint = 3: it should be a word"),
                         (["gpu"], "should be keys and values")):  # fmt: skip
        assert words in fault(home, {"03_model_a": {"resources": given}})


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


def test_a_file_that_is_no_notebook_is_named(home):
    for text in ("<<<<<<< HEAD", "[1]", "{}"):
        (home / "notebooks" / "broken.ipynb").write_text(text)
        with pytest.raises(ValueError, match="notebooks/broken.ipynb is not a notebook of nbformat 4"):
            profiles.sources(home / "notebooks" / "broken.ipynb")
