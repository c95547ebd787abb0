"""Calibration and age intervals against other implementations and simulations of known truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import binomtest, norm
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from agegender import calibration, metrics


def answers(count=2000, t=1.0, seed=0, fold="test", noise=6.0):
    """Faces whose log odds of being female are z / t while the model says z; age errors grow with age."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2.5, count)
    age = rng.integers(1, 90, count).astype(float)
    width = noise * (0.3 + age / 50)
    age_pred = age + rng.normal(0, 1, count) * width
    return pd.DataFrame({
        "file": [f"{fold}{i:05d}.jpg" for i in range(count)], "fold": fold, "group": np.arange(count),
        "age": age, "gender": pd.array((rng.random(count) < expit(z / t)).astype(int), dtype="Int8"),
        "age_pred": age_pred, "age_low": age_pred - width, "age_high": age_pred + width, "p_female": expit(z),
    })  # fmt: skip


def test_reliability_is_scikit_learns():
    table = answers()
    found = calibration.reliability(table)
    true, predicted = calibration_curve(
        table["gender"].astype(int), table["p_female"], n_bins=10, strategy="quantile"
    )
    assert found["value"].to_numpy() == pytest.approx(true) and found[
        "predicted"
    ].to_numpy() == pytest.approx(predicted)
    assert (
        (found["n"] == 200).all()
        and (found["low"] <= found["value"]).all()
        and (found["value"] <= found["high"]).all()
    )
    inside = (found["low"] <= found["predicted"]) & (found["predicted"] <= found["high"])
    assert inside.sum() >= 8  # calibrated
    same = calibration.reliability(table.assign(p_female=0.5))
    assert same["n"].tolist() == [2000] and len(calibration.reliability(table.iloc[:0])) == 0


def test_scores_are_scikit_learns():
    table = answers()
    found = calibration.scores(table).set_index("measure")
    female = table["gender"].astype(int)
    assert found.loc["Brier score", "value"] == pytest.approx(brier_score_loss(female, table["p_female"]))
    assert found.loc["log loss", "value"] == pytest.approx(log_loss(female, table["p_female"]))
    true, predicted = calibration_curve(female, table["p_female"], n_bins=10, strategy="quantile")
    assert calibration.ece(table, bins=10).value == pytest.approx(
        np.abs(true - predicted).mean()
    )  # bins of 200
    assert (found["low"] <= found["value"]).all() and (found["value"] <= found["high"]).all()
    sure = table.assign(p_female=(table["p_female"] > 0.5).astype(float))
    assert np.isfinite(calibration.scores(sure)["value"]).all()


def test_a_calibrated_model_shows_the_calibration_error_of_chance():
    low, above = 0, 0
    for seed in range(30):
        table = answers(500, seed=seed)
        found, chance = calibration.ece(table, draws=300), calibration.ece_by_chance(table, draws=300)
        low += found.low == 0
        above += found.value > chance.high
        assert 0.03 < chance.value < 0.065 and found.value < 0.09
    assert low >= 26 and above <= 4


def test_the_interval_of_the_calibration_error_covers_the_true_one():
    many = answers(400_000, t=2.0)
    share, said = calibration_curve(
        many["gender"].astype(int), many["p_female"], n_bins=15, strategy="quantile"
    )
    true, inside = np.abs(share - said).mean(), 0
    for seed in range(60):
        found = calibration.ece(answers(1500, t=2.0, seed=seed), draws=300)
        inside += found.low <= true <= found.high
    assert inside >= 51


def test_the_temperature_is_found_again_and_calibrates():
    val, test = answers(4000, t=1.8, fold="val", seed=1), answers(4000, t=1.8, seed=2)
    t = calibration.temperature(val)
    assert t == pytest.approx(1.8, abs=0.15)
    # Where the log loss is lowest, its slope is 0: sum of z (sigmoid(z / T) - y) = 0.
    z, female = np.log(val["p_female"] / (1 - val["p_female"])), val["gender"].astype(float)
    assert t == pytest.approx(brentq(lambda x: (z * (expit(z / x) - female)).sum(), 0.5, 5), abs=1e-3)
    cooled = calibration.with_temperature(test, t)
    assert ((cooled["p_female"] > 0.5) == (test["p_female"] > 0.5)).all()
    before, after = (calibration.scores(table).set_index("measure")["value"] for table in (test, cooled))
    assert after["log loss"] < before["log loss"] - 0.03 and after["ECE"] < before["ECE"] / 3
    assert calibration.temperature(answers(4000, fold="val", seed=3)) == pytest.approx(1, abs=0.1)


def test_the_rank_of_the_quantile():
    assert calibration._rank(9, 0.1) == 9 and calibration._rank(8, 0.1) == 9  # 9 faces are needed, 8 too few
    assert calibration._rank(29, 0.1) == 27 and calibration._rank(19, 0.05) == 19
    for alpha in (0.5, 0.2, 0.1, 0.05, 0.01):
        needed = calibration._rank(0, alpha, least=True)
        assert (
            calibration._rank(needed, alpha) <= needed and calibration._rank(needed - 1, alpha) > needed - 1
        )


@pytest.mark.parametrize("by_band, scaled", [(False, False), (True, False), (False, True), (True, True)])
def test_intervals_hold_as_many_as_they_promise(by_band, scaled):
    """Mean coverage of new faces, over 150 draws of 60 validation faces (some 5 to 20 of each band)."""
    rng, shares = np.random.default_rng(4), []
    pool = answers(40_000, seed=5)
    for _ in range(150):
        at = rng.integers(0, len(pool), 160)
        intervals = calibration.age_intervals(pool.iloc[at[:60]].assign(fold="val"), 0.2, by_band, scaled)
        new = intervals(pool.iloc[at[60:]])
        shares.append(new["age"].between(new["age_low"], new["age_high"]).mean())
    slack = 3 * np.std(shares) / np.sqrt(150)
    assert np.mean(shares) >= 0.8 - slack
    if not by_band:  # and not many more than promised: 1 / 61 at the most
        assert np.mean(shares) <= 0.8 + 1 / 61 + slack


def test_intervals_by_band_and_scaled_are_fair_where_one_width_is_not():
    val, test = answers(3000, fold="val", seed=6), answers(6000, seed=7)
    of = {}
    for name, options in {"one": {}, "bands": {"by_band": True}, "scaled": {"scaled": True}}.items():
        table = calibration.age_intervals(val, **options)(test)
        of[name] = calibration.coverage(table).set_index(["measure", "band"])
        share = of[name].loc["coverage", "all"]
        assert share["low"] - 0.012 <= 0.9 <= share["high"] + 0.012 and (table["age_low"] >= 0).all()
    assert (
        of["one"].loc[("coverage", "66+"), "high"] < 0.85
        and of["one"].loc[("coverage", "6-12"), "value"] > 0.99
    )
    by_band = (
        of["scaled"].loc["coverage"].drop(["all", "0-5"])
    )  # clipping at 0 aside, the widths are the true ones
    assert by_band["value"].between(0.85, 0.95).all()
    assert (
        of["scaled"].loc[("interval width", "6-12"), "high"]
        < of["one"].loc[("interval width", "6-12"), "low"]
    )
    taken_for = pd.Categorical(calibration._bands(test, True))
    table = calibration.age_intervals(val, by_band=True)(test)
    hits = table["age"].between(table["age_low"], table["age_high"]).groupby(taken_for, observed=True).mean()
    assert hits.between(0.84, 0.96).all()


def test_the_reach_is_the_quantile_numpy_finds():
    val = answers(250, fold="val")
    reach = calibration.age_intervals(val, 0.1).reach.loc["all"]
    residuals = (val["age_pred"] - val["age"]).abs()
    # numpy's "inverted_cdf" is the ceil(q n)-th smallest; q n = 226 = ceil(251 * 0.9)
    assert reach["n"] == 250 and reach["reach"] == np.quantile(
        residuals, 226 / 250 - 1e-9, method="inverted_cdf"
    )


def test_too_few_validation_faces_leave_intervals_without_a_limit_and_say_so():
    val, test = answers(30, fold="val"), answers(200)
    intervals = calibration.age_intervals(val, 0.1, by_band=True)
    assert (
        "Too few validation faces for 90 % intervals, which need 9 of each predicted age ("
        in intervals.words()
    )
    table = intervals(test)
    assert np.isinf(table["age_high"]).any() and table["age_low"].notna().all()
    found = calibration.coverage(table).set_index(["measure", "band"])
    assert found.loc[("without limit", "all"), "value"] == np.isinf(table["age_high"]).mean()
    assert np.isfinite(found.loc["interval width", "all"]["value"])
    assert calibration.age_intervals(answers(300, fold="val"), 0.1).words() == ""
    none = calibration.age_intervals(val.iloc[:0])
    assert np.isinf(none(test)["age_high"]).all() and "need 9 (all: 0)" in none.words()
    unanswered = none(test.assign(age_pred=np.nan))
    assert unanswered["age_low"].isna().all() and calibration.coverage(unanswered)["n"].eq(0).all()


def exact_area(loss, doubt):
    """Mean, over k, of the error among the k surest faces."""
    loss = np.asarray(loss)[np.argsort(doubt, kind="stable")]
    return (np.cumsum(loss) / np.arange(1, len(loss) + 1)).mean()


@pytest.mark.parametrize("task", ["gender", "age"])
def test_the_surest_faces_are_told_best_and_the_area_is_the_exact_one(task):
    table = answers(4000)
    curve, area = calibration.risk_coverage(table, task)
    wrong = (table["p_female"] > 0.5) != (table["gender"] == 1)
    loss = wrong.astype(float) if task == "gender" else (table["age_pred"] - table["age"]).abs()
    doubt = (
        0.5 - (table["p_female"] - 0.5).abs() if task == "gender" else table["age_high"] - table["age_low"]
    )
    assert curve["value"].iloc[-1] == pytest.approx(loss.mean()) and curve["answered"].iloc[-1] == 1
    half = curve.iloc[np.abs(curve["answered"] - 0.5).argmin()]
    surest = doubt <= np.sort(doubt)[int(half["n"]) - 1]
    assert half["value"] == pytest.approx(loss[surest].mean()) and half["high"] < curve["low"].iloc[-1]
    assert (
        area.value == pytest.approx(exact_area(loss, doubt), rel=0.03) and area.low < area.value < area.high
    )
    flat, level = calibration.risk_coverage(table.assign(none=1.0), task, doubt="none")
    assert len(flat) == 1 and level.value == pytest.approx(loss.mean())


def test_the_interval_of_the_area_covers_the_true_one():
    _, true = calibration.risk_coverage(answers(80_000), "gender", draws=1)
    inside = 0
    for seed in range(60):
        _, found = calibration.risk_coverage(answers(600, seed=seed + 1), "gender", draws=300)
        inside += found.low <= true.value <= found.high
    assert inside >= 51


def test_what_abstaining_buys_is_measured_on_test_faces():
    val, test = answers(2000, fold="val", seed=8), answers(3000, seed=9)
    found = calibration.abstaining(val, test, "gender").set_index("measure")
    limit = np.quantile(0.5 - (val["p_female"] - 0.5).abs(), 0.9, method="inverted_cdf")
    sure = (0.5 - (test["p_female"] - 0.5).abs()) <= limit
    right = (test["p_female"] > 0.5) == (test["gender"] == 1)
    assert found.loc["error, all answered", "value"] == pytest.approx(1 - right.mean())
    assert found.loc["error, surest answered", "value"] == pytest.approx(1 - right[sure].mean())
    gain = found.loc["gain"]
    assert (
        gain["value"] == pytest.approx(right[sure].mean() - right.mean())
        and 0 < gain["low"] < gain["value"] < gain["high"]
    )
    assert (
        found.loc["share declined", "value"] == pytest.approx(1 - sure.mean()) == pytest.approx(0.1, abs=0.02)
    )
    age = calibration.abstaining(val, test, "age").set_index("measure")["value"]
    assert age["gain"] > 0.3  # years
    nothing = calibration.abstaining(val, test, "gender", share=0).set_index("measure")["value"]
    assert nothing["share declined"] == pytest.approx(0, abs=0.002)


def test_rows_of_another_fold_are_refused():
    val, test = answers(50, fold="val"), answers(50)
    both = pd.concat([test, val])
    refused = {
        "val": [calibration.temperature, calibration.age_intervals, lambda t: calibration.abstaining(t, test, "age")],
        "test": [calibration.reliability, calibration.ece, calibration.ece_by_chance, calibration.scores, calibration.coverage,
                 lambda t: calibration.risk_coverage(t, "gender"), lambda t: calibration.abstaining(val, t, "age")],
    }  # fmt: skip
    for right, functions in refused.items():
        for function in functions:
            for table in (both, {"val": test, "test": val}[right]):
                with pytest.raises(ValueError, match=f"rows of '{right}' alone are right here"):
                    function(table)
    assert len(calibration.scores(val, fold="val")) == 4


def test_wrong_arguments_say_what_is_right():
    val = answers(50, fold="val")
    with pytest.raises(ValueError, match="alpha 90 is impossible"):
        calibration.age_intervals(val, 90)
    with pytest.raises(ValueError, match="share 10 is impossible"):
        calibration.abstaining(val, answers(50), "age", share=10)
    with pytest.raises(ValueError, match="'gender' or 'age' is right"):
        calibration.risk_coverage(val, "race", fold="val")
    with pytest.raises(ValueError, match="need age_low and age_high"):
        calibration.age_intervals(val.assign(age_low=np.nan), scaled=True)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_no_faces_and_few_faces_give_no_intervals_and_no_errors(count):
    val, test = answers(count, fold="val"), answers(count)
    assert np.isnan(calibration.temperature(val))
    assert calibration.with_temperature(test, np.nan)["p_female"].isna().all()
    found = calibration.scores(test)
    assert found["n"].eq(count).all() and (found["low"][:3].isna()).all()
    assert len(calibration.reliability(test)) == min(count, 10)
    for task in ("gender", "age"):
        curve, area = calibration.risk_coverage(test, task)
        assert np.isnan(area.low) and curve["low"].isna().all()
        assert calibration.abstaining(val, test, task)["low"][:3].isna().all()
    assert np.isfinite(calibration.coverage(calibration.age_intervals(val)(test))["n"]).all()


def test_missing_labels_and_answers_do_not_count():
    table = answers(100)
    table.loc[:9, "gender"], table.loc[20:29, "age"] = pd.NA, np.nan
    assert calibration.scores(table)["n"].eq(90).all() and calibration.reliability(table)["n"].sum() == 90
    assert calibration.risk_coverage(table, "age")[1].n == 90
    found = calibration.coverage(table).set_index(["measure", "band"])
    assert found.loc[("coverage", "all"), "n"] == 90
    within_one_sd = norm.cdf(1) - norm.cdf(-1)
    assert binomtest(int(found.loc[("coverage", "all"), "value"] * 90 + 0.5), 90, within_one_sd).pvalue > 0.01
    headless = table.assign(p_female=np.nan, age_pred=np.nan, age_low=np.nan, age_high=np.nan)
    assert (
        calibration.scores(headless)["n"].eq(0).all()
        and metrics.NOTHING == calibration.risk_coverage(headless, "age")[1]
    )
