"""Augmentation does in training what its limits say, and nothing outside it."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from agegender import augment

FACES = np.random.default_rng(0).uniform(60, 190, (400, 8, 8, 3)).astype("float32")


def run(layer, training: bool = True) -> np.ndarray:
    return ops.convert_to_numpy(layer(FACES, training=training))


def test_contrast_falls_as_well_as_it_rises():
    *_, contrast = augment.augmentation(1.0, seed=1).layers
    factor = run(contrast).std((1, 2, 3)) / FACES.std((1, 2, 3))
    assert 0.79 < factor.min() < 0.85 and 1.15 < factor.max() < 1.21
    assert factor.mean() == pytest.approx(1, abs=0.02)


def test_nothing_happens_outside_training_or_at_strength_0():
    assert (run(augment.augmentation(1.0), training=False) == FACES).all()
    assert run(augment.augmentation(0.0)) == pytest.approx(FACES, abs=1e-3)


def test_limits_are_those_of_the_layers():
    assert augment.limits(1.0) == {
        "flip": "mirrored, every second time", "rotation": "± 10°", "zoom": "± 10 %",
        "shift": "± 8 % of the side, each way", "brightness": "± 15 % of white", "contrast": "± 20 %",
    }  # fmt: skip
    assert (
        list(augment.limits(0.0)) == ["flip", "rotation", "zoom", "shift"]
        and augment.limits(0.0)["flip"] == "never"
    )
