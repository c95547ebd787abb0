"""A trained model as one file for other programs: pixels of faces in, calibrated answers out.

The file holds what ``Trained.answers`` does: the scaling of pixels, the mean over a picture and its mirror
image where the model takes it, the temperature of gender's probability and the intervals of age; and it says
what it is, what it learned from and what it is not for. Before it is put in place its answers are compared
with the model's own.
"""

from __future__ import annotations

import importlib
import json
import time
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import layers, ops

from agegender import calibration, faces, pixels, provenance, sample
from agegender.models import backbones, heads
from agegender.places import cores, home, written_whole
from agegender.trained import RELEASED, Trained

SUFFIXES = {"onnx": ".onnx", "litert": ".tflite", "keras": ".keras"}
LIBRARIES = {"onnx": ("onnx", "tf2onnx", "onnxruntime"), "litert": ("ai_edge_litert",), "keras": ()}
OPSET = 15  # of ONNX; in runtimes since 2022
# How far answers may lie apart. float32 leaves a ten-thousandth of a year; but the last bit of a sigmoid near
# 1, which is 6e-8, becomes up to 1e-4 by a temperature of 2.
YEARS, PROBABILITY = 0.01, 1e-3
FACES, LEAST = 128, 64  # compared, where there are so many; at least
PEOPLE = 60  # drawn to compare on, if there is nothing else: about 150 pictures
USE = (
    "Teaching and study: to see how such a model is made, how far it errs and on whom. Not for decisions about "
    "a single person, a person's true age, telling a person's gender, children or their protection, sorting by "
    "race, or watching people who did not agree."
)
LICENCES = {
    faces.DRAWN: "MIT, as the code. Trained on drawn faces: it says nothing of people.",
    faces.UTKFACE: "Trained on photographs for non-commercial research only, and bound by the same.",
    faces.LABELS_CSV: "Bound by what the photographs allow that it was trained on; who gathered them has to say.",
}


def whole(model: Trained) -> keras.Model:
    """`model` with all that ``Trained.answers`` does: faces, uint8 (n, size, size, 3), to a dict of float32
    answers.

    Of "age", "age_low", "age_high" (years) and "p_female", each (n,), and "age_group" (n, groups),
    probabilities, those that the model tells. It is made of Keras' own layers and operations, so that a file
    of it opens without this package; augmentation is left out.
    """
    network = keras.models.clone_model(model.network, clone_function=_plain)
    pictures = keras.Input((model.size, model.size, 3), dtype="uint8", name="faces")
    both = ops.concatenate([pictures, ops.flip(pictures, axis=2)], axis=0) if model.flip else pictures
    said = {
        name: ops.mean(ops.reshape(value, (2, -1, value.shape[-1])), axis=0) if model.flip else value
        for name, value in network(both).items()
    }
    answers = {}
    if "age" in said:
        answers["age"] = age = said["age"][:, 0]
        if model.calibration.intervals:
            reach = _reach(age, model.calibration.intervals)
            answers["age_low"], answers["age_high"] = ops.maximum(age - reach, 0.0), age + reach
    if "gender" in said:
        p = said["gender"][:, 0]
        if model.calibration.temperature:
            p = ops.clip(p, calibration.TINY, 1 - calibration.TINY)
            p = ops.sigmoid((ops.log(p) - ops.log(1 - p)) / model.calibration.temperature)
        answers["p_female"] = p
    if "age_group" in said:
        answers["age_group"] = said["age_group"]
    return keras.Model(pictures, answers, name="answers")


def _plain(layer):
    """The layer itself, or what does the same at inference with Keras' own alone."""
    if layer.name == "augmentation":
        return layers.Rescaling(1.0, dtype="float32", name=layer.name)  # nothing but the cast
    if isinstance(layer, heads.Expectation):
        years = layers.Dense(1, use_bias=False, dtype="float32", name=layer.name)
        years.build(layer.input.shape)
        years.set_weights([np.arange(layer.input.shape[-1], dtype=np.float32)[:, None]])
        return years
    if isinstance(layer, backbones.RescalingToBGR):
        pictures = keras.Input(layer.input.shape[1:])
        scaled = layers.Rescaling(layer.scale, layer.offset, dtype="float32")(ops.flip(pictures, axis=-1))
        return keras.Model(pictures, scaled, name=layer.name)
    if isinstance(layer, layers.Normalization):  # its numbers are no weights, and tf2onnx loses them
        mean, variance = (np.ravel(ops.convert_to_numpy(part)) for part in (layer.mean, layer.variance))
        scale = 1 / np.maximum(np.sqrt(variance), keras.config.epsilon())
        return layers.Rescaling(scale.tolist(), (-mean * scale).tolist(), dtype="float32", name=layer.name)
    if isinstance(layer, keras.Model):
        return keras.models.clone_model(layer, clone_function=_plain)
    return layer


def _reach(age, intervals: calibration.AgeIntervals):
    """How many years the interval goes to either side of each age; infinite where it has no limit."""
    # chosen as its reciprocal: LiteRT's converter makes a number of 38 digits of an infinite constant
    with np.errstate(divide="ignore"):
        nearness = (1 / intervals.reach["reach"]).tolist()
    found = nearness[0]
    for (low, _), value in zip(faces.AGE_BANDS[1:], nearness[1:], strict=True):
        found = ops.where(age >= low, value, found)
    return 1 / found


def in_float32(model: Trained) -> Trained:
    """`model` computing in float32 throughout, which the formats want; itself where it does so already."""
    how = model.network.to_json()
    if "bfloat16" not in how:
        return model
    how = how.replace('"mixed_bfloat16"', '"float32"').replace('"bfloat16"', '"float32"')
    network = keras.models.model_from_json(how)
    network.set_weights(model.network.get_weights())
    return replace(model, network=network)


def about(model: Trained) -> dict[str, Any]:
    """What a file says of itself, as JSON has it: input, outputs, calibration, data, licence, versions."""
    record, facts, learnt = model.record, model.record["facts"], model.calibration
    data = facts["data"]
    kind = faces.DRAWN if data["drawn"] else data.get("kind", faces.UTKFACE)
    like = f"of faces like the {learnt.faces:,} validation faces"
    outputs = {}
    if "age" in model.outputs:
        outputs["age"] = "years, as the face looks"
        if learnt.intervals:
            share = f"{1 - learnt.intervals.alpha:.0%}".replace("%", " %")
            outputs["age_low"] = f"years; from here to age_high lies the labelled age of {share} {like}"
            outputs["age_high"] = "years; infinite: without limit"
    if "gender" in model.outputs:
        how = "not calibrated"
        if learnt.temperature:
            how = f"calibrated by a temperature of {learnt.temperature:.3f}"
        outputs["p_female"] = f"probability that the label is female, not male; {how}"
    if model.groups:
        outputs["age_group"] = f"probability of each age group, in years: {', '.join(model.groups)}"
    shape = f"(n, {model.size}, {model.size}, 3)"
    return provenance.plain({
        "title": model.title,
        "input": f"faces: uint8 {shape}, RGB, 0 to 255; square crops like those it learned from",
        "outputs": outputs,
        "age_groups": model.groups,
        "size": model.size,
        "mean_over_mirror_image": model.flip,
        "calibration": learnt.to_json(),
        "data": {key: data[key] for key in ("title", "kind", "drawn", "digest") if key in data},
        "split": facts["split"],
        "weights_before": facts.get("weights", "unknown"),
        "licence": LICENCES.get(kind, LICENCES[faces.UTKFACE]),
        "intended_use": USE,
        "code": record.get("code", {}),
        "versions": {"trained": record.get("versions", {}), "exported": provenance.versions()},
    })  # fmt: skip


def card(model: Trained) -> str:
    """A card of the model in Markdown: what it takes and gives, what for, and the errors that its record has."""
    said, facts = about(model), model.record["facts"]
    split = facts["split"]
    lines = [
        f"# {said['title']}",
        f"**Intended use.** {USE}",
        f"**Licence.** {said['licence']}",
        f"**Input.** {said['input']}.",
        "\n".join(["**Outputs.**", "", *(f"- `{name}`: {what}" for name, what in said["outputs"].items())]),
        f"**Training.** Faces: {said['data']['title']}; split {split.get('digest', 'unknown')}. "
        f"Started from: {said['weights_before']}.",
    ]
    errors = {
        "val_age_MAE": "mean error of age {:.2f} years", "val_gender_accuracy": "{:.1%} of genders right",
        "val_age_group_accuracy": "{:.1%} in the right age group",
    }  # fmt: skip
    if told := "; ".join(text.format(facts[name]) for name, text in errors.items() if name in facts):
        told = told.replace("%", " %")
        lines.append(f"**Errors** on its {split['val']:,} validation faces, which chose the epoch: {told}.")
    if model.name == RELEASED:
        from agegender import reference

        if (home() / reference.RELEASED).is_file():
            lines.append(reference.card())
    return "\n\n".join(lines) + "\n"


def pictures(model: Trained, data: str = "") -> tuple[np.ndarray, str]:
    """Faces to compare answers on, uint8 (n, size, size, 3), LEAST or more, and whose they are.

    Those in `data` (see ``faces.read``); without it those of the model's own run, or drawn ones where these
    are not at hand. ValueError or FileNotFoundError for a `data` that has too few.
    """
    source, why = data or model.record["parameters"].get("data", ""), ""
    if source != "sample":
        try:
            found = pixels.open_pictures(faces.read(source, limit=FACES), model.size, progress=False)
            if len(found.pixels) < LEAST:
                raise ValueError(f"{source} has {len(found.pixels)} faces; {LEAST} are needed to compare")
            return np.array(found.pixels), f"faces of {found.faces.title}"
        except (OSError, ValueError):
            if data:
                raise
            why = "; those of its run are not at hand"
    drawn = faces.read(sample.folder(PEOPLE), limit=FACES)
    return np.array(pixels.open_pictures(drawn, model.size, progress=False).pixels), f"drawn faces{why}"


@dataclass(frozen=True)
class Exported:
    """What is known of a file: its bytes, how far its answers lie from the model's own on `compared` faces,
    and how many faces a second it and the model told here (their mirror images too, where the model looks at
    these)."""

    path: Path
    size: int
    years: float
    probability: float
    compared: int
    speed: float
    speed_before: float


def export(model: Trained, to: str, path: Path | str, compare: np.ndarray) -> Exported:
    """Write `model` to `path` as `to` (a key of SUFFIXES), if its answers about the faces `compare` are the
    model's.

    They are uint8 (n, size, size, 3). A network trained in mixed precision computes in float32 in the file,
    and is compared in float32. Raises ModuleNotFoundError where a library is missing, and ValueError where
    the network cannot be had in that format or the file answers otherwise; then nothing is written, and what
    was at `path` stays.
    """
    path = Path(path)
    _check(to, path)
    model = in_float32(model)
    expected = model.answers(compare)
    with written_whole(path) as part:
        try:
            _convert(whole(model), to, part)
            _sign(part, to, about(model), card(model))
            answer = reopen(part)
            said = answer(compare)
        except Exception as error:  # converters and runtimes raise many kinds
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"{model.name} cannot be exported to {to}: {reason}") from error
        years, probability = apart(said, expected, model.groups)
        if not (years <= YEARS and probability <= PROBABILITY):
            raise ValueError(
                f"the {to} file answers otherwise than {model.name}: up to {years:.2g} years and {probability:.2g} "
                f"of probability apart, where {YEARS:g} and {PROBABILITY:g} would be right; it was not kept"
            )
        speed, before = _speeds((answer, model.answers), compare[:LEAST])
        size = part.stat().st_size
    return Exported(path, size, years, probability, len(compare), speed, before)


def reopen(path: Path | str) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """An exported file as a function: faces, uint8 (n, size, size, 3), to its answers by name, float32."""
    path = Path(path)
    if path.suffix == SUFFIXES["onnx"]:
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return lambda given: dict(zip(names, session.run(names, {"faces": given})))
    if path.suffix == SUFFIXES["litert"]:
        from ai_edge_litert.interpreter import Interpreter

        run = Interpreter(str(path), num_threads=cores()).get_signature_runner()
        return lambda given: run(faces=given)
    network = keras.saving.load_model(path, compile=False, safe_mode=True)
    return lambda given: network.predict(given, verbose=0)


def apart(
    answers: dict[str, np.ndarray], expected: pd.DataFrame, groups: tuple[str, ...] = ()
) -> tuple[float, float]:
    """How far `answers` of a file lie from `expected`, those of ``Trained.answers``, at most: in years, and
    in probability.

    An interval of a face whose age is within YEARS of the next band may be the next band's, and is not
    compared. Of age `groups`: by how much another is likelier than the expected one. NaN where an answer is
    missing or no number.
    """
    edges = np.array([low for low, _ in faces.AGE_BANDS[1:]])
    clear = ~(np.abs(expected["age"].to_numpy()[:, None] - edges).min(axis=1) <= YEARS)
    found: dict[str, list[float]] = {"years": [0.0], "probability": [0.0]}
    for name in ("age", "age_low", "age_high", "p_female"):
        if name not in answers and expected[name].isna().all():
            continue
        ours, theirs = np.asarray(answers.get(name, np.nan), np.float64), expected[name].to_numpy()
        with np.errstate(invalid="ignore"):
            gap = np.where(ours == theirs, 0, np.abs(ours - theirs))  # infinite ones are equal, too
        unit = "probability" if name == "p_female" else "years"
        found[unit].append(np.max(gap[clear] if name in ("age_low", "age_high") else gap, initial=0))
    if groups:
        shares = np.broadcast_to(answers.get("age_group", np.nan), (len(expected), len(groups)))
        at = [groups.index(name) for name in expected["age_group"]]
        found["probability"].append(np.max(shares.max(axis=1) - shares[np.arange(len(at)), at]))
    return float(np.max(found["years"])), float(np.max(found["probability"]))


def _check(to: str, path: Path) -> None:
    if to not in SUFFIXES:
        raise ValueError(f"to={to!r}: one of {', '.join(SUFFIXES)} would be right")
    if path.suffix != SUFFIXES[to]:
        raise ValueError(f"{path.name}: a name that ends with {SUFFIXES[to]} would be right for {to}")
    for name in LIBRARIES[to]:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ModuleNotFoundError(
                f"{to} needs {', '.join(LIBRARIES[to])} ({error}): pip install -e '.[export]' would be right"
            ) from error
    if to != "keras" and keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"{to} is written by way of TensorFlow, and Keras computes with {keras.backend.backend()}: "
            "KERAS_BACKEND=tensorflow would be right, whatever the model was trained with"
        )


def _convert(network: keras.Model, to: str, path: Path) -> None:
    if to == "keras":
        network.save(path)
        return
    # said beforehand: Keras asks it of a network that was never called
    faces = keras.InputSpec(dtype="uint8", shape=network.input_shape, name="faces")
    options = {"opset_version": OPSET} if to == "onnx" else {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "In the future `np.object`")  # Keras' own, on account of tf2onnx
        network.export(path, format=to, input_signature=[faces], verbose=False, **options)


def _sign(path: Path, to: str, said: dict[str, Any], text: str) -> None:
    """Put what the file says of itself into it: ONNX's own properties, or about.json and card.md in a ZIP
    archive: a Keras file is one, and one behind a LiteRT model is what TFLite's metadata are read from."""
    if to != "onnx":
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("about.json", json.dumps(said, indent=2, allow_nan=False))
            archive.writestr("card.md", text)
        return
    import onnx

    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in said.items()}
    onnx.helper.set_model_props(model, texts | {"card": text})
    model.graph.name, model.doc_string = "agegender", said["title"]
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _speeds(functions: tuple[Callable, ...], given: np.ndarray, rounds: int = 3) -> list[float]:
    """Faces a second of each of `functions`: medians of `rounds` in turn, so that other work slows all alike."""
    seconds = [[] for _ in functions]
    for _ in range(rounds + 1):
        for function, taken in zip(functions, seconds):
            began = time.perf_counter()
            function(given)
            taken.append(time.perf_counter() - began)
    return [len(given) / float(np.median(taken[1:])) for taken in seconds]
