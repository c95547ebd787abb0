"""Model B: a network pre-trained on ImageNet, with heads of our own (S1)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import keras
from keras import layers

from agegender.augment import augmentation
from agegender.models.heads import age_head, gender_head

# what each backbone wants of pixels of 0 to 255: (scale, offset)
SCALING = {"MobileNetV2": (1 / 127.5, -1.0)}


def build(
    size: int = 128,
    backbone: str = "MobileNetV2",
    weights: str = "imagenet",
    alpha: float = 1.0,
    momentum: float = 0.9,
    dense: int = 256,
    l2: float = 1e-4,
    dropout: float = 0.3,
    mean_age: float = 33.0,
    augment: float = 1.0,
    seed: int = 0,
) -> keras.Model:
    """Faces, uint8 (n, size, size, 3), to age in years and probability of female.

    A backbone of ``keras.applications`` without its top (the layer ``backbone``),
    global average pooling, a dense layer, then an additive block of two dense
    layers around which the features also pass, all with L2 and batch norm.

    `weights`: "imagenet" (from Keras' cache, else downloaded), the path of a
    weights file, or "none" (random). What cannot be loaded is an error, never
    replaced by random weights. `momentum` is that of the backbone's batch norm.
    Keras' 0.999 suits the million steps of ImageNet: in a few hundred steps of
    fine-tuning the moving averages never catch up with the weights.
    Output: {"age": (n, 1), "gender": (n, 1)}, float32.
    """
    keras.utils.set_random_seed(seed)
    faces = keras.Input((size, size, 3), dtype="uint8", name="faces")
    body = load_backbone(backbone, size, weights, alpha)
    for layer in body.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = momentum

    def dense_bn(x, units, activation="relu"):
        penalty = keras.regularizers.L2(l2)
        x = layers.Dense(units, use_bias=False, kernel_regularizer=penalty)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        return layers.Activation(activation)(x)

    x = augmentation(augment, seed)(faces)
    scale, offset = SCALING[backbone]
    x = layers.Rescaling(scale, offset)(x)
    x = body(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(dropout)(x)
    x = dense_bn(x, dense)
    x = layers.add([x, dense_bn(dense_bn(x, dense), dense, activation="linear")])
    x = layers.ReLU()(x)
    x = layers.Dropout(dropout)(x)
    answers = {"age": age_head(x, mean_age), "gender": gender_head(x)}
    return keras.Model(faces, answers, name="model_b")


def load_backbone(name: str, size: int, weights: str = "imagenet", alpha: float = 1.0) -> keras.Model:
    """A ``keras.applications`` network without its top, named ``backbone``, with the weights asked for.

    Raises ValueError for an unknown name, FileNotFoundError for a missing file, and RuntimeError, with
    ways out, where ImageNet weights can neither be found nor downloaded.
    """
    if name not in SCALING:
        raise ValueError(f"backbone={name!r}: known are {', '.join(SCALING)}")
    options = dict(include_top=False, input_shape=(size, size, 3), name="backbone")
    if name.startswith("MobileNet"):
        options["alpha"] = alpha
    constructor = getattr(keras.applications, name)
    if weights == "imagenet":
        try:
            return constructor(weights="imagenet", **options)
        except Exception as error:
            raise RuntimeError(
                f"the ImageNet weights of {name} (alpha {alpha}, {size} px) could not be loaded: {error}\n"
                "Ways out: connect to the internet once (Keras then keeps the file in $KERAS_HOME/models); "
                'or get the "no_top" file of keras.applications elsewhere and give its path as `weights`; '
                'or set weights="none" to start from random numbers, which is another experiment.'
            ) from error
    body = constructor(weights=None, **options)
    if weights != "none":
        path = Path(weights).expanduser()
        if not path.is_file():
            raise FileNotFoundError(
                f'weights={weights!r}: no such file; give "imagenet", "none" or the path of a weights file'
            )
        try:
            body.load_weights(path)
        except Exception as error:
            raise ValueError(f"weights={weights!r} do not fit {name} with alpha {alpha}: {error}") from error
    return body


def loaded(backbone: str, weights: str, alpha: float = 1.0) -> str:
    """In words, what ``build`` with these arguments starts from; a file is named with its digest."""
    name = f"{backbone} (alpha {alpha:g})" if backbone.startswith("MobileNet") else backbone
    if weights == "none":
        return f"{name} with random weights, not pre-trained"
    if weights == "imagenet":
        return f"{name} with ImageNet weights from keras.applications"
    path = Path(weights).expanduser()
    return f"{name} with the weights file {path.name} (SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()[:16]})"
