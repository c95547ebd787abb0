"""Exported files: they answer as the model does, all of it inside them, and say what they are."""

from __future__ import annotations

import importlib.util
import json
import sys
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image

from agegender import __main__, augment, exporting, trained
from agegender.models import backbones, heads
from agegender.tasks import Tasks
from stubs import finished, validation

SIZE = 16


def _network(tasks: Tasks) -> keras.Model:
    """Every layer that export replaces in a network of two layers, with weights drawn such that its answers differ."""
    faces = keras.Input((SIZE, SIZE, 3), dtype="uint8", name="faces")
    x = augment.layer(augment.PRESETS["modern"])(faces)
    x = backbones.RescalingToBGR([1 / 60, 1 / 120, 1 / 240], [-2.0, -1.0, -0.5], dtype="float32")(x)
    scaled = keras.Input(x.shape[1:])
    norm = keras.layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0])  # in a model of its own, as a backbone's
    x = keras.Model(scaled, norm(scaled), name="backbone")(x)
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, strides=2, activation="relu")(x))
    network = keras.Model(faces, heads.answers(keras.layers.Dropout(0.3)(x), tasks))
    rng = np.random.default_rng(0)  # NumPy's: the same on every backend
    spread = {"age": 60, "age_distribution": 10, "gender": 2, "age_group": 20}
    for layer in network.layers:
        if isinstance(layer, (keras.layers.Dense, keras.layers.Conv2D)):
            kernel, bias = layer.get_weights()
            drawn = rng.normal(0, kernel[..., 0].size ** -0.5, kernel.shape)
            layer.set_weights([drawn * spread.get(layer.name, 1), bias if layer.name == "age" else bias * 0])
    return network


def _faces(n: int) -> np.ndarray:
    """Noise over shades that differ from left to right, uint8 (n, SIZE, SIZE, 3)."""
    rng = np.random.default_rng(n)
    ends = rng.uniform(0, 255, (2, n, 1, 1, 3))
    shades = ends[0] + (ends[1] - ends[0]) * np.linspace(0, 1, SIZE)[:, None]
    return np.clip(shades + rng.normal(0, 20, (n, SIZE, SIZE, 3)), 0, 255).astype(np.uint8)


def _needs(to: str) -> None:
    if missing := [name for name in exporting.LIBRARIES[to] if not importlib.util.find_spec(name)]:
        pytest.skip(f"not installed: {', '.join(missing)} (the extra export)")
    if to != "keras" and keras.backend.backend() != "tensorflow":
        pytest.skip(f"{to} is written on the TensorFlow backend alone")


def _said(path) -> tuple[dict, str]:
    """What a file says of itself, and its card."""
    if path.suffix == ".onnx":
        import onnx

        found = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
        texts = {"card", "title", "input", "licence", "intended_use", "weights_before"}
        return {key: value if key in texts else json.loads(value) for key, value in found.items()}, found["card"]
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("about.json")), archive.read("card.md").decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run whose validation faces leave the oldest band without a limit."""
    tasks = Tasks("regression", True, (0, 18, 60), np.array([62.0]))
    table = validation()
    return finished(tmp_path_factory.mktemp("04_tiny"), _network(tasks), table[table["age_pred"] < 66], tasks.groups)


@pytest.fixture(scope="module")
def model(folder):
    return trained.load(folder)


@pytest.mark.parametrize("to", exporting.SUFFIXES)
def test_a_file_holds_mirror_images_temperature_and_intervals_and_says_what_it_is(to, model, tmp_path):
    _needs(to)
    path = tmp_path / f"faces{exporting.SUFFIXES[to]}"
    done = exporting.export(model, to, path, _faces(64))
    assert done.years < 1e-3 and done.probability < 1e-5 and done.size == path.stat().st_size
    assert done.speed > 0 and done.speed_before > 0 and list(tmp_path.iterdir()) == [path]

    answer = exporting.reopen(path)
    for n in (1, 5, 64):
        faces = _faces(n)
        said = answer(faces)
        raw = model.network.predict(np.concatenate([faces, faces[:, :, ::-1]]), verbose=0)
        mean = {name: (value[:n] + value[n:]) / 2 for name, value in raw.items()}
        age, p = mean["age"][:, 0], mean["gender"][:, 0]
        assert np.allclose(said["age"], age, atol=1e-3) and said["age"].shape == (n,)
        logit = np.log(p / (1 - p)) / model.calibration.temperature
        assert np.allclose(said["p_female"], 1 / (1 + np.exp(-logit)), atol=1e-5)
        assert np.allclose(said["age_group"], mean["age_group"], atol=1e-5)
        bands = np.digitize(age, [6, 13, 18, 26, 36, 51, 66])
        reach = model.calibration.intervals.reach["reach"].to_numpy()[bands]
        assert np.allclose(said["age_low"], np.maximum(age - reach, 0), atol=1e-3)
        assert np.allclose(said["age_high"], age + reach, atol=1e-3)
    # what was compared can tell the parts from their absence
    assert len(set(bands)) > 4 and np.isinf(said["age_high"]).any() and np.ptp(p) > 0.2
    assert abs(model.calibration.temperature - 1) > 0.3
    assert np.abs(raw["age"][:64] - raw["age"][64:]).mean() > 0.5

    about, card = _said(path)
    assert about["title"] == model.title and "drawn" in about["licence"]
    assert about["outputs"].keys() == said.keys() and "years" in about["outputs"]["age"]
    assert about["age_groups"] == ["0-17", "18-59", "60+"] and about["size"] == SIZE
    assert trained.Calibration.from_json(about["calibration"]).to_json() == model.calibration.to_json()
    assert card.startswith(f"# {model.title}") and exporting.USE in card and "`p_female`" in card
    if to == "onnx":
        import onnx

        graph = onnx.load(path).graph
        shapes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.input, *graph.output)}
        assert shapes["faces"] == ["n", SIZE, SIZE, 3] and shapes["age"] == ["n"]
    if to == "keras":  # nothing in it needs this package
        with zipfile.ZipFile(path) as archive:
            config = archive.read("config.json").decode()
        assert "agegender" not in config and "Random" not in config


@pytest.mark.parametrize(
    ("tasks", "flip", "outputs"),
    [
        (Tasks("distribution", False), True, {"age", "age_low", "age_high"}),
        (Tasks("", True), False, {"p_female"}),
        (Tasks("", False, (0, 18, 60)), True, {"age_group"}),
    ],
    ids=("ages", "gender", "groups"),
)
def test_what_a_model_does_not_tell_its_file_does_not(tasks, flip, outputs, tmp_path):
    table = validation(60).assign(**{} if tasks.age else {"age_pred": np.nan}, **{} if tasks.gender else {"p_female": np.nan})
    model = trained.load(finished(tmp_path / "run", _network(tasks), table, tasks.groups, flip))
    path = tmp_path / "some.keras"
    exporting.export(model, "keras", path, _faces(64))
    said = exporting.reopen(path)(_faces(7))
    assert said.keys() == outputs == exporting.about(model)["outputs"].keys()
    expected = model.answers(_faces(7))
    assert exporting.apart(said, expected, model.groups) == pytest.approx((0, 0), abs=1e-3)


def test_differences_are_seen(model):
    faces = _faces(64)
    expected = model.answers(faces)
    said = exporting.whole(model).predict(faces, verbose=0)
    for name, change, at in (("age", 0.02, 0), ("age_low", 0.02, 0), ("age_high", 0.02, 0), ("p_female", 0.002, 1)):
        assert exporting.apart(said | {name: said[name] + change}, expected, model.groups)[at] == pytest.approx(change, rel=0.1)
        without = {key: value for key, value in said.items() if key != name}
        assert np.isnan(exporting.apart(without, expected, model.groups)[at])
        assert np.isnan(exporting.apart(said | {name: said[name] * np.nan}, expected, model.groups)[at])
    turned = said | {"age_group": said["age_group"][:, ::-1]}
    assert exporting.apart(turned, expected, model.groups)[1] > 0.01


def test_a_file_that_answers_otherwise_is_not_kept(model, tmp_path, monkeypatch):
    path = tmp_path / "faces.keras"
    path.write_text("as it was")
    whole, plain = exporting.whole, trained.Calibration(None, None, 0)
    forgetful = trained.Trained(model.name, model.network, model.record, plain)
    monkeypatch.setattr(exporting, "whole", lambda model: whole(forgetful))
    with pytest.raises(ValueError, match="answers otherwise than 04_tiny.*not kept"):
        exporting.export(model, "keras", path, _faces(64))
    assert path.read_text() == "as it was" and list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_exported_is_told_before_any_work(model, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"ends with \.onnx"):
        exporting.export(model, "onnx", tmp_path / "faces.tflite", _faces(64))
    with pytest.raises(ValueError, match="onnx, litert, keras would be right"):
        exporting.export(model, "tflite", tmp_path / "faces.tflite", _faces(64))
    for to in ("onnx", "litert"):
        with monkeypatch.context() as patched, pytest.raises(ModuleNotFoundError, match=r"pip install -e '\.\[export\]'"):
            patched.setitem(sys.modules, exporting.LIBRARIES[to][-1], None)
            exporting.export(model, to, tmp_path / f"faces{exporting.SUFFIXES[to]}", _faces(64))
    for name in exporting.LIBRARIES["onnx"]:
        monkeypatch.setitem(sys.modules, name, json)  # as if it were there
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="KERAS_BACKEND=tensorflow"):
        exporting.export(model, "onnx", tmp_path / "faces.onnx", _faces(64))
    assert not list(tmp_path.iterdir())


def test_mixed_precision_is_exported_in_float32(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = _network(Tasks("distribution", True))
    finally:
        keras.config.set_dtype_policy("float32")
    model = trained.load(finished(tmp_path / "run", network, validation()))
    exact = exporting.in_float32(model)
    assert "bfloat16" not in exact.network.to_json() and exporting.in_float32(exact) is exact
    rough = np.abs(exact.answers(_faces(64))["age"] - model.answers(_faces(64))["age"])
    assert 0 < rough.max() < 2
    done = exporting.export(model, "keras", tmp_path / "faces.keras", _faces(64))
    assert done.years < 1e-3


def test_the_command_compares_on_given_or_on_drawn_faces(folder, tmp_path, monkeypatch, capsys, own_cache):
    given = tmp_path / "given"
    given.mkdir()
    for i, face in enumerate(_faces(64)):
        Image.fromarray(face).save(given / f"{i}_0_0_20170101{i:09d}.png")
    out = tmp_path / "faces.keras"
    words = ["export", "--model", str(folder), "--to", "keras", "--out", str(out)]
    assert __main__.main([*words, "--data", str(given)]) == 0
    said = capsys.readouterr().out
    assert "on 64 faces of given" in said and "faces a second" in said and "p_female: probability" in said
    monkeypatch.setattr(exporting.sample, "folder", lambda people: given)  # drawing takes a while
    model = trained.load(folder)
    model.record["parameters"]["data"] = "nowhere"
    faces, whose = exporting.pictures(model)
    assert faces.shape == (64, SIZE, SIZE, 3) and whose == "drawn faces; those of its run are not at hand"
    (given / "0_0_0_20170101000000000.png").unlink()
    assert __main__.main([*words, "--data", str(given)]) == 1
    assert "63 faces" in capsys.readouterr().err
    assert __main__.main(["export", "--model", str(tmp_path), "--to", "keras"]) == 1
    assert "provenance" in capsys.readouterr().err
