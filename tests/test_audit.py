"""On whom models err, and doubtful labels: against direct computation, and simulations of known truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from agegender import audit, comparison, faces as source, metrics, words_comparison
from test_metrics import rate_is

GENDERS = ("male", "female")


def people(count=1200, seed=0, groups=None):
    """Test faces of all ages, both genders and two races, with answers off by 5 years and 10 % wrong genders."""
    rng = np.random.default_rng(seed)
    age, gender = rng.integers(1, 90, count).astype(float), rng.integers(0, 2, count)
    right = rng.random(count) < 0.9
    table = pd.DataFrame({
        "file": [f"{i:05d}.jpg" for i in range(count)], "fold": "test",
        "group": np.arange(count) if groups is None else np.arange(count) % groups,
        "age": age, "gender": pd.array(gender, dtype="Int8"),
        "race": pd.array(rng.integers(0, 2, count), dtype="Int8"),
        "age_pred": np.maximum(age + rng.normal(0, 5, count), 0), "age_low": np.nan, "age_high": np.nan,
        "p_female": np.where(right, gender, 1 - gender) * 0.8 + 0.1,
        "age_group_pred": pd.array([pd.NA] * count, dtype="Int8"),
    })  # fmt: skip
    return table.assign(band=source.age_band(table["age"]))


def run(table, name="model A", val=None, **facts) -> comparison.Finished:
    val = people(400, seed=99).assign(fold="val", file=lambda t: "v" + t["file"]) if val is None else val
    record = {"facts": {"model": name, "data": {}, **facts}, "parameters": {"seed": 0}}
    return comparison.Finished(None, pd.concat([table, val], ignore_index=True), pd.DataFrame(), record)


def without(table, *columns):
    return table.assign(**{
        c: pd.array([pd.NA] * len(table), dtype="Int8") if c in ("gender", "race", "age_group_pred") else np.nan
        for c in columns
    })  # fmt: skip


def test_cells_are_the_figures_of_their_faces():
    table = people()
    found = audit.cells(table, "age MAE").set_index(["race", "gender", "band"])
    assert len(found) == 2 * 2 * 8
    some = table[(table["race"] == 1) & (table["gender"] == 0) & (table["band"] == "36-50")]
    row = found.loc[("Black", "male", "36-50")]
    assert row["n"] == len(some)
    assert row["value"] == pytest.approx((some["age_pred"] - some["age"]).abs().mean())
    alone = metrics.age_mae(some)  # other draws, about the same interval
    assert row["low"] == pytest.approx(alone.low, abs=0.25) and row["high"] == pytest.approx(
        alone.high, abs=0.25
    )
    right = audit.cells(table, "gender accuracy").set_index(["race", "gender", "band"])
    expected = metrics.gender_accuracy(some)
    assert right.loc[("Black", "male", "36-50"), ["value", "low", "high"]].tolist() == pytest.approx(
        [expected.value, expected.low, expected.high]
    )


def test_small_cells_say_nothing():
    table = people()
    table = table.drop(table[(table["race"] == 0) & (table["band"] == "66+")].index[audit.TOO_FEW - 1 :])
    found = audit.cells(table, "age MAE")
    few = found["n"] < audit.TOO_FEW
    assert few.any() and found.loc[few, ["value", "low", "high"]].isna().all(axis=None)
    assert found.loc[~few, ["value", "low", "high"]].notna().all(axis=None)
    alike = audit.cells(people(groups=metrics.FEW - 1), "age MAE")  # faces enough, but of nine groups
    assert alike["value"].isna().all() and (alike["n"] >= audit.TOO_FEW).any()


def test_without_labels_of_race_or_gender_cells_are_put_together():
    table = people()
    found = audit.cells(without(table, "race"), "age MAE")
    assert set(found["race"]) == {"all"} and found["n"].sum() == len(table)
    both = audit.cells(without(table, "race", "gender"), "age MAE")
    assert len(both) == 8 and set(both["gender"]) == {"all"}
    small = audit.cells(people(300), "age MAE")  # by race too no two cells are large enough
    assert set(small["race"]) == {"all"} and small["n"].sum() == 300
    assert audit.cells(without(table, "age"), "age MAE")["n"].sum() == 0
    assert (
        "race labels are put together" in words_comparison.cells_left(small, "age MAE", people(300)).lower()
    )
    assert "put together" not in words_comparison.cells_left(found, "age MAE", without(table, "race"))


def test_minors_and_adults_are_those_under_eighteen_and_the_rest():
    table = people()
    table.loc[table["age"] < 18, "age_pred"] = table["age"] + 12
    found = audit.minors_and_adults({"A": table}).set_index(["measure", "part"])
    young, old = table[table["age"] < 18], table[table["age"] >= 18]
    mae = found.loc["age MAE"]
    assert mae.loc["minors", "value"] == pytest.approx(12) and mae.loc["minors", "n"] == len(young)
    assert mae.loc["adults", "value"] == pytest.approx(metrics.age_mae(old).value)
    gap = mae.loc["adults - minors"]
    assert (
        gap["value"] == pytest.approx(metrics.age_mae(old).value - 12)
        and gap["high"] < 0
        and gap["p"] < 0.001
    )
    expected = metrics.gender_accuracy(young)
    assert found.loc[("gender accuracy", "minors"), "low"] == pytest.approx(expected.low)
    said = words_comparison.minors(audit.minors_and_adults({"A": table}), "A")
    assert said.startswith("**A** is off less on adults than on minors, by ") and "12.0 years" in said
    assert "not shown to differ between minors and adults in gender accuracy" in said
    printed = audit.parts_table(audit.minors_and_adults({"A": table, "B": without(table, "age_pred")}))
    assert printed.shape == (2, 6) and printed.loc["B", "age MAE, minors (years)"] == "–"


def test_too_few_minors_are_said_to_be_too_few():
    table = people()
    table = table[(table["age"] >= 18) | (table.index < 60)]
    found = audit.minors_and_adults({"A": table})
    assert "too few minors" in words_comparison.minors(found, "A")
    assert "faces: too few" in audit.parts_table(found).to_string()
    nobody = audit.minors_and_adults({"A": without(table, "age")})
    assert "nan" not in words_comparison.minors(nobody, "A")


def test_the_direction_of_errors_is_found_and_only_there():
    table = people(3000)
    women = (table["gender"] == 1) & (table["age"] >= 18)
    table.loc[women & (table.index % 4 == 0), "p_female"] = 0.2
    found = audit.direction({"A": table}).set_index("part")
    adults = table[table["age"] >= 18]
    taken = [(adults["p_female"] > 0.5)[adults["gender"] == g].mean() for g in (0, 1)]
    row = found.loc["adults"]
    assert row["men_value"] == pytest.approx(taken[0]) and row["women_value"] == pytest.approx(1 - taken[1])
    assert row["gap_value"] == pytest.approx(row["women_value"] - row["men_value"])
    assert row["p_holm"] < 0.01 and found.loc["minors", "p_holm"] > 0.01
    said = words_comparison.direction(found.reset_index(), "A")
    assert "female for male more often, by " in said and "Among minors A takes" in said
    swapped = table.assign(p_female=1 - table["p_female"], gender=1 - table["gender"])
    assert "male for female more often" in words_comparison.direction(audit.direction({"A": swapped}), "A")
    assert list(audit.direction({"A": table, "B": without(table, "p_female")})["model"]) == ["A", "A"]
    nothing = audit.direction({"B": without(table, "p_female")})
    assert "nothing can be said" in words_comparison.direction(nothing, "B")
    assert audit.direction_table(nothing).empty and audit.direction_table(found.reset_index()).shape == (2, 5)


def test_p_is_right_as_often_as_it_says():
    """Two shares that are alike, faces in pairs of one answer: 5 % of the tests may find a difference."""
    rng, found, tries = np.random.default_rng(1), 0, 200
    for i in range(tries):
        group = np.repeat(np.arange(60), 2)
        cell = rng.integers(0, 2, 60)[group]
        wrong = (rng.random(60) < 0.3)[group]
        (made,) = audit.means([(wrong, np.ones(120), cell, 2)], group, draws=1000, seed=i)
        found += audit.p_of(made.drawn[:, 1] - made.drawn[:, 0]) < 0.05
    assert found / tries < 0.1 and rate_is(found, tries, 0.06)
    assert audit.p_of(np.zeros(1000)) == 1
    assert audit.p_of(np.linspace(1, 2, 999)) == pytest.approx(0.002)


def aged(count=6000, seed=0, gap=0.0):
    """Errors grow from band to band, Asian faces are the older ones; in a band they are `gap` years further off."""
    rng = np.random.default_rng(seed)
    table = people(count, seed)
    race = rng.integers(0, 3, count)
    age = np.where(race == 2, rng.integers(30, 66, count), rng.integers(18, 60, count)).astype(float)
    error = np.abs(rng.normal(0, 1, count)) * source.age_band(age).codes + gap * (race == 2)
    return table.assign(
        age=age, race=pd.array(race, dtype="Int8"), age_pred=age + error, band=source.age_band(age)
    )


def test_standardising_takes_the_ages_out():
    table = aged()
    raw = [metrics.age_mae(table[table["race"] == r]).value for r in (0, 2)]
    assert raw[1] - raw[0] > 0.5
    found = audit.by_race(table, metrics.age_mae)
    rates = found.rates.set_index("race")["value"]
    assert abs(rates["Asian"] - rates["White"]) < 0.35 and set(rates.index) == {"White", "Black", "Asian"}
    # against the definition, band by band
    inside = table[table["band"].isin(found.bands)]
    weights = inside["band"].value_counts(normalize=True)
    part = inside[inside["race"] == 2]
    by_band = (part["age_pred"] - part["age"]).abs().groupby(part["band"], observed=True).mean()
    assert rates["Asian"] == pytest.approx((by_band * weights.reindex(by_band.index)).sum())
    assert found.share == pytest.approx(len(inside) / len(table)) and len(found.pairs) == 3
    assert "not shown to be more than chance" in words_comparison.races(found, "age MAE")


def test_a_gap_at_the_same_ages_is_found():
    found = audit.by_race(aged(gap=2.0), metrics.age_mae)
    widest = found.pairs.set_index(["a", "b"]).loc[("White", "Asian")]
    assert widest["low"] < 2 < widest["high"] and widest["p_holm"] < 0.01
    said = words_comparison.races(found, "age MAE")
    assert "highest for Asian" in said and "is more than chance (p < 0.001); " in said
    title = words_comparison.races_title(found, audit.by_race(people(100), metrics.gender_accuracy))
    assert title.startswith("Pairs of race labels that are told apart at the same ages: ") and title.endswith(
        " of 3 in age MAE"
    )


def test_races_that_are_alike_are_seldom_told_apart():
    found = [
        audit.by_race(aged(1200, seed), metrics.age_mae, draws=500, seed=seed).pairs["p_holm"].min() < 0.05
        for seed in range(40)
    ]
    assert sum(found) <= 7  # 2 expected, at most


def test_races_with_few_faces_are_named_and_left_out():
    table = aged()
    table.loc[:9, "race"] = 4
    found = audit.by_race(table, metrics.age_mae)
    assert found.few == ("Others",) and "Others" not in set(found.rates["race"])
    assert "Too few faces to be compared: Others." in words_comparison.races(found, "age MAE")
    nobody = audit.by_race(without(table, "race"), metrics.age_mae)
    assert nobody.pairs.empty and "No two races" in words_comparison.races(nobody, "age MAE")
    assert (
        audit.rates({("A", "age MAE"): found, ("B", "gender accuracy"): nobody})["model"].tolist()
        == ["A"] * 3
    )


def test_a_share_that_is_whole_still_has_an_interval():
    table = aged().assign(p_female=lambda t: t["gender"].astype(float))
    rates = audit.by_race(table, metrics.gender_accuracy).rates
    assert (rates["value"] == 1).all() and (rates["low"] < 1).all()


def test_label_gaps_are_those_of_faces_of_one_group():
    table = people(6).assign(group=[1, 1, 2, 3, 3, 3], age=[20, 24, 50, 30, np.nan, 36])
    found = audit.label_gaps(table)
    assert len(found) == 4 and sorted(found["age_gap"].dropna()) == [4, 6]
    assert found.loc[0, ["i", "j", "age_mean"]].tolist() == [0, 1, 22]


def test_noise_is_said_of_copies_alone():
    utkface = run(people(), data={"kind": source.UTKFACE})
    assert audit.copies_alone(utkface)
    assert not audit.copies_alone(run(people(), data={"kind": source.DRAWN}))
    utkface.record["parameters"]["person"] = r"(\w+)-"
    assert not audit.copies_alone(utkface)
    from agegender import labels

    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(400), 2)
    table = people(800).assign(group=group)
    truth = rng.integers(20, 60, 400).astype(float)[group]
    table["age"] = truth + rng.normal(0, 4, 800)
    gaps = audit.label_gaps(table)
    gap = labels.mean_gap(gaps, group)
    said = words_comparison.noise(True, gaps, gap, labels.gaps_by_band(gaps, group))
    left = (table["age"] - truth).abs().mean()  # whoever knew the true age
    assert (
        gap.low / np.sqrt(2) < left < gap.high / np.sqrt(2)
        and f"off by {gap.value / np.sqrt(2):.1f} years" in said
    )
    assert "can't be told here" in words_comparison.noise(False, gaps, gap, gaps)
    none = audit.label_gaps(people())
    assert words_comparison.noise(True, none, labels.mean_gap(none, people()["group"]), none).startswith(
        "0 pairs"
    )


def test_planted_wrong_labels_are_found():
    table = people(2000, seed=4)
    table["p_female"] = np.where(table["gender"] == 1, 0.97, 0.03)
    wrong = table.index[:12]
    table.loc[wrong, "gender"] = 1 - table.loc[wrong, "gender"]
    off = table.index[20:32]
    table.loc[off, "age"] = table.loc[off, "age"] + 60
    rng = np.random.default_rng(0)
    runs = {
        n: run(table.assign(age_pred=table["age_pred"] + rng.normal(0, 3, 2000)), n) for n in ("A", "B", "C")
    }
    genders, (ages, limit) = audit.doubtful_genders(runs), audit.doubtful_ages(runs)
    assert set(genders["file"]) == set(table.loc[wrong, "file"])
    assert set(table.loc[off, "file"]) <= set(ages["file"]) and 5 < limit < 25
    assert set(ages["file"][:12]) == set(table.loc[off, "file"]) and (ages["agreed"][:12] < 0).all()
    said = words_comparison.doubtful(genders, ages, limit, audit.telling(runs), 2000)
    assert said.startswith("Of 12 of 2,000 test faces (0.6 %) every model that tells gender")
    listed = audit.answers(runs, genders["file"][:3], "gender")
    assert len(listed) == 3 and listed["answers"].str.count(",").eq(2).all()


def test_one_model_that_disagrees_clears_a_label():
    table = people(500, seed=4).assign(p_female=lambda t: np.where(t["gender"] == 1, 0.02, 0.98))
    sure = run(table)
    assert len(audit.doubtful_genders({"A": sure})) == 500
    unsure = run(table.assign(p_female=0.5), "B")
    assert not len(audit.doubtful_genders({"A": sure, "B": unsure}))
    ages = table.assign(age_pred=table["age"] + 40)
    other = table.assign(age_pred=table["age"] - 40)
    assert len(audit.doubtful_ages({"A": run(ages)})[0]) == 500
    assert not len(audit.doubtful_ages({"A": run(ages), "B": run(other)})[0])
    # one that does not tell age has no say in it
    assert len(audit.doubtful_ages({"A": run(ages), "B": run(without(ages, "age_pred"))})[0]) == 500


def test_without_answers_nothing_is_doubtful():
    silent = {"A": run(without(people(), "age_pred", "p_female"))}
    genders, (ages, limit) = audit.doubtful_genders(silent), audit.doubtful_ages(silent)
    assert not len(genders) and not len(ages)
    assert audit.telling(silent) == (0, 0)
    said = words_comparison.doubtful(genders, ages, limit, (0, 0), 1200)
    assert said == "No model has answers that could contradict a label."
    few = {"A": run(people(), val=people(50).assign(fold="val", file=lambda t: "v" + t["file"]))}
    ages, limit = audit.doubtful_ages(few)
    assert np.isnan(limit) and not len(ages)
    said = words_comparison.doubtful(genders, ages, limit, (1, 1), 1200)
    assert "fewer than 100 validation faces" in said and "One model alone tells gender" in said


def test_drawn_faces_check_the_method(tmp_path):
    pd.DataFrame({
        "file": ["a", "b", "c", "d"], "gender": [0, 0, 1, 1], "labelled_gender": [1, 0, 1, 1],
        "age": [20, 30, 40, 50], "labelled_age": [20, 45, 40, 53], "noisy": [False, True, False, True],
    }).to_csv(tmp_path / "truth.csv")  # fmt: skip

    class Source:
        drawn, root = True, tmp_path

    truth = audit.planted(Source, ["a", "b", "d", "z"])
    assert truth["gender"].tolist() == [True, False, False]
    assert truth["years"].fillna(0).tolist() == [0, 15, 3]
    doubted = pd.DataFrame({"file": ["b", "a"]})
    said = words_comparison.planted(truth, doubted.iloc[1:], doubted, 10.0)
    assert "Of 1 doubtful labels of gender 1 was drawn wrong on purpose, of 1 among" in said
    assert "of age 1 was drawn wrong on purpose, of 2 among the test faces (1 of them by 10.0 years" in said
    Source.drawn = False
    assert audit.planted(Source, ["a"]).empty
    assert "truth behind these labels is not known" in words_comparison.planted(
        audit.planted(Source, []), doubted, doubted, 9
    )


def test_faces_to_show_are_the_worst_and_the_best():
    table = people()
    worst, best = audit.worst_and_best(table)
    error = (table["age_pred"] - table["age"]).abs().set_axis(table["file"])
    by_band = error.groupby(table["band"].to_numpy())
    assert error[worst].max() == error.max() and error[best].min() == error.min()
    assert len(worst) == len(best) == 8 == by_band.ngroups
    table["p_female"] = np.linspace(0.01, 0.99, len(table))
    files = audit.surest_errors(table, 5)
    rows = table.set_index("file").loc[files]
    assert ((rows["p_female"] > 0.5) != (rows["gender"] == 1)).all() and rows["p_female"].sub(
        0.5
    ).abs().min() > 0.4
    assert audit.surest_errors(without(table, "gender")) == [] and audit.worst_and_best(
        without(table, "age")
    ) == ([], [])
