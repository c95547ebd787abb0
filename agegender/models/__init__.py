"""The networks: each can be read in one place."""

from __future__ import annotations

import inspect

import pandas as pd


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
