"""The pre-processing study: who is trained on, and what the outcomes of a known truth give."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pandas as pd
import pytest

from agegender import metrics, study, words_study
from agegender.augment import PRESETS

CELLS = list(itertools.product((False, True), repeat=3))


def faces(n: int = 400, seed: int = 0) -> pd.DataFrame:
    """A random split of faces of which a third have a copy."""
    rng = np.random.default_rng(seed)
    group = np.where(np.arange(n) % 3 == 2, np.arange(n) - 1, np.arange(n))
    return pd.DataFrame({
        "file": [f"{i}.jpg" for i in range(n)], "age": rng.integers(0, 90, n).astype(float),
        "gender": pd.array(rng.integers(0, 2, n), "Int8"), "race": pd.array([None] * n, "Int8"), "person": None,
        "group": group, "fold": rng.choice(["train", "val", "test"], n, p=[0.7, 0.1, 0.2]),
    })  # fmt: skip


def outcomes(truth, n: int = 3000, seeds: int = 3, seed: int = 0, measure: str = "gender") -> pd.DataFrame:
    """Outcomes of a study in which a face is told right with probability truth(levels, copy) (n,)."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"group": np.arange(n), "age": rng.integers(0, 90, n).astype(float),
                          "gender": rng.integers(0, 2, n), "copy": np.arange(n) < n // 5})  # fmt: skip
    ease = rng.normal(0, 0.05, n)
    told = {}
    for levels in CELLS:
        for s in range(seeds):
            chance = truth(levels, table["copy"].to_numpy()) + ease
            told[f"gender: {study.named(levels)}: seed {s}: {measure}"] = (rng.random(n) < chance).astype(float)
    return table.join(pd.DataFrame(told))


def test_the_plan_has_every_cell_for_every_seed_and_network():
    plan = study.plan(["gender", "branched"], 2, ["flip"], first_seed=5)
    assert len(plan) == 2 * (2 * 8 + 1) == len({t.name for t in plan})
    assert {t.seed for t in plan} == {5, 6}
    assert {t.levels for t in plan if not t.step} == set(CELLS)
    alone = next(t for t in plan if t.step)
    assert alone.augmentation.words() == {"flip": "mirrored, every second time"}
    on = next(t for t in plan if t.levels[1])
    assert on.augmentation == PRESETS["s0"]


@pytest.mark.parametrize(
    "given, said",
    [((["vgg"], 1), "'vgg' is none of gender, branched"), ((["gender"], 0), "at least one"),
     ((["gender"], 1, ["spin"]), "'spin' is none of flip")],
)  # fmt: skip
def test_an_impossible_plan_says_what_would_be_right(given, said):
    with pytest.raises(ValueError, match=said):
        study.plan(*given)


def test_without_copies_no_training_face_has_kin_held_out_and_both_trainings_are_as_large():
    table = faces()
    test = study.held_out(table)
    leaky, clean = (study.training_rows(table, (copies, False, False)) for copies in (True, False))
    assert len(leaky) == len(clean) > 0
    assert study.seen(table, test, leaky).any() and not study.seen(table, test, clean).any()
    val = np.flatnonzero(table["fold"] == "val")
    assert not study.seen(table, val, clean).any()
    assert set(table["fold"].iloc[np.union1d(leaky, clean)]) == {"train"}


def test_balanced_training_has_the_same_faces_and_about_as_many_steps():
    table = faces()
    plain, balanced = (study.training_rows(table, (False, False, b)) for b in (False, True))
    assert set(plain) == set(balanced) and len(balanced) > len(plain)
    women = table["gender"].iloc[balanced].astype(float)
    assert abs(women.mean() - 0.5) < 0.05
    assert study.epochs_of(100, plain) == 100
    assert study.epochs_of(100, balanced) * len(balanced) == pytest.approx(100 * len(plain), rel=0.02)


def test_of_a_published_split_the_copies_left_out_are_held_out():
    table = faces(6).assign(group=[0, 0, 2, 3, 4, 5], fold=["train", "", "test", "", "val", "test"])
    assert study.held_out(table).tolist() == [1, 2, 5]  # 3 has no kin anywhere: not part of the split
    assert study.leaking(table).tolist() == [True] + [False] * 5


def test_no_face_left_to_train_on_is_an_error():
    table = faces(4).assign(group=0, fold=["train", "train", "test", "val"])
    with pytest.raises(ValueError, match="all 2 training faces have a copy held out"):
        study.training_rows(table, (False, False, False))


def test_contrasts_are_differences_of_means():
    found = study.contrasts()
    assert list(found)[:3] == list(study.FACTORS) and len(found) == 7
    rng = np.random.default_rng(0)
    y = {cell: rng.normal() for cell in CELLS}

    def effect(name):
        return sum(w * y[cell] for cell, w in found[name].items())

    def mean(**on):
        at = {f: i for i, f in enumerate(study.FACTORS)}
        return np.mean([v for cell, v in y.items() if all(cell[at[f]] == v2 for f, v2 in on.items())])

    assert effect("copies") == pytest.approx(mean(copies=True) - mean(copies=False))
    by_hand = (mean(augmentation=True, balancing=True) - mean(augmentation=False, balancing=True)) - (
        mean(augmentation=True, balancing=False) - mean(augmentation=False, balancing=False))  # fmt: skip
    assert effect("augmentation x balancing") == pytest.approx(by_hand)


@pytest.mark.parametrize(
    "faces_sd, seeds_sd, rest_sd, seeds", [(1, 0, 1, 3), (1, 0.05, 1, 3), (0.3, 0.1, 0.3, 3), (0.5, 0.05, 1, 5), (1, 0, 1, 1)]
)
def test_intervals_hold_the_truth_for_new_faces_and_new_seeds(faces_sd, seeds_sd, rest_sd, seeds):
    rng, hit, runs = np.random.default_rng(0), 0, 400
    for _ in range(runs):
        group = np.repeat(np.arange(200), 1 + (rng.random(200) < 0.3))
        shared = rng.normal(0, faces_sd, 200)[group][:, None] + rng.normal(0, seeds_sd, seeds)
        found = study.crossed_mean(shared + rng.normal(0, rest_sd, (len(group), seeds)), group)
        hit += found.low <= 0 <= found.high
    assert 0.91 <= hit / runs <= 0.985


@pytest.mark.parametrize("seeds, others", [(3, 3), (3, 1), (1, 1), (2, 5)])
def test_intervals_of_a_difference_hold_the_truth_for_new_seeds_of_both(seeds, others):
    rng, hit, runs = np.random.default_rng(0), 0, 400
    for _ in range(runs):
        group = np.repeat(np.arange(200), 1 + (rng.random(200) < 0.3))
        # a single seed is not drawn anew: the interval is for it alone
        a, b = (
            rng.normal(0, 0.5, 200)[group][:, None] + (rng.normal(0, 0.05, n) if n > 1 else 0) + rng.normal(0, 0.7, (len(group), n))
            for n in (seeds, others)
        )
        found = study.crossed_mean(a + 1, group, less=b)
        hit += found.low <= 1 <= found.high
    assert 0.91 <= hit / runs <= 0.985


def test_a_difference_of_single_seeds_is_the_mean_of_the_differences():
    rng, group = np.random.default_rng(0), np.arange(60) // 2
    a, b = rng.normal(size=(2, 60, 1))
    b[3] = np.nan  # left out of both
    one, two = study.crossed_mean(a, group, less=b), study.crossed_mean(a - b, group)
    assert list(vars(one).values()) == pytest.approx(list(vars(two).values())) and one.n == 59


def test_known_effects_are_found_and_absent_ones_are_not_claimed():
    table = outcomes(lambda levels, copy: 0.7 + 0.08 * levels[1] + 0.15 * levels[0] * copy)
    found = study.effects(table, "gender").set_index(["population", "effect"])
    row = found.loc[("all", "augmentation")]
    assert row["low"] < 0.08 < row["high"] and row["p_holm"] < 0.001
    assert found.loc[("all", "copies"), "low"] < 0.03 < found.loc[("all", "copies"), "high"]
    assert found.loc[("all", "balancing"), "p_holm"] > 0.05
    assert found["p_holm"].ge(found["p"] - 1e-12).all()
    worth = study.worth_of_copies(table, "gender").set_index("faces")
    assert worth.loc["with a copy in training", "low"] < 0.15 < worth.loc["with a copy in training", "high"]
    assert worth.loc["without one", "low"] < 0 < worth.loc["without one", "high"]
    assert worth.loc["with less without", "value"] == pytest.approx(0.15, abs=0.05)


def test_effects_that_depend_on_each_other_are_told_together():
    """Augmentation spoils what balancing gains: neither has one effect, over all faces or in a part of them."""
    table = outcomes(lambda levels, copy: 0.5 + 0.2 * (levels[2] and not levels[1]) + 0 * copy)
    found = study.effects(table, "gender")
    value = {e: found[(found["effect"] == e) & (found["population"] == "all")]["value"].iloc[0] for e in found["effect"]}
    said = words_study.effects("gender network, gender", found)
    assert value["augmentation x balancing"] == pytest.approx(-0.2, abs=0.05)
    for what, *on in (("neither", False, False), ("augmentation alone", True, False), ("balancing alone", False, True), ("both", True, True)):
        right = table[[f"gender: {study.named((copies, *on))}: seed {s}: gender" for copies in (False, True) for s in range(3)]].to_numpy()
        assert f"{100 * right.mean():.1f} % right with {what}" in said
    assert "Effects are not simply added: augmentation x balancing" in said
    part = found.assign(p_holm=found["p_holm"].where(found["population"] == "13 to 19", 1.0))
    assert "Over all faces no interaction is told from 0" in words_study.effects("x", part.assign(p_holm=1.0))
    part.loc[(part["population"] == "13 to 19") & part["effect"].isin(["augmentation", "augmentation x balancing"]), "p_holm"] = 0.001
    parts = words_study.effects("x", part).partition("In parts of the faces: ")[2]
    assert parts.count("augmentation x balancing") == 1 and "(13 to 19)" in parts and not re.search(r"; augmentation [+-]", parts)


def test_worths_are_corrected_over_all_that_was_judged():
    some = outcomes(lambda levels, copy: 0.7 + 0.15 * levels[0] * copy)
    found = study.worths(some, {"x": ("gender", "gender"), "y": ("gender", "gender")})
    together = pd.concat(found.values())
    assert together["p_holm"].dropna().to_numpy() == pytest.approx(metrics.holm(together["p"])[together["p"].notna()])
    assert (together["p_holm"].dropna() >= together["p"].dropna()).all() and set(found) == {"x", "y"}


def test_false_alarms_over_a_whole_table_are_rare():
    alarms = [
        study.effects(outcomes(lambda levels, copy: np.full(len(copy), 0.8), 300, 3, seed), "gender")["p_holm"].min() < 0.05
        for seed in range(12)
    ]
    assert np.sum(alarms) <= 3


def test_shares_all_alike_get_wilsons_interval_and_differences_all_alike_none():
    group, ones = np.arange(17), np.ones((17, 2))
    assert study.share(ones, group) == metrics.proportion(np.ones(17))
    assert np.isnan(study.crossed_mean(ones - 1, group).low)
    assert study.crossed_mean(np.full((3, 2), np.nan), np.arange(3)).n == 0
    assert np.isnan(study.crossed_mean(np.eye(4)[:, :2], np.arange(4)).low)  # too few groups


def test_a_training_that_is_missing_is_an_error():
    table = outcomes(lambda levels, copy: np.full(len(copy), 0.8), 50)
    with pytest.raises(ValueError, match="no outcomes of 'branched'"):
        study.effects(table, "branched")


def test_steps_are_compared_with_nothing():
    table = outcomes(lambda levels, copy: np.full(len(copy), 0.7), 2000)
    rng = np.random.default_rng(1)
    for s in range(3):
        table[f"gender: flip: seed {s}: gender"] = (rng.random(2000) < 0.8).astype(float)
    found = study.steps_table(table, "gender").iloc[0]
    assert found["step"] == "flip" and found["low"] < 0.1 < found["high"]
    assert "flip (+" in words_study.steps_title(study.steps_table(table, "gender"))
    assert "No step" in words_study.steps_title(study.steps_table(table.filter(regex="^(?!gender: flip)"), "gender"))


def test_words_change_with_the_outcomes():
    strong = study.effects(outcomes(lambda levels, copy: 0.7 + 0.1 * levels[1]), "gender")
    none = study.effects(outcomes(lambda levels, copy: np.full(len(copy), 0.7)), "gender")
    few = study.effects(outcomes(lambda levels, copy: np.full(len(copy), 0.7), 8), "gender")
    assert "augmentation changes gender accuracy by +" in words_study.effects("gender network, gender", strong)
    assert "augmentation is not shown to change gender accuracy" in words_study.effects("gender network, gender", none)
    assert "too few faces to say what augmentation does" in words_study.effects("gender network, gender", few)
    assert "augmentation +" in words_study.effects_title({"x": strong})
    assert "no main effect told from 0" in words_study.effects_title({"x": none})
    some = strong.assign(p_holm=0.2)
    assert "augmentation may change gender accuracy (+" in words_study.effects("gender network, gender", some)
    some = outcomes(lambda levels, copy: 0.7 + 0.15 * levels[0] * copy)
    worth = study.worths(some, {"x": ("gender", "gender")})["x"]
    assert "in training is worth +" in words_study.copies("x", worth)
    assert "may be worth +" in words_study.copies("x", worth.assign(p_holm=0.2))
    flat = outcomes(lambda levels, copy: np.full(len(copy), 0.7))
    assert "is not shown to be worth anything:" in words_study.copies("x", study.worths(flat, {"x": ("gender", "gender")})["x"])
    table = flat.assign(copy=False)
    assert "No held-out face has a copy" in words_study.copies("x", study.worths(table, {"x": ("gender", "gender")})["x"])


def test_beside_the_source_project_are_its_own_figures():
    table = outcomes(lambda levels, copy: np.full(len(copy), 0.8))
    found = study.beside_s0(table, "gender").set_index(["data", "measure"])
    assert found.loc[("as they are", "gender"), "s0"] == 0.7355
    assert np.isnan(found.loc[("as they are", "gender, girls under 5"), "s0"])
    assert found.loc[("as they are", "gender, girls under 5"), "n"] == ((table["gender"] == 1) & (table["age"] < 5)).sum()
    printed = study.beside_for_print(pd.concat([study.beside_s0(table, "gender")], keys=["gender"], names=["network"]))
    assert printed.loc[("gender", "as they are", "gender"), "S0 (%)"] == "73.55"
    own = table.filter(regex="^gender: ").rename(columns=lambda name: name.replace("gender: ", "branched: ", 1))
    both = own.join(own.rename(columns=lambda name: name.removesuffix("gender") + "age group"))
    rows = study.beside_s0(table[["group", "age", "gender", "copy"]].join(both), "branched").set_index(["data", "measure"])
    old = rows.loc[("split, augmented and balanced", "age group, 51+")]
    assert old["s0"] == 0.8874 and old["n"] == (table["age"] >= 51).sum()


def test_without_labels_of_gender_the_study_says_so():
    table = outcomes(lambda levels, copy: np.full(len(copy), np.nan), 50)
    table[[name for name in table if name.startswith("gender: ")]] = np.nan
    found = study.effects(table, "gender")
    assert "no face has a label to judge augmentation by" in words_study.effects("gender network, gender", found)
    assert "no main effect told from 0" in words_study.effects_title({"x": found})
    printed = study.beside_for_print(pd.concat([study.beside_s0(table, "gender")], keys=["gender"], names=["network"]))
    assert set(printed["here (%)"]) == {"no labels"}
    assert "No held-out face" in words_study.copies("x", study.worths(table, {"x": ("gender", "gender")})["x"])


def test_figures_are_told(monkeypatch):
    from agegender import figures, figures_study

    told = []
    monkeypatch.setattr(figures, "show", lambda figure, alt, faces=False: told.append(alt))
    table = outcomes(lambda levels, copy: 0.7 + 0.1 * levels[1], 400)
    figures_study.cells(study.cells_table(table, "gender").assign(what="net"), "Cells")
    figures_study.effects(study.effects(table, "gender").assign(what="net"), "Effects")
    assert "net, all, nothing: " in told[0] and told[0].count("net, all, ") == 8
    assert "net, all: augmentation +" in told[1]
