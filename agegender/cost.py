"""What an answer costs: operations and time of a forward pass."""

from __future__ import annotations

import math
import time

import numpy as np

SPEED_FACES = 256


def flops(model) -> int:
    """Floating-point operations of a forward pass of one picture through a Keras model.

    Two for each multiply-add of convolutions (depthwise, separable and grouped ones too) and dense layers,
    nested models included; the rest, a few percent, is left out, as is usual. Every layer counts once.
    """
    total = 0
    for layer in model.layers:
        if hasattr(layer, "layers"):
            total += flops(layer)
        elif kernels := [weight.shape for weight in layer.weights if "kernel" in weight.name]:
            # every output position takes one multiply-add per number of the kernel
            total += 2 * math.prod(layer.output.shape[1:-1]) * sum(map(math.prod, kernels))
    return total


def facts(model, pixels, rows, flip: bool = False, rounds: int = 3) -> dict[str, float]:
    """What a run's record says of the cost: "flops" of a forward pass of one picture, and "faces_per_second".

    The speed is that of ``training.predict`` on up to SPEED_FACES of `rows`, mirror images too where `flip`: the
    median of `rounds` after one for warming up, on this machine, with whatever else it was doing.
    """
    from agegender import training

    rows, seconds = np.asarray(rows)[:SPEED_FACES], []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        training.predict(model, pixels, rows, flip=flip)
        seconds.append(time.perf_counter() - began)
    return {"flops": flops(model), "faces_per_second": len(rows) / float(np.median(seconds[1:]))}
