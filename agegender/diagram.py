"""A network as a picture: read from the Keras graph, layers gathered into the blocks a reader thinks in.

``blocks`` reads the graph and ``sentence`` puts it in words; the rest draws. Weights are never looked at.
"""

from __future__ import annotations

import re
import textwrap
from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from matplotlib.textpath import text_to_path

from agegender import figures
from agegender.words import listing

ARROW = " → "
FILTERS = re.compile(r"(?<=, )(\d+)")
NAMES = {"batch normalization": "batch norm", "layer normalization": "layer norm", "max pooling": "max pool",
         "average pooling": "average pool", "re lu": "ReLU", "relu": "ReLU", "leaky re lu": "leaky ReLU",
         "get item": "slice", "rgb to grayscale": "grey picture", "identity": "", "activation": "",
         "linear": "", "input layer": "", "rescaling to bgr": "rescaling to BGR"}  # fmt: skip
COLOURS = {"input": figures.GREY, "other": figures.GREY, "convolution": figures.COLOURS[0],
           "dense": figures.COLOURS[1], "model": figures.COLOURS[4],
           "output": figures.COLOURS[2]}  # fmt: skip


@dataclass(frozen=True)
class Block:
    """Layers drawn in one box. `words`: a line for each layer with weights and what follows it."""

    words: tuple[str, ...]
    kind: str  # a key of COLOURS
    shape: tuple[int | None, ...]  # of the output, without the batch
    parameters: int
    inputs: tuple[int, ...]  # the blocks it reads, by position; they come before it
    name: str = ""  # of an input or output


def network(model, title: str) -> None:
    """Show a Keras model as boxes, with their parameters in them and the shapes of their outputs below.

    `model`: functional, or sequential and built; without a graph of layers, a ValueError says so.
    """
    parts = blocks(model)
    figures._finish(_drawn(parts, title), title, sentence(model.name, parts))


# From the graph to blocks


def blocks(model) -> list[Block]:
    """The blocks of a Keras model, each after those it reads; their parameters add up to the model's."""
    if not getattr(model, "outputs", None):
        kind = type(model).__name__
        raise ValueError(f"{kind} {model.name!r} has no graph to draw: give a built functional model")
    answers = getattr(model, "output", None)
    if not isinstance(answers, dict):
        answers = {_source(tensor).operation.name: tensor for tensor in model.outputs}
    ends = defaultdict(list)  # node -> the names of what comes out of it
    for name, tensor in answers.items():
        ends[_source(tensor)].append(name)
    nodes = _in_order(list(ends))
    readers = defaultdict(set)
    for node in nodes:
        for parent in node.parent_nodes:
            readers[parent].add(node)

    finals = set()  # the last layer with weights before each output
    for node in ends:
        while _kind(node.operation) == "other" and len(set(node.parent_nodes)) == 1:
            if node.parent_nodes[0] in ends or len(readers[node.parent_nodes[0]]) > 1:
                break
            node = node.parent_nodes[0]
        finals.add(node)

    groups: list[list] = []  # of nodes
    home: dict = {}  # node -> position of its group
    for node in nodes:
        parents = set(node.parent_nodes)
        last = next(iter(parents)) if len(parents) == 1 else None
        group = groups[home[last]] if last else None
        if last is None or len(readers[last]) > 1 or last in ends or _starts(node, group, node in finals):
            home[node] = len(groups)
            groups.append([node])
        else:
            home[node] = home[last]
            group.append(node)

    counted, parts = set(), []
    for group in groups:
        own = {node.operation for node in group} - counted  # a shared layer counts once
        counted |= own
        name = " / ".join(ends.get(group[-1], ())) or (group[0].operation.name if group[0].is_input else "")
        kinds = {_kind(n.operation) for n in group} - {"other"}
        parts.append(
            Block(
                _lines([n.operation for n in group]) or (() if name else ("values unchanged",)),
                "output" if group[-1] in ends else kinds.pop() if kinds else "other",
                tuple(group[-1].outputs[0].shape[1:]),
                sum(o.count_params() for o in own if hasattr(o, "count_params")),
                tuple(dict.fromkeys(home[p] for p in group[0].parent_nodes)),
                name,
            )
        )
    return parts


def _source(tensor):
    """The node of the graph that makes a tensor; Keras has no public way to ask."""
    operation, index, _ = tensor._keras_history
    return operation._inbound_nodes[index]


def _in_order(ends: list) -> list:
    """All nodes that lead to `ends`, each after its parents, each branch in one piece."""
    order, stack = {}, ends[::-1]
    while stack:
        waiting = [parent for parent in stack[-1].parent_nodes if parent not in order]
        if waiting:
            stack.append(waiting[0])
        else:
            order[stack.pop()] = True
    return list(order)


def _kind(operation) -> str:
    name = type(operation).__name__
    if hasattr(operation, "layers"):
        return "model" if operation.count_params() else "other"
    return {"InputLayer": "input"}.get(
        name, "convolution" if "Conv" in name else "dense" if "Dense" in name else "other"
    )


def _starts(node, group: list, final: bool) -> bool:
    """Whether `node`, which reads nothing but the last node of `group`, begins a block of its own."""
    last, kind = group[-1], _kind(node.operation)
    if last.is_input or any(hasattr(n.operation, "layers") for n in (node, last)):
        return True
    if len(node.outputs[0].shape) < len(last.outputs[0].shape) == 4:  # maps become numbers
        return True
    if kind == "other":
        return False
    before = {_kind(n.operation) for n in group} - {"other"}
    if not before:  # flattening, global pooling and dropout go into the block of the dense layer after them
        return final or len(group[0].outputs[0].shape) == 4 or len(group[0].parent_nodes) > 1
    pooled = any("Pool" in type(n.operation).__name__ for n in group)
    return final or kind not in before or pooled


def _said(operation) -> str:
    """A layer in words: "conv 3×3, 64 → ReLU"; a kind not known here by the name of its class."""
    if hasattr(operation, "layers"):
        inner = [layer for layer in operation.layers if type(layer).__name__ != "InputLayer"]
        inner = f"{len(inner)} layers" if operation.count_params() else _then(*map(_said, inner))
        return f"{operation.name} ({inner})" if inner else operation.name
    name = re.sub(r"\dD", "", type(operation).__name__)
    name = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name).lower()
    said = NAMES.get(name, name)
    kernel, pool, strides = (_sides(operation, key) for key in ("kernel_size", "pool_size", "strides"))
    number = getattr(operation, "filters", None) or getattr(operation, "units", None)
    if kernel:
        said += f" {'×'.join(kernel)}" + f", {number}" * bool(number)
        said += f", stride {'×'.join(sorted(set(strides)))}" if set(strides) - {"1"} else ""
    elif pool:
        said += f" {pool[0] if len(set(pool)) == 1 else '×'.join(pool)}"
    elif number:
        said += f" {number}"
    elif isinstance(rate := getattr(operation, "rate", None), (int, float)):
        said += f" {rate:g}"
    elif name == "rescaling":
        said = _rescaled(np.unique(operation.scale), np.unique(operation.offset))
    if function := getattr(operation, "activation", None):
        function = getattr(function, "__name__", type(function).__name__)
        said = _then(said, NAMES.get(function, function.replace("_", " ")))
    return said


def _rescaled(scale: np.ndarray, offset: np.ndarray) -> str:
    """The formula of a rescaling; `scale` and `offset`: their different values."""
    if max(len(scale), len(offset)) > 1:
        return "rescaling of each channel"
    times = f" ÷ {1 / scale[0]:g}" if 0 < scale[0] < 1 else f" × {scale[0]:g}" if scale[0] != 1 else ""
    plus = f" {'−' if offset[0] < 0 else '+'} {abs(offset[0]):g}" if offset[0] else ""
    return f"values{times + plus or ' unchanged'}"


def _sides(operation, key: str) -> list[str]:
    """A size or step of a layer along each side, [] where it has none."""
    value = getattr(operation, key, None) or ()
    return [str(side) for side in (value if isinstance(value, (tuple, list)) else (value,))]


def _then(*words: str) -> str:
    return ARROW.join(filter(None, words))


def _lines(operations: list) -> tuple[str, ...]:
    """A chain of layers in words: a line for each with weights, alike ones as "2 × (...)"."""
    units, tail = [[]], []  # what comes first, then one per convolution or dense layer; from pooling on
    for operation in operations:
        kind = _kind(operation)
        if kind in ("convolution", "dense"):
            units.append([])
        pooling = kind == "other" and "Pool" in type(operation).__name__ and len(units) > 1
        (tail if tail or pooling else units[-1]).append(_said(operation))
    lines = []
    for unit, alike in groupby(_then(*unit) for unit in units[1:]):
        times = len(list(alike))
        lines.append(f"{times} × ({unit})" if times > 1 else unit)
    lines = [_then(*units[0]), *lines] if len(lines) > 1 else [_then(*units[0], *lines)]
    lines[-1] = _then(lines[-1], *tail)
    return tuple(filter(None, lines))


# From blocks to words and to a picture


def _dominators(parts: list[Block]) -> list[set[int]]:
    """For each block itself and the blocks which every path to it passes."""
    found: list[set[int]] = []
    for i, part in enumerate(parts):
        found.append({i} | (set.intersection(*(found[p] for p in part.inputs)) if part.inputs else set()))
    return found


def sentence(name: str, parts: list[Block]) -> str:
    """What the diagram shows, in words: the alt text."""
    passed = _dominators(parts)
    told: list[list] = []  # [how it begins, words of alike blocks in a row]
    for i, part in enumerate(parts):
        if part.kind == "output":
            continue
        words = ", ".join(part.words)
        reached = [other.name for other, way in zip(parts, passed) if other.kind == "output" and i in way]
        forks = len(part.inputs) == 1 and sum(other.inputs == part.inputs for other in parts) > 1
        before = f"branch to {listing(reached)}: " if forks and reached else ""
        if part.kind == "input":
            words = f"{part.name} ({_shape(part.shape)})"
        if len(part.inputs) > 1:
            around = any(p in passed[q] - {q} for p in part.inputs for q in part.inputs)
            words += f" (joins {len(part.inputs)} paths{', one of them a skip connection' * around})"
        same = told and FILTERS.sub("", words) == FILTERS.sub("", told[-1][1][-1])
        if same and not before and part.inputs == (i - 1,):
            told[-1][1].append(words)
        else:
            told.append([before, [words]])
    texts = [before + (f"{len(w)} blocks of " if len(w) > 1 else "") + _merged(w) for before, w in told]
    answers = [f"{p.name} ({', '.join(p.words)})" if p.words else p.name for p in parts if p.kind == "output"]
    total = _count(sum(part.parameters for part in parts))
    plural = "s" if len(answers) > 1 else ""
    return f"Diagram of {name}: {'; '.join(texts)}; output{plural} {listing(answers)}; {total} in all."


def _merged(alike: list[str]) -> str:
    """Texts that differ in the number of filters as one: "conv 3×3, 8/16"."""
    columns = zip(*(FILTERS.split(text) for text in alike))
    return "".join("/".join(c) if len(set(c)) > 1 else c[0] for c in columns)


def _shape(shape: tuple) -> str:
    """(64, 64, 3) as "64 × 64 × 3", (256,) as "256 numbers"."""
    sides = " × ".join("any" if side is None else str(side) for side in shape) or "1"
    return sides if len(shape) > 1 else f"{sides} number{'s' * (sides != '1')}"


def _count(parameters: int) -> str:
    for unit, name in ((1e6, " M"), (1e3, " k")):
        if parameters >= 0.9995 * unit:
            return f"{parameters / unit:.3g}{name} parameters"
    return f"{parameters} parameter{'s' * (parameters != 1)}"


SIZE = 8.6  # points: 7.5 where a page of 7 inches shrinks the picture
LINE, PAD, GAP, TRACK = 0.147, 0.05, 0.268, 0.22  # inches: a line, inside a box, between rows, beside a box
TURN = 0.65  # where between two rows an arrow turns, below the shape


def _lanes(parts: list[Block], passed: list[set[int]]) -> list[tuple[Fraction, Fraction]]:
    """Left and right of each block's lane, shares of the width: branches lie side by side and join again."""
    below = defaultdict(list)  # block (None: the top) -> blocks right below it in the tree of dominators
    for i in range(len(parts)):
        below[max(passed[i] - {i}, key=lambda k: len(passed[k]), default=None)].append(i)

    def sides(i):  # the branches of block i, and where they join
        joins = [k for k in below[i] if set(parts[k].inputs) - {i}]
        return [k for k in below[i] if k not in joins], joins

    def wide(i) -> int:
        branches, joins = sides(i)
        return max([1, sum(map(wide, branches)), *map(wide, joins)])

    lanes: dict = {None: (Fraction(0), Fraction(1))}  # exact: lanes are compared

    def place(i):
        branches, joins = sides(i)
        (left, right), total = lanes[i], sum(map(wide, branches))
        for k in branches:
            lanes[k] = (left, left := left + (right - lanes[i][0]) * wide(k) / total)
        for k in joins:
            feeding = [lanes[s] for s in below[i] if any(s in passed[p] for p in parts[k].inputs)]
            lanes[k] = (min(f[0] for f in feeding), max(f[1] for f in feeding))
        for k in below[i]:
            place(k)

    place(None)
    return [lanes[i] for i in range(len(parts))]


def _wide(text: str, weight: str = "normal") -> float:
    """Inches that a line takes."""
    font = FontProperties(size=SIZE, weight=weight)
    return text_to_path.get_text_width_height_descent(text, font, False)[0] / 72


def _wrapped(line: str, width: float) -> list[str]:
    """A line parted at its arrows where it is wider than `width` inches."""
    first, *words = line.split(ARROW)
    lines = [first]
    for word in words:
        if _wide(lines[-1] + ARROW + word) > width:
            lines.append(ARROW.lstrip() + word)
        else:
            lines[-1] += ARROW + word
    return lines


def _drawn(parts: list[Block], title: str) -> plt.Figure:
    """The figure, a unit of its axis being an inch: rows from top to bottom, a lane for each branch."""
    passed = _dominators(parts)
    lanes = _lanes(parts, passed)
    middle = [figures.WIDTH * (left + right) / 2 for left, right in lanes]
    texts, box = [], {}  # what each block says; how wide the boxes of a lane are
    for part, lane in zip(parts, lanes):
        room = min(5.0, figures.WIDTH * (lane[1] - lane[0]) - 2 * TRACK)
        said = [(part.name, "bold", "k")] * bool(part.name)
        said += [(w, "normal", "k") for line in part.words for w in _wrapped(line, room - 2 * PAD)]
        said += [(_count(part.parameters), "normal", "0.3")] * bool(part.parameters)
        texts.append(said)
        box[lane] = max([box.get(lane, 1.0), *(_wide(text, weight) + 3 * PAD for text, weight, _ in said)])
    half = [box[lane] / 2 for lane in lanes]
    tall = [LINE * len(said) + 2 * PAD for said in texts]
    top: list[float] = []
    for i, part in enumerate(parts):
        y = max((top[p] + tall[p] + GAP for p in part.inputs), default=0.0)
        for k in range(i):  # lanes that cross, as in no network of ours, make way
            if abs(middle[k] - middle[i]) < half[k] + half[i]:
                y = max(y, top[k] + tall[k] + GAP)
        top.append(y)
    bottom = [y + size for y, size in zip(top, tall)]

    end, head = max(bottom) + GAP, 0.3 + 0.2 * len(textwrap.wrap(title, 84))
    height = (end + head) / 0.98  # figures put the title 2 % below the upper edge
    figure = plt.figure(figsize=(figures.WIDTH, height), layout="none")
    axis = figure.add_axes((0, 0, 1, end / height), xlim=(0, figures.WIDTH), ylim=(end, 0))
    axis.axis("off")
    total = f"{_count(sum(part.parameters for part in parts))} in all"
    axis.text(0.01 * figures.WIDTH, -0.13, total, fontsize=SIZE, color="0.3")

    def arrow(*points):
        style = dict(arrowstyle="-|>", mutation_scale=8, color="0.3", lw=1.1, shrinkA=0, shrinkB=0)
        axis.add_patch(FancyArrowPatch(path=Path(points), joinstyle="round", **style))

    reach = [m + max(h, 0.1 + _wide(_shape(part.shape))) for m, h, part in zip(middle, half, parts)]
    beside: list[tuple] = []  # arrows that pass boxes on the right: from, to, where
    for i, part in enumerate(parts):
        edge, corner = COLOURS[part.kind], (middle[i] - half[i], top[i])
        style = dict(edgecolor=edge, facecolor=[1 - 0.2 * (1 - c) for c in edge], lw=1.2, clip_on=False)
        shape = "round,pad=0,rounding_size=0.06"
        axis.add_patch(FancyBboxPatch(corner, 2 * half[i], tall[i], boxstyle=shape, **style))
        for k, (text, weight, shade) in enumerate(texts[i]):
            style = dict(size=SIZE, color=shade, weight=weight, ha="center", va="center_baseline")
            axis.text(middle[i], top[i] + PAD + LINE * (k + 0.5), text, **style)
        axis.text(middle[i] + 0.07, bottom[i] + 0.08, _shape(part.shape), size=SIZE, va="center")
        if not any(i in other.inputs for other in parts):
            arrow((middle[i], bottom[i]), (middle[i], bottom[i] + TURN * GAP))
        joins = len(part.inputs) > 1
        for p in part.inputs:
            x, turn = (middle[p], top[i] - (1 - TURN) * GAP) if joins else (middle[i], bottom[p] + TURN * GAP)
            passed_by = [k for k in range(i) if bottom[p] < top[k] < top[i] and abs(middle[k] - x) < half[k]]
            if passed_by:
                turn, y = bottom[p] + TURN * GAP, (top[i] + bottom[i]) / 2
                x = max(reach[k] for k in (*passed_by, p, i)) + TRACK
                while any(y > a and turn < b and abs(x - other) < TRACK / 2 for a, b, other in beside):
                    x += TRACK / 2
                beside.append((turn, y, x))
                arrow((middle[p], bottom[p]), (middle[p], turn), (x, turn), (x, y), (middle[i] + half[i], y))
            elif middle[p] == middle[i]:
                arrow((middle[i], bottom[p]), (middle[i], top[i]))
            else:
                arrow((middle[p], bottom[p]), (middle[p], turn), (middle[i], turn), (middle[i], top[i]))
    return figure
