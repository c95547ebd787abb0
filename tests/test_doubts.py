"""Calibration, intervals and abstaining of all models side by side, and age groups; words and figures of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from agegender import audit, calibration, comparison, doubts, figures_comparison, words, words_comparison
from agegender.comparison import FIVE, OWN, SIX
from test_audit import people, run, without
from test_figures import picture, shown  # noqa: F401 (shown: a fixture)


def honest(count=1500, seed=0, sharper=1.0, fold="test"):
    """Probabilities that are true, made `sharper` in their logits; own age intervals of a width that says something."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, count)
    female = rng.random(count) < 1 / (1 + np.exp(-z))
    table = people(count, seed).assign(gender=pd.array(female.astype(int), dtype="Int8"), fold=fold)
    spread = np.where(rng.random(count) < 0.5, 2.0, 10.0)
    pred = table["age"] + rng.normal(0, 1, count) * spread
    return table.assign(
        file=[f"{fold}{i:05d}" for i in range(count)], p_female=1 / (1 + np.exp(-z * sharper)),
        age_pred=pred, age_low=pred - spread, age_high=pred + spread,
    )  # fmt: skip


@pytest.fixture(scope="module")
def models():
    """Too sure; age alone; gender alone; groups alone (S4's six); groups of its own; answers without doubts of age."""
    test, val = honest(sharper=3), honest(seed=1, sharper=3, fold="val")
    six, own = (
        pd.array(np.digitize(t, e[1:]), dtype="Int8")
        for t, e in ((test["age"], (0, 6, 19, 31, 46, 66)), (test["age"], (0, 40)))
    )
    ages, groups = ("age_pred", "age_low", "age_high"), ("age_pred", "age_low", "age_high", "p_female")
    return {
        "sure": run(test, "sure", val),
        "age": run(without(test, "p_female"), "age", without(val, "p_female")),
        "gender": run(without(test, *ages), "gender", without(val, *ages)),
        "groups": run(without(test, *groups).assign(age_group_pred=six), "groups", without(val, *groups), age_groups=[0, 6, 19, 31, 46, 66]),
        "own": run(without(test, *groups).assign(age_group_pred=own), "own", without(val, *groups), age_groups=[0, 40]),
        "plain": run(without(test, "age_low", "age_high"), "plain", without(val, "age_low", "age_high")),
    }  # fmt: skip


def test_every_model_has_its_row_and_dashes_where_it_was_not_asked(models):
    summary = comparison.figures_by(models, measures=comparison.measures)
    table = comparison.figures_table(summary)
    assert list(table.index) == list(models) and table.shape[1] == 7
    assert table.loc["gender", "age MAE (years)"] == "–" and table.loc["age", "gender accuracy (%)"] == "–"
    assert (
        table.loc["groups", "6 age groups (%)"].startswith("100.0 [")
        and table.loc["groups", "5 age groups (%)"] == "–"
    )
    assert table.loc["own", "its own age groups (%)"].startswith("100.0 [")
    alone = comparison.figures_by({"sure": models["sure"]}, measures=comparison.measures)
    both = summary[summary["model"] == "sure"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, both)  # company does not change a figure
    for measure in ("age MAE", "gender accuracy", SIX):
        said = words.ranking(summary, comparison.differences(models, groups=(0, 6, 19, 31, 46, 66)), measure)
        assert "nan" not in said and said.startswith("**")
    assert "groups" in words_comparison.groups(summary, [SIX])


def test_differences_are_of_those_that_answer_the_same(models):
    found = comparison.differences(models, groups=(0, 6, 19, 31, 46, 66))
    pairs = set(found[["a", "b", "measure"]].itertuples(index=False, name=None))
    assert ("gender", "plain", "gender accuracy") in pairs and ("sure", "groups", SIX) in pairs
    assert not any("own" in pair for pair in pairs) and ("age", "gender", "age MAE") not in pairs
    same = found.set_index(["a", "b", "measure"]).loc[("sure", "groups", SIX)]
    assert same["value"] > 0 and same["p_holm"] < 0.001  # years against the truth itself
    printed = comparison.differences_table(found)
    assert (
        "apart" in printed.loc["groups − sure", "6 age groups (points)"]
        and "gender − age" not in printed.index
    )
    said = words_comparison.pairs(found)
    assert "In age 3 pairs of models were compared, and none is told apart." in said
    assert "nothing is compared" in words_comparison.pairs(found[:0])


def test_leaders_are_chosen_on_validation_faces(models):
    test, val = people(), people(400, seed=5).assign(fold="val", file=lambda t: "v" + t["file"])
    good_on_test = run(test.assign(age_pred=test["age"]), "A", val.assign(age_pred=val["age"] + 9))
    good_on_val = run(test, "B", val.assign(age_pred=val["age"]))
    assert comparison.leaders({"A": good_on_test, "B": good_on_val})["age MAE"] == "B"
    found = comparison.leaders(models)
    assert found["age MAE"] in ("sure", "age", "plain") and found[OWN] == "own"
    assert list(comparison.leaders({"groups": models["groups"]})) == [SIX]
    assert list(comparison.leaders({"gender": models["gender"]})) == ["gender accuracy"]
    said = words_comparison.chosen({SIX: "a", "age MAE": "b", FIVE: "a"}, 3)
    assert said.startswith(
        "Looked at more closely below are a (age groups) and b (age), which did best on validation"
    )
    assert words_comparison.chosen({SIX: "a"}, 1).startswith("There is one model, a")
    with pytest.raises(ValueError, match="nothing to compare"):
        comparison.leaders({"A": run(without(people(), "age", "gender"), "A")})


def test_guessing_an_age_group(models):
    table = models["sure"].predictions
    found = comparison.naive(table)
    test, val = (table[table["fold"] == f]["age"] for f in ("test", "val"))
    common = pd.cut(val, [0, 11, 21, 36, 51, 200], right=False).mode()[0]
    assert found[FIVE] == pytest.approx(((test >= common.left) & (test < common.right)).mean())
    summary = comparison.figures_by(models, measures=comparison.measures)
    assert "Always saying the commonest age group (6 groups) reaches" in words.beyond_guessing(summary, found)


def test_a_temperature_mends_what_was_too_sure(models):
    found = doubts.calibrations(models)
    assert set(found["model"]) == {"sure", "gender", "plain"} and found["temperature"].between(2.4, 3.8).all()
    rows = found[found["model"] == "sure"].set_index(["when", "measure"])["value"]
    assert (
        rows["before", "ECE"] > 3 * rows["after", "ECE"]
        and rows["before", "Brier score"] > rows["after", "Brier score"]
    )
    table = models["sure"].fold("test")
    assert rows["before", "ECE"] == pytest.approx(calibration.ece(table).value)
    said = words_comparison.calibration(found, "sure")
    assert "more than the" in said and "too sure on validation faces" in said and "Corrected by it" in said
    true = doubts.calibrations({"A": run(honest(), "A", honest(seed=1, fold="val"))})
    said = words_comparison.calibration(true, "A")
    assert "no more than the" in said and "too sure" not in said
    few = doubts.calibrations({"A": run(honest(), "A", honest(5, seed=1, fold="val"))})
    assert "too few validation faces to correct them" in words_comparison.calibration(few, "A")
    assert doubts.calibrations_table(few).loc["A", "temperature"] == "–"
    assert "No model gives" in words_comparison.calibration(
        doubts.calibrations({"age": models["age"]}), "age"
    )


def test_intervals_hold_what_they_promise_and_say_where_they_do_not(models):
    found = doubts.coverages(models)
    assert set(found["model"]) == {"sure", "age", "plain"}
    kinds = found[found["model"] == "sure"].drop_duplicates("kind")["kind"].tolist()
    assert kinds == [doubts.ONE_WIDTH, doubts.BY_AGE, doubts.SCALED, doubts.OWN]
    assert set(found[found["model"] == "plain"]["kind"]) == {doubts.ONE_WIDTH, doubts.BY_AGE}
    every = found[(found["model"] == "sure") & (found["band"] == "all")].set_index("kind")
    assert every.loc[: doubts.SCALED, "value"].between(0.87, 0.93).all()
    assert every.loc[doubts.SCALED, "width"] < every.loc[doubts.ONE_WIDTH, "width"]
    table, _ = doubts.intervals(models["sure"])[doubts.ONE_WIDTH]
    checked = calibration.coverage(table).set_index(["measure", "band"])["value"]
    assert every.loc[doubts.ONE_WIDTH, "value"] == pytest.approx(checked["coverage", "all"])
    assert every.loc[doubts.ONE_WIDTH, "width"] == pytest.approx(checked["interval width", "all"])
    said = words_comparison.coverage(found, "sure")
    assert (
        "With the model's own widths they hold 6" in said
        and "fewer than promised" in said
        and "as promised" in said
    )
    assert words_comparison.coverage_title(found, "sure").endswith("hold fewer labels than promised")
    none = doubts.coverages({"gender": models["gender"]})
    assert "no intervals" in words_comparison.coverage(none, "gender") and doubts.coverages_table(none).empty


def test_doubts_that_say_something_gain_something(models):
    found = doubts.abstentions(models)
    assert set(found[found["task"] == "age"]["model"]) == {"sure", "age"}
    assert set(found[found["task"] == "gender"]["model"]) == {"sure", "gender", "plain"}
    said = words_comparison.abstaining(found, "sure", "gender")
    assert ", a gain of " in said and "nan" not in said
    assert "gives no doubts of its own about age" in words_comparison.abstaining(found, "plain", "age")
    assert (
        words_comparison.risk(found, "gender")
        == "Without the answers of most doubt, all 3 models tell gender better"
    )
    assert words_comparison.risk(found[:0], "age") == "No model gives doubts of its own about age"
    table = models["sure"]
    rng = np.random.default_rng(0)
    blind = table.predictions.assign(p_female=0.5 + 0.4 * rng.uniform(-1, 1, len(table.predictions)))
    lost = doubts.abstentions({"A": comparison.Finished(None, blind, pd.DataFrame(), table.record)})
    assert "is not shown to gain anything" in words_comparison.abstaining(lost, "A", "gender")
    assert len(doubts.abstentions_table(found)) == 5
    assert doubts.abstentions({"groups": models["groups"]}).empty


def test_confusion_counts_every_face_once(models):
    counts = doubts.confusion(models["groups"], (0, 6, 19, 31, 46, 66))
    assert counts.to_numpy().sum() == 1500 and np.trace(counts.to_numpy()) == 1500
    assert (
        "puts 100 % into the right one of 6 age groups, 100 % into it or the next"
        in words_comparison.confusion("it", counts)
    )
    assert doubts.confusion(models["groups"], (0, 11, 21, 36, 51)).to_numpy().sum() == 0
    assert "No face has a label" in words_comparison.confusion("it", counts * 0)
    assert doubts.edges_of(OWN, models["own"]) == (0, 40) and doubts.edges_of(SIX, models["own"])[1] == 6


def test_figures_are_told(models, shown):  # noqa: F811
    sure = models["sure"].fold("test")
    table = people(1200)
    coverages, curves = doubts.coverages(models), doubts.risk_curves(models, draws=100)
    summary = comparison.figures_by(models, measures=comparison.measures)
    _, before, after = doubts.calibrated(models["sure"])
    costs = pd.Series({name: 1e6 * (k + 1) for k, name in enumerate(models)}, name="parameters")
    drawn = {
        "correlation 0.9": lambda: figures_comparison.predicted_ages(sure, "Ages"),
        "of 3,000 faces": lambda: figures_comparison.predicted_ages(pd.concat([sure, sure]), "Many ages"),
        "as 0-5": lambda: figures_comparison.confusion(
            doubts.confusion(models["sure"], (0, 6, 19)), "Groups"
        ),
        "cells are hatched": lambda: figures_comparison.cells(
            audit.cells(table, "age MAE"), "age MAE", "Cells"
        ),
        "[": lambda: figures_comparison.cells(
            audit.cells(table, "gender accuracy"), "gender accuracy", "Cells"
        ),
        "after the temperature": lambda: figures_comparison.reliability(
            calibration.reliability(before), calibration.reliability(after), "Reliability"
        ),
        "a line at 90 %": lambda: figures_comparison.coverage(
            coverages[coverages["model"] == "sure"], "Coverage"
        ),
        "interval of sure": lambda: figures_comparison.risk(curves["gender"], "gender", "Risk", "sure"),
        "% answered": lambda: figures_comparison.risk(curves["age"], "age", "Risk"),
        "sure, 1,000,000 parameters": lambda: figures_comparison.cost(summary, costs, "Cost"),
    }
    for text, draw in drawn.items():
        shown.clear()
        draw()
        said = picture(shown)
        assert text in said["alt"] and said["faces"] is False, said["alt"]


def test_without_answers_a_sentence_stands_for_the_figure(models, shown):  # noqa: F811
    nothing = {"own": models["own"]}
    test = models["own"].fold("test")
    figures_comparison.predicted_ages(test, "No ages")
    figures_comparison.confusion(doubts.confusion(models["own"], (0, 6, 19)), "No groups")
    figures_comparison.cells(audit.cells(test, "age MAE"), "age MAE", "No cells")
    figures_comparison.coverage(doubts.coverages(nothing), "No coverage")
    figures_comparison.risk(doubts.risk_curves(nothing)["age"], "age", "No doubts")
    empty = calibration.reliability(test)
    figures_comparison.reliability(empty, empty, "No probabilities")
    figures_comparison.cost(comparison.figures_by(nothing), pd.Series({"own": 1.0}, name="GFLOPs"), "No cost")
    assert len(shown) == 7 and all(said.endswith("so there is no figure.") for said in shown)


def test_pictures_of_faces_say_so(shown):  # noqa: F811
    class Pictures:
        class faces:
            table = pd.DataFrame({"file": ["b", "a"]})

        pixels = np.zeros((2, 8, 8, 3), np.uint8)

    table = people(3).assign(file=["a", "b", "c"])
    figures_comparison.told_faces(Pictures, table, ["c", "a"], "Two of three")
    assert picture(shown)["faces"] is True
    shown.clear()
    figures_comparison.told_faces(Pictures, table, ["c"], "None")
    figures_comparison.told_faces(Pictures, table, [], "No label is contradicted")
    assert shown == [
        "The pictures of these faces are not at hand, so there is no figure.",
        "No label is contradicted, so there is no figure.",
    ]


def test_the_cheapest_that_are_not_beaten():
    summary = pd.DataFrame(
        {
            "model": list("abcd"),
            "measure": "age MAE",
            "value": [5.0, 6.0, 7.0, 6.5],
            "low": 1.0,
            "high": 9.0,
            "n": 9,
        }
    )
    costs = pd.Series({"a": 9.0, "b": 2.0, "c": 3.0, "d": 1.0}, name="GFLOPs")
    assert words_comparison.cheap_and_good(summary, costs, "age MAE") == ["d", "b", "a"]
    assert (
        words_comparison.cost(summary, costs)
        == "No model is closer in age than d, b and a with as few operations or fewer"
    )
    assert words_comparison.cost(summary, costs[["a"]]) == "One model only: a"
    assert (
        words_comparison.cost(summary, costs * np.nan)
        == "No model has both a cost and a figure to set against it"
    )
