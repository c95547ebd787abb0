"""Augmentation as Keras layers: part of the model, alive in training, the identity at inference."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable("agegender")
class RandomWarp(keras.layers.Layer):
    """Flip, rotation, zoom and shift of a batch of pictures in a single affine warp.

    One warp reads every pixel once, where Keras' four separate layers read it four times, blur it
    four times, and each switch XLA off for the whole train step.

    Input: (n, height, width, channels), any dtype; output: float32, same shape and value range.
    `rotation` in degrees, `zoom` and `shift` as shares of the side: each is drawn per picture,
    uniformly from minus to plus its value. `fill`: "reflect", "nearest" or "constant" (black, as S4).
    """

    def __init__(self, flip=True, rotation=10.0, zoom=0.1, shift=0.08, fill="nearest", seed=None, **kwargs):
        super().__init__(**kwargs)
        self.flip, self.rotation, self.zoom, self.shift, self.fill, self.seed = (
            flip,
            rotation,
            zoom,
            shift,
            fill,
            seed,
        )
        self.random = keras.random.SeedGenerator(seed)
        # TensorFlow has no XLA kernel for its projective transform; JAX has one
        self.supports_jit = keras.backend.backend() != "tensorflow"

    def call(self, pictures, training=False):
        pictures = ops.cast(pictures, "float32")
        if not training:
            return pictures
        count, height, width = ops.shape(pictures)[0], pictures.shape[1], pictures.shape[2]

        def draw(limit):
            return keras.random.uniform((count,), -limit, limit, seed=self.random)

        angle, zoom = draw(self.rotation * np.pi / 180), 1 + draw(self.zoom)
        right, down = draw(self.shift) * width, draw(self.shift) * height
        mirror = ops.where(draw(1.0) < 0, -1.0, 1.0) if self.flip else ops.ones((count,))
        # output pixel -> input pixel, about the centre: [[a b c], [d e f]]
        a, b = zoom * ops.cos(angle) * mirror, -zoom * ops.sin(angle)
        d, e = zoom * ops.sin(angle) * mirror, zoom * ops.cos(angle)
        x, y = (width - 1) / 2, (height - 1) / 2
        c, f = x - a * x - b * y + right, y - d * x - e * y + down
        zero = ops.zeros_like(a)
        matrix = ops.stack([a, b, c, d, e, f, zero, zero], axis=1)
        return ops.image.affine_transform(
            pictures, matrix, interpolation="bilinear", fill_mode=self.fill, data_format="channels_last"
        )

    def get_config(self):
        own = {k: getattr(self, k) for k in ("flip", "rotation", "zoom", "shift", "fill", "seed")}
        return {**super().get_config(), **own}


def augmentation(strength: float = 1.0, seed: int = 0) -> keras.Sequential:
    """S1's augmentation (scaling, rotation, shift, brightness, mirror), with contrast.

    Takes and gives pictures of 0 to 255, (n, size, size, 3); gives float32. `strength` scales every
    limit: 1 is the default, 0 leaves only the cast to float32.
    """
    if strength < 0:
        raise ValueError(f"strength={strength}: augmentation needs a strength of 0 (off) or more")
    layers = [
        RandomWarp(
            flip=strength > 0, rotation=10 * strength, zoom=0.1 * strength, shift=0.08 * strength, seed=seed
        )
    ]
    if strength > 0:
        layers += [
            keras.layers.RandomBrightness(min(0.15 * strength, 1.0), value_range=(0, 255), seed=seed + 1),
            # a single factor only ever raises contrast (Keras 3.15 reads 0.2 as "0 to 0.2"), so both ends are given
            keras.layers.RandomContrast((min(0.2 * strength, 1.0),) * 2, value_range=(0, 255), seed=seed + 2),
        ]
    return keras.Sequential(layers, name="augmentation")


def limits(strength: float = 1.0) -> dict[str, str]:
    """What `augmentation` may do at most at `strength`, in words by step."""
    warp, *light = augmentation(strength).layers
    said = {
        "flip": "mirrored, every second time" if warp.flip else "never",
        "rotation": f"± {warp.rotation:g}°",
        "zoom": f"± {warp.zoom:.0%}".replace("%", " %"),
        "shift": f"± {warp.shift:.0%} of the side, each way".replace("%", " %"),
    }
    for name, layer in zip(("brightness", "contrast"), light):
        said[name] = f"± {layer.factor[1]:.0%}".replace("%", " %") + (
            " of white" if name == "brightness" else ""
        )
    return said
