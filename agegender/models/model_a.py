"""Model A: a network of our own, trained from scratch (S1)."""

from __future__ import annotations

import keras
from keras import layers

from agegender.augment import augmentation
from agegender.models.heads import age_head, gender_head


def build(
    size: int = 128,
    width: int = 64,
    dense: int = 256,
    dropout: float = 0.1,
    dense_dropout: float = 0.4,
    momentum: float = 0.9,
    mean_age: float = 33.0,
    augment: float = 1.0,
    seed: int = 0,
) -> keras.Model:
    """Faces, uint8 (n, size, size, 3), to age in years and probability of female.

    Batch norm on the input; four blocks of two (3x3 convolution, batch norm,
    ReLU) with `width`, 2, 4 and 8 times `width` filters, each closed by max
    pooling and dropout; a dense layer with dropout; one unit per question.
    S1 has 128 pixels and width 64: a map of 8 x 8 enters the dense layer.
    `momentum` is batch norm's: Keras' 0.99 lags hundreds of steps behind the
    weights, which is several epochs of a few thousand faces.
    Output: {"age": (n, 1), "gender": (n, 1)}, float32.
    """
    if size < 16:
        raise ValueError(f"size={size}: at least 16 pixels are needed")
    keras.utils.set_random_seed(seed)
    faces = keras.Input((size, size, 3), dtype="uint8", name="faces")
    x = augmentation(augment, seed)(faces)
    x = layers.Rescaling(1 / 255)(x)
    x = layers.BatchNormalization(momentum=momentum)(x)
    for filters in (width, 2 * width, 4 * width, 8 * width):
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.BatchNormalization(momentum=momentum)(x)
            x = layers.ReLU()(x)
        x = layers.MaxPooling2D()(x)
        x = layers.Dropout(dropout)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(dense, activation="relu")(x)
    x = layers.Dropout(dense_dropout)(x)
    answers = {"age": age_head(x, mean_age), "gender": gender_head(x)}
    return keras.Model(faces, answers, name="model_a")
