"""Augmentation as Keras layers: part of the model, alive in training, the identity at inference."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import keras
import numpy as np
from keras import ops


FILLS = ("nearest", "reflect", "constant")
SHARES = ("brightness", "contrast", "noise", "erase")  # limits that are at most 1


@dataclass(frozen=True)
class Augmentation:
    """How far training pictures may be changed; everything is drawn anew for each picture and epoch.

    `rotation` in degrees; `zoom` and `shift` as shares of the side; `brightness` as share of white; `contrast` as
    share of the picture's own: each from minus to plus its value. `blur`: most pixels of sigma, for half of the
    batches' pictures; `noise`: most standard deviation, as share of white; `erase`: most share of a picture hidden
    under a grey rectangle, for half of them. `fill`: what comes in from outside: "nearest" (the edge's
    colour), "reflect" or "constant" (black). 0 switches a step off.
    """

    flip: bool = False
    rotation: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    erase: float = 0.0
    fill: str = "nearest"

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "fill" and value not in FILLS:
                raise ValueError(f"fill={value!r}: one of {', '.join(FILLS)} would be right")
            if not isinstance(value, str) and value < 0:
                raise ValueError(f"{field.name}={value}: a limit of 0 (off) or more would be right")
        for name in SHARES:
            if getattr(self, name) > 1:
                raise ValueError(f"{name}={getattr(self, name)}: a share of at most 1 would be right")

    def scaled(self, strength: float) -> Augmentation:
        """Every limit times `strength` (0: nothing at all); shares stop at 1."""
        if strength < 0:
            raise ValueError(f"strength={strength}: augmentation needs a strength of 0 (off) or more")
        limits = {f.name: getattr(self, f.name) * strength for f in fields(self) if f.type == "float"}
        limits = {k: min(v, 1.0) if k in SHARES else v for k, v in limits.items()}
        return replace(self, flip=self.flip and strength > 0, **limits)

    def words(self) -> dict[str, str]:
        """What may happen at most, by step, for print; steps that are off are left out."""
        percent = "± {:.0%}".format
        said = {
            "flip": "mirrored, every second time" if self.flip else "",
            "rotation": f"± {self.rotation:g}°" if self.rotation else "",
            "zoom": percent(self.zoom) if self.zoom else "",
            "shift": f"{percent(self.shift)} of the side, each way" if self.shift else "",
            "outside": {"nearest": "the edge's colour", "reflect": "reflected", "constant": "black"}[self.fill]
            if self.rotation or self.zoom or self.shift else "",
            "brightness": f"{percent(self.brightness)} of white" if self.brightness else "",
            "contrast": percent(self.contrast) if self.contrast else "",
            "blur": f"up to {self.blur:g} pixels, every second time" if self.blur else "",
            "noise": f"up to {self.noise:.0%} of white" if self.noise else "",
            "erase": f"up to {self.erase:.0%} of the picture, every second time" if self.erase else "",
        }  # fmt: skip
        return {step: text.replace("%", " %") for step, text in said.items() if text}


# What the source projects name, with limits of ours where they give none; `modern` is stronger, for recipes
# that train long enough to need it.
PRESETS = {
    "none": Augmentation(),
    "s0": Augmentation(flip=True, rotation=10.0, shift=0.08, blur=1.0, noise=0.04),
    "s1": Augmentation(flip=True, rotation=10.0, zoom=0.1, shift=0.08, brightness=0.15, contrast=0.2),
    "s4": Augmentation(flip=True, rotation=36.0, shift=0.2, contrast=0.3, fill="constant"),
    "modern": Augmentation(
        flip=True, rotation=12.0, zoom=0.12, shift=0.1, brightness=0.2, contrast=0.25, erase=0.15
    ),
}


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


@keras.saving.register_keras_serializable("agegender")
class RandomNoise(keras.layers.Layer):
    """Gaussian noise on pictures of 0 to 255, (n, height, width, channels), float32.

    Its standard deviation is drawn per picture, from 0 to `limit` as share of white; nothing outside training.
    (Keras' GaussianNoise has one strength for all pictures, and none above 1.)
    """

    def __init__(self, limit=0.05, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.limit, self.seed = limit, seed
        self.random = keras.random.SeedGenerator(seed)

    def call(self, pictures, training=False):
        if not training:
            return pictures
        sigma = keras.random.uniform((ops.shape(pictures)[0], 1, 1, 1), 0, 255 * self.limit, seed=self.random)
        noise = keras.random.normal(ops.shape(pictures), seed=self.random)
        return ops.clip(pictures + sigma * noise, 0, 255)

    def get_config(self):
        return {**super().get_config(), "limit": self.limit, "seed": self.seed}


def layer(asked: Augmentation, seed: int = 0) -> keras.Sequential:
    """The layer `augmentation`: pictures of 0 to 255, (n, size, size, 3), any dtype, to the same as float32.

    All that moves pixels is one warp; steps that are off are not in it. At inference it only casts.
    """
    common = dict(value_range=(0, 255), dtype="float32")
    if asked.flip or asked.rotation or asked.zoom or asked.shift:
        moves = (asked.flip, asked.rotation, asked.zoom, asked.shift, asked.fill)
        steps = [RandomWarp(*moves, seed=seed, dtype="float32")]
    else:
        steps = [keras.layers.Rescaling(1.0, dtype="float32")]  # nothing but the cast
    if asked.brightness:
        steps.append(keras.layers.RandomBrightness(asked.brightness, seed=seed + 1, **common))
    if asked.contrast:
        # a single factor only ever raises contrast (Keras 3.15 reads 0.2 as "0 to 0.2"), so both ends are given
        steps.append(keras.layers.RandomContrast((asked.contrast,) * 2, seed=seed + 2, **common))
    if asked.blur:
        kernel = 2 * int(np.ceil(2 * asked.blur)) + 1
        steps.append(
            keras.layers.RandomGaussianBlur(
                (0.5, 0.5), kernel_size=kernel, sigma=(0.1, asked.blur), seed=seed + 3, **common
            )
        )
    if asked.noise:
        steps.append(RandomNoise(asked.noise, seed=seed + 4, dtype="float32"))
    if asked.erase:
        # grey: with the layer's own noise, small networks from scratch learned nothing
        steps.append(
            keras.layers.RandomErasing((0.5, 0.5), scale=(min(0.02, asked.erase), asked.erase), fill_value=127.5, seed=seed + 5, **common)
        )
    return keras.Sequential(steps, name="augmentation")
