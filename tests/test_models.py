"""The networks against what the source projects say of them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from agegender.augment import PRESETS
from agegender.models import branched, heads, layers_table, model_a, model_b, source
from agegender.tasks import Tasks


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).integers(0, 255, (16, 32, 32, 3), dtype=np.uint8)


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def sizes(model, kind, attribute):
    return [getattr(layer, attribute) for layer in model.layers if isinstance(layer, kind)]


def path(model, output):
    """Kinds of the layers between the picture and an output, in order."""
    found, tensor = [], model.output[output]
    while tensor._keras_history.operation.__class__.__name__ != "InputLayer":
        layer = tensor._keras_history.operation
        found.append(type(layer).__name__)
        tensor = layer.input[0] if isinstance(layer.input, (list, tuple)) else layer.input
    return found[::-1]


def test_model_a_is_s1s():
    model = model_a.build()
    assert sizes(model, layers.Conv2D, "filters") == [64, 64, 128, 128, 256, 256, 512, 512]
    assert set(sizes(model, layers.Conv2D, "kernel_size")) == {(3, 3)}
    order = kinds(model)
    assert order[:4] == ["InputLayer", "Sequential", "Rescaling", "BatchNormalization"]
    block = ["Conv2D", "BatchNormalization", "ReLU"] * 2 + ["MaxPooling2D", "Dropout"]
    assert order[4:] == block * 4 + ["Flatten", "Dense", "Dropout", "Dense", "Dense"]
    flat = next(layer for layer in model.layers if isinstance(layer, layers.Flatten))
    assert flat.input.shape[1:3] == (8, 8)  # below 10 x 10
    assert model.get_layer("age").activation.__name__ == "relu"
    assert model.get_layer("gender").activation.__name__ == "sigmoid"
    averaged = model_a.build(48, 4, head="linear", pooling="average")
    assert kinds(averaged)[-4:] == ["GlobalAveragePooling2D", "Dropout", "Dense", "Dense"]


def test_branched_is_s2s_with_its_number_of_parameters():
    model = branched.build()
    assert round(model.count_params() / 1e6, 2) == 1.05
    trunk = ["Sequential", "Rescaling", "Conv2D", "Conv2D", "MaxPooling2D", "BatchNormalization", "Conv2D", "MaxPooling2D"]
    branch = ["Conv2D", "MaxPooling2D", "BatchNormalization"] * 2 + ["Conv2D", "Flatten"]
    end = ["Dropout", "Dense"] * 2 + ["Dropout", "Dense"]
    for name, last in (("gender", 64), ("age", 128)):
        assert path(model, name) == trunk + branch + end
        assert [model.get_layer(f"{name}_conv{i}").filters for i in (1, 2, 3)] == [64, 128, last]
        assert [model.get_layer(f"{name}_conv{i}").kernel_size[0] for i in (1, 2, 3)] == [3, 2, 2]
        assert [model.get_layer(f"{name}_dense{n}").units for n in (128, 16)] == [128, 16]
    assert sorted({round(rate, 2) for rate in sizes(model, layers.Dropout, "rate")}) == [0.05, 0.2]


def test_branched_is_s0s_with_a_grey_branch_and_a_colour_branch():
    model = branched.build_s0()
    gender, age = path(model, "gender"), path(model, "age_group")
    dense = ["Flatten", "Dense", "BatchNormalization", "Dropout", "Dense"]
    assert gender == [
        "Sequential", "Rescaling", "RGBToGrayscale", "Conv2D", "BatchNormalization", "MaxPooling2D", "Dropout",
        "Conv2D", "Conv2D", "MaxPooling2D", "Conv2D", "Conv2D", "MaxPooling2D", *dense, "GetItem", "Identity",
    ]  # fmt: skip
    assert age == ["Sequential", "Rescaling", *["Conv2D", "MaxPooling2D"] * 3, *dense]
    assert [model.get_layer(f"gender_conv{i}").filters for i in range(1, 6)] == [32, 64, 64, 128, 128]
    assert [model.get_layer(f"age_conv{i}").filters for i in range(1, 4)] == [16, 32, 32]
    assert sorted(sizes(model, layers.Dense, "units")) == [2, 5, 128, 256]
    assert sorted(sizes(model, layers.Dropout, "rate")) == [0.25, 0.5, 0.5]
    assert model.get_layer("gender_conv1").input.shape[-1] == 1 and model.get_layer("age_conv1").input.shape[-1] == 3
    assert model.get_layer("age_group").activation.__name__ == "softmax"


# the models of the source projects on known networks: backbone, head, what is asked, then units and dropout of the head
SEEDS = {
    "S0": ("VGG16-fc1", "s0", Tasks(age=""), [256, 256, 1], [0.5, 0.5]),
    "S1": ("MobileNetV2", "additive", Tasks(), [256, 256, 256, 1, 1], [0.3, 0.3]),
    "S2": ("ResNet50", "s2", Tasks(), [256, 256, 16, 16, 1, 1], [0.2, 0.2]),
    "S3": ("ResNet18", "s3", Tasks(), [512, 512, 256, 256, 1, 1], []),
    "S4": ("EfficientNetV2S", "s4", Tasks("", False, (0, 6, 19, 31, 46, 66)), [256, 6], [0.3]),
}


@pytest.mark.parametrize("seed", SEEDS)
def test_model_b_is_that_of_each_source_project(seed):
    backbone, head, tasks, units, rates = SEEDS[seed]
    model = model_b.build(64, backbone, "none", tasks=tasks, head=head)
    top = [layer for layer in model.layers if layer.name != "backbone"]
    assert sorted(l.units for l in top if isinstance(l, layers.Dense)) == sorted(units)
    assert [round(l.rate, 2) for l in top if isinstance(l, layers.Dropout)] == rates
    assert set(model.output) == set(tasks.outputs)
    assert ("GlobalAveragePooling2D" in kinds(model)) == (seed != "S0")  # VGG16's dense layer needs no average
    assert any(isinstance(l, layers.Add) for l in top) == (seed == "S1")
    assert sum(isinstance(l, layers.BatchNormalization) for l in top) == {"S0": 2, "S1": 3}.get(seed, 0)
    known = {"S2": 23_587_712, "S3": 11_186_112, "S4": 20_331_360, "S1": 2_257_984}  # without the top
    if seed in known:
        assert model.get_layer("backbone").count_params() == known[seed]


@pytest.mark.parametrize("tasks", [Tasks("distribution", ages=np.full(50, 40.0)), Tasks("", True), Tasks("", False, (0, 30)),
                                   Tasks("regression", True, (0, 19, 46))], ids=str)  # fmt: skip
@pytest.mark.parametrize("build", [
    lambda tasks: model_a.build(56, 4, tasks), lambda tasks: branched.build(56, 8, tasks),
    lambda tasks: branched.build_s0(56, 8, tasks),
    lambda tasks: model_b.build(56, weights="none", alpha=0.35, tasks=tasks, head="s2"),
], ids=["a", "branched", "branched_s0", "b"])  # fmt: skip
def test_every_network_answers_any_questions(build, tasks, noise):
    model = build(tasks)
    said = model.predict(np.pad(noise, ((0, 0), (12, 12), (12, 12), (0, 0))), verbose=0)
    assert set(said) == set(tasks.outputs)
    if "age_distribution" in said:
        assert np.allclose(said["age_distribution"].sum(1), 1, atol=1e-4)
        assert np.allclose(said["age_distribution"] @ np.arange(117), said["age"][:, 0], atol=1e-3)
    if tasks.groups:
        assert said["age_group"].shape == (16, len(tasks.groups))
    if "gender" in said:
        assert ((said["gender"] > 0) & (said["gender"] < 1)).all() and said["gender"].shape == (16, 1)


@pytest.mark.parametrize("head", heads.HEADS)
def test_every_head_starts_at_the_training_ages(head):
    ages = np.r_[np.full(900, 20.0), np.full(100, 60.0)]
    flat = keras.Input((8,))
    nothing = np.zeros((1, 8), "float32")
    said = keras.Model(flat, heads.attach(head, flat, Tasks("regression", True, (0, 40), ages))).predict(nothing, verbose=0)
    assert said["age"][0, 0] == pytest.approx(24.0, abs=1e-3)
    assert said["age_group"][0] == pytest.approx([0.9, 0.1], abs=0.02)
    said = keras.Model(flat, heads.attach(head, flat, Tasks("distribution", False, (), ages))).predict(nothing, verbose=0)
    assert said["age"][0, 0] == pytest.approx(24.0, abs=2) and said["age_distribution"][0].argmax() == 20


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(ValueError, match="age='years'"):
        Tasks("years")
    with pytest.raises(ValueError, match="groups=.*the first 0"):
        Tasks(groups=(5, 10))
    with pytest.raises(ValueError, match="asked something"):
        Tasks("", False)
    with pytest.raises(ValueError, match="head='s9': one of dense"):
        model_a.build(48, 4, head="s9")
    with pytest.raises(ValueError, match="pooling='max'"):
        model_a.build(48, 4, pooling="max")


def test_a_saved_model_comes_back_in_safe_mode(tmp_path, noise):
    tasks = Tasks("distribution", True, (0, 30))
    for build in (lambda: model_a.build(32, 4, tasks, PRESETS["modern"]), lambda: branched.build_s0(32, 8, tasks)):
        model = build()
        model.save(tmp_path / "m.keras")
        again = keras.saving.load_model(tmp_path / "m.keras", safe_mode=True, compile=False)
        for name, values in model.predict(noise, verbose=0).items():
            assert again.predict(noise, verbose=0)[name] == pytest.approx(values, abs=1e-4)


def test_model_b_has_an_additive_block_with_l2_and_a_momentum():
    model = model_b.build(48, weights="none", alpha=0.35, momentum=0.8)
    dense = [layer for layer in model.layers if isinstance(layer, layers.Dense) and layer.units == 256]
    assert len(dense) == 3 and all(layer.kernel_regularizer is not None for layer in dense)
    norms = [l for l in model.get_layer("backbone").layers if isinstance(l, layers.BatchNormalization)]
    assert norms and all(norm.momentum == 0.8 for norm in norms)


def test_layers_table_and_source_show_the_network():
    model = model_a.build(32, 4)
    table = layers_table(model)
    assert table["parameters"].sum() == model.count_params()
    text = source(model_a.build, heads.dense)
    assert "Conv2D(filters, 3" in text and "def dense" in text and text.startswith("```python")


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="size=8"):
        model_a.build(8)
    with pytest.raises(ValueError, match="size=32"):
        branched.build(32)
