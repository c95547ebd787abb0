"""Model A: a network of our own, trained from scratch (S1)."""

from __future__ import annotations

import keras
from keras import layers

from agegender import augment
from agegender.models import heads
from agegender.tasks import Tasks


def build(
    size: int = 128,
    width: int = 64,
    tasks: Tasks = Tasks(),
    augmentation: augment.Augmentation = augment.PRESETS["s1"],
    head: str = "dense",
    pooling: str = "flatten",
    dropout: float = 0.1,
    head_dropout: float | None = None,
    momentum: float = 0.9,
    seed: int = 0,
) -> keras.Model:
    """Faces, uint8 (n, size, size, 3), to the answers to `tasks` (see heads.answers).

    Batch norm on the input; four blocks of two (3x3 convolution, batch norm,
    ReLU) with `width`, 2, 4 and 8 times `width` filters, each closed by max
    pooling and dropout; the map, laid flat or averaged (`pooling`); the `head`.
    S1 has 128 pixels and width 64: a map of 8 x 8 enters the dense layer.
    `momentum` is batch norm's: Keras' 0.99 lags hundreds of steps behind the
    weights, which is several epochs of a few thousand faces.
    """
    if size < 16:
        raise ValueError(f"size={size}: at least 16 pixels are needed")
    if pooling not in ("flatten", "average"):
        raise ValueError(f'pooling={pooling!r}: "flatten" or "average" would be right')
    keras.utils.set_random_seed(seed)
    faces = keras.Input((size, size, 3), dtype="uint8", name="faces")
    x = augment.layer(augmentation, seed)(faces)
    x = layers.Rescaling(1 / 255)(x)
    x = layers.BatchNormalization(momentum=momentum)(x)
    for filters in (width, 2 * width, 4 * width, 8 * width):
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.BatchNormalization(momentum=momentum)(x)
            x = layers.ReLU()(x)
        x = layers.MaxPooling2D()(x)
        x = layers.Dropout(dropout)(x)
    if pooling == "flatten":
        x = layers.Flatten()(x)
    else:
        x = layers.GlobalAveragePooling2D()(x)
    said = heads.attach(head, x, tasks, head_dropout)
    return keras.Model(faces, said, name="model_a")
