"""The released model: small, whole, the one of its record, and as good as the run that made it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from agegender import pixels, predictions, trained, training
from agegender.models import backbones, model_b, released

TOP = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def model():
    return released.load()


def test_it_is_small_and_says_where_it_comes_from(model):
    assert (released.FOLDER / "released.safetensors").stat().st_size <= released.LARGEST
    record = released.record()
    assert record["facts"]["data"]["drawn"] is False and record["facts"]["parameters"] == model.count_params()
    assert record["facts"]["split"]["digest"] in released.said()
    assert {"age", "gender"} <= set(model.output)


def test_its_record_is_that_of_a_stored_run():
    stored = [json.loads(path.read_text()) for path in (TOP / "book" / "reference").rglob("provenance.json")]
    assert released.record() in stored


def test_its_calibration_is_that_of_its_runs_validation_faces():
    [run] = [path.parent for path in (TOP / "book" / "reference").rglob("provenance.json")
             if json.loads(path.read_text()) == released.record()]  # fmt: skip
    assert released.calibration() == trained.calibrated(predictions.read(run)).to_json()


def test_it_answers_as_the_stored_run_did(model, utkface):
    """In float16 a single answer may move by a year, the mean error not by a twentieth of one."""
    record = released.record()
    [run] = [path.parent for path in (TOP / "book" / "reference").rglob("provenance.json")
             if json.loads(path.read_text()) == record]  # fmt: skip
    table = pd.read_parquet(run / "predictions.parquet")
    table = table[table["fold"] == "test"].sample(200, random_state=0)
    size = record["parameters"]["size"]
    pictures = np.stack([pixels.decode((utkface / file).read_bytes(), size)[0] for file in table["file"]])
    said = training.predict(model, pictures, np.arange(len(pictures)), flip=record["facts"]["flip_test"])
    assert np.abs(said["age"] - table["age_pred"]).mean() < 0.25
    assert np.abs(said["gender"] - table["p_female"]).mean() < 0.01
    error = np.abs(said["age"] - table["age"]).mean() - np.abs(table["age_pred"] - table["age"]).mean()
    assert abs(error) < 0.05


def test_it_is_a_starting_point_for_its_own_network_alone(model):
    body = backbones.load("MobileNetV2", 64, "released")
    mine, kept = body.get_weights(), model.get_layer("backbone").get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(mine, kept)) and body.name == "backbone"
    assert "released model" in backbones.loaded("MobileNetV2", "released")
    assert model_b.build(64, weights="released", head="linear").count_params() > 2_000_000
    with pytest.raises(ValueError, match="the released model is MobileNetV2"):
        backbones.load("MobileNetV2", 64, "released", alpha=0.35)


def test_a_damaged_file_is_an_error(tmp_path, monkeypatch):
    shutil.copytree(released.FOLDER, tmp_path / "weights")
    monkeypatch.setattr(released, "FOLDER", tmp_path / "weights")
    file = tmp_path / "weights" / "released.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="get the file anew"):
        released.load()
    record = json.loads((tmp_path / "weights" / "released.json").read_text())
    record["parameters"]["alpha"] = 0.5
    (tmp_path / "weights" / "released.json").write_text(json.dumps(record))
    file.write_bytes(whole)
    with pytest.raises(ValueError, match="other weights"):
        released.load()
    shutil.rmtree(tmp_path / "weights")
    with pytest.raises(FileNotFoundError, match="no released model"):
        released.load()


def test_a_run_is_kept_with_float16_kernels_and_answers_almost_as_before(tmp_path, monkeypatch):
    from agegender.tasks import Tasks

    asked = {"size": 32, "backbone": "MobileNetV2", "alpha": 0.35}
    record = {"parameters": asked, "facts": {"tasks": ["age", "gender"], "age_groups": [], "network": {"head": "linear"}}}
    trained = model_b.build(32, weights="none", alpha=0.35, tasks=Tasks("regression", True), head="linear", seed=3)
    rng = np.random.default_rng(0)  # as trained: batch norm's own values are none that float16 holds exactly
    trained.set_weights([w + rng.uniform(0, 1e-3, w.shape) for w in trained.get_weights()])
    trained.save(tmp_path / "model.keras")
    (tmp_path / "provenance.json").write_text(json.dumps(record))
    faces = pd.DataFrame({"file": [f"{i}.jpg" for i in range(60)], "fold": "val", "group": range(60), "age": 30.0, "age_pred": 33.0})
    faces = faces.reindex(columns=list(predictions.COLUMNS)).astype(predictions.COLUMNS)
    predictions.write(faces, tmp_path / "predictions.parquet")
    monkeypatch.setattr(released, "FOLDER", tmp_path / "weights")
    path = released.save(tmp_path)
    assert path.stat().st_size < 1.2 * sum(2 * w.size if w.ndim > 1 else 4 * w.size for w in trained.get_weights())
    again = released.load()
    for old, new in zip(trained.get_weights(), again.get_weights()):
        assert np.allclose(old, new, rtol=1e-3, atol=1e-6) and (old.ndim > 1 or np.array_equal(old, new))
    assert released.record() == record
    assert released.calibration()["reach"]["26-35"] == {"n": 60, "reach": 3.0}
    monkeypatch.setattr(released, "LARGEST", 1000)
    with pytest.raises(ValueError, match="MiB in float16"):
        released.save(tmp_path)
