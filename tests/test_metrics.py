"""Figures against other implementations, and intervals against simulations of known truth."""

from __future__ import annotations

import itertools
from time import process_time

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, bootstrap, norm, permutation_test
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    mean_absolute_error,
    median_absolute_error,
)

from agegender import faces as source
from agegender import metrics


def rate_is(hits: int, tries: int, rate: float) -> bool:
    """Whether `hits` of `tries` can come from `rate`: fails by chance once in 1,000."""
    return binomtest(hits, tries, rate).pvalue > 0.001


def clustered(rng, groups=80, spread=1.0):
    """Group (n,) and error (n,) of faces in groups of one to seven that share most of their error, mean 0."""
    group = np.repeat(np.arange(groups), rng.integers(1, 8, groups))
    return group, rng.normal(0, spread, groups)[group] + rng.normal(0, 0.5, len(group))


def faces(count=400, seed=0):
    rng = np.random.default_rng(seed)
    age = rng.integers(1, 90, count).astype(float)
    gender = rng.integers(0, 2, count)
    return pd.DataFrame({
        "file": [f"{i:05d}.jpg" for i in range(count)],
        "fold": np.where(np.arange(count) % 4 == 0, "val", "test"),
        "group": np.arange(count) // 2 * 2, "age": age, "gender": pd.array(gender, dtype="Int8"), "race": pd.array([0] * count, dtype="Int8"),
        "age_pred": age + rng.normal(2, 6, count), "p_female": np.clip(gender * 0.5 + rng.random(count) * 0.6, 0, 1),
        "age_group_pred": pd.array([pd.NA] * count, dtype="Int8"),
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


def test_more_figures_are_scikit_learns():
    table = faces()
    found = metrics.estimates(table, metrics.MORE)
    gender, said = table["gender"].astype(int), table["p_female"] > 0.5
    assert found["balanced gender accuracy"].value == pytest.approx(balanced_accuracy_score(gender, said))
    assert found["median age error"].value == median_absolute_error(table["age"], table["age_pred"])
    assert found["accuracy within 5 years"].value == ((table["age_pred"] - table["age"]).abs() <= 5).mean()
    for edges, name in ((metrics.S0_EDGES, "5 groups"), (metrics.S4_EDGES, "6 groups")):
        true, put = (np.digitize(table[column], edges[1:]) for column in ("age", "age_pred"))
        assert found[f"age group accuracy ({name})"].value == accuracy_score(true, put)
        assert found[f"one-off age group accuracy ({name})"].value == (np.abs(true - put) <= 1).mean()
    for estimate in found.values():
        assert estimate.low < estimate.value <= estimate.high and estimate.n == 400


def test_all_measures_share_their_draws_and_say_the_same_together_and_alone():
    table, measures = faces(), metrics.MEASURES | metrics.MORE
    together = metrics.summary(table, measures=measures).set_index("measure")
    assert list(together.index) == list(measures) and list(metrics.MEASURES) == [
        "age MAE",
        "age bias",
        "gender accuracy",
    ]
    for name, measure in measures.items():
        assert tuple(together.loc[name]) == pytest.approx(tuple(vars(measure(table)).values()), rel=1e-4)
    wide = metrics.summary(table, measures=measures, clustered=True).set_index("measure")
    assert (wide["value"] == together["value"]).all() and (
        wide.loc["gender accuracy", "low"] != together.loc["gender accuracy", "low"]
    )
    right = (table["p_female"] > 0.5) == (table["gender"] == 1)
    alone = metrics.mean_over_groups(right, table["group"])
    assert wide.loc["gender accuracy", "low"] == pytest.approx(alone.low, abs=1e-6)


def test_a_draw_sums_whole_groups():
    group = np.array([7, 3, 7, 3, 9])
    sums = metrics.resampled(np.eye(5), group, draws=4000)
    assert (sums[:, 0] == sums[:, 2]).all() and (sums[:, 1] == sums[:, 3]).all() and (sums % 1 == 0).all()
    assert sums.mean(axis=0) == pytest.approx(1, abs=0.08) and sums.var(axis=0) == pytest.approx(1, abs=0.12)
    assert abs(np.corrcoef(sums[:, 0], sums[:, 4])[0, 1]) < 0.06


def test_draws_are_shared_among_the_same_faces_alone(monkeypatch):
    rng = np.random.default_rng(0)
    groups = np.arange(40), np.repeat(np.arange(20), 2), np.arange(30)
    asked = {
        (at, width): (rng.normal(size=(len(group), width)), group)
        for at, group in enumerate(groups)
        for width in (1, 3)
    }
    drawn, copies = [], metrics._copies
    monkeypatch.setattr(metrics, "_copies", lambda *given: drawn.append(given) or copies(*given))
    found = metrics.resampled_each(asked, draws=50, seed=3)
    assert found.keys() == asked.keys() and len(drawn) == len(groups)
    for key, of_key in asked.items():
        assert found[key] == pytest.approx(metrics.resampled(*of_key, draws=50, seed=3), abs=1e-5)


@pytest.mark.parametrize("count", [11, 12, 301])
def test_the_median_of_each_draw_is_numpys(count):
    rng = np.random.default_rng(count)
    values, group = rng.exponential(6, count).round(), rng.integers(0, count, count)
    drawn = metrics._medians(values, group, draws=200, seed=5)
    copies = np.rint(metrics.resampled(np.eye(count), group, draws=200, seed=5)).astype(int)
    for found, of_face in zip(drawn, copies):
        assert found == np.median(np.repeat(values, of_face)) if of_face.sum() else np.isnan(found)


def test_intervals_of_medians_and_of_balanced_accuracy_cover_the_truth():
    rng, hits = np.random.default_rng(1), {"median": 0, "balanced": 0}
    asked = {name: metrics.MORE[name] for name in ("median age error", "balanced gender accuracy")}
    for i in range(300):
        group, error = clustered(rng)
        # Half of the faces are women; 80 % of them and 60 % of the men are told right.
        female = rng.random(len(group)) < 0.5
        shared = error / np.sqrt(1.25)  # standard normal, much the same within a group
        right = shared < np.where(female, norm.ppf(0.8), norm.ppf(0.6))
        table = pd.DataFrame({
            "group": group, "age": 40.0, "age_pred": 40 + error, "gender": pd.array(female.astype(int), dtype="Int8"),
            "p_female": np.where(right == female, 0.9, 0.1), "age_group_pred": pd.array([pd.NA] * len(group), dtype="Int8"),
        })  # fmt: skip
        found = metrics.estimates(table, asked, draws=500, seed=i)
        truth = {"median": norm.ppf(0.75) * np.sqrt(1.25), "balanced": 0.7}
        for name, measure in zip(hits, asked):
            hits[name] += found[measure].low <= truth[name] <= found[measure].high
    assert 0.91 <= hits["median"] / 300 <= 0.985 and 0.91 <= hits["balanced"] / 300 <= 0.985


def test_shares_are_covered_by_wilson_face_by_face_and_by_the_bootstrap_in_groups():
    rng, wilson, clusters, alone = np.random.default_rng(2), 0, 0, 0
    for i in range(300):
        group, error = clustered(rng)
        hits, single = error < np.sqrt(1.25) * norm.ppf(0.85), rng.random(300) < 0.85
        estimate = metrics.mean_over_groups(hits, group, draws=500, seed=i)
        clusters += estimate.low <= 0.85 <= estimate.high
        for found, values in ((metrics.proportion(single), "wilson"), (metrics.proportion(hits), "alone")):
            inside = found.low <= 0.85 <= found.high
            wilson, alone = wilson + inside * (values == "wilson"), alone + inside * (values == "alone")
    assert rate_is(wilson, 300, 0.95)
    assert 0.90 <= clusters / 300 <= 0.985
    assert alone / 300 < 0.85  # what the docstring warns of


def test_age_groups_are_those_of_the_last_birthday():
    assert metrics.age_group([0, 10.9, 11, 50, 51, 99, np.nan]).astype(object).tolist() == [
        "0-10", "0-10", "11-20", "36-50", "51+", "51+", np.nan]  # fmt: skip
    assert metrics.age_group([17.5, 18], [18, 60]).isna().tolist() == [True, False]
    edges = [low for low, _ in source.AGE_BANDS]
    assert list(metrics.age_group(np.arange(99), edges)) == list(source.age_band(np.arange(99)))


def test_the_age_group_is_the_models_own_where_it_was_trained_to_tell_it():
    table = faces(40).assign(age_group_pred=pd.array([4] * 40, dtype="Int8"))
    table.loc[0, "age_pred"] = -3.0
    own, source = metrics.group_answer(table, own=[0, 11, 21, 36, 51])
    assert source == "age_group_pred" and (own == 4).all()
    for edges, trained in ((metrics.S4_EDGES, metrics.S0_EDGES), (metrics.S0_EDGES, None)):
        derived, source = metrics.group_answer(table, edges, own=trained)
        assert source == "age_pred" and derived[0] == 0 and len(set(derived)) > 2
    share = metrics.age_group_accuracy(own=metrics.S0_EDGES)(table).value
    assert (
        share
        == (table["age"] >= 51).mean()
        == metrics.more(metrics.S0_EDGES)["age group accuracy (5 groups)"](table).value
    )
    table.loc[3, "age_group_pred"] = 5
    with pytest.raises(ValueError, match="'00003.jpg' is 5: .* 0 to 4 would be right"):
        metrics.group_answer(table, own=metrics.S0_EDGES)


def test_accuracy_by_true_group_adds_up():
    table = faces()
    by = metrics.by_true_group(table)
    part = by[by["measure"] == "age group accuracy (5 groups)"]
    assert part["age group"].tolist() == ["0-10", "11-20", "21-35", "36-50", "51+"] and part["n"].sum() == 400
    overall = metrics.MORE["age group accuracy (5 groups)"](table).value
    assert np.average(part["value"], weights=part["n"]) == pytest.approx(overall)


def test_no_faces_few_faces_and_one_gender_give_no_figures_and_no_errors():
    measures = metrics.MEASURES | metrics.MORE
    assert metrics.summary(faces().iloc[:0], measures=measures)["n"].eq(0).all()
    few = metrics.summary(faces(6), measures=measures).set_index("measure")
    assert few.loc["median age error", ["low", "high"]].isna().all() and np.isfinite(few["value"]).all()
    women = faces().assign(gender=pd.array([1] * 400, dtype="Int8"))
    assert metrics.MORE["balanced gender accuracy"](women) == metrics.NOTHING
    assert (
        "too few faces for an interval"
        in metrics.estimates(faces(6), clustered=True)["gender accuracy"].percent()
    )


# Two models on the same faces


def noisy(table, seed, years=2.0):
    rng = np.random.default_rng(seed)
    answers = {"age_pred": rng.normal(0, years, len(table)), "p_female": rng.normal(0, 0.2, len(table))}
    return table.assign(
        age_pred=table["age_pred"] + answers["age_pred"],
        p_female=np.clip(table["p_female"] + answers["p_female"], 0, 1),
    )


def test_pairs_against_scipy_and_by_hand():
    table = faces().query("fold == 'test'").assign(group=range(300))
    tables = {"a": table, "b": noisy(table, 0), "c": noisy(table, 1, years=9)}
    found = metrics.paired(tables)
    assert found[["a", "b"]].drop_duplicates().to_numpy().tolist() == [["a", "b"], ["a", "c"], ["b", "c"]]
    for row in found.itertuples():
        one, two = tables[row.a], tables[row.b]
        if row.measure == "age MAE":
            difference = (two["age_pred"] - two["age"]).abs() - (one["age_pred"] - one["age"]).abs()
            test = permutation_test(
                (difference,), np.mean, permutation_type="samples", n_resamples=4999, rng=0
            )
            assert row.p == pytest.approx(test.pvalue, abs=0.02)
        else:
            right = [(t["p_female"] > 0.5) == (t["gender"] == 1) for t in (one, two)]
            difference = right[1].astype(float) - right[0]
            ahead, behind = (right[1] & ~right[0]).sum(), (right[0] & ~right[1]).sum()
            assert row.p == pytest.approx(binomtest(ahead, ahead + behind).pvalue)
        assert row.value == pytest.approx(difference.mean()) and row.n == 300
        assert row.low < row.value < row.high
    ordered = found.sort_values("p")  # Holm: the smallest of m by m, the next by m - 1, ..., never falling
    by_hand = np.minimum(1, np.maximum.accumulate(ordered["p"] * np.arange(len(found), 0, -1)))
    assert ordered["p_holm"].to_numpy() == pytest.approx(by_hand.to_numpy())
    mae = found[(found["measure"] == "age MAE") & (found["b"] == "c")]
    assert (mae["p_holm"] < 0.01).all() and (mae["low"] > 0).all()


def test_pairs_that_nobody_can_tell_apart():
    table = faces().query("fold == 'test'")
    same = metrics.paired({"a": table, "b": table})
    assert (same["p"] == 1).all() and (same["value"] == 0).all()
    without = metrics.paired({"a": table, "b": table.assign(age_pred=np.nan)})
    assert without["p"].isna().tolist() == without["p_holm"].isna().tolist() == [True, False]
    assert without["n"].tolist() == [0, 300]
    few = metrics.paired({"a": table[:6], "b": noisy(table[:6], 0)})
    assert few.loc[0, ["low", "high", "p"]].isna().all()
    assert len(metrics.paired({"a": table})) == 0


def test_a_pair_says_the_same_alone_and_among_models_that_know_other_faces():
    table = faces().query("fold == 'test'")
    some = {"a": table, "b": noisy(table, 0), "c": noisy(table, 1)}
    some["c"] = some["c"].assign(age_pred=some["c"]["age_pred"].mask(np.arange(300) < 100))
    together = metrics.paired(some).set_index(["a", "b", "measure"])
    for a, b in itertools.combinations(some, 2):
        alone = metrics.paired({a: some[a], b: some[b]}).set_index(["a", "b", "measure"])
        for column in ("value", "low", "high", "n", "p"):
            assert together.loc[alone.index, column].to_numpy() == pytest.approx(alone[column].to_numpy(), abs=1e-5)
    assert together["n"].tolist() == [300, 300, 200, 300, 200, 300]


def test_pairs_of_other_faces_are_refused():
    table = faces()
    test = table[table["fold"] == "test"]
    with pytest.raises(ValueError, match="test, val: one fold is right"):
        metrics.paired({"a": table, "b": table})
    with pytest.raises(ValueError, match="a and b differ in the column 'file'"):
        metrics.paired({"a": test, "b": test.assign(file="x" + test["file"])})
    with pytest.raises(ValueError, match="a and b differ in the column 'age'"):
        metrics.paired({"a": test, "b": test.assign(age=test["age"] + 1)})


def test_models_that_are_equally_good_are_seldom_told_apart(monkeypatch):
    """False alarms of both tests where whole groups share their errors, and of McNemar's face by face."""
    monkeypatch.setattr("gc.collect", lambda: 0)  # multipletests collects garbage, 0.2 s a time
    rng, alarms, face_by_face, tries = np.random.default_rng(3), {"age MAE": 0, "gender accuracy": 0}, 0, 200
    for i in range(tries):
        group, error = clustered(rng)
        n, other = len(group), rng.normal(0, 1.0, 80)[group] + rng.normal(0, 0.5, len(group))
        base = pd.DataFrame({"file": np.arange(n).astype(str), "fold": "test", "group": group, "age": 40.0, "gender": pd.array([1] * n, dtype="Int8")})  # fmt: skip
        tables = {
            name: base.assign(age_pred=40 + e, p_female=np.where(e < 1, 0.9, 0.1))
            for name, e in (("a", error), ("b", other))
        }
        found = metrics.paired(tables, draws=500, seed=i).set_index("measure")["p"]
        for name in alarms:
            alarms[name] += found[name] <= 0.05
        ahead, behind = ((error < 1) & (other >= 1)).sum(), ((error >= 1) & (other < 1)).sum()
        face_by_face += binomtest(int(ahead), int(ahead + behind)).pvalue <= 0.05
    assert rate_is(alarms["age MAE"], tries, 0.05)
    assert alarms["gender accuracy"] / tries < 0.08  # exact, so rather below 5 %
    assert face_by_face / tries > 0.12  # why a group counts once


def test_fifteen_thousand_predictions_take_seconds():
    table = faces(15_000)
    start = process_time()
    metrics.summary(table, measures=metrics.MEASURES | metrics.MORE)
    assert process_time() - start < 5  # 1 on an idle core; processor time, as others may use the machine
