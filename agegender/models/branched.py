"""The branched network: a shared trunk, then one branch per question (S2)."""

from __future__ import annotations

import keras
from keras import layers

from agegender.augment import augmentation
from agegender.models.heads import age_head, gender_head


def build(
    size: int = 128,
    width: int = 64,
    momentum: float = 0.9,
    mean_age: float = 33.0,
    augment: float = 0.0,
    seed: int = 0,
) -> keras.Model:
    """Faces, uint8 (n, size, size, 3), to age in years and probability of female.

    S2 has 128 pixels and width 64, which makes about 1.05 million parameters,
    and no augmentation. `momentum` is batch norm's, as in model A.
    Output: {"age": (n, 1), "gender": (n, 1)}, float32.
    """
    if size < 56:
        raise ValueError(f"size={size}: at least 56 pixels are needed")
    keras.utils.set_random_seed(seed)
    faces = keras.Input((size, size, 3), dtype="uint8", name="faces")
    x = augmentation(augment, seed)(faces)
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

    age = age_head(branch(2 * width, 0.05, "age"), mean_age)
    gender = gender_head(branch(width, 0.2, "gender"))
    return keras.Model(faces, {"age": age, "gender": gender}, name="branched")
