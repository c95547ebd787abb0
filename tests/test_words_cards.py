"""The sentences of the page on misuse: true of the numbers, also where labels or faces are missing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from agegender import words_cards
from agegender.metrics import Estimate


def table(ages, off=0.0, female=None, wrong=(), n_groups=None) -> pd.DataFrame:
    """Test faces of `ages`, guessed `off` years from them, the genders at positions `wrong` told wrong."""
    ages = np.asarray(ages, dtype=float)
    n = len(ages)
    female = np.arange(n) % 2 if female is None else np.asarray(female)
    right = np.ones(n, bool)
    right[list(wrong)] = False
    return pd.DataFrame({
        "file": [f"{i}.jpg" for i in range(n)], "fold": "test", "group": np.arange(n) % (n_groups or n),
        "age": ages, "gender": pd.array(female, "Int8"), "race": pd.array([pd.NA] * n, "Int8"),
        "age_pred": np.maximum(ages + off, 0), "p_female": np.where(right == (female == 1), 0.9, 0.1),
        "age_group_pred": pd.array([pd.NA] * n, "Int8"),
    })  # fmt: skip


AGES = [3] * 20 + [15] * 20 + [20] * 20 + [40] * 20


def test_models_are_those_that_led_on_validation_faces_if_they_can_be_judged():
    close, right = table(AGES, off=1, wrong=range(40)), table(AGES, off=9)
    tables = {"close": close, "right": right}
    said = words_cards.must_not(tables, {"age MAE": "close", "gender accuracy": "right"})
    assert said["must_far"].startswith(
        "Of 2 models the one closest in age on validation faces is close: it is off by 1.0 years"
    )
    assert "validation faces is right: it gives 0.0 %" in said["must_gender"]
    assert words_cards.must_not({"one": close}, {})["must_far"].startswith("One is off by 1.0 years")
    mute = close.assign(age_pred=np.nan)
    assert words_cards.led({"mute": mute, "right": right}, {"age MAE": "mute"}, "age MAE") == "right"


def test_how_far_off():
    off = np.r_[np.full(60, 2.0), np.full(20, 10.5)]
    said = words_cards.far_off("model A", table(AGES, off))
    assert "off by 2.0 years [2.0, 2.0] or more for half of 80 test faces" in said
    assert "by more than 10 years for 25.0 % [16.8, 35.5]" in said  # Wilson, 20 of 80


def test_the_side_of_the_errors_is_that_of_the_numbers():
    ages = [3] * 20 + [70] * 20
    older_young = table(ages, np.r_[np.full(20, 2.0), np.full(20, -7.0)] + np.tile([-1, 1], 20))
    said = words_cards.one_side("a", older_young)
    assert "20 test faces labelled 66+ years are taken for younger by 7.0 years" in said
    said = words_cards.one_side("a", table(ages, np.r_[np.full(20, 9.0), np.full(20, -7.0)]))
    assert "labelled 0-5 years are taken for older by 9.0 years" in said
    none = words_cards.one_side("a", table(ages, np.tile([-1.0, 1.0], 20)))
    assert none == "No age band is shown to be taken for older, or for younger, by a."
    assert "too few faces to say to which side a errs" in words_cards.one_side("a", table([3] * 9, 5.0))


def test_wrong_genders_by_label():
    said = words_cards.wrong_gender("model A", table(AGES, wrong=range(1, 41, 2)))  # odd positions are female
    assert said.startswith("Model A gives 25.0 % ")
    assert "50.0 %" in said.split("labelled female")[0] and "0.0 % [0.0, 8.8] of those labelled male" in said
    only = words_cards.wrong_gender("a", table(AGES, female=np.ones(80, int)))
    assert "labelled female" in only and "labelled male" not in only


def test_small_children():
    said = words_cards.children("a", table(AGES, wrong=range(5)))
    assert said.startswith("Of 20 test faces labelled 0 to 5 years, the gender of 25.0 % ")
    assert "against 0.0 % [0.0, 8.8] of 40 labelled 18 and older" in said
    assert words_cards.children("a", table([2] + [40] * 20)).startswith(
        "1 test face with a gender to be judged by is"
    )
    assert words_cards.children("a", table([40] * 20)).startswith("No test faces")
    assert "against" not in words_cards.children("a", table([2] * 20))
    # 5.9 years are five, 6 are not
    assert "20 test faces" in words_cards.children("a", table([5.9] * 20 + [6] * 20))


def test_minors_and_adults():
    off = np.r_[np.zeros(20), np.full(10, 4.0), np.zeros(10), np.full(5, -3.0), np.zeros(35)]
    said = words_cards.minors("a", table(AGES, off))
    assert said.startswith("Of 40 test faces labelled under 18, 25.0 % ")
    assert "of 20 test faces labelled 18 to 25, 25.0 % " in said and said.endswith(
        "are taken for under 18 (a)."
    )
    few = words_cards.minors("a", table([40] * 30))
    assert (
        few
        == "No test faces labelled under 18, too few to say; no test faces labelled 18 to 25, too few to say (a)."
    )


@pytest.mark.parametrize(
    ("change", "unknown"),
    [
        ({"gender": pd.array([pd.NA] * 80, "Int8")}, {"must_gender", "must_children"}),
        ({"p_female": np.nan}, {"must_gender", "must_children"}),
        ({"age": np.nan}, {"must_far", "must_side", "must_minors"}),
        ({"age_pred": np.nan}, {"must_far", "must_side", "must_minors"}),
    ],
)
def test_what_has_no_label_or_no_answer_is_said_to_be_unknown(change, unknown):
    said = words_cards.must_not({"a": table(AGES).assign(**change)}, {})
    assert {key for key, text in said.items() if "nothing is known here" in text} == unknown
    assert all("nan" not in text for text in said.values())


def test_few_groups_give_no_interval_and_no_nan():
    said = words_cards.must_not({"a": table(AGES, off=3.0, n_groups=4)}, {})
    assert "too few faces for an interval" in said["must_far"] and "nan" not in " ".join(said.values())


def test_a_share_turned_round():
    assert words_cards.other(Estimate(0.9, 0.8, 0.95, 7)) == Estimate(
        pytest.approx(0.1), pytest.approx(0.05), pytest.approx(0.2), 7
    )
