"""Branched networks: a branch for each question, on a shared trunk (S2) or from the picture on (S0)."""

from __future__ import annotations

import keras
from keras import layers, ops

from agegender import augment
from agegender.metrics import S0_EDGES
from agegender.models import heads
from agegender.tasks import Tasks


def build(
    size: int = 128,
    width: int = 64,
    tasks: Tasks = Tasks(),
    augmentation: augment.Augmentation = augment.PRESETS["none"],
    momentum: float = 0.9,
    seed: int = 0,
) -> keras.Model:
    """S2's: faces, uint8 (n, size, size, 3), to the answers to `tasks` (see heads.answers).

    S2 has 128 pixels and width 64, which makes about 1.05 million parameters.
    `momentum` is batch norm's, as in model A.
    """
    if size < 56:
        raise ValueError(f"size={size}: at least 56 pixels are needed")
    keras.utils.set_random_seed(seed)
    faces = keras.Input((size, size, 3), dtype="uint8", name="faces")
    x = augment.layer(augmentation, seed)(faces)
    x = layers.Rescaling(1 / 255)(x)
    x = layers.Conv2D(width, 3, activation="relu")(x)
    x = layers.Conv2D(width, 3, activation="relu")(x)
    x = layers.MaxPooling2D()(x)
    x = layers.BatchNormalization(momentum=momentum)(x)
    x = layers.Conv2D(2 * width, 3, activation="relu")(x)
    trunk = layers.MaxPooling2D()(x)

    def branch(last: int, dropout: float, name: str):
        x = layers.Conv2D(width, 3, activation="relu", name=f"{name}_conv1")(trunk)
        x = layers.MaxPooling2D()(x)
        x = layers.BatchNormalization(momentum=momentum)(x)
        x = layers.Conv2D(2 * width, 2, activation="relu", name=f"{name}_conv2")(x)
        x = layers.MaxPooling2D()(x)
        x = layers.BatchNormalization(momentum=momentum)(x)
        x = layers.Conv2D(last, 2, activation="relu", name=f"{name}_conv3")(x)
        x = layers.Flatten()(x)
        for units in (2 * width, width // 4):
            x = layers.Dropout(dropout)(x)
            x = layers.Dense(units, activation="relu", name=f"{name}_dense{units}")(x)
        return layers.Dropout(dropout)(x)

    features = {}
    if tasks.age or tasks.groups:
        features["age"] = branch(2 * width, 0.05, "age")
    if tasks.gender:
        features["gender"] = branch(width, 0.2, "gender")
    return keras.Model(faces, heads.answers(features, tasks), name="branched")


def build_s0(
    size: int = 96,
    width: int = 64,
    tasks: Tasks = Tasks(age="", groups=S0_EDGES),
    augmentation: augment.Augmentation = augment.PRESETS["s0"],
    momentum: float = 0.9,
    seed: int = 0,
) -> keras.Model:
    """S0's: faces, uint8 (n, size, size, 3), to the answers to `tasks` (see heads.answers).

    Two branches from the picture on: gender from the grey picture, age from the
    colours. With width 64, filters are S0's; of its sizes, S0 states the filters,
    the pooling, the dense layers and the dropout.
    """
    if size < 24:
        raise ValueError(f"size={size}: at least 24 pixels are needed")
    keras.utils.set_random_seed(seed)
    faces = keras.Input((size, size, 3), dtype="uint8", name="faces")
    x = augment.layer(augmentation, seed)(faces)
    colours = layers.Rescaling(1 / 255)(x)

    def conv(x, filters, name):
        return layers.Conv2D(filters, 3, padding="same", activation="relu", name=name)(x)

    def dense(x, units):
        x = layers.Dense(units, activation="relu")(layers.Flatten()(x))
        x = layers.BatchNormalization(momentum=momentum)(x)
        return layers.Dropout(0.5)(x)

    features = {}
    if tasks.gender:
        x = ops.image.rgb_to_grayscale(colours, data_format="channels_last")
        x = conv(x, width // 2, "gender_conv1")
        x = layers.BatchNormalization(momentum=momentum)(x)
        x = layers.Dropout(0.25)(layers.MaxPooling2D(3)(x))
        x = conv(conv(x, width, "gender_conv2"), width, "gender_conv3")
        x = layers.MaxPooling2D()(x)
        x = conv(conv(x, 2 * width, "gender_conv4"), 2 * width, "gender_conv5")
        features["gender"] = dense(layers.MaxPooling2D()(x), 4 * width)
    if tasks.age or tasks.groups:
        x = layers.MaxPooling2D(3)(conv(colours, width // 4, "age_conv1"))
        x = layers.MaxPooling2D()(conv(x, width // 2, "age_conv2"))
        x = layers.MaxPooling2D()(conv(x, width // 2, "age_conv3"))
        features["age"] = dense(x, 2 * width)
    return keras.Model(faces, heads.answers(features, tasks, softmax=True), name="branched")


BUILD = {"s2": build, "s0": build_s0}
