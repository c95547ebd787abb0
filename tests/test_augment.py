"""Augmentation does in training what its limits say, and nothing outside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from keras import ops

from agegender import augment
from agegender.augment import PRESETS, Augmentation, RandomWarp

FACES = np.random.default_rng(0).uniform(60, 190, (400, 8, 8, 3)).astype("float32")
NOISE = np.random.default_rng(0).integers(0, 255, (16, 32, 32, 3), dtype=np.uint8)


def run(layer, faces=FACES, training: bool = True) -> np.ndarray:
    return ops.convert_to_numpy(layer(faces, training=training))


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "none"])
def test_every_preset_lives_in_training_and_only_there(name):
    layer = augment.layer(PRESETS[name], seed=3)
    assert (run(layer, NOISE, training=False) == NOISE).all()
    one, two = (run(layer, NOISE) for _ in range(2))
    assert (one != two).any(axis=(1, 2, 3)).all()
    assert one.dtype == np.float32 and one.min() >= 0 and one.max() <= 255


@pytest.mark.parametrize("step", ["flip", "rotation", "zoom", "shift", "brightness", "contrast", "blur", "noise", "erase"])
def test_every_step_alone_is_live_and_off_at_inference(step):
    strong = {"flip": True, "rotation": 20.0, "blur": 1.5}.get(step, 0.3)
    layer = augment.layer(Augmentation(**{step: strong}), seed=1)
    one, two = run(layer, NOISE), run(layer, NOISE)
    changed = (np.abs(one - NOISE) > 1e-3).any((1, 2, 3))
    assert changed.any() and (one != two).any()
    if step in ("flip", "blur", "erase"):  # every second time, in the mean
        often = np.mean([(np.abs(run(layer, NOISE) - NOISE) > 1e-3).any((1, 2, 3)).mean() for _ in range(30)])
        assert often == pytest.approx(0.5, abs=0.1)
    assert (run(layer, NOISE, training=False) == NOISE).all()
    assert len(layer.layers) == (1 if step in ("flip", "rotation", "zoom", "shift") else 2)  # one warp for all four


def test_without_steps_faces_are_only_cast():
    layer = augment.layer(PRESETS["none"])
    assert (run(layer, NOISE) == NOISE).all() and run(layer, NOISE).dtype == np.float32
    assert PRESETS["modern"].scaled(0.0) == replace(PRESETS["none"], fill=PRESETS["modern"].fill)


def test_contrast_falls_as_well_as_it_rises():
    _, contrast = augment.layer(Augmentation(contrast=0.2), seed=1).layers
    factor = run(contrast).std((1, 2, 3)) / FACES.std((1, 2, 3))
    assert 0.79 < factor.min() < 0.85 and 1.15 < factor.max() < 1.21
    assert factor.mean() == pytest.approx(1, abs=0.02)


def test_noise_has_the_strength_it_promises():
    grey = np.full((200, 16, 16, 3), 128.0, "float32")
    spread = run(augment.layer(Augmentation(noise=0.1), seed=1), grey).std((1, 2, 3))
    assert spread.max() == pytest.approx(25.5, rel=0.1) and spread.mean() == pytest.approx(12.75, rel=0.15)


def test_each_part_of_the_warp_does_what_it_says():
    def warp(**only):
        off = dict(flip=False, rotation=0.0, zoom=0.0, shift=0.0)
        return run(RandomWarp(**{**off, **only}, seed=1), NOISE)

    assert (warp() == NOISE).all()
    mirrored = warp(flip=True)
    same = (mirrored == NOISE).all((1, 2, 3))
    assert np.allclose(mirrored[~same], NOISE[~same][:, :, ::-1]) and 0 < same.sum() < len(NOISE)
    assert np.abs(warp(rotation=90.0) - NOISE).mean() > 10
    # a bright dot off the centre stays at its distance from the centre under rotation
    dot = np.zeros((32, 33, 33, 1), np.uint8)
    dot[:, 16, 26] = 255
    spun = run(RandomWarp(False, 180.0, 0.0, 0.0, seed=2), dot)[..., 0]
    weights = spun / spun.sum((1, 2), keepdims=True)
    y, x = (weights * np.arange(33)[:, None]).sum((1, 2)), (weights * np.arange(33)).sum((1, 2))
    assert np.allclose(np.hypot(y - 16, x - 16), 10, atol=0.3)
    assert np.ptp(np.arctan2(y - 16, x - 16)) > 2


def test_what_comes_in_from_outside_is_black_or_reflected_or_the_edge():
    ramp = np.tile(np.linspace(50, 250, 32, dtype=np.float32)[None, None, :, None], (16, 32, 1, 3))
    lowest = {}
    for fill in augment.FILLS:
        moved = run(augment.layer(Augmentation(shift=0.4, fill=fill), seed=1), ramp)
        lowest[fill] = moved.min()
        if fill == "reflect":  # no run of equal values at the edge, and no black
            assert (np.abs(np.diff(moved[:, 16, :, 0], axis=1)) > 1e-3).mean() > 0.9
    assert lowest["constant"] == 0 and lowest["nearest"] >= 49.9 and lowest["reflect"] >= 49.9


def test_limits_that_cannot_be_are_refused():
    for wrong, message in (
        (dict(fill="white"), "fill='white': one of nearest"),
        (dict(zoom=-0.1), "zoom=-0.1: a limit of 0"),
        (dict(rotation=-5), "rotation=-5: a limit of 0"),
        (dict(erase=1.5), "erase=1.5: a share of at most 1"),
    ):
        with pytest.raises(ValueError, match=message):
            Augmentation(**wrong)
    with pytest.raises(ValueError, match="strength=-1"):
        PRESETS["s1"].scaled(-1)


def test_words_are_those_of_the_limits():
    assert PRESETS["s1"].words() == {
        "flip": "mirrored, every second time", "rotation": "± 10°", "zoom": "± 10 %",
        "shift": "± 8 % of the side, each way", "outside": "the edge's colour",
        "brightness": "± 15 % of white", "contrast": "± 20 %",
    }  # fmt: skip
    assert PRESETS["none"].words() == {} and PRESETS["s4"].words()["outside"] == "black"
