"""Trained models put to use: what they say of new faces, how sure they are, and files that are refused."""

from __future__ import annotations

import json

import keras
import numpy as np
import pandas as pd
import pytest

from agegender import provenance, trained
from agegender.models import model_b
from agegender.tasks import Tasks
from stubs import finished, validation


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a finished run: a small network, not trained."""
    tasks = Tasks("regression", True, (0, 18, 60))
    network = model_b.build(32, weights="none", alpha=0.35, tasks=tasks, head="linear", seed=3)
    network.get_layer("gender").bias.assign([1.5])  # near one half a temperature would move nothing
    return finished(tmp_path_factory.mktemp("04_small"), network, validation(), tasks.groups)


def test_answers_are_calibrated_means_over_both_mirror_images(folder):
    model = trained.load(folder)
    faces = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), np.uint8)
    said, mirrored = model.answers(faces), model.answers(faces[:, :, ::-1])
    for column in ("age", "age_low", "age_high", "p_female"):
        assert np.allclose(said[column], mirrored[column], atol=1e-3), column
    assert (said["age_low"] <= said["age"]).all() and (said["age"] < said["age_high"]).all()
    assert set(said["age_group"]) <= {"0-17", "18-59", "60+"}
    raw = model.network.predict(np.concatenate([faces, faces[:, :, ::-1]]), verbose=0)["gender"][:, 0]
    mean = (raw[:5] + raw[5:]) / 2
    logit = np.log(mean / (1 - mean)) / model.calibration.temperature
    assert model.calibration.temperature > 1.5
    assert np.allclose(said["p_female"], 1 / (1 + np.exp(-logit)), atol=1e-5)
    assert len(model.answers(faces[:0])) == 0


def test_intervals_reach_as_far_as_nine_in_ten_validation_faces_need():
    learnt = trained.calibrated(validation())
    fresh = validation(2000, seed=1)
    spread = learnt.intervals(fresh)
    assert 0.87 < fresh["age"].between(spread["age_low"], spread["age_high"]).mean() < 0.94
    assert trained.Calibration.from_json(json.loads(json.dumps(learnt.to_json()))).to_json() == learnt.to_json()
    few = trained.calibrated(validation(12))
    assert few.temperature is None or few.temperature > 0
    assert any(band["reach"] is None for band in few.to_json()["reach"].values())
    assert np.isinf(trained.Calibration.from_json(few.to_json()).intervals.reach["reach"]).any()


def test_what_is_not_told_stays_empty():
    table = validation().assign(age_pred=np.nan, p_female=np.nan)
    learnt = trained.calibrated(table)
    assert learnt.temperature is None and learnt.intervals is None
    assert trained.Calibration.from_json(learnt.to_json()) == learnt


def test_gender_is_told_only_where_it_is_sure():
    said = trained.gender_words(pd.Series([0.02, 0.3, 0.5, 0.79, 0.8, np.nan]))
    assert said.tolist()[:5] == ["male", "uncertain", "uncertain", "uncertain", "female"] and said.isna().tolist()[5]


def test_pictures_of_another_kind_are_refused(folder):
    model = trained.load(folder)
    with pytest.raises(ValueError, match=r"uint8 \(n, 32, 32, 3\)"):
        model.answers(np.zeros((2, 32, 32, 3), np.float32))
    with pytest.raises(ValueError, match=r"uint8 \(n, 32, 32, 3\)"):
        model.answers(np.zeros((2, 48, 48, 3), np.uint8))


def test_a_foreign_or_damaged_file_is_refused(folder, tmp_path):
    import shutil

    with pytest.raises(FileNotFoundError, match="released"):
        trained.load(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="provenance"):
        trained.load(tmp_path)
    copy = tmp_path / "04_small"
    shutil.copytree(folder, copy)
    file = copy / "model.keras"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged or foreign"):
        trained.load(copy)
    record = json.loads((copy / "provenance.json").read_text())
    foreign = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x + 1)])
    foreign.save(file)
    record["files"]["model.keras"] = provenance.file_digest(file)
    (copy / "provenance.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="(?i)lambda"):  # Keras' safe mode: nothing in a file is executed
        trained.load(copy)
