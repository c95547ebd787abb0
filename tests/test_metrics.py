"""Figures against other implementations, and intervals against simulations of known truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap
from sklearn.metrics import accuracy_score, mean_absolute_error

from agegender import metrics


def faces(count=400, seed=0):
    rng = np.random.default_rng(seed)
    age = rng.integers(1, 90, count).astype(float)
    gender = rng.integers(0, 2, count)
    return pd.DataFrame({
        "file": [f"{i:05d}.jpg" for i in range(count)],
        "fold": np.where(np.arange(count) % 4 == 0, "val", "test"),
        "group": np.arange(count) // 2 * 2, "age": age, "gender": pd.array(gender, dtype="Int8"), "race": pd.array([0] * count, dtype="Int8"),
        "age_pred": age + rng.normal(2, 6, count), "p_female": np.clip(gender * 0.5 + rng.random(count) * 0.6, 0, 1),
    })  # fmt: skip


def test_figures_are_scikit_learns():
    table = faces()
    assert metrics.age_mae(table).value == pytest.approx(mean_absolute_error(table["age"], table["age_pred"]))
    expected = accuracy_score(table["gender"].astype(int), table["p_female"] > 0.5)
    assert metrics.gender_accuracy(table).value == pytest.approx(expected)
    assert metrics.age_bias(table).value == pytest.approx((table["age_pred"] - table["age"]).mean())


def test_faces_without_a_label_or_an_answer_do_not_count():
    table = faces()
    table.loc[0:9, "age"] = np.nan
    table.loc[5:19, "age_pred"] = np.nan
    table.loc[0:2, "gender"] = pd.NA
    assert metrics.age_mae(table).n == 380 and metrics.gender_accuracy(table).n == 397
    assert metrics.age_mae(table.iloc[:0]).n == 0 and np.isnan(metrics.age_mae(table.iloc[:0]).value)


def test_the_bootstrap_agrees_with_scipys_where_every_group_is_one_face():
    values = np.random.default_rng(1).exponential(6, 300)
    ours = metrics.mean_over_groups(values, np.arange(300))
    scipys = bootstrap((values,), np.mean, method="percentile", n_resamples=9999, rng=2).confidence_interval
    assert ours.low == pytest.approx(scipys.low, abs=0.06) and ours.high == pytest.approx(
        scipys.high, abs=0.06
    )


def test_intervals_cover_the_truth_where_groups_share_their_error():
    rng, hits, naive = np.random.default_rng(0), 0, 0
    for _ in range(200):
        group = np.repeat(np.arange(80), 4)
        values = 5 + np.repeat(rng.normal(0, 1, 80), 4) + rng.normal(0, 0.3, 320)
        estimate = metrics.mean_over_groups(values, group, draws=600)
        alone = metrics.mean_over_groups(values, np.arange(320), draws=600)
        hits += estimate.low <= 5 <= estimate.high
        naive += alone.low <= 5 <= alone.high
    assert 0.90 <= hits / 200 <= 0.985
    assert naive / 200 < 0.8  # face by face would claim too much


def test_wilson_is_the_textbooks():
    estimate = metrics.proportion([True] * 81 + [False] * 182)  # Newcombe 1998, table I: 0.2553, 0.3662
    assert (estimate.low, estimate.high) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))
    assert metrics.proportion([True] * 10).high == 1.0


def test_summary_by_band_adds_up():
    table = faces()
    table["band"] = pd.cut(table["age"], [0, 30, 60, 100], labels=["young", "middle", "old"])
    by = metrics.summary(table, by="band")
    mae = by[by["measure"] == "age MAE"]
    assert mae["band"].tolist() == ["young", "middle", "old"] and mae["n"].sum() == len(table)
    assert np.average(mae["value"], weights=mae["n"]) == pytest.approx(metrics.age_mae(table).value)


def test_the_guesser_learns_from_validation_and_is_judged_on_test():
    table = faces()
    guess = metrics.naive(table)
    val, test = table[table["fold"] == "val"], table[table["fold"] == "test"]
    assert guess["age MAE"] == pytest.approx((test["age"] - val["age"].median()).abs().mean())
    table["gender"] = pd.array(np.where(table["fold"] == "val", 1, 0), dtype="Int8")
    table.loc[table.index[-1], "gender"] = 1
    guess = metrics.naive(table)  # validation says female, the test part is male but for one
    assert guess["gender accuracy"] == pytest.approx(1 / len(test))


def test_print_forms():
    assert metrics.Estimate(5.64, 5.2, 6.04, 9).years() == "5.6 years [5.2, 6.0]"
    assert metrics.Estimate(0.912, 0.9, 0.93, 9).percent() == "91.2 % [90.0, 93.0]"


def test_with_few_groups_there_is_no_interval():
    few = metrics.mean_over_groups([1.0, 2.0, 3.0] * 4, [0, 1, 2] * 4)
    assert few.value == 2 and np.isnan(few.low) and "too few faces for an interval" in few.years()
    assert not np.isnan(metrics.mean_over_groups(np.arange(10.0), np.arange(10)).low)
    assert metrics.NOTHING.years() == metrics.NOTHING.percent() == "no labels"
