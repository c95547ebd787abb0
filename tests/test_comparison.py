"""Runs side by side, and sentences that change with the numbers and stay true."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from agegender import comparison, metrics, predictions, provenance, words, words_comparison
from test_metrics import faces


def store(folder, model, table, val_loss=(3.0, 2.0, 2.5)):
    folder.mkdir(parents=True)
    predictions.write(
        predictions.table(table, {"age": table["age_pred"], "gender": table["p_female"]}), folder / "predictions.parquet"
    )
    count = len(val_loss)
    pd.DataFrame({"epoch": range(1, count + 1), "val_loss": val_loss, "kept": np.arange(count) == np.argmin(val_loss), "age_mae": 5.0, "val_age_mae": 6.0,
                  "gender_accuracy": 0.9, "val_gender_accuracy": 0.8, "loss": 1.0}).to_parquet(folder / "history.parquet")  # fmt: skip
    facts = {"model": model, "weights": "random start", "parameters": 10, "epochs": count, "training_seconds": 90.0,
             "data": {"title": "faces"}, "split": {"digest": "abc"}}  # fmt: skip
    (folder / "provenance.json").write_text(
        json.dumps({"facts": facts, "parameters": {"size": 64, "seed": 0}})
    )


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("AGEGENDER_HOME", str(tmp_path))
    return tmp_path


def better(table, by):
    return table.assign(age_pred=table["age"] + (table["age_pred"] - table["age"]) / by)


def test_runs_are_opened_by_name_and_by_default(home):
    table = faces()
    with pytest.raises(FileNotFoundError, match="run notebooks 03, 04 and 05 first"):
        comparison.open_runs()
    store(home / "book/reference/a", "model A", table)
    assert list(comparison.open_runs()) == ["model A"]
    store(home / "runs/own/b", "model B", table)
    assert list(comparison.open_runs()) == ["model B"]
    store(home / "runs/x/b2", "model B", table)
    assert list(comparison.open_runs(["runs/own/b", "runs/x/b2"])) == ["model B (b)", "model B (b2)"]
    assert comparison.how(comparison.open_runs()).loc["model B", ["epochs", "kept epoch"]].tolist() == [3, "2"]
    path = home / "runs/own/b/history.parquet"
    pd.read_parquet(path).assign(averaged=[False, False, True], kept=[False, False, True]).to_parquet(path)  # the last row judges averaged weights
    assert comparison.how(comparison.open_runs()).loc["model B", ["epochs", "kept epoch"]].tolist() == [2, "the averaged weights"]


def test_runs_that_differ_in_their_seed_alone_are_named_by_it(home):
    table = faces()
    for name, seed, size in (("a", 0, 64), ("b", 1, 64), ("c", 1, 96), ("d", 1, 96)):
        shift = table.assign(age_pred=table["age_pred"] + seed)
        store(home / f"runs/own/{name}", "model A", shift)
        record = json.loads((home / f"runs/own/{name}/provenance.json").read_text())
        record["parameters"] = {"size": size, "seed": seed, "out": name}
        (home / f"runs/own/{name}/provenance.json").write_text(json.dumps(record))
    runs = comparison.open_runs(["runs/own/a", "runs/own/b"])
    assert list(runs) == ["model A (seed 0)", "model A (seed 1)"]
    assert comparison.seeds(runs) == {"model A": ["model A (seed 0)", "model A (seed 1)"]}
    summary = comparison.figures_by(runs)
    low, high = sorted(summary[summary["measure"] == "age MAE"]["value"])
    said = words_comparison.seeds(summary, comparison.seeds(runs))
    assert f"age MAE from {low:.1f} to {high:.1f}, {high - low:.1f} years apart" in said
    assert "another seed" not in said  # there is no run beside them
    runs = comparison.open_runs()  # c and d are alike in everything: no seeds of one another, nor of a and b
    assert list(runs) == ["model A (a, seed 0)", "model A (a, seed 1)", "model A (c)", "model A (d)"]
    assert comparison.seeds(runs) == {"model A (a)": ["model A (a, seed 0)", "model A (a, seed 1)"]}
    assert "Behind every other run" in words_comparison.seeds(comparison.figures_by(runs), comparison.seeds(runs))
    one = comparison.open_runs(["runs/own/a"])
    assert comparison.seeds(one) == {}
    assert words_comparison.seeds(comparison.figures_by(one), {}).startswith("One seed stands behind each run")


def test_settings_are_compared_face_by_face_whatever_their_number_of_seeds():
    table = faces()
    near, far = better(table, 1), [better(table, 4), better(table, 5)]
    found = comparison.seeds_apart(metrics.age_mae, far, [near])
    error = [float((t["age_pred"] - t["age"]).abs().mean()) for t in (near, *far)]
    assert found.value == pytest.approx((error[1] + error[2]) / 2 - error[0]) and found.low < found.value < found.high
    with pytest.raises(ValueError, match="same faces in the same order"):
        comparison.seeds_apart(metrics.age_mae, far, [near.iloc[::-1]])


def test_settings_stand_side_by_side_averaged_over_their_seeds(home):
    table, runs = faces(), {}
    for name, seed, size in (("a", 0, 64), ("a1", 1, 64), ("b", 0, 96), ("b1", 1, 96), ("c", 0, 128)):
        store(home / f"runs/own/{name}", "model A", better(table, 1 + seed + size / 64))
        record = json.loads((home / f"runs/own/{name}/provenance.json").read_text())
        record |= {"notebook": "03_model_a", "parameters": {"size": size, "width": 8, "seed": seed, "out": name}}
        (home / f"runs/own/{name}/provenance.json").write_text(json.dumps(record))
    models = comparison.open_runs()
    found = comparison.settings(models)
    assert found["size"].tolist() == ["64", "96", "128"] and found["seeds"].tolist() == ["2", "2", "1"]
    assert "width" not in found and set(found.index) == {"model A"}
    each = comparison.figures_by(models).query("measure == 'age MAE'")["value"].tolist()
    means = [float(text.split()[0]) for text in found["age MAE (years)"]]
    assert means == pytest.approx([np.mean(each[:2]), np.mean(each[2:4]), each[4]], abs=0.051)
    assert comparison.settings(comparison.open_runs(["runs/own/a", "runs/own/b"])).empty  # one seed each


def test_costs_that_a_record_lacks_are_a_dash(home):
    store(home / "runs/own/a", "model A", faces())
    store(home / "runs/own/b", "model B", faces())
    path = home / "runs/own/b/provenance.json"
    record = json.loads(path.read_text())
    record["facts"] |= {"flops": 612_000_000, "faces_per_second": 310.4, "parameters": 2_400_000}
    path.write_text(json.dumps(record))
    costs = comparison.costs(comparison.open_runs())
    assert costs.loc["model B", "GFLOPs"] == pytest.approx(0.612) and costs["training minutes"].tolist() == [1.5, 1.5]
    told = comparison.costs_table(costs)
    assert told.loc["model B"].tolist() == ["64", "2,400,000", "0.612", "310", "1.5"]
    assert told.loc["model A"].tolist() == ["64", "10", "–", "–", "1.5"]


def test_a_number_for_print():
    row = {"value": -0.04, "low": -1.26, "high": 0.0, "n": 3}
    assert comparison.number(row) == "0.0 [-1.3, 0.0]" and comparison.number(row, sign="+") == "+0.0 [-1.3, +0.0]"
    assert comparison.number({**row, "low": np.nan}) == "0.0, too few faces for an interval"
    assert comparison.number({**row, "n": 0}) == "–"


def test_runs_on_other_test_faces_are_refused(home):
    table = faces()
    store(home / "runs/own/a", "model A", table)
    store(home / "runs/own/b", "model B", table.iloc[:-1])
    with pytest.raises(ValueError, match="not tested on the same faces"):
        comparison.open_runs()


def test_a_difference_is_found_where_there_is_one_and_only_there(home):
    table = faces()
    store(home / "runs/own/a", "model A", table)
    store(home / "runs/own/b", "model B", better(table, 2))
    store(
        home / "runs/own/c", "model C", table.assign(age_pred=2 * table["age"] - table["age_pred"])
    )  # same errors
    runs = comparison.open_runs()
    pairs = comparison.differences(runs).set_index(["a", "b", "measure"])
    ab = pairs.loc[("model A", "model B", "age MAE")]
    test = runs["model A"].predictions.query("fold == 'test'")
    assert ab["value"] == pytest.approx(-(test["age_pred"] - test["age"]).abs().mean() / 2) and ab["high"] < 0
    ac = pairs.loc[("model A", "model C", "age MAE")]
    assert ac["low"] == pytest.approx(0, abs=1e-9) and ac["high"] == pytest.approx(0, abs=1e-9)
    assert pairs.loc[("model A", "model B", "gender accuracy"), "value"] == 0
    assert len(pairs) == 6


def test_the_words_follow_the_numbers(home):
    table = faces()
    store(home / "runs/own/a", "model A", table)
    store(home / "runs/own/b", "model B", better(table, 3))
    runs = comparison.open_runs()
    summary, differences = comparison.figures_by(runs), comparison.differences(runs)
    said = words.ranking(summary, differences, "age MAE")
    assert (
        said.startswith("**Model B** is closest in age, off by ")
        and "on 300 test faces" in said
        and "model A" in said
        and "is behind it by" in said and "to be told" not in said
    )
    said = words.ranking(summary, differences, "gender accuracy")
    assert "is not to be told from it: they do not differ by more than 0.0 points" in said
    apart = differences.set_index("measure").loc["age MAE", ["low", "high"]].astype(float)
    unsure = words.ranking(summary, differences.assign(p_holm=0.5, low=-0.2, high=apart.abs().max()), "age MAE")
    assert f"they do not differ by more than {apart.abs().max():.1f} years" in unsure
    swapped = {"model A": runs["model B"], "model B": runs["model A"]}
    said = words.ranking(comparison.figures_by(swapped), comparison.differences(swapped), "age MAE")
    assert said.startswith("**Model A**")
    assert "every model is better" in words.beyond_guessing(summary, {"age MAE": 20.0})
    assert "no model is shown to be better" in words.beyond_guessing(summary, {"age MAE": 0.5})


def test_a_models_page_says_whether_it_beats_a_guesser():
    table, history = (
        faces(),
        pd.DataFrame(
            {"epoch": [1, 2], "kept": [False, True], "averaged": False, "learning_rate": [0.0, 1e-3], "val_age_mae": [9.0, 7.0], "age_mae": [8.0, 6.0]}
        ),
    )
    said = words.model("model A", table, history)
    assert (
        "better than always saying" in said
        and "more epochs might do better" in said
        and "1.0 years less" in said
    )
    grouped = table.assign(age_group_pred=pd.array([1] * len(table), dtype="Int8"))
    assert "into the right one of 2 age groups**" in words.model("model A", grouped, history, (0, 10))
    said = words.model("model A", table.assign(age_pred=200.0), history.assign(kept=[True, False]))
    assert "worse than always saying" in said and "more epochs" not in said
    # the first epoch of a warm-up has a rate of 0 too, and is no average
    assert "was 1 of 2, whose weights were kept" in said and "average of the last" not in said
    said = words.model("model A", table, history.assign(averaged=[False, True]))
    assert "Kept was the average of the last epochs' weights" in said
    assert words.best_epoch(history, "val_age_mae") == "validation age MAE was best in epoch 2 of 2"
    averaged = history.assign(averaged=[False, True])
    assert words.best_epoch(averaged, "val_loss") == "validation loss was best of the average of weights, after epoch 1"


def test_drawn_faces_are_called_drawn():
    facts = {"data": {"title": "t", "found": 3, "read": 2, "set_aside": 1, "limited_from": None, "digest": "d", "drawn": True},
             "split": {"train": 1, "val": 1, "test": 0, "digest": "s"}}  # fmt: skip
    assert "describe no people" in words.data(facts)
    facts["data"]["drawn"] = False
    assert "describe no people" not in words.data(facts)


def test_examples_are_spread_over_the_ages_and_the_same_each_time():
    table = faces()
    chosen = comparison.pick(table, 12, seed=1)
    assert (
        chosen == comparison.pick(table.sample(frac=1, random_state=0), 12, seed=1) and len(set(chosen)) == 12
    )
    ages = table.set_index("file").loc[chosen, "age"].to_numpy()
    assert (np.diff(ages) >= 0).all() and ages[0] < 15 and ages[-1] > 75
    assert set(table.set_index("file").loc[chosen, "fold"]) == {"test"}
    assert len(metrics.summary(table)) == 3


@pytest.mark.parametrize("missing, left", [("gender", "age MAE"), ("age", "gender accuracy")])
def test_without_labels_of_one_kind_the_other_still_speaks(home, missing, left):
    table = faces().assign(
        **{missing: pd.array([pd.NA] * 400, dtype="Int8") if missing == "gender" else np.nan}
    )
    store(home / "runs/own/a", "model A", table)
    store(home / "runs/own/b", "model B", table)
    runs = comparison.open_runs()
    answers = {"gender": "p_female", "age": "age_pred"}[missing]
    assert runs["model A"].predictions[answers].isna().all()  # nothing taught the model, nothing can judge it
    summary, differences = comparison.figures_by(runs), comparison.differences(runs)
    assert set(summary.dropna(subset=["value"])["measure"]) <= {left, "age bias"}
    assert words.ranking(summary, differences, left).startswith("**Model")
    other = {"age MAE": "gender accuracy", "gender accuracy": "age MAE"}[left]
    assert "nothing can be said of it" in words.ranking(summary, differences, other)
    assert list(comparison.leaders(runs))[0] == left and list(metrics.naive(table)) == [left]
    val = table[table["fold"] == "val"]
    assert list(metrics.facts(val, "val")) == [f"val_{left.replace(' ', '_')}"]
    history = pd.DataFrame({"epoch": [1], "kept": [True], "averaged": False, "val_age_mae": [9.0], "age_mae": [8.0]})
    said = words.model("model A", table, history)
    assert ("years" in said) == (missing == "gender") and "nan" not in said + words.headline(val, "faces")


def test_bands_are_ranked_where_there_are_faces_enough(home):
    table = faces()
    table["age_pred"] = np.where(table["age"] > 65, 20.0, table["age"])
    store(home / "runs/own/a", "model A", table)
    by_band = comparison.figures_by(comparison.open_runs(), by="band")
    assert words.band_title("model A", by_band).startswith("Model A is off by the most at 66+ years (")
    assert "by the least at" in words.bands("model A", by_band)
    assert words_comparison.bias(by_band).startswith("Above 0: taken for older")
    silent = by_band.assign(value=np.nan, low=np.nan)
    assert words_comparison.bias(silent).startswith("No model has answers of age")
    assert words.band_title("model A", silent) == "Model A tells neither age nor gender of faces in age bands"
    few = by_band.assign(n=3)
    assert words.band_title("model A", few).startswith("Too few faces")
    assert words.bands("model A", few) == "Bands with fewer than 10 labelled faces, or groups of them, are not ranked."


def test_words_without_intervals_and_about_overfitting():
    few = metrics.Estimate(5.0, np.nan, np.nan, 4)
    assert words.against(few, 9.0, True) == words.against(few, 1.0, True) == "not to be told from"
    grown = pd.DataFrame({"val_age_mae": [9.0, 8.0], "age_mae": [9.0, 4.0]})
    assert words.overfitting({"a": grown, "b": grown - 1}) == (
        "In the last epoch a errs 4.0 years more on validation than on training faces"
    )
    shrunk = pd.DataFrame({"val_age_mae": [9.0, 6.0], "age_mae": [9.0, 8.0]})
    assert words.overfitting({"a": shrunk}).startswith("In the last epoch no model errs more")


def test_who_is_ahead_is_told_whichever_came_first(home):
    table = faces()
    store(home / "runs/own/a", "model A", better(table, 2))
    store(home / "runs/own/b", "model B", table)
    for order in (["a", "b"], ["b", "a"]):
        runs = comparison.open_runs([f"runs/own/{name}" for name in order])
        said = words.ranking(comparison.figures_by(runs), comparison.differences(runs), "age MAE")
        assert "model B" in said and "is behind it by 2." in said


def test_the_stored_runs_are_whole_and_of_real_faces(monkeypatch):
    top = Path(__file__).resolve().parents[1]
    monkeypatch.setenv("AGEGENDER_HOME", str(top))
    stored = sorted(path.parent.relative_to(top) for path in (top / "book/reference").glob("*/predictions.parquet"))
    runs = {run.folder.name: run for run in comparison.open_runs(stored).values()}
    assert {"03_model_a", "04_model_b", "04_model_b_modern", "05_branched", "04_groups"} <= set(runs)
    for run in runs.values():
        assert run.facts["data"]["drawn"] is False
        for name in ("predictions.parquet", "history.parquet"):
            assert provenance.file_digest(run.folder / name) == run.record["files"][name]
        assert set(run.predictions["fold"]) == {"val", "test"}
        facts = metrics.facts(run.fold("val"), "val", run.own)
        assert facts == pytest.approx({name: run.facts[name] for name in facts})
    assert "ImageNet" in runs["04_model_b"].facts["weights"]


def test_the_mean_of_several_models_is_that_of_their_answers():
    a, b = faces(20), better(faces(20), 2).assign(p_female=0.5)
    mean = comparison.averaged([a, b])
    assert np.allclose(mean["age_pred"], (a["age_pred"] + b["age_pred"]) / 2)
    assert np.allclose(mean["p_female"], (a["p_female"] + 0.5) / 2) and mean["age_group_pred"].isna().all()
    with pytest.raises(ValueError, match="not of the same faces"):
        comparison.averaged([a, b.iloc[::-1]])


def test_with_too_few_faces_nothing_is_told_apart_and_nothing_is_nan(home):
    table = faces(24).assign(group=np.arange(24) % 8)
    store(home / "runs/own/a", "model A", table)
    store(home / "runs/own/b", "model B", better(table, 2))
    runs = comparison.open_runs()
    summary, differences = comparison.figures_by(runs), comparison.differences(runs)
    said = words.ranking(summary, differences, "age MAE")
    assert "has too few faces to be told from it" in said and "nan" not in said
    printed = comparison.differences_table(differences).to_string()
    assert "too few faces for an interval" in printed and "nan" not in printed
