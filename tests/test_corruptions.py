"""Each corruption does what its name and unit say, more of it with each severity, and the same each time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import center_of_mass, gaussian_filter

from agegender.corruptions import CORRUPTIONS, EYES, GREY, MOUTH, answers_under, errors, rises


@pytest.fixture(scope="module")
def faces():
    """Smooth random pictures, neighbouring pixels alike as in photographs; uint8 (40, 64, 64, 3)."""
    fields = gaussian_filter(np.random.default_rng(0).normal(size=(40, 64, 64, 3)), (0, 3, 3, 0))
    return np.clip(128 + 40 * fields / fields.std(), 0, 255).astype(np.uint8)


def dot(count=20, side=65, y=32, x=52, width=2):
    """Black pictures with a bright square round (y, x)."""
    pictures = np.zeros((count, side, side, 3), np.uint8)
    pictures[:, y - width : y + width + 1, x - width : x + width + 1] = 240
    return pictures


def centres(pictures):
    """Where the light lies, from the pictures' centre: (n, 2) pixels down and right."""
    middle = (pictures.shape[1] - 1) / 2
    return np.array([center_of_mass(picture[..., 0].astype(float)) for picture in pictures]) - middle


def damage(faces, name, severity):
    return np.abs(CORRUPTIONS[name](faces, severity).astype(float) - faces).mean()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severity_0_changes_nothing_and_each_next_one_more(faces, name):
    before = faces.copy()
    untouched = CORRUPTIONS[name](faces, 0)
    assert (untouched == faces).all() and untouched is not faces
    steps = [damage(faces, name, severity) for severity in range(6)]
    assert np.all(np.diff(steps) > 0), steps
    assert (faces == before).all()  # what is handed in stays


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_pictures_come_back_in_shape_and_the_same_for_a_seed(faces, name):
    one, two = (CORRUPTIONS[name](faces[:6], 3, seed=5) for _ in range(2))
    assert one.shape == faces[:6].shape and one.dtype == np.uint8 and (one == two).all()
    drawn = name in ("noise", "rotation", "shift", "anywhere covered")
    assert (CORRUPTIONS[name](faces[:6], 3, seed=6) == one).all() != drawn


@pytest.mark.parametrize("name", ["blur", "shift", "zoomed in", "zoomed out", "mouth covered"])
def test_a_severity_means_the_same_at_every_size(faces, name):
    large = faces.repeat(2, axis=1).repeat(2, axis=2)
    small = CORRUPTIONS[name](faces, 4).astype(float)
    again = CORRUPTIONS[name](large, 4).reshape(40, 64, 2, 64, 2, 3).mean((2, 4))
    assert np.abs(again - small).mean() < 3 < np.abs(small - faces).mean()


def test_blur_and_noise_have_the_width_they_say():
    point = np.zeros((1, 101, 101, 3), np.uint8)
    point[0, 40:61, 40:61] = 255  # a single pixel would be rounded away
    blurred = CORRUPTIONS["blur"](point, 4)[0, :, :, 0].astype(float)
    across = blurred.sum(0) / blurred.sum()
    spread = (across * (np.arange(101) - 50) ** 2).sum() - (21**2 - 1) / 12
    assert np.sqrt(spread) == pytest.approx(0.03 * 101, rel=0.03)
    grey = np.full((20, 32, 32, 3), GREY, np.uint8)
    noisy = CORRUPTIONS["noise"](grey, 3).astype(float) - GREY
    assert noisy.std() == pytest.approx(0.10 * 255, rel=0.02) and abs(noisy.mean()) < 0.5
    assert (noisy[0] != noisy[1]).any()


def test_light_goes_up_and_down_by_shares_of_white(faces):
    assert (CORRUPTIONS["darker"](faces, 2) == np.clip(faces.astype(int) - 51, 0, 255)).all()
    assert (CORRUPTIONS["brighter"](faces, 2) == np.clip(faces.astype(int) + 51, 0, 255)).all()


def test_rotation_turns_a_dot_about_the_centre_to_either_side():
    turned = centres(CORRUPTIONS["rotation"](dot(), 4))
    assert np.hypot(*turned.T) == pytest.approx(20, abs=0.2)
    angles = np.rad2deg(np.arctan2(turned[:, 0], turned[:, 1]))
    assert np.abs(angles) == pytest.approx(30, abs=0.5) and len(set(np.sign(angles))) == 2


def test_shift_moves_a_dot_as_far_as_it_says_and_smears_the_edge():
    moved = centres(CORRUPTIONS["shift"](dot(x=32), 3))
    assert np.hypot(*moved.T) == pytest.approx(0.15 * 65, abs=0.2)
    assert np.ptp(np.arctan2(*moved.T)) > 3
    white = np.full((4, 32, 32, 3), 255, np.uint8)
    assert all((CORRUPTIONS[name](white, 5) == 255).all() for name in ("shift", "rotation", "zoomed out"))


def test_zoom_moves_a_dot_out_and_in():
    assert centres(CORRUPTIONS["zoomed in"](dot(x=42), 5))[:, 1] == pytest.approx(10 / 0.6, abs=0.2)
    assert centres(CORRUPTIONS["zoomed out"](dot(), 4))[:, 1] == pytest.approx(20 / 1.6, abs=0.2)


def test_resolution_keeps_as_many_pixels_as_it_says(faces):
    fine = np.zeros((1, 64, 64, 3), np.uint8)
    fine[:, :, ::2] = 255  # stripes of one pixel
    assert np.ptp(CORRUPTIONS["resolution"](fine, 1)) == 0
    small = faces[:, :24, :24]
    assert (CORRUPTIONS["resolution"](small, 2) == small).all()  # 24 pixels have no more to lose
    assert (CORRUPTIONS["resolution"](small, 3) != small).any()


def test_squares_lie_where_they_say(faces):
    dark = np.zeros_like(faces)
    for name, places in (("eyes covered", EYES), ("mouth covered", MOUTH)):
        grey = (CORRUPTIONS[name](dark, 2) == GREY).all(-1)
        assert (grey == grey[0]).all() and grey[0].sum() == len(places) * 13**2
        assert all(grey[0, round(y * 64), round(x * 64)] for y, x in places)
    grey = (CORRUPTIONS["anywhere covered"](dark, 5) == GREY).all(-1)
    assert (grey.sum((1, 2)) == 32**2).all() and (grey != grey[0]).any()


def test_what_cannot_be_corrupted_is_said(faces):
    for wrong in (faces / 255, faces[0], faces[..., :1], faces[:, :32]):
        with pytest.raises(ValueError, match=r"uint8 \(n, s, s, 3\) would be right"):
            CORRUPTIONS["blur"](wrong, 1)
    with pytest.raises(ValueError, match="severity=6: 0"):
        CORRUPTIONS["blur"](faces, 6)


def test_errors_under_corruption_are_those_of_a_model_whose_weakness_is_known(faces):
    """The model reads age off the brightness: light costs it as many years as was added, rotation few."""
    age = faces.mean((1, 2, 3)) / 2.55
    labels = pd.DataFrame({
        "file": [f"{i:02d}.jpg" for i in reversed(range(40))], "fold": "test", "group": range(40),
        "age": age, "gender": pd.array([0, 1] * 20, "Int8"), "race": pd.array([0] * 40, "Int8"),
    })  # fmt: skip

    def seen(pictures):
        return {"age": pictures.mean((1, 2, 3)) / 2.55, "gender": np.tile([0.2, 0.9], 20)}

    def blind(pictures):
        return {"age": np.full(40, 30.0)}

    chosen = {name: CORRUPTIONS[name] for name in ("brighter", "rotation")}
    steps = []
    answers = answers_under({"A": seen, "B": blind}, faces, labels, chosen, (2, 3), step=lambda: steps.append(1))
    assert len(answers) == 2 * 40 * 5 and len(steps) == 4
    found = errors(answers)
    assert list(found) == ["model", "corruption", "severity", "measure", "value", "n"] and (found["n"] == 40).all()
    value = found.set_index(["model", "corruption", "severity", "measure"])["value"]
    assert value["A", "", 0, "age MAE"] == pytest.approx(0, abs=1e-6)
    assert value["A", "brighter", 2, "age MAE"] == pytest.approx(20, abs=1)  # less what is cut at white
    assert value["A", "rotation", 2, "age MAE"] < 2
    assert value["B", "brighter", 2, "age MAE"] == pytest.approx(value["B", "", 0, "age MAE"])
    genders = found[found["measure"] == "gender accuracy"]
    assert (genders["value"] == 1).all() and set(genders["model"]) == {"A"}

    rise = rises(answers, "A").set_index(["measure", "corruption"])
    light = rise.loc[("age MAE", "brighter")]
    assert light["value"] == pytest.approx(value["A", "brighter", 3, "age MAE"], abs=1e-6)
    assert light["low"] <= light["value"] <= light["high"] and light["p_holm"] < 0.05 and light["level"] == 30
    assert rise.loc[("gender accuracy", "rotation"), "value"] == 0 and len(rise) == 4
    none = rises(answers, "B")
    assert set(none["measure"]) == {"age MAE"} and (none["value"] == 0).all() and (none["p_holm"] == 1).all()
    with pytest.raises(ValueError, match="40 pictures and 39 rows"):
        answers_under({"A": seen}, faces, labels[:-1])
    with pytest.raises(ValueError, match=r"A gave \['group'\]"):
        answers_under({"A": lambda pictures: {"group": age}}, faces, labels)
