"""The layers that answer: one output per question, named for it."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops

from agegender.tasks import AGES, Tasks


@keras.saving.register_keras_serializable("agegender")
class Expectation(keras.layers.Layer):
    """Probabilities of ages 0, 1, 2 ... (n, ages) to the expected age in years, (n, 1)."""

    def call(self, probabilities):
        years = ops.arange(probabilities.shape[-1], dtype=probabilities.dtype)
        return ops.sum(probabilities * years, axis=-1, keepdims=True)


def answers(features, tasks: Tasks, softmax: bool = False) -> dict:
    """The outputs for `tasks` on `features` (n, units), or on a dict of them by "age" and "gender".

    Keys: "age" (n, 1) years, "age_distribution" (n, 117), "gender" (n, 1) probability of female, "age_group"
    (n, groups); float32 whatever the precision of the layers before. `softmax`: gender by two units, as S0.
    """
    given = features if isinstance(features, dict) else {"age": features, "gender": features}
    said = {}
    if tasks.age == "regression":
        start = keras.initializers.Constant(tasks.mean_age)
        unit = layers.Dense(1, activation="relu", bias_initializer=start, dtype="float32", name="age")
        said["age"] = unit(given["age"])
    if tasks.age == "distribution":
        said["age_distribution"] = _softmax(given["age"], tasks.shares(), "age_distribution")
        said["age"] = Expectation(dtype="float32", name="age")(said["age_distribution"])
    if tasks.gender and softmax:
        both = _softmax(given["gender"], np.array([0.5, 0.5]), "gender_classes")
        said["gender"] = layers.Identity(dtype="float32", name="gender")(both[:, 1:])
    elif tasks.gender:
        said["gender"] = layers.Dense(1, activation="sigmoid", dtype="float32", name="gender")(given["gender"])
    if tasks.groups:
        shares = np.bincount(tasks.group_of(np.arange(AGES)).astype(int), tasks.shares())
        said["age_group"] = _softmax(given["age"], shares, "age_group")
    return said


def _softmax(features, shares: np.ndarray, name: str):
    """Probabilities (n, classes) that start at `shares`."""
    unit = layers.Dense(len(shares), activation="softmax", dtype="float32", name=name)
    said = unit(features)
    unit.bias.assign(np.log(shares))
    return said


# The layers between features and outputs, as the source projects have them. Each takes features (n, units).


def dense(x, tasks: Tasks, dropout: float = 0.4) -> dict:
    """S1, model A: one dense layer, here of 256 units, with dropout."""
    x = layers.Dense(256, activation="relu")(x)
    return answers(layers.Dropout(dropout)(x), tasks)


def additive(x, tasks: Tasks, dropout: float = 0.3, l2: float = 1e-4) -> dict:
    """S1, model B: dense layers with L2 and batch norm, two of which the features also bypass."""

    def dense_bn(x, activation="relu"):
        x = layers.Dense(256, use_bias=False, kernel_regularizer=keras.regularizers.L2(l2))(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        return layers.Activation(activation)(x)

    x = layers.Dropout(dropout)(x)
    x = dense_bn(x)
    x = layers.add([x, dense_bn(dense_bn(x), activation="linear")])
    x = layers.ReLU()(x)
    return answers(layers.Dropout(dropout)(x), tasks)


def s0(x, tasks: Tasks, dropout: float = 0.5) -> dict:
    """S0, primary model: twice a dense layer of 256 units with batch norm and dropout."""
    for _ in range(2):
        x = layers.Dense(256, activation="relu")(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.Dropout(dropout)(x)
    return answers(x, tasks)


def s2(x, tasks: Tasks, dropout: float = 0.2) -> dict:
    """S2, ResNet-50: for each task dense layers of 256 and 16 units, the first with dropout."""
    return answers(_per_task(x, tasks, (256, 16), dropout), tasks)


def s3(x, tasks: Tasks, dropout: float = 0.0) -> dict:
    """S3: for each task dense layers of 512 and 256 units."""
    return answers(_per_task(x, tasks, (512, 256), dropout), tasks)


def s4(x, tasks: Tasks, dropout: float = 0.3) -> dict:
    """S4: a dense layer of 256 units with dropout."""
    return dense(x, tasks, dropout)


def linear(x, tasks: Tasks, dropout: float = 0.3) -> dict:
    """No hidden layer: dropout, and the outputs."""
    return answers(layers.Dropout(dropout)(x), tasks)


def _per_task(x, tasks: Tasks, units: tuple[int, ...], dropout: float) -> dict:
    found = {}
    for name, asked in (("age", tasks.age or tasks.groups), ("gender", tasks.gender)):
        if not asked:
            continue
        y = x
        for i, n in enumerate(units):
            y = layers.Dense(n, activation="relu", name=f"{name}_dense{n}")(y)
            if dropout and i == 0:
                y = layers.Dropout(dropout)(y)
        found[name] = y
    return found


HEADS = {"dense": dense, "additive": additive, "s0": s0, "s2": s2, "s3": s3, "s4": s4, "linear": linear}


def attach(head: str, x, tasks: Tasks, dropout: float | None = None) -> dict:
    """The outputs of the head called `head` (a key of HEADS) on `x`; `dropout` None: the head's own."""
    if head not in HEADS:
        raise ValueError(f"head={head!r}: one of {', '.join(HEADS)} would be right")
    return HEADS[head](x, tasks, **({} if dropout is None else {"dropout": dropout}))
