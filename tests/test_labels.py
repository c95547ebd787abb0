"""What is said about labels follows from them, and nothing is said about labels that are missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from agegender import duplicates, labels, splits
from agegender.faces import Faces
from agegender.metrics import proportion


def faces(ages, genders=None, races=None, **more) -> pd.DataFrame:
    n = len(ages)
    return pd.DataFrame({
        "file": [f"{k:03d}.jpg" for k in range(n)],
        "age": np.asarray(ages, dtype=float),
        "gender": pd.array([None] * n if genders is None else genders, dtype="Int8"),
        "race": pd.array([None] * n if races is None else races, dtype="Int8"),
        "person": pd.Series([None] * n, dtype=object),
        **more,
    })  # fmt: skip


NONE = faces([np.nan] * 4)


def test_heaping_is_one_where_ages_are_even_and_counts_what_stands_out():
    even = np.repeat(np.arange(118), 6)
    flat = labels.heaping(even, labels.ROUND)
    assert flat.value == pytest.approx(1) and flat.low < 1 < flat.high
    assert "within chance" in labels.times(flat)
    twice = labels.heaping(np.r_[even, np.repeat(30, 6)], 30)
    assert twice.value == pytest.approx(2) and twice.n == 36
    assert labels.times(twice).startswith("2.00 times [")
    share = proportion(np.arange(36) < 12)
    assert twice.high == pytest.approx(4 * share.high / (1 - share.high))
    linear = labels.heaping(np.repeat(np.arange(118), np.arange(118)), labels.ROUND)
    assert linear.value == pytest.approx(1), "more faces of every next age are no heap"


def test_heaping_counts_fractions_as_the_last_birthday():
    assert labels.heaping([30.0, 30.9, 29.5, 31.2, 28, 32], 30).value == pytest.approx(2)


@pytest.mark.parametrize("ages", [[], [np.nan], [30, 30], [80, 81]])
def test_heaping_without_neighbours_is_no_number(ages):
    heap = labels.heaping(ages, 30)
    assert (heap.n == 0) == ("not to be judged" in labels.times(heap))
    assert np.isfinite(heap.value) == (heap.n > 0)


def test_heaping_refuses_ages_that_share_neighbours():
    with pytest.raises(ValueError, match="five years apart"):
        labels.heaping([1, 2], [25, 26])


def test_by_year_counts_every_year_and_unknown_genders():
    counts = labels.by_year(faces([2, 2.9, 5, np.nan], [0, None, 1, 1]))
    assert counts.index.tolist() == [0, 1, 2, 3, 4, 5]
    assert counts.loc[2].to_dict() == {"male": 1, "female": 0, "unknown": 1}
    assert counts.to_numpy().sum() == 3
    assert not len(labels.by_year(NONE))


def test_women_by_band_and_whether_it_confounds():
    table = faces([3] * 50 + [30] * 50, [0] * 25 + [1] * 25 + [1] * 50)
    women = labels.women_by_band(table)
    assert women["band"].tolist() == ["0-5", "26-35"] and women["value"].tolist() == [0.5, 1.0]
    assert "100 % of the faces of 26-35 years" in labels.women_in_words(women)
    assert "by more than chance (chi-square test, p < 0.001)" in labels.confounding(women)
    alike = labels.women_by_band(faces([3, 3, 30, 30] * 9, [0, 1, 0, 1] * 9))
    assert "every age" in labels.women_in_words(alike) and "is not shown" in labels.confounding(alike)


def test_words_without_labels_say_so():
    assert labels.ages_in_words(NONE) == "No face has an age"
    assert "can't be told" in labels.heaping_in_words(NONE["age"])
    women = labels.women_by_band(NONE)
    assert "No face has both" in labels.women_in_words(women) and "can't be told" in labels.confounding(women)
    races = labels.races(NONE, np.full(4, 100.0))
    assert labels.races_in_words(races) == "No face has a race label"
    assert labels.races_for_print(races).loc["unknown", ["women", "median age"]].tolist() == ["–", "–"]
    assert not labels.bands_by_race(NONE).size
    assert "No labels" in labels.light_in_words(NONE, np.full(4, 100.0))
    assert "No label says" in labels.people_in_words(NONE)


def test_light_says_what_goes_with_it():
    said = labels.light_in_words(faces([10, 20, 30, 40], [0, 1, 0, 1]), np.array([40.0, 30, 20, 10]))
    assert said == (
        "Brightness and age correlate by −1.00; "
        "faces labelled female are 10 levels darker than those labelled male."
    )


def source(table: pd.DataFrame, aside: list[tuple[str, str]]) -> Faces:
    gone = pd.DataFrame(aside, columns=["file", "reason"], dtype=object)
    return Faces(table, gone, Path("."), "test", "labels.csv", len(table) + len(aside), notes=("A note.",))


def test_what_is_set_aside_adds_up_and_reasons_are_counted():
    none = labels.aside_in_words(source(faces([1, 2]), []))
    assert none == "2 read + 0 set aside = 2 found. None is set aside. A note."
    aside = [
        ("a", "labels.csv, row 2: age '-4' is impossible: 0 or more is right"),
        ("b", "labels.csv, row 9: age '300' is impossible: 0 or more is right"),
        ("c", "unreadable picture: cannot identify image file"),
    ]
    said = labels.aside_in_words(source(faces([1, 2]), aside))
    assert "2 read + 3 set aside = 5 found" in said
    assert "age … is impossible (2); unreadable picture (1)." in said


def test_sizes():
    info = pd.DataFrame({"width": [200, 200, 40], "height": [200, 200, 50]})
    said = labels.sizes_in_words(info, 64)
    assert "2 sizes, from 40 to 200" in said and "1 are smaller" in said and "1 are not square" in said
    assert (
        labels.sizes_in_words(info[:2], 64)
        == "All pictures are 200 × 200 pixels; here they are looked at with 64 × 64."
    )


def test_gaps_between_two_labels_and_the_floor_they_suggest():
    table = faces([20, 24] * 10 + [np.nan, 30])
    pairs = pd.DataFrame({"i": range(0, 22, 2), "j": range(1, 22, 2), "kind": "near", "similarity": 0.9})
    gaps, group = duplicates.label_gaps(table, pairs), np.repeat(np.arange(0, 22, 2), 2)
    gap = labels.mean_gap(gaps, group)
    assert (gap.value, gap.n) == (4, 10)
    assert "4.0 years" in labels.gap_in_words(gap) and "2.8 years" in labels.floor_in_words(gap)
    assert labels.gaps_by_band(gaps, group)["band"].tolist() == ["18-25"]
    few = labels.mean_gap(gaps[:2], group)
    assert "too few" in labels.floor_in_words(few) and not len(labels.gaps_by_band(gaps[:2], group))
    nothing = labels.mean_gap(gaps[:0], group)
    assert labels.gap_in_words(nothing) == "No photograph has two known ages"


def test_the_floor_holds_for_normal_errors():
    rng = np.random.default_rng(0)
    one, two = rng.normal(0, 5, (2, 200_000))
    assert np.abs(one - two).mean() / np.sqrt(2) == pytest.approx(np.abs(one).mean(), rel=0.01)


def test_copies_in_words():
    table = faces([20, 24, 30], [0, 0, 1])
    pairs = pd.DataFrame({"i": [0], "j": [1], "kind": ["near"], "similarity": [0.9]})
    counts = duplicates.summary(duplicates.conflicts(table, np.array([0, 0, 2])))
    said = labels.twins_in_words(3, pairs, counts)
    assert (
        "2 of 3 pictures (67 %)" in said
        and "1 nearly alike" in said
        and "1 (ages differ in 1, genders in 0)" in said
    )
    assert "no two show the same" in labels.twins_in_words(3, pairs[:0], counts)


def test_planted_copies_are_judged_by_what_was_found():
    scores = pd.DataFrame(
        {"planted": [4], "found": [4], "together": [100], "precision": [0.04]}, index=["all"]
    )
    assert "most of what was called a copy above is none" in labels.planted_in_words(scores)
    scores["precision"] = 0.99
    assert (
        labels.planted_in_words(scores)
        == "4 of 4 planted copies were found; of 100 pairs put together, 99 % show one picture."
    )
    assert "not drawn" in labels.planted_in_words(labels.planted(source(NONE, []), NONE, np.arange(4)))


def test_balance_and_its_cost():
    table = faces([3] * 10 + [30] * 30)
    whole = splits.balance_table(table, splits.balance(table))
    assert (
        labels.balance_in_words(whole)
        == "Every age band becomes 50.0 % of training; before, they held 25 % to 75 %"
    )
    assert "from 40 to 60 faces" in labels.cost_in_words(
        whole
    ) and "10 faces of 0-5 years comes up to 3 times" in labels.cost_in_words(whole)
    half = splits.balance_table(table, splits.balance(table, strength=0.5))
    assert labels.balance_in_words(half).startswith("Age bands hold 3")
    as_is = splits.balance_table(table, splits.balance(table, strength=0))
    assert "Nothing is balanced" in labels.balance_in_words(
        as_is
    ) and "each of them once" in labels.cost_in_words(as_is)


def test_folds_and_leaks_in_words():
    table = faces([3, 3, 30, 30, 3, 30], [0, 1, 0, 1, 0, 1], fold=["train"] * 4 + ["val", "test"])
    bands = splits.summary(table, table["fold"])[["0-5", "26-35"]]
    assert (
        labels.folds_in_words(bands)
        == "Shares of age bands differ between parts by 100.0 points at most (0-5 years)"
    )
    assert "50.0 % [15.0, 85.0] of 4 in train" in labels.women_by_fold(table)
    leaks = pd.concat({"random": splits.leaks(table["fold"], np.array([0, 1, 2, 3, 4, 0]))}, names=["split"])
    assert "1 of 1 test faces (100 %) with the random split" in labels.leaks_in_words(leaks)


def test_confounding_cries_wolf_one_time_in_twenty():
    rng, cries = np.random.default_rng(0), 0
    ages = np.repeat([3, 9, 15, 20, 30, 40, 60, 70], 60)
    for _ in range(200):
        women = labels.women_by_band(faces(list(ages), list(rng.integers(0, 2, len(ages)))))
        cries += "by more than chance" in labels.confounding(women)
    assert cries <= 18  # 10 expected
