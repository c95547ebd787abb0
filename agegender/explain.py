"""Where a network looks: Grad-CAM, occlusion, and the check whether the maps depend on what was learned.

Any model of this package, on any backend of Keras. Neither kind of map says why an answer was given: they say
where the picture mattered to it. Maps that stay as they are when the weights are drawn anew (`randomised`,
`similarity`) tell of the picture's edges, not of the model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import keras
import numpy as np
import pandas as pd
from keras import layers
from scipy.ndimage import affine_transform
from scipy.stats import rankdata

SMALLEST_MAP = 4  # cells a side: a coarser map points nowhere
GREY = 128
# what only thins out, blanks or frames a map: the one before it says the same, and more finely
_PASSIVE = (
    layers.MaxPooling2D,
    layers.AveragePooling2D,
    layers.Dropout,
    layers.SpatialDropout2D,
    layers.ZeroPadding2D,
)


def grad_cam(
    model: keras.Model,
    pixels,
    output: str = "age",
    sign=1,
    cells: bool = False,
    batch: int = 64,
    fine: bool = True,
) -> np.ndarray:
    """Grad-CAM: where `pixels`, uint8 (n, s, s, 3), raise the model's `output`; float32 (n, s, s) in [0, 1].

    Selvaraju et al. (2017): each channel of the last feature map (see `split`) is weighted by the mean slope
    of the score in it; their weighted sum, cut off at 0, is spread bilinearly over the picture, each cell at
    the centre of the pixels it is made from (see `centres`), and 0 where no cell lies. The score is taken
    before the output's activation, which is flat at its ends: age in years, log-odds of female.

    The map keeps one side of the evidence. `sign` 1: what makes the face older, or female; -1: younger, or
    male; or one sign per face (n,), such as that of the answer given: np.where(p_female > 0.5, 1, -1).
    A map is divided by its own maximum, so strength can't be compared between faces; where nothing speaks for
    the sign asked for, it is 0 all over.

    `cells`: weigh each cell of each channel by its own slope (HiResCAM, Draelos and Carin 2020). Where a
    dense layer reads the flattened map (model A, the branched network), a channel can mean one thing above
    and another below; the mean slope mixes the two, and Grad-CAM may point where the model does not look.

    `fine` False: the map as the network has it, (n, h, w), not spread over the picture.

    Raises ValueError for pictures or outputs that the model does not have, and where it has no feature map.
    """
    pixels = _checked(model, pixels)
    head, tail = _split(_scored(model, output), output)
    signs = np.broadcast_to(np.asarray(sign, np.float32), len(pixels))
    if not np.isin(signs, (-1, 1)).all():
        raise ValueError(f"sign={sign!r}: 1, -1 or one of them per face would be right")
    slope, maps, count = _gradient(lambda x: tail(x, training=False)), [], len(pixels)
    batch = min(batch, count)
    for start in range(0, count, batch):
        full = pixels[np.arange(start, start + batch) % count]  # one shape, so compiled once
        with quiet():
            features = head.predict_on_batch(full).astype(np.float32)
        slopes = keras.ops.convert_to_numpy(slope(keras.ops.convert_to_tensor(features))).astype(np.float32)
        if not cells:
            slopes = slopes.mean((1, 2), keepdims=True)
        maps.append((slopes * features).sum(-1))
    evidence = np.maximum(np.concatenate(maps)[:count] * signs[:, None, None], 0)
    if fine:
        evidence = _spread(evidence, *centres(head), pixels.shape[1])
    top = evidence.max((1, 2), keepdims=True)
    return np.divide(evidence, top, out=np.zeros_like(evidence), where=top > 0)


def split(model: keras.Model, output: str = "age") -> tuple[keras.Model, keras.Model]:
    """`model` in two, sharing its weights: faces to the last feature map, and from there to `output`.

    The last map is the one nearest to the output through which all of the answer passes, with at least
    SMALLEST_MAP cells a side, and taken before pooling; in a network with branches, that of the branch of
    `output`. Nested models are looked into. Raises ValueError where there is none.
    """
    return _split(keras.Model(model.input, _answer(model, output)), output)


def _spread(maps: np.ndarray, first: float, step: float, side: int) -> np.ndarray:
    """`maps` (n, h, w), whose cells lie as `centres` says, over pictures (n, side, side); bilinear."""
    shape, scale, shift = (len(maps), side, side), (1, 1 / step, 1 / step), (0, -first / step, -first / step)
    spread = affine_transform(maps, scale, shift, shape, order=1, mode="nearest")
    for axis in (1, 2):
        at = (np.arange(side) - first) / step
        outside = (at < -0.5) | (at > maps.shape[axis] - 0.5)
        spread[(slice(None),) * axis + (outside,)] = 0
    return spread


def centres(head: keras.Model) -> tuple[float, float]:
    """Where the cells of the last map of `head` (see `split`) lie in the picture: the first one's centre and the
    step to the next, in pixels (0: the middle of the first pixel), the same down and to the right.

    The centre of a cell is that of the pixels that can reach it. A map is not always the picture in
    small: convolutions without padding leave its edges out, and padding on one side moves it (Alsallakh
    et al. 2021).
    """
    first, step = _centres(head.output)
    return float(first), float(step)


def _centres(tensor) -> tuple[float, float]:
    layer, number, _ = tensor._keras_history
    taken = [x for x in layer._inbound_nodes[number].input_tensors if len(x.shape) == 4]
    if not taken or isinstance(layer, layers.InputLayer):
        return 0.0, 1.0
    first, step = _centres(taken[0])
    if isinstance(layer, keras.Model):
        inner_first, inner_step = _centres(layer.outputs[0])
        return first + step * inner_first, step * inner_step
    if isinstance(layer, layers.ZeroPadding2D):
        return first - step * layer.padding[0][0], step
    width = getattr(layer, "kernel_size", None) or getattr(layer, "pool_size", None)
    if width is None:
        return first, step
    wide = (width[0] - 1) * np.max(getattr(layer, "dilation_rate", 1)) + 1
    stride, side, before = np.max(layer.strides), taken[0].shape[1], 0
    if layer.padding == "same":
        before = max((-(-side // stride) - 1) * stride + wide - side, 0) // 2
    return first + step * ((wide - 1) / 2 - before), step * stride


def flattens(model: keras.Model, output: str = "age") -> bool:
    """Whether a layer between the last feature map (see `split`) and `output` lays the map flat.

    Then a dense layer weighs each cell by itself, and `cells` is right for `grad_cam`.
    """
    tail = split(model, output)[1]
    return any(isinstance(layer, layers.Flatten) for layer in tail._flatten_layers())


def weighted_layers(model: keras.Model) -> int:
    """How many layers with weights `model` has, those of nested models counted one by one."""
    return sum(bool(leaf.weights) for leaf in _leaves(model))


def occlusion(
    model: keras.Model,
    pixels,
    output: str = "age",
    patch: int | None = None,
    stride: int | None = None,
    fill: int = GREY,
    batch: int = 64,
) -> np.ndarray:
    """How the model's `output` changes when a square of the picture is covered; float32 (n, h, w).

    Zeiler and Fergus (2014): a square of `patch` pixels (a quarter of the side) filled with `fill` moves over
    `pixels`, uint8 (n, s, s, 3), in steps of `stride` (half a patch), the last one flush with the edge. Cell
    (i, j) is the answer with the square in that place less the answer without, in the output's unit: years of
    age; probability of female, so 0.05 is five percentage points. Below 0, what was covered had raised it.
    No gradient is needed, so any backend will do. The model is asked h x w + 1 times about each face.
    """
    pixels = _checked(model, pixels)
    _answer(model, output)
    side = pixels.shape[1]
    patch = side // 4 if patch is None else patch
    stride = max(1, patch // 2) if stride is None else stride
    if not (0 < patch <= side and 0 < stride):
        raise ValueError(f"patch={patch}, stride={stride}: 1 to {side}, and at least 1, would be right")
    steps = [*range(0, side - patch, stride), side - patch]

    def answers(pictures) -> np.ndarray:
        return np.asarray(model.predict_on_batch(pictures)[output], np.float32)[:, 0]

    changes = np.empty((len(pixels), len(steps), len(steps)), np.float32)
    for start in range(0, len(pixels), batch):
        faces = pixels[start : start + batch]
        before = answers(faces)
        for i, y in enumerate(steps):
            for j, x in enumerate(steps):
                covered = faces.copy()
                covered[:, y : y + patch, x : x + patch] = fill
                changes[start : start + batch, i, j] = answers(covered) - before
    return changes


def average(maps: np.ndarray, by) -> dict:
    """The mean map (h, w) of the faces with each value of `by` (n,), say an age band, in order of the values.

    Means something where eyes and mouths lie at the same place in all pictures, as in aligned crops.
    """
    by = pd.Series(by).reset_index(drop=True)
    if len(by) != len(maps) or by.isna().any():
        raise ValueError(
            f"{len(maps)} maps and {by.notna().sum()} values in `by`: one for each map would be right"
        )
    positions = pd.Series(np.arange(len(maps))).groupby(by, observed=True)
    return {value: maps[rows.to_numpy()].mean(0) for value, rows in positions}


def randomised(model: keras.Model, seed: int = 0, top: int | None = None) -> keras.Model:
    """A copy of `model` whose weights are drawn anew, as before training; the model itself stays as it is.

    The sanity check of Adebayo et al. (2018). `top`: only of that many of the layers with weights, counted
    from the outputs down (their cascade); None: of all. Sets Keras' global seed, as building a model does.
    """
    keras.utils.set_random_seed(seed)
    fresh = keras.models.clone_model(model)
    old, new = ([leaf for leaf in _leaves(m) if leaf.weights] for m in (model, fresh))
    top = len(old) if top is None else top
    if not 0 <= top <= len(old):
        raise ValueError(f"top={top}: 0 to {len(old)} (the layers with weights) would be right")
    for learned, layer in zip(old[: len(old) - top], new):
        layer.set_weights(learned.get_weights())
    return fresh


def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of two maps of each face, (n, h, w) each; float64 (n,).

    1: the same places in the same order; about 0: unrelated. NaN where a map is the same all over. Cells
    that are 0 in all maps are left out: pooling drops the last row of an odd number, say, whatever the
    weights, and all maps of such a network would be alike in that.
    """
    if np.shape(a) != np.shape(b) or np.ndim(a) != 3:
        raise ValueError(f"maps of {np.shape(a)} and {np.shape(b)}: twice the same (n, h, w) would be right")
    used = (np.asarray(a) != 0).any(0) | (np.asarray(b) != 0).any(0)
    if used.sum() < 2:
        return np.full(len(a), np.nan)
    ranks = [rankdata(np.asarray(maps)[:, used], axis=1) for maps in (a, b)]
    one, two = (r - r.mean(1, keepdims=True) for r in ranks)
    spread = np.sqrt((one**2).sum(1) * (two**2).sum(1))
    return np.divide((one * two).sum(1), spread, out=np.full(len(spread), np.nan), where=spread > 0)


@contextmanager
def quiet() -> Iterator[None]:
    """Without TensorFlow's advice on functions that are compiled often: here each network is another one."""
    logger = logging.getLogger("tensorflow")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _gradient(function: Callable) -> Callable:
    """The slope of the sum of `function(x)`, in `x`.

    Only here the framework matters: Keras has no gradient.
    """
    backend = keras.backend.backend()

    def total(x):
        return keras.ops.sum(function(x))

    if backend == "tensorflow":
        from tensorflow import GradientTape

        def slope(x):
            with GradientTape() as tape:
                tape.watch(x)
                value = total(x)
            return tape.gradient(value, x)

    elif backend == "jax":
        from jax import grad, jit

        slope = jit(grad(total))  # not compiled, each operation would be, one by one: half a minute
    elif backend == "torch":
        from torch import autograd

        def slope(x):
            x.requires_grad_()
            return autograd.grad(total(x), x)[0]

    else:
        raise NotImplementedError(
            f"Grad-CAM needs a gradient, and has none on the backend {backend}: tensorflow, jax or torch "
            "would be right, or `occlusion`, which needs none"
        )
    return slope


def _checked(model: keras.Model, pixels) -> np.ndarray:
    wanted, pixels = model.inputs[0].shape[1:], np.asarray(pixels)
    if pixels.ndim != 4 or pixels.shape[1:] != wanted or pixels.dtype != np.uint8 or len(pixels) == 0:
        raise ValueError(
            f"pixels of shape {pixels.shape} and type {pixels.dtype}: this model takes uint8 "
            f"(n, {', '.join(map(str, wanted))}), n at least 1"
        )
    return pixels


def _answer(model: keras.Model, output: str):
    """The symbolic tensor (n, 1) of `output`."""
    answers = model.output
    if not isinstance(answers, dict) or output not in answers:
        known = ", ".join(answers) if isinstance(answers, dict) else "no named outputs"
        raise ValueError(f"output={output!r}: this model has {known}")
    if answers[output].shape[1:] != (1,):
        raise ValueError(
            f"output={output!r} gives {answers[output].shape[1]} numbers a face: one with a single number, "
            'such as "age" or "gender", would be right'
        )
    return answers[output]


def _scored(model: keras.Model, output: str) -> keras.Model:
    """Faces to `output` before its activation, where that can be told."""
    last = model.get_layer(output)
    single = keras.Model(model.input, _answer(model, output))
    if type(last) is not layers.Dense:  # say the expectation of a distribution over ages: it has no flat ends
        return single
    linear = layers.Dense.from_config({**last.get_config(), "activation": "linear"})
    scored = keras.models.clone_model(single, clone_function=lambda layer: linear if layer is last else layer)
    linear.set_weights(last.get_weights())
    return scored


def _split(model: keras.Model, output: str) -> tuple[keras.Model, keras.Model]:
    if (halves := _halves(model)) is None:
        raise ValueError(
            f"{model.name}: no feature map of at least {SMALLEST_MAP} x {SMALLEST_MAP} cells through which "
            f"all of {output!r} passes, so no Grad-CAM; larger pictures may give one, `occlusion` needs none"
        )
    return halves


def _halves(model: keras.Model) -> tuple[keras.Model, keras.Model] | None:
    calls = []

    def call(layer, *args, **kwargs):
        result = layer(*args, **kwargs)
        calls.append((layer, keras.tree.flatten((args, kwargs)), result))
        return result

    # the same layers, called once more: so each call is seen with what it takes and gives, in order
    graph = keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)
    made_by = {id(result): layer for layer, _, result in calls}
    for layer, taken, result in reversed(calls):
        maps = [x for x in taken if isinstance(x, keras.KerasTensor) and len(x.shape) == 4]
        if len(maps) != 1 or isinstance(made_by.get(id(maps[0])), _PASSIVE):
            continue
        if isinstance(layer, keras.Model):
            inner = _halves(keras.Model(layer.inputs[0], layer.outputs[0]))
            if inner is None or (rest := _between(result, graph.output)) is None:
                continue
            features = keras.Input(inner[1].inputs[0].shape[1:])
            head = keras.Model(graph.input, inner[0](maps[0]))
            return head, keras.Model(features, rest(inner[1](features)))
        if min(maps[0].shape[1:3]) < SMALLEST_MAP or (tail := _between(maps[0], graph.output)) is None:
            continue
        head = keras.Model(graph.input, maps[0])
        if any(len(weights.shape) == 4 for weights in head.weights):  # else it is the picture itself
            return head, tail
    return None


def _between(start, end) -> keras.Model | None:
    """The model from one symbolic tensor to another, or None where `end` needs more than `start`."""
    if start is end:
        return keras.Model(start, keras.layers.Identity()(end))
    try:
        return keras.Model(start, end)
    except ValueError:  # "Graph disconnected": a way leads round `start`
        return None


def _leaves(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        else:
            yield layer
