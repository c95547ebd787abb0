"""The networks: each can be read in one place."""

from __future__ import annotations

import inspect
from pathlib import Path

import pandas as pd

FILE = "model.keras"


def load(folder: Path | str):
    """The network that a finished run kept in `folder`, as a Keras model, not compiled.

    FileNotFoundError where it kept none (stored reference runs have predictions alone), ValueError for a
    file that cannot be read. Only here a framework is loaded.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise FileNotFoundError(f"no {FILE} in {path.parent}: the folder of a run that was trained here has one")
    import keras

    # these say what our own layers and losses are, which a stored model only names
    from agegender import augment, training  # noqa: F401
    from agegender.models import backbones, heads  # noqa: F401

    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # zip, HDF5 and Keras raise many kinds
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} cannot be read ({said}): run the model's notebook again") from error


def layers_table(model) -> pd.DataFrame:
    """One row per layer of a Keras model, in order: layer, output shape without the batch, parameters."""
    rows = [
        (
            type(layer).__name__ if layer.name != "backbone" else "backbone",
            layer.output.shape[1:],
            layer.count_params(),
        )
        for layer in model.layers
        if hasattr(layer, "output")
    ]
    return pd.DataFrame(rows, columns=["layer", "output", "parameters"])


def source(*parts) -> str:
    """The code of a network's functions, as Markdown: the page shows what is run, not a copy of it."""
    code = "\n\n".join(inspect.getsource(part) for part in parts)
    return f"```python\n{code}```"
