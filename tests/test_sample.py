"""The drawn sample: same bytes for the same seed, truth that fits the files, and faces that show age."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_predict

from agegender import sample
from agegender.portraits import paint

NAME = re.compile(r"(\d{1,3})_([01])_([0-4])_(\d{17})\.jpg\.chip\.jpg")
PEOPLE = 60


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("sample") / "faces"
    return folder, sample.draw(folder, people=PEOPLE, seed=1, workers=1, progress=False)


@pytest.fixture(scope="module")
def crowd() -> tuple[np.ndarray, list]:
    """True ages of 240 people, and their albums."""
    albums = [sample._album(number, 5) for number in range(240)]
    return np.array([rows[0]["age"] for _, _, rows in albums], float), albums


def small(image: Image.Image, mode: str = "L") -> np.ndarray:
    """24 x 24 pixels in a row, freed of brightness and contrast."""
    pixels = np.asarray(image.convert(mode).resize((24, 24), Image.Resampling.BOX), float).ravel()
    return (pixels - pixels.mean()) / pixels.std()


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_same_bytes_whatever_the_workers(tmp_path):
    sample.draw(tmp_path / "one", people=4, seed=3, workers=1, progress=False)
    sample.draw(tmp_path / "two", people=4, seed=3, workers=2, progress=False)
    sample.draw(tmp_path / "other", people=4, seed=4, workers=1, progress=False)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert not set(digests(tmp_path / "one").values()) & set(digests(tmp_path / "other").values())


def test_a_person_is_the_same_in_a_larger_crowd(drawn, tmp_path):
    folder, _ = drawn
    few = sample.draw(tmp_path / "few", people=3, seed=1, workers=1, progress=False)
    for file in few.loc[few.twin_kind == "", "file"]:
        assert (tmp_path / "few" / file).read_bytes() == (folder / file).read_bytes()


def test_draws_from_a_script_without_a_main_guard(tmp_path):
    script = "from agegender import sample; print(len(sample.draw('faces', 2, workers=2, progress=False)))"
    (tmp_path / "script.py").write_text(script)
    root = Path(sample.__file__).parents[1]
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, env={"PYTHONPATH": str(root)},
                          capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(list((tmp_path / "faces").glob("*.jpg")))


def test_truth_fits_the_files(drawn):
    folder, truth = drawn
    assert sorted(truth.file) == sorted(path.name for path in folder.glob("*.jpg"))
    assert list(truth.file) == sorted(truth.file) and truth.file.is_unique
    for row in truth.itertuples():
        age, gender, race, stamp = NAME.fullmatch(row.file).groups()
        assert (int(age), int(gender), int(race)) == (row.labelled_age, row.labelled_gender, row.race)
    stored = pd.read_csv(folder / "truth.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(stored, truth, check_dtype=False)


def test_counts_and_sizes(drawn):
    folder, truth = drawn
    originals = truth[truth.twin_kind == ""]
    per_person = originals.groupby("person").age
    assert len(per_person) == PEOPLE and per_person.size().between(1, 6).all()
    assert (per_person.max() - per_person.min()).max() <= 4
    assert originals.age.between(1, 105).all()
    for row in truth.itertuples():
        with Image.open(folder / row.file) as image:
            expected = 160 if row.twin_kind == "resized" else 200
            assert (image.size, image.mode, image.format) == ((expected, expected), "RGB", "JPEG")


def test_twins_are_what_they_say(drawn):
    folder, truth = drawn
    twins = truth[truth.twin_kind != ""]
    assert set(twins.twin_kind) == set(sample.TWIN_KINDS)
    assert len(twins) == round(.05 / .95 * (len(truth) - len(twins)))
    first = truth.set_index("file")
    for row in twins.itertuples():
        original = first.loc[row.twin_of]
        assert original.twin_kind == "" and original.person == row.person and original.age == row.age
        same = (folder / row.file).read_bytes() == (folder / row.twin_of).read_bytes()
        assert same == (row.twin_kind == "identical")
        names = (row.file, row.twin_of)
        picture, other = (small(Image.open(folder / name)).reshape(24, 24) for name in names)
        if row.twin_kind == "mirrored":
            other = other[:, ::-1]
        assert np.corrcoef(picture.ravel(), other.ravel())[0, 1] > .8, row.twin_kind
        if row.twin_kind != "identical":
            assert row.labelled_age == original.labelled_age
            assert row.labelled_gender == original.labelled_gender


def test_labels_of_the_whole_sample():
    """Planned only, not drawn: shares of noise, flips, heaps and conflicts for 800 people."""
    albums = [sample._album(number, 0)[2] for number in range(800)]
    sample._plant_twins(albums, 0)
    truth = pd.DataFrame([row for rows in albums for row in rows])
    assert 2300 <= len(truth) <= 2700 and truth.file.is_unique
    assert .03 <= truth.noisy.mean() <= .05
    assert .005 <= (truth.gender != truth.labelled_gender).mean() <= .02
    wrong = (truth.labelled_age - truth.age).abs()
    assert (wrong[~truth.noisy] <= 2).all() and truth.labelled_age.between(1, 110).all()
    counts = truth.labelled_age.value_counts()
    assert counts[26] > 1.2 * counts[[24, 25, 27, 28]].mean() and counts[30] > 1.5 * counts[[29, 31]].mean()
    assert truth.age.mode()[0] <= 30 and .5 < (truth.gender == 0).mean() < .56
    twins = truth[truth.twin_kind == "identical"].merge(truth, left_on="twin_of", right_on="file")
    assert (twins.labelled_age_x != twins.labelled_age_y).mean() > .4
    assert 2 <= (twins.labelled_gender_x != twins.labelled_gender_y).sum() < len(twins) / 3


def test_age_shows(crowd):
    age, albums = crowd
    pixels = [small(paint(who, shots[0], rows[0]["exact_age"]), "RGB") for who, shots, rows in albums]
    error = np.abs(cross_val_predict(Ridge(100), pixels, age) - age).mean()
    guess = np.abs(np.median(age) - age).mean()
    assert error < .8 * guess, f"ridge {error:.1f} years, the median age {guess:.1f} years"


def test_gender_shows_in_adults_and_hardly_in_small_children(crowd):
    _, albums = crowd
    woman = np.array([who.gender for who, _, _ in albums])
    accuracy = {}
    for age in (3, 30):
        pixels = [small(paint(who, shots[0], age)) for who, shots, _ in albums]
        accuracy[age] = ((cross_val_predict(Ridge(100), pixels, woman) > .5) == woman).mean()
    assert accuracy[30] > .75 and accuracy[3] < .65, accuracy


def test_a_folder_in_use_or_odd_numbers_are_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty"):
        sample.draw(tmp_path, people=1, progress=False)
    with pytest.raises(ValueError, match="people=0"):
        sample.draw(tmp_path / "new", people=0)
    with pytest.raises(ValueError, match="should be one of identical"):
        sample.twin(b"", "turned", np.random.default_rng(0))


def test_folder_is_drawn_once(tmp_path, monkeypatch):
    monkeypatch.setenv("AGEGENDER_CACHE", str(tmp_path))
    first = sample.folder(people=2, seed=0)
    monkeypatch.setattr(sample, "draw", lambda *args: pytest.fail("drawn again"))
    assert sample.folder(people=2, seed=0) == first and (first / "truth.csv").is_file()
    assert not list(tmp_path.glob(".part-*"))
