"""Maps of networks made by hand, of which it is known where they look; and the same maps on every backend."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image
from scipy.stats import spearmanr

from agegender import explain
from agegender.models import branched, model_a, model_b

SIZE = 32
CORNERS = {"red": (0, 0), "green": (0, 1), "blue": (1, 0), "yellow": (1, 1)}
COLOURS = {"red": (230, 0, 0), "green": (0, 230, 0), "blue": (0, 0, 230), "yellow": (230, 230, 0)}
SEEN = ("red", "green", "blue")


@pytest.fixture(scope="module")
def pictures():
    """A square of one colour in each corner, on noise; uint8 (8, 32, 32, 3)."""
    drawn = np.random.default_rng(0).integers(0, 40, (8, SIZE, SIZE, 3), dtype=np.uint8)
    for name, (down, right) in CORNERS.items():
        drawn[:, 3 + 16 * down : 13 + 16 * down, 3 + 16 * right : 13 + 16 * right] = COLOURS[name]
    return drawn


def eye(nested: bool = False, first: int = 1) -> keras.Model:
    """Green makes older, red female, blue male, wherever in the picture: known evidence at known places."""
    kernel = np.array([[1, -1, -1], [-1, 1, -1], [-1, -1, 1]], np.float32)  # (channel in, red green blue out)
    picture = keras.Input((SIZE, SIZE, 3))
    x = layers.AveragePooling2D(first)(picture)
    body = keras.Model(picture, layers.Conv2D(3, 1, activation="relu", name="colours")(x), name="backbone")
    body.get_layer("colours").set_weights([kernel[None, None], np.zeros(3, np.float32)])
    faces = keras.Input((SIZE, SIZE, 3), dtype="uint8", name="faces")
    x = keras.Sequential([layers.RandomFlip(seed=1)], name="augmentation")(faces)
    x = layers.Rescaling(1 / 255)(x)
    if nested:
        x = body(x)
    else:
        x = body.get_layer("colours")(layers.AveragePooling2D(first)(x))
    x = layers.GlobalAveragePooling2D()(layers.Dropout(0.3)(layers.MaxPooling2D()(x)))
    age = layers.Dense(1, activation="relu", name="age")
    gender = layers.Dense(1, activation="sigmoid", name="gender")
    model = keras.Model(faces, {"age": age(x), "gender": gender(x)})
    age.set_weights([np.array([[0], [200], [0]], np.float32), np.array([10], np.float32)])
    gender.set_weights([np.array([[50], [0], [-50]], np.float32), np.array([0], np.float32)])
    return model


def where(maps) -> list[str]:
    """The corner in which most of each map lies."""
    quarters = maps.reshape(len(maps), 2, maps.shape[1] // 2, 2, maps.shape[2] // 2).sum((2, 4))
    names = {place: name for name, place in CORNERS.items()}
    return [names[tuple(np.unravel_index(quarter.argmax(), (2, 2)))] for quarter in quarters]


def noise(size, count=4):
    return np.random.default_rng(1).integers(0, 255, (count, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "backbone"])
def test_grad_cam_points_at_the_evidence_and_at_nothing_else(pictures, nested):
    model = eye(nested)
    for output, sign, colour in (("age", 1, "green"), ("gender", 1, "red"), ("gender", -1, "blue")):
        maps = explain.grad_cam(model, pictures, output, sign, batch=3)
        assert maps.shape == (8, SIZE, SIZE) and maps.dtype == np.float32
        assert maps.min() >= 0 and maps.max((1, 2)) == pytest.approx(1)
        down, right = CORNERS[colour]
        quarter = maps[:, 16 * down : 16 * down + 16, 16 * right : 16 * right + 16]
        assert where(maps) == [colour] * 8 and quarter.sum() > 0.95 * maps.sum()
    assert (explain.grad_cam(model, pictures, "age", -1) == 0).all()  # nothing makes younger here
    signs = np.array([1, -1] * 4)
    assert where(explain.grad_cam(model, pictures, "gender", signs)) == ["red", "blue"] * 4


def test_grad_cam_is_the_formula_reckoned_by_hand(pictures):
    """Slope of the log-odds in each cell: weight / cells; the map its sum over channels, spread by Pillow."""
    rng = np.random.default_rng(3)
    kernel, weights = rng.normal(size=(3, 3)).astype(np.float32), rng.normal(size=(3, 1)).astype(np.float32)
    model = eye(first=4)
    model.get_layer("colours").set_weights([kernel[None, None], np.zeros(3, np.float32)])
    model.get_layer("gender").set_weights([weights, np.zeros(1, np.float32)])
    means = pictures.astype(np.float32).reshape(8, 8, 4, 8, 4, 3).mean((2, 4)) / 255
    evidence = np.maximum(np.maximum(means @ kernel, 0) @ weights[:, 0], 0)
    fine = [np.asarray(Image.fromarray(e).resize((SIZE, SIZE), Image.Resampling.BILINEAR)) for e in evidence]
    expected = np.stack([f / f.max() for f in fine])
    assert explain.grad_cam(model, pictures, "gender") == pytest.approx(expected, abs=1e-3)


def test_saturated_answers_still_have_a_map(pictures):
    model = eye()
    model.get_layer("gender").set_weights([np.array([[5000], [0], [0]], np.float32), np.zeros(1, np.float32)])
    model.get_layer("age").set_weights(
        [np.array([[0], [200], [0]], np.float32), np.full(1, -500, np.float32)]
    )
    said = model.predict(pictures, verbose=0)
    assert (said["gender"] == 1).all() and (said["age"] == 0).all()  # where sigmoid and ReLU are flat
    assert where(explain.grad_cam(model, pictures, "gender")) == ["red"] * 8
    assert where(explain.grad_cam(model, pictures, "age")) == ["green"] * 8


def test_occlusion_says_how_many_years_a_corner_is_worth(pictures):
    model = eye()
    change = explain.occlusion(model, pictures, "age", patch=16, stride=16, fill=0, batch=5)
    green = np.maximum(pictures.astype(float) @ [-1, 1, -1], 0) / 255
    pooled = green.reshape(8, 16, 2, 16, 2).max((2, 4)).reshape(8, 2, 8, 2, 8).sum((2, 4))
    assert change == pytest.approx(-200 * pooled / 256, rel=1e-3)  # what each quarter adds to the mean
    assert (change[:, 0, 1] < -20).all() and (change.reshape(8, 4)[:, [0, 2, 3]] > -4).all()
    gender = explain.occlusion(model, pictures, "gender", patch=12, stride=5)
    assert gender.shape == (8, 5, 5)  # 0, 5, 10, 15, and 20, flush with the edge
    assert (gender[:, 0, 0] < -0.2).all() and (gender[:, 4, 0] > 0.2).all()
    assert explain.occlusion(model, pictures[:2]).shape == (2, 7, 7)


def test_redrawn_weights_lose_the_evidence_and_leave_the_model_alone(pictures):
    model = eye(nested=True)
    before = explain.grad_cam(model, pictures, "gender")
    kept = [w.copy() for w in model.get_weights()]
    alike = []
    for seed in range(6):
        drawn = explain.randomised(model, seed)
        after = explain.grad_cam(drawn, pictures, "gender")
        alike += list(np.nan_to_num(explain.similarity(before, after)))
    assert np.mean(alike) < 0.5
    assert explain.similarity(before, before) == pytest.approx(1)
    assert all((a == b).all() for a, b in zip(kept, model.get_weights()))
    assert explain.grad_cam(model, pictures, "gender") == pytest.approx(before)


def test_weights_are_redrawn_from_the_top_down(pictures):
    model = eye(nested=True)
    same = explain.randomised(model, top=0).predict_on_batch(pictures)
    assert all(same[name] == pytest.approx(said) for name, said in model.predict_on_batch(pictures).items())
    two = explain.randomised(model, seed=1, top=2)
    for name in ("age", "gender"):
        assert (two.get_layer(name).get_weights()[0] != model.get_layer(name).get_weights()[0]).any()
    kept, left = (m.get_layer("backbone").get_weights() for m in (model, two))
    assert all((a == b).all() for a, b in zip(kept, left))
    drawn = explain.randomised(model, seed=1).get_layer("backbone").get_weights()
    assert (drawn[0] != kept[0]).all()

    small = model_a.build(48, 4)

    def kernels(model):
        return np.concatenate([w.ravel() for w in model.get_weights() if w.ndim > 1])

    one, again, two = (kernels(explain.randomised(small, seed)) for seed in (1, 1, 2))
    assert (one == again).all() and (one != two).mean() > 0.99 and (one != kernels(small)).mean() > 0.99
    with pytest.raises(ValueError, match="top=999: 0 to"):
        explain.randomised(model, top=999)


@pytest.mark.parametrize(
    ("build", "sizes"),
    [
        (lambda: model_a.build(48, 4), {"age": (6, 6, 32), "gender": (6, 6, 32)}),
        (lambda: branched.build(64, 8), {"age": (5, 5, 16), "gender": (5, 5, 16)}),
        (
            lambda: branched.build(128, 8),
            {"age": (5, 5, 16), "gender": (5, 5, 8)},
        ),  # the last one, 64 px: 1 x 1
        (lambda: model_b.build(48, weights="none", alpha=0.35), {"age": (6, 6, 96), "gender": (6, 6, 96)}),
        (
            lambda: model_b.build(128, weights="none", alpha=0.35),
            {"age": (4, 4, 1280)},
        ),
    ],
    ids=["model_a", "branched", "branched 128", "model_b", "model_b 128"],
)
def test_the_two_halves_are_the_model(build, sizes):
    model = build()
    faces = noise(model.input_shape[1])
    said = model.predict(faces, verbose=0)
    for output, size in sizes.items():
        head, tail = explain.split(model, output)
        assert head.output.shape[1:] == size
        assert tail.predict(head.predict(faces, verbose=0), verbose=0) == pytest.approx(
            said[output], rel=1e-5
        )


@pytest.mark.parametrize(
    "build",
    [
        lambda: model_a.build(48, 4),
        lambda: branched.build(64, 8),
        lambda: model_b.build(48, weights="none", alpha=0.35),
    ],
    ids=["model_a", "branched", "model_b"],
)
def test_a_model_is_unharmed_and_gives_the_same_map_once_saved(build, tmp_path):
    model = build()
    faces = noise(model.input_shape[1])
    said, maps = model.predict(faces, verbose=0), explain.grad_cam(model, faces, "gender")
    assert maps.shape == faces.shape[:3] and np.isfinite(maps).all()
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.predict(faces, verbose=0)["age"] == pytest.approx(said["age"])
    assert explain.grad_cam(again, faces, "gender") == pytest.approx(maps, abs=1e-4)


def test_each_branch_has_a_map_of_its_own():
    heads = [explain.split(branched.build(64, 8), output)[0] for output in ("age", "gender")]
    names = [{layer.name for layer in head.layers} for head in heads]
    assert "age_conv2" in names[0] - names[1] and "gender_conv2" in names[1] - names[0]


def test_a_backbone_that_gives_a_vector_is_looked_into(pictures):
    """VGG16 up to fc1, in small: the last map lies before its pooling, inside."""
    keras.utils.set_random_seed(0)
    body = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)), layers.Conv2D(4, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(), layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(), layers.Flatten(), layers.Dense(16, activation="relu"),
        ],
        name="backbone",
    )  # fmt: skip
    faces = keras.Input((SIZE, SIZE, 3), dtype="uint8", name="faces")
    x = body(layers.Rescaling(1 / 255)(faces))
    for answers in ({"age": layers.Dense(1, name="age")(x)}, {"age": layers.Dense(1, name="age")(x * 2.0)}):
        model = keras.Model(faces, answers)
        head, tail = explain.split(model, "age")
        assert head.output.shape[1:] == (16, 16, 8)
        said = tail.predict(head.predict(pictures, verbose=0), verbose=0)
        assert said == pytest.approx(model.predict(pictures, verbose=0)["age"], rel=1e-5)
        assert explain.grad_cam(model, pictures).shape == (8, SIZE, SIZE)


def test_an_age_read_off_a_distribution_has_a_map(pictures):
    class Expectation(layers.Layer):
        def call(self, x):
            return keras.ops.sum(x * keras.ops.arange(117, dtype="float32"), axis=-1, keepdims=True)

    faces = keras.Input((SIZE, SIZE, 3), dtype="uint8", name="faces")
    x = layers.Conv2D(4, 3, activation="relu")(layers.Rescaling(1 / 255)(faces))
    shares = layers.Dense(117, activation="softmax", name="age_distribution")(
        layers.GlobalAveragePooling2D()(x)
    )
    model = keras.Model(faces, {"age_distribution": shares, "age": Expectation(name="age")(shares)})
    both = explain.grad_cam(model, pictures) + explain.grad_cam(model, pictures, sign=-1)
    assert (both.max((1, 2)) > 0).all()
    with pytest.raises(ValueError, match="gives 117 numbers a face"):
        explain.grad_cam(model, pictures, "age_distribution")


def test_where_no_map_carries_the_answer_that_is_said():
    faces = keras.Input((SIZE, SIZE, 3), dtype="uint8", name="faces")
    scaled = layers.Rescaling(1 / 255)(faces)
    plain = keras.Model(faces, {"age": layers.Dense(1, name="age")(layers.Flatten()(scaled))})
    fine, coarse = (layers.Conv2D(4, 3, strides=s)(scaled) for s in (1, 2))
    both = layers.Concatenate()([layers.GlobalAveragePooling2D()(m) for m in (fine, coarse)])
    parted = keras.Model(faces, {"age": layers.Dense(1, name="age")(both)})
    tiny = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, strides=16)(scaled))
    for model in (plain, parted, keras.Model(faces, {"age": layers.Dense(1, name="age")(tiny)})):
        with pytest.raises(ValueError, match="no feature map.*'age' passes.*`occlusion` needs none"):
            explain.grad_cam(model, noise(SIZE))
        assert explain.occlusion(model, noise(SIZE), patch=16).shape == (4, 3, 3)


def test_cells_tell_apart_what_the_mean_slope_mixes(pictures):
    """A dense layer that counts red above only: with red below as well, Grad-CAM shows both, HiResCAM one."""
    pictures = pictures.copy()
    pictures[:, 19:29, 19:29] = COLOURS["red"]
    faces = keras.Input((SIZE, SIZE, 3), dtype="uint8", name="faces")
    seen = layers.Conv2D(1, 1, activation="relu", use_bias=False)
    x = seen(layers.Rescaling(1 / 255)(faces))
    age = layers.Dense(1, use_bias=False, name="age")
    model = keras.Model(faces, {"age": age(layers.Flatten()(x))})
    seen.set_weights([np.array([1, -1, -1], np.float32).reshape(1, 1, 3, 1)])
    above = np.zeros((SIZE, SIZE), np.float32)
    above[:16] = 1
    age.set_weights([above.reshape(-1, 1)])
    mixed, apart = (explain.grad_cam(model, pictures, cells=cells) for cells in (False, True))
    assert mixed[:, 22, 22] == pytest.approx(1, abs=0.01) and mixed[:, 8, 8] == pytest.approx(1, abs=0.01)
    assert (apart[:, 17:] == 0).all() and apart[:, 8, 8] == pytest.approx(1, abs=0.01)


def test_maps_are_averaged_by_band_and_compared_by_rank():
    maps = np.random.default_rng(0).random((6, 8, 8)).astype(np.float32)
    means = explain.average(maps, ["old", "young", "old", "young", "old", "old"])
    assert list(means) == ["old", "young"] and means["young"] == pytest.approx(maps[[1, 3]].mean(0))
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(maps[:3], maps[3:])]
    assert explain.similarity(maps[:3], maps[3:]) == pytest.approx(expected)
    assert np.isnan(explain.similarity(maps[:1], np.zeros((1, 8, 8)))).all()
    with pytest.raises(ValueError, match="6 maps and 5 values"):
        explain.average(maps, [1, 2, 3, 4, 5, None])
    with pytest.raises(ValueError, match="twice the same"):
        explain.similarity(maps, maps[:, :4])


def test_wrong_pictures_and_outputs_are_named(pictures):
    model = eye()
    for wrong in (pictures / 255, pictures[:, :16], pictures[0], pictures[:0]):
        with pytest.raises(ValueError, match=r"takes uint8 \(n, 32, 32, 3\)"):
            explain.grad_cam(model, wrong)
    with pytest.raises(ValueError, match="'race': this model has age, gender"):
        explain.occlusion(model, pictures, "race")
    with pytest.raises(ValueError, match="sign=0: 1, -1"):
        explain.grad_cam(model, pictures, sign=0)
    with pytest.raises(ValueError, match="patch=40"):
        explain.occlusion(model, pictures, patch=40)


ELSEWHERE = """
import numpy as np, sys
from agegender import explain
from agegender.models import branched, model_a, model_b
maps = []
for build in (lambda: model_a.build(48, 4), lambda: branched.build(64, 8),
              lambda: model_b.build(48, weights="none", alpha=0.35)):
    model, rng = build(), np.random.default_rng(0)
    drawn = [rng.normal(0, 0.05 if w.ndim == 1 else np.prod(w.shape[:-1]) ** -0.5, w.shape)
             for w in model.get_weights()]
    named = [w.path for w in model.weights]
    model.set_weights([np.abs(d) + 0.5 if "variance" in n or "gamma" in n else d
                       for n, d in zip(named, drawn)])
    faces = rng.integers(0, 255, (2, *model.input_shape[1:]), dtype=np.uint8)
    maps.append(explain.grad_cam(model, faces, "gender", np.array([1, -1])).ravel())
np.save(sys.argv[1], np.concatenate(maps))
"""


@pytest.fixture(scope="module")
def maps_on(tmp_path_factory):
    def made(backend):
        path = tmp_path_factory.mktemp(backend) / "maps.npy"
        settings = {**os.environ, "KERAS_BACKEND": backend}
        subprocess.run([sys.executable, "-c", ELSEWHERE, str(path)], env=settings, check=True, timeout=300)
        return np.load(path)

    return made


def test_every_backend_at_hand_gives_the_same_maps(maps_on):
    others = [
        name
        for name in ("tensorflow", "jax", "torch")
        if name != keras.backend.backend() and importlib.util.find_spec(name)
    ]
    if not others:
        pytest.skip("only one backend is installed")
    here = maps_on(keras.backend.backend())
    assert here.max() == 1
    for name in others:
        assert maps_on(name) == pytest.approx(here, abs=1e-3), name
