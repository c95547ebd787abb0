from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from agegender import faces, splits

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def people(n: int = 3000, seed: int = 0, persons: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """A made-up table of faces with UTKFace's uneven ages, some unknown labels, and twins."""
    rng = np.random.default_rng(seed)
    age = np.where(rng.random(n) < 0.2, rng.integers(0, 18, n), rng.normal(36, 17, n).clip(0, 110).round())
    gender = (rng.random(n) < 0.3 + 0.3 * (age < 30)).astype(int)
    person = [f"p{p}" if rng.random() < 0.9 else None for p in rng.integers(0, max(persons, 1), n)]
    table = pd.DataFrame({
        "file": [f"{i:05d}.jpg" for i in range(n)],
        "age": np.where(rng.random(n) < 0.01, np.nan, age.astype(float)),
        "gender": pd.array(np.where(rng.random(n) < 0.01, None, gender), dtype="Int8"),
        "race": pd.array([0] * n, dtype="Int8"),
        "person": person if persons else None,
    })
    groups = np.arange(n)
    for copy in rng.choice(np.arange(1, n), n // 8, replace=False):
        groups[copy] = groups[rng.integers(0, copy)]
    return table, groups


def test_no_group_and_no_person_is_ever_divided():
    for seed in range(25):
        rng = np.random.default_rng(seed)
        table, groups = people(int(rng.integers(60, 500)), seed, persons=int(rng.integers(0, 2)) * 120)
        folds = splits.split(table, groups, shares=(0.6, 0.2, 0.2), seed=seed)
        assert pd.Series(folds).groupby(groups).nunique().max() == 1
        assert (pd.Series(folds).groupby(table["person"]).nunique() <= 1).all()
        assert splits.leaks(folds, groups, table["person"])["either"].sum() == 0


def test_groups_that_share_a_person_are_one():
    person = pd.Series(["ann", "bob", "bob", None, None, "cyd"], index=[9, 8, 7, 6, 5, 4])
    assert splits.together(np.array([0, 0, 2, 2, 4, 5]), person).tolist() == [0, 0, 0, 0, 4, 5]
    assert splits.together(np.array([3, 1, 3, 7])).tolist() == [0, 1, 0, 3]


@pytest.mark.parametrize("persons", [0, 1000])
def test_parts_have_their_shares_of_each_stratum(persons):
    table, groups = people(persons=persons)
    folds = splits.split(table, groups)
    shares = pd.Series(folds).value_counts(normalize=True)
    assert shares["train"] == pytest.approx(0.8, abs=0.005) and shares["val"] == pytest.approx(0.1, abs=0.005)
    stratum = splits._bands(table) + " " + splits._genders(table)
    counts = pd.crosstab(stratum, folds)
    off = counts[["val", "test"]].sub(0.1 * counts.sum(axis=1), axis=0).abs()
    assert len(counts) > 16  # unknown labels are strata of their own
    assert off.max().max() <= 2.5
    # plain chance does worse, or the assertion above says nothing
    chance = pd.crosstab(stratum, splits.split(table, groups, "random"))
    assert chance[["val", "test"]].sub(0.1 * chance.sum(axis=1), axis=0).abs().max().max() > 2.5


def test_many_small_strata_still_fill_every_part():
    table, groups = people(60)
    counts = pd.Series(splits.split(table, groups)).value_counts()
    assert counts["val"] in range(4, 9) and counts["test"] in range(4, 9)


@pytest.mark.parametrize("kind", ["grouped", "random"])
def test_the_order_of_rows_does_not_matter_and_the_seed_does(kind):
    table, groups = people(700, persons=200)
    folds = splits.split(table, groups, kind)
    order = np.random.default_rng(5).permutation(len(table))
    # also other numbers for the same groups
    shuffled = splits.split(table.iloc[order], groups[order] + 1000, kind)
    assert (shuffled == folds[order]).all()
    assert splits.digest(table.iloc[order], shuffled) == splits.digest(table, folds)
    other = splits.split(table, groups, kind, seed=1)
    assert (other != folds).any() and splits.digest(table, other) != splits.digest(table, folds)


def test_the_random_split_leaks_and_says_so():
    table, groups = people()
    folds = splits.split(table, groups, "random", shares=(0.8, 0, 0.2))
    assert (folds == "test").sum() == 600 and not (folds == "val").any()
    found = splits.leaks(folds, groups)
    train = set(groups[folds == "train"])
    assert found.loc["test", "twin"] == sum(g in train for g in groups[folds == "test"]) > 0
    assert found.loc["test", "share"] == found.loc["test", "twin"] / 600
    assert found.loc["val", "faces"] == 0 and np.isnan(found.loc["val", "share"])


def test_leaks_count_persons_and_twins_apart():
    folds = np.array(["train", "test", "test", "test", "val", ""])
    person = pd.Series(["ann", "ann", "bob", None, "bob", "bob"])
    found = splits.leaks(folds, np.array([0, 1, 0, 3, 4, 4]), person)
    assert found.loc["test", ["faces", "twin", "person", "either"]].tolist() == [3, 1, 1, 2]
    assert found.loc["val", ["faces", "either"]].tolist() == [1, 0]


def test_digest_is_of_the_lists_alone():
    table = pd.DataFrame({"file": ["b", "a", "c"]})
    one = splits.digest(table, np.array(["test", "train", ""]))
    assert one == splits.digest(table[:2], np.array(["test", "train"]))
    assert one != splits.digest(table[:2], np.array(["train", "test"]))
    assert len(one) == 12 and int(one, 16) >= 0


def test_summary():
    table = pd.DataFrame({"file": list("abcde"), "age": [3, 30, np.nan, 70, 5],
                          "gender": pd.array([1, 0, None, 1, 0], dtype="Int8")})
    found = splits.summary(table, np.array(["train", "train", "train", "test", ""]))
    assert found.index.tolist() == ["train", "test", "not used"]
    assert found.loc["train", ["faces", "share", "women", "age"]].tolist() == [3, 0.75, 0.5, 16.5]
    assert list(found)[4:] == ["0-5", "26-35", "66+", "unknown"]
    assert found.loc["train", ["0-5", "26-35", "66+", "unknown"]].tolist() == [1, 1, 0, 1]


def test_wrong_input_is_refused():
    table, groups = people(50)
    with pytest.raises(ValueError, match=r"sum to 1, got \(0.8, 0.1, 0.2\)"):
        splits.split(table, groups, shares=(0.8, 0.1, 0.2))
    with pytest.raises(ValueError, match="kind: .* got 'group'"):
        splits.split(table, groups, "group")
    with pytest.raises(ValueError, match="one number per face, 50"):
        splits.split(table, groups[:-1])
    with pytest.raises(ValueError, match="'00000.jpg' is there twice"):
        splits.split(table.assign(file="00000.jpg"), groups)
    with pytest.raises(ValueError, match="only with it; kind is 'grouped', names is 'list.csv'"):
        splits.split(table, groups, names="list.csv")
    with pytest.raises(ValueError, match="no faces are left for val, test: 50 faces in 1 groups"):
        splits.split(table, np.zeros(50, int))


@pytest.fixture
def lists(tmp_path) -> Path:
    pd.DataFrame({"file": [f"{i:05d}.jpg" for i in range(400)] + ["gone.jpg"]}).to_csv(tmp_path / "train.csv")
    pd.DataFrame({"file": [f"{i:05d}.jpg" for i in range(400, 500)]}).to_csv(tmp_path / "test.csv")
    return tmp_path


def test_published_lists(lists):
    table, groups = people(600)
    with pytest.warns(UserWarning, match="1 of the 501 files listed are not among the faces"):
        folds = splits.split(table, groups, "published", names=lists)
    assert (folds[400:500] == "test").all() and (folds[500:] == "").all()
    assert (folds[:400] == "val").sum() == pytest.approx(400 / 9, abs=2)
    assert splits.leaks(folds, groups).loc["val", "twin"] == 0
    assert splits.coverage(table, lists).loc["train"].tolist() == [401, 400, 1]
    with pytest.warns(UserWarning):
        folds = splits.split(table, groups, "published", shares=(0.8, 0, 0.2), names=lists)
    assert (folds[:400] == "train").all()


def test_published_file_with_folds_and_faces_in_subfolders(tmp_path):
    table, groups = people(30)
    path = tmp_path / "lists.csv"
    lists = pd.DataFrame({"file": table["file"], "fold": ["train"] * 20 + ["val"] * 5 + ["test"] * 5})
    lists.to_csv(path, index=False)
    folds = splits.split(table.assign(file="part1/" + table["file"]), groups, "published", names=path)
    assert folds.tolist() == lists["fold"].tolist()
    with pytest.raises(ValueError, match="'part1/00000.jpg' and 'part2/00000.jpg' end in one listed name"):
        splits.coverage(pd.DataFrame({"file": ["part1/00000.jpg", "part2/00000.jpg"]}), path)


def test_bad_lists_are_refused(tmp_path, lists):
    table, groups = people(30)
    path = tmp_path / "lists.csv"

    def refused(text: str, error: type[Exception], match: str) -> None:
        path.write_text(text)
        with pytest.raises(error, match=match):
            splits.split(table, groups, "published", names=path)

    refused("file,part\na,train\n", ValueError, r"lists.csv: .* a column 'fold', found \['file', 'part'\]")
    refused("file,fold\na,train\nb,dev\n", ValueError, "lists.csv, row 3: .* got 'b' and 'dev'")
    refused("file,fold\na,train\na,test\n", ValueError, "'a' is listed twice")
    refused("file,fold\na,train\nb,test\n", ValueError, "none of the .* listed is 'a', the first face '00000")
    with pytest.raises(FileNotFoundError, match="nothing there"):
        splits.split(table, groups, "published", names=tmp_path / "no.csv")
    (lists / "train.csv").unlink()
    with pytest.raises(FileNotFoundError, match="expected train.csv, and perhaps"):
        splits.split(table, groups, "published", names=lists)


@pytest.mark.skipif(not (DATA / "coral_split").is_dir(), reason="the shared CORAL lists are not here")
def test_the_coral_lists():
    lists = splits.listed(DATA / "coral_split")
    assert lists["fold"].value_counts().to_dict() == {"train": 13146, "test": 3287}
    table = faces.read(DATA / "utkface").table
    with pytest.warns(UserWarning, match="2069 of the 16433"):
        folds = splits.split(table, np.arange(len(table)), "published", names=DATA / "coral_split")
    assert splits.coverage(table, DATA / "coral_split")["present"].to_dict() == {"train": 11472, "test": 2892}
    assert table["age"][folds != ""].between(21, 60).all()


TRAIN = people(2000, seed=7)[0]


def bands(table: pd.DataFrame) -> np.ndarray:
    return np.asarray(faces.age_band(table["age"]).astype(object))


def shares(table: pd.DataFrame, rows: np.ndarray) -> pd.Series:
    return pd.Series(bands(table)[rows]).value_counts(normalize=True)


def test_balance_reaches_its_targets_and_drops_nobody():
    rows = splits.balance(TRAIN)
    assert rows.dtype == np.int64 and set(rows) == set(range(2000))
    assert (shares(TRAIN, rows) - 1 / 8).abs().max() < 0.001
    wanted = dict.fromkeys(faces.age_band([]).categories, 0.1) | {"0-5": 0.2, "66+": 0.2}
    rows = splits.balance(TRAIN, wanted)
    assert (shares(TRAIN, rows) - pd.Series(wanted)).abs().max() < 0.001
    # no longer than it has to be: the band that is richest for its target comes once
    assert np.bincount(rows)[bands(TRAIN) == "36-50"].max() == 1
    # faces of a band come equally often, give or take one
    times = pd.Series(np.bincount(rows)).groupby(bands(TRAIN))
    assert (times.max() - times.min()).max() == 1


def test_strength_lies_between_nothing_and_everything():
    assert splits.balance(TRAIN, strength=0).tolist() == list(range(2000))
    before, half = shares(TRAIN, np.arange(2000)), shares(TRAIN, splits.balance(TRAIN, strength=0.5))
    assert (half - (before + 1 / 8) / 2).abs().max() < 0.001


def test_parity_of_genders_within_bands():
    rows = splits.balance(TRAIN, parity=True)
    drawn = TRAIN.iloc[rows]
    women = drawn["gender"].astype(float).groupby(bands(drawn)).mean()
    assert (women - 0.5).abs().max() < 0.01
    assert (shares(TRAIN, rows) - 1 / 8).abs().max() < 0.003
    assert set(rows) == set(range(2000))


def test_balance_whatever_the_order_of_rows():
    files = TRAIN["file"].to_numpy()[splits.balance(TRAIN, strength=0.7, parity=True)]
    order = np.random.default_rng(1).permutation(2000)
    shuffled = TRAIN.iloc[order]
    again = shuffled["file"].to_numpy()[splits.balance(shuffled, strength=0.7, parity=True)]
    assert sorted(files) == sorted(again)
    other = TRAIN["file"].to_numpy()[splits.balance(TRAIN, strength=0.7, parity=True, seed=1)]
    assert sorted(files) != sorted(other)


def test_faces_of_unknown_age_come_once():
    unknown = np.flatnonzero(TRAIN["age"].isna())
    assert len(unknown) and (np.bincount(splits.balance(TRAIN))[unknown] == 1).all()
    nobody = TRAIN.assign(age=np.nan)
    assert splits.balance(nobody).tolist() == list(range(2000))


def test_balance_table():
    rows = splits.balance(TRAIN)
    found = splits.balance_table(TRAIN, rows)
    assert found.index.tolist() == [*faces.age_band([]).categories, "unknown"]
    assert found["before"].sum() == 2000 and found["after"].sum() == len(rows)
    assert found["share_before"].sum() == pytest.approx(1)
    assert found["share_after"].dropna().to_numpy() == pytest.approx(1 / 8, abs=0.001)
    assert found.loc["13-17", "at_most"] == np.bincount(rows)[bands(TRAIN) == "13-17"].max() > 1


def test_impossible_targets_are_refused():
    young = TRAIN[TRAIN["age"] < 13]
    with pytest.raises(ValueError, match="'0-4' is no age band; they are 0-5"):
        splits.balance(young, {"0-4": 1})
    with pytest.raises(ValueError, match="'6-12' needs a share above 0"):
        splits.balance(young, {"0-5": 1})
    with pytest.raises(ValueError, match=r"'66\+' can't reach 0.2: it has no faces"):
        splits.balance(young, {"0-5": 0.5, "6-12": 0.3, "66+": 0.2})
    with pytest.raises(ValueError, match="sum to 1.2; 1 would be right"):
        splits.balance(young, {"0-5": 0.6, "6-12": 0.6})
    with pytest.raises(ValueError, match="strength: expected 0 to 1, got 2"):
        splits.balance(young, strength=2)


def test_faces_that_a_list_of_training_faces_does_not_name_are_the_test_less_copies(tmp_path):
    table = pd.DataFrame({"file": list("abcdef"), "age": 30.0, "gender": 0, "person": None})
    groups = np.array([0, 1, 2, 0, 4, 4])  # d is a copy of a
    pd.DataFrame({"file": list("abc")}).to_csv(tmp_path / "train.csv", index=False)
    folds = splits.split(table, groups, "published", (0.8, 0.0, 0.2), names=tmp_path)
    assert folds.tolist() == ["train", "train", "train", "", "test", "test"]
