"""Model B: a network pre-trained on ImageNet, with heads of our own (S1; S0, S2, S3 and S4 by parameters)."""

from __future__ import annotations

import keras
from keras import layers

from agegender import augment
from agegender.models import backbones, heads
from agegender.tasks import Tasks


def build(
    size: int = 128,
    backbone: str = "MobileNetV2",
    weights: str = "imagenet",
    alpha: float = 1.0,
    tasks: Tasks = Tasks(),
    augmentation: augment.Augmentation = augment.PRESETS["s1"],
    head: str = "additive",
    head_dropout: float | None = None,
    momentum: float = 0.9,
    seed: int = 0,
) -> keras.Model:
    """Faces, uint8 (n, size, size, 3), to the answers to `tasks` (see heads.answers).

    A `backbone` without its top (the layer ``backbone``) behind the scaling of
    pixels that it was trained with; its features, averaged over the picture;
    a `head` of heads.HEADS.

    `weights`: "imagenet" (from Keras' cache, else downloaded), the path of a
    weights file, or "none" (random). What cannot be loaded is an error, never
    replaced by random weights. `momentum` is that of the backbone's batch norm.
    Keras' 0.999 suits the million steps of ImageNet: in a few hundred steps of
    fine-tuning the moving averages never catch up with the weights.
    """
    keras.utils.set_random_seed(seed)
    faces = keras.Input((size, size, 3), dtype="uint8", name="faces")
    x = augment.layer(augmentation, seed)(faces)
    x = backbones.scaling(backbone)(x)
    body = backbones.load(backbone, size, weights, alpha)
    backbones.set_batch_norm(body, momentum)
    x = body(x)
    if len(x.shape) == 4:
        x = layers.GlobalAveragePooling2D()(x)
    said = heads.attach(head, x, tasks, head_dropout)
    return keras.Model(faces, said, name="model_b")
