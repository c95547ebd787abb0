"""The networks against what the source projects say of them, and augmentation against what it promises."""

from __future__ import annotations

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from agegender.augment import RandomWarp, augmentation
from agegender.models import branched, layers_table, model_a, model_b, source


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).integers(0, 255, (16, 32, 32, 3), dtype=np.uint8)


def kinds(model):
    return [type(layer).__name__ for layer in model.layers]


def test_model_a_is_s1s():
    model = model_a.build()
    convolutions = [layer for layer in model.layers if isinstance(layer, layers.Conv2D)]
    assert [c.filters for c in convolutions] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert {c.kernel_size for c in convolutions} == {(3, 3)}
    order = kinds(model)
    assert order[:4] == ["InputLayer", "Sequential", "Rescaling", "BatchNormalization"]
    block = ["Conv2D", "BatchNormalization", "ReLU"] * 2 + ["MaxPooling2D", "Dropout"]
    assert order[4:] == block * 4 + ["Flatten", "Dense", "Dropout", "Dense", "Dense"]
    flat = next(layer for layer in model.layers if isinstance(layer, layers.Flatten))
    assert flat.input.shape[1:3] == (8, 8)  # below 10 x 10
    assert model.get_layer("age").activation.__name__ == "relu"
    assert model.get_layer("gender").activation.__name__ == "sigmoid"


def test_branched_is_s2s_with_its_number_of_parameters():
    model = branched.build()
    assert round(model.count_params() / 1e6, 2) == 1.05
    for name, last in (("gender", 64), ("age", 128)):
        assert model.get_layer(f"{name}_conv1").kernel_size == (3, 3)
        assert model.get_layer(f"{name}_conv2").kernel_size == (2, 2)
        assert model.get_layer(f"{name}_conv3").filters == last
        assert [model.get_layer(f"{name}_dense{n}").units for n in (128, 16)] == [128, 16]
    assert sorted({round(l.rate, 2) for l in model.layers if isinstance(l, layers.Dropout)}) == [0.05, 0.2]


@pytest.mark.parametrize(
    "build",
    [
        lambda: model_a.build(48, 4),
        lambda: branched.build(64, 8),
        lambda: model_b.build(48, weights="none", alpha=0.35),
    ],
)
def test_answers_are_named_and_ages_start_at_the_mean(build, noise):
    model = build()
    said = model.predict(
        np.pad(noise, ((0, 0), *[[(model.input_shape[1] - 32) // 2] * 2] * 2, (0, 0))), verbose=0
    )
    assert set(said) == {"age", "gender"} and said["age"].shape == (16, 1)
    assert ((said["gender"] > 0) & (said["gender"] < 1)).all()
    assert model.get_layer("age").bias.numpy() == pytest.approx(33.0)


def test_model_b_has_an_additive_block_with_l2_and_a_momentum():
    model = model_b.build(48, weights="none", alpha=0.35, momentum=0.8)
    assert any(isinstance(layer, layers.Add) for layer in model.layers)
    dense = [layer for layer in model.layers if isinstance(layer, layers.Dense) and layer.units == 256]
    assert len(dense) == 3 and all(layer.kernel_regularizer is not None for layer in dense)
    norms = [l for l in model.get_layer("backbone").layers if isinstance(l, layers.BatchNormalization)]
    assert norms and all(norm.momentum == 0.8 for norm in norms)


def test_weights_that_cannot_be_loaded_are_errors_with_a_way_out(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="none.h5"):
        model_b.build(48, weights=str(tmp_path / "none.h5"))
    (tmp_path / "bad.h5").write_text("no weights")
    with pytest.raises(ValueError, match="bad.h5.* do not fit"):
        model_b.build(48, weights=str(tmp_path / "bad.h5"))
    with pytest.raises(ValueError, match="known are MobileNetV2"):
        model_b.build(48, backbone="VGG99")

    def no_network(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(keras.applications, "MobileNetV2", no_network)
    with pytest.raises(RuntimeError, match='(?s)no network.*Ways out.*weights="none"'):
        model_b.load_backbone("MobileNetV2", 48, "imagenet")


def test_a_weights_file_is_really_loaded_and_named(imagenet_file):
    bare = model_b.load_backbone("MobileNetV2", 96, "none", 0.35)
    loaded = model_b.load_backbone("MobileNetV2", 96, str(imagenet_file), 0.35)
    with h5py.File(imagenet_file) as file:
        stored = []
        file.visititems(
            lambda name, item: (
                stored.append(item[()]) if name.startswith("Conv1/") and hasattr(item, "shape") else None
            )
        )
    first = loaded.get_layer("Conv1").get_weights()[0]
    assert any(s.shape == first.shape and (s == first).all() for s in stored)
    assert (bare.get_layer("Conv1").get_weights()[0] != first).any()
    assert imagenet_file.name in model_b.loaded("MobileNetV2", str(imagenet_file), 0.35)
    assert "not pre-trained" in model_b.loaded("MobileNetV2", "none")


def test_augmentation_lives_in_training_and_only_there(noise):
    augment = augmentation(1.0, seed=3)
    assert (np.asarray(augment(noise, training=False)) == noise).all()
    one, two = (np.asarray(augment(noise, training=True)) for _ in range(2))
    assert (one != two).any(axis=(1, 2, 3)).all()
    assert (np.asarray(augmentation(0.0)(noise, training=True)) == noise).all()


def test_each_part_of_the_warp_does_what_it_says(noise):
    def warp(**only):
        off = dict(flip=False, rotation=0.0, zoom=0.0, shift=0.0)
        return np.asarray(RandomWarp(**{**off, **only}, seed=1)(noise, training=True))

    assert (warp() == noise).all()
    mirrored = warp(flip=True)
    same = (mirrored == noise).all((1, 2, 3))
    assert np.allclose(mirrored[~same], noise[~same][:, :, ::-1]) and 0 < same.sum() < len(noise)
    flat = np.full((8, 32, 32, 3), 200, np.uint8)
    moved = np.asarray(RandomWarp(False, 0.0, 0.0, 0.5, fill="constant", seed=1)(flat, training=True))
    assert (moved.min((1, 2, 3)) == 0).all() and np.allclose(moved.max((1, 2, 3)), 200)  # black came in
    turned = warp(rotation=90.0)
    assert np.abs(turned - noise).mean() > 10
    # a bright dot off the centre stays at its distance from the centre under rotation
    dot = np.zeros((32, 33, 33, 1), np.uint8)
    dot[:, 16, 26] = 255
    spun = np.asarray(RandomWarp(False, 180.0, 0.0, 0.0, seed=2)(dot, training=True))[..., 0]
    weights = spun / spun.sum((1, 2), keepdims=True)
    y, x = (weights * np.arange(33)[:, None]).sum((1, 2)), (weights * np.arange(33)).sum((1, 2))
    assert np.allclose(np.hypot(y - 16, x - 16), 10, atol=0.3)
    assert np.ptp(np.arctan2(y - 16, x - 16)) > 2


def test_layers_table_and_source_show_the_network():
    model = model_a.build(32, 4)
    table = layers_table(model)
    assert table["parameters"].sum() == model.count_params()
    assert "Conv2D(filters, 3" in source(model_a.build) and source(model_a.build).startswith("```python")


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="size=8"):
        model_a.build(8)
    with pytest.raises(ValueError, match="size=32"):
        branched.build(32)
