"""The released model: small enough for the repository, for use as it is or as a starting point.

Model B trained on UTKFace, its kernels kept as float16 in ``weights/released.safetensors`` beside the record of the run
that made it (``released.json``) and of how far its answers may be trusted (``released_calibration.json``). The photographs it learned from are for non-commercial research only: so is the model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from agegender import augment
from agegender.models import model_b
from agegender.places import written_whole
from agegender.tasks import Tasks

FOLDER = Path(__file__).with_name("weights")
NAME = "released"
LARGEST = 10 * 2**20  # bytes of the file


def record() -> dict[str, Any]:
    """The provenance of the run that made the model; FileNotFoundError where none is kept."""
    path = FOLDER / f"{NAME}.json"
    if not path.is_file():
        raise FileNotFoundError(f"no {path.name} in {FOLDER.name}: this copy holds no released model")
    return json.loads(path.read_text(encoding="utf-8"))


def calibration() -> dict[str, Any]:
    """What the run's validation faces say of its answers, see ``trained.Calibration``; FileNotFoundError without it."""
    path = FOLDER / f"{NAME}_calibration.json"
    if not path.is_file():
        raise FileNotFoundError(f"no {path.name} in {FOLDER.name}: this copy holds no released model")
    return json.loads(path.read_text(encoding="utf-8"))


def load(size: int = 0) -> keras.Model:
    """The released model: faces, uint8 (n, size, size, 3), to its answers (see heads.answers); not compiled.

    `size`: pixels per side, 0 for the size it was trained at. Raises FileNotFoundError where it is not kept and
    ValueError where the file does not fit its record.
    """
    how = record()
    model = _built(how, size or how["parameters"]["size"])
    path = FOLDER / f"{NAME}.safetensors"
    try:
        kept = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path.name} cannot be read ({error}): get the file anew from the repository") from error
    names = _names(model)
    shapes = {name: weight.shape for name, weight in zip(names, model.weights)}
    if {name: values.shape for name, values in kept.items()} != shapes:
        raise ValueError(f"{path.name} holds other weights than {NAME}.json says: get both from one commit")
    model.set_weights([kept[name].astype(np.float32) for name in names])
    return model


def said() -> str:
    """In words, what starting from the released model means."""
    facts = record()["facts"]
    return (
        f"the released model ({facts['weights']}, then trained on {facts['split']['train']:,} faces of "
        f"{facts['data']['title']} with {facts['split']['val']:,} to choose the epoch, split "
        f"{facts['split']['digest']}; where another split tests on these, they are not unseen)"
    )


def save(run: Path | str) -> Path:
    """Keep the model of a finished run of 04_model_b as the released one, in float16; returns the file.

    ValueError where it would be larger than LARGEST, or where float16 cannot hold a weight.
    """
    from agegender import predictions, trained
    from agegender.reopened import load as of_run

    run = Path(run)
    how = json.loads((run / "provenance.json").read_text(encoding="utf-8"))
    network, fresh = of_run(run), _built(how, how["parameters"]["size"])
    learnt = trained.calibrated(predictions.read(run)).to_json()
    # vectors stay as they are: batch norm's variances are too small for float16
    weights = [w.astype(np.float16) if w.ndim > 1 else w for w in map(np.asarray, network.get_weights())]
    if [w.shape for w in weights] != [tuple(w.shape) for w in fresh.weights]:
        raise ValueError(f"{run.name}: its record does not describe its network; a run of 04_model_b is right")
    if not all(np.isfinite(w).all() for w in weights):
        raise ValueError(f"{run.name}: a weight is too large for float16")
    if (size := sum(w.nbytes for w in weights)) > LARGEST:
        raise ValueError(f"{run.name}: {size / 2**20:.1f} MiB in float16; at most {LARGEST / 2**20:.0f} would be right")
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{NAME}.safetensors"
    with written_whole(path) as part:
        save_file(dict(zip(_names(fresh), weights)), part)
        part.chmod(0o644)  # safetensors makes it its owner's alone
    for name, content in ((NAME, how), (f"{NAME}_calibration", learnt)):
        with written_whole(FOLDER / f"{name}.json") as part:
            part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def _built(how: dict[str, Any], size: int) -> keras.Model:
    asked, facts = how["parameters"], how["facts"]
    outputs = facts["tasks"]
    age = "distribution" if "age_distribution" in outputs else "regression" if "age" in outputs else ""
    return model_b.build(
        size, asked["backbone"], "none", asked["alpha"], augmentation=augment.PRESETS["none"],
        tasks=Tasks(age, "gender" in outputs, tuple(facts["age_groups"])), **facts["network"],
    )  # fmt: skip


def _names(model: keras.Model) -> list[str]:
    """A name for each weight that does not change with what else was built before: its place and its own name."""
    return [f"{i:03d} {weight.name}" for i, weight in enumerate(model.weights)]
