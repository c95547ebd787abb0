"""Diagrams of networks: blocks against the layers they stand for, and pictures that can be read."""

from __future__ import annotations

from itertools import combinations

import keras
import matplotlib.pyplot as plt
import pytest
from keras import layers, ops
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from agegender import diagram, figures
from agegender.models import branched, model_a, model_b


def around():
    """Two answers behind an additive block, one of them read by the other."""
    numbers = keras.Input((8,), name="numbers")
    x = layers.Dense(16, activation="relu")(numbers)
    x = layers.Add()([x, layers.Dense(16)(x)])
    groups = layers.Dense(3, activation="softmax", name="groups")(x)
    mean = layers.Identity(name="mean")(ops.sum(groups, axis=1, keepdims=True))
    return keras.Model(
        numbers, {"groups": groups, "mean": mean, "one": layers.Dense(1, name="one")(x)}, name="around"
    )


def grey_and_colour():
    """A grey and a colour branch that join, a shared layer and a slice."""
    faces = keras.Input((32, 32, 3), dtype="uint8", name="faces")
    colour = layers.Rescaling(1 / 127.5, -1.0)(faces)
    grey = ops.image.rgb_to_grayscale(colour)
    sides = []
    for x in (grey, colour):
        for filters in (4, 8):
            x = layers.Conv2D(filters, 3, strides=2, padding="same")(x)
            x = layers.LeakyReLU()(layers.BatchNormalization()(x))
            x = layers.MaxPooling2D()(x)
        sides.append(layers.Flatten()(x))
    x, shared = layers.Concatenate()(sides), layers.Dense(64, activation="gelu")
    for _ in range(2):
        x = layers.Dropout(0.5)(shared(x))
    gender = layers.Identity(name="gender")(layers.Dense(2, activation="softmax")(x)[:, 1:])
    return keras.Model(faces, {"gender": gender}, name="grey_and_colour")


def many():
    """Four answers, each with layers of its own, on a nested network."""
    faces = keras.Input((64, 64, 3), name="faces")
    steps = [keras.Input((64, 64, 3)), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()]
    inner = keras.Sequential(steps, name="backbone")
    x, answers = inner(faces), {}
    for name in ("age_distribution", "age_group", "gender", "race"):
        y = layers.Dropout(0.2)(layers.Dense(256, activation="relu")(x))
        y = layers.Dropout(0.2)(layers.Dense(16, activation="relu")(y))
        answers[name] = layers.Dense(7, activation="softmax", name=name)(y)
    return keras.Model(faces, answers, name="many")


NETWORKS = {
    "model_a": model_a.build,
    "model_b": lambda: model_b.build(48, weights="none", alpha=0.35),
    "branched": branched.build,
    "around": around,
    "grey_and_colour": grey_and_colour,
    "many": many,
}


@pytest.fixture(scope="module")
def networks() -> dict:
    return {name: build() for name, build in NETWORKS.items()}


def test_model_a_is_four_blocks_of_two_convolutions(networks):
    parts = diagram.blocks(networks["model_a"])
    convolutions = [part for part in parts if part.kind == "convolution"]
    assert [part.words for part in convolutions] == [
        (f"2 × (conv 3×3, {filters} → batch norm → ReLU) → max pool 2 → dropout 0.1",)
        for filters in (64, 128, 256, 512)
    ]
    assert [part.shape for part in convolutions] == [(64, 64, 64), (32, 32, 128), (16, 16, 256), (8, 8, 512)]
    (dense,) = [part for part in parts if part.kind == "dense"]
    assert dense.words == ("flatten → dense 256 → ReLU → dropout 0.4",) and dense.shape == (256,)
    assert [(p.name, p.words) for p in parts if p.kind == "output"] == [
        ("age", ("dense 1 → ReLU",)),
        ("gender", ("dense 1 → sigmoid",)),
    ]
    assert [part.inputs for part in parts] == [(), *[(k,) for k in range(8)], (7,)]


def test_model_b_has_a_backbone_in_one_block_and_a_way_around(networks):
    parts = diagram.blocks(networks["model_b"])
    body = networks["model_b"].get_layer("backbone")
    (backbone,) = [part for part in parts if part.kind == "model"]
    assert backbone.parameters == body.count_params()
    assert backbone.words == (f"backbone ({len(body.layers) - 1} layers)",)  # without its input
    (at,) = [k for k, part in enumerate(parts) if part.words == ("add → ReLU → dropout 0.3",)]
    assert parts[at].inputs == (at - 2, at - 1)
    assert parts[at - 1].words == ("dense 256 → batch norm → ReLU", "dense 256 → batch norm")


def test_the_branches_lie_side_by_side_below_the_trunk(networks):
    parts = diagram.blocks(networks["branched"])
    lanes = diagram._lanes(parts, diagram._dominators(parts))
    (fork,) = [k for k in range(len(parts)) if sum(k in part.inputs for part in parts) == 2]
    assert set(lanes[: fork + 1]) == {(0, 1)} and set(lanes[fork + 1 :]) == {(0, 0.5), (0.5, 1)}
    assert {part.name: lane for part, lane in zip(parts, lanes) if part.kind == "output"} == {
        "age": (0, 0.5),
        "gender": (0.5, 1),
    }


def test_kinds_without_a_name_of_their_own_and_shared_layers(networks):
    parts = diagram.blocks(networks["grey_and_colour"])
    assert [part.words for part in parts if part.kind != "convolution"] == [
        (),
        ("values ÷ 127.5 − 1",),
        ("grey picture",),
        ("flatten",),
        ("flatten",),
        ("concatenate",),
        ("2 × (dense 64 → gelu → dropout 0.5)",),
        ("dense 2 → softmax → slice",),
    ]
    assert parts[-1].name == "gender" and parts[-1].shape == (1,)
    assert parts[3].words == ("conv 3×3, 4, stride 2 → batch norm → leaky ReLU → max pool 2",)
    ends = [(part.name, part.words) for part in diagram.blocks(networks["around"]) if part.kind == "output"]
    assert ends == [("groups", ("dense 3 → softmax",)), ("mean", ("sum",)), ("one", ("dense 1",))]


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_add_up_and_every_block_reads_earlier_ones(networks, name):
    parts = diagram.blocks(networks[name])
    assert sum(part.parameters for part in parts) == networks[name].count_params()
    assert all(k < at for at, part in enumerate(parts) for k in part.inputs)
    assert {part.name for part in parts if part.kind == "output"} == set(networks[name].output)
    assert {part.kind for part in parts} <= set(diagram.COLOURS)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_picture_can_be_read(networks, name, monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "show", lambda figure, alt, faces=False: shown.append((figure, alt, faces)))
    diagram.network(
        networks[name], f"The network {name}, with a title so long that it takes a second line " * 2
    )
    ((figure, alt, faces),) = shown
    assert not faces and f"Diagram of {name}: " in alt
    width, height = figure.get_size_inches()
    assert width == figures.WIDTH and height <= 8.2  # a line of the title more than a page needs
    renderer, whole = figure.canvas.get_renderer(), figure.bbox
    texts = [t for t in figure.findobj(plt.Text) if t.get_visible() and t.get_text()]
    assert all(text.get_fontsize() >= 7.5 for text in texts)
    extents = {text: text.get_window_extent(renderer) for text in texts}
    for text, extent in extents.items():
        assert whole.x0 <= extent.x0 and extent.x1 <= whole.x1, text
        assert whole.y0 <= extent.y0 and extent.y1 <= whole.y1, text
    for one, two in combinations(texts, 2):
        assert not extents[one].overlaps(extents[two]), (one, two)
    boxes = [box.get_window_extent(renderer) for box in figure.findobj(FancyBboxPatch)]
    assert len(boxes) == len(diagram.blocks(networks[name]))
    assert not any(one.overlaps(two) for one, two in combinations(boxes, 2))
    for text, extent in extents.items():  # in a box or out of it, never across its edge
        assert sum(box.overlaps(extent) for box in boxes) == sum(
            box.x0 < extent.x0 and extent.x1 < box.x1 and box.y0 < extent.y0 and extent.y1 < box.y1
            for box in boxes
        ), text
    for arrow in figure.findobj(FancyArrowPatch):
        path = arrow.get_transform().transform_path(arrow._path_original)
        assert not [t for t in texts if path.intersects_bbox(extents[t], filled=False)]
    plt.close(figure)


def test_the_alt_text_tells_the_network(networks):
    said = {name: diagram.sentence(name, diagram.blocks(networks[name])) for name in NETWORKS}
    start, end = said["model_a"].split("values ÷ 255")
    assert start.startswith("Diagram of model_a: faces (128 × 128 × 3); augmentation (random warp → ")
    assert end == (
        " → batch norm; 4 blocks of 2 × (conv 3×3, 64/128/256/512 → batch norm → ReLU) → max pool 2 → "
        "dropout 0.1; flatten → dense 256 → ReLU → dropout 0.4; outputs age (dense 1 → ReLU) and gender "
        "(dense 1 → sigmoid); 13.1 M parameters in all."
    )
    assert "; branch to gender: conv 3×3, 64" in said["branched"] and "; branch to age: " in said["branched"]
    assert "add → ReLU → dropout 0.3 (joins 2 paths, one of them a skip connection)" in said["model_b"]
    assert "; concatenate (joins 2 paths); " in said["grey_and_colour"]
    assert "2 blocks of conv 3×3, 4/8, stride 2" in said["grey_and_colour"]
    assert "output gender" in said["grey_and_colour"] and "outputs groups" in said["around"]


@pytest.mark.parametrize(
    ("scale", "offset", "words"),
    [(1 / 255, 0.0, "values ÷ 255"), ([1 / 128] * 3, [-0.5] * 3, "values ÷ 128 − 0.5"),
     (2.0, 1, "values × 2 + 1"), (1.0, 0.0, "values unchanged"),
     ([1.0, 1.0, 2.0], 0.0, "rescaling of each channel")],
)  # fmt: skip
def test_rescaling_as_a_formula(scale, offset, words):
    assert diagram._said(layers.Rescaling(scale, offset)) == words


def test_a_sequential_model_is_drawn_and_one_without_a_graph_refused():
    parts = diagram.blocks(
        keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(1, name="end")])
    )
    assert [part.kind for part in parts] == ["input", "dense", "output"] and parts[-1].name == "end"

    class Own(keras.Model):
        pass

    with pytest.raises(ValueError, match="Own 'mine' has no graph"):
        diagram.blocks(Own(name="mine"))


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0 parameters"), (1, "1 parameter"), (999, "999 parameters"), (999_949, "1 M parameters"),
     (1234, "1.23 k parameters"), (13_080_000, "13.1 M parameters")],
)  # fmt: skip
def test_numbers_of_parameters_in_words(number, words):
    assert diagram._count(number) == words
