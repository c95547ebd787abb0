"""Networks trained on ImageNet as feature extractors: each built, scaled for and loaded in the same way.

Names: every network of ``keras.applications``; "VGG16-fc1", VGG16 up to its first dense layer (S0);
"ResNet18" (S3), which Keras lacks; "EfficientNetLite0", a whole Keras model that is only had as a file.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import inspect
import os
import warnings
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from agegender.models import resnet18

# networks that keras.applications lacks, where their ImageNet weights are to be had, and as which file
# in $KERAS_HOME/models they are found
ELSEWHERE = {
    "EfficientNetLite0": "convert TensorFlow's checkpoint to a whole Keras model (.keras) without its top",
    "ResNet18": "get model.safetensors of timm/resnet18.tv_in1k on the Hugging Face hub, or the file of "
    "torchvision converted to .safetensors",
}
FILES = {"EfficientNetLite0": "efficientnet_lite0_224_notop.keras", "ResNet18": "resnet18.safetensors"}
LITE0_PARAMETERS = 3_413_024


def names() -> list[str]:
    """Every name that `load` knows."""
    networks = [name for name, value in vars(keras.applications).items() if inspect.isfunction(value)]
    return sorted([*networks, *ELSEWHERE, "VGG16-fc1"])


def load(name: str, size: int, weights: str = "imagenet", alpha: float = 1.0) -> keras.Model:
    """The network `name` without its top, called ``backbone``.

    Takes pictures (n, size, size, 3), float32, as the layer `scaling` gives them; gives a feature map
    (n, h, w, c), or for "VGG16-fc1" a vector (n, 4096).
    `weights`: "imagenet" (from Keras' cache, else downloaded; the networks that Keras lacks from the file
    FILES there), "imagenet-224" (those trained at 224 px, whatever `size`: of the MobileNets Keras has others
    for some sizes), "none" (random), "released" (the backbone of
    this project's released model, see models/released.py), or the path of a file: Keras
    weights without the top (for VGG16-fc1: with it); for ResNet18 also a state dict of torchvision or timm as
    .safetensors; for EfficientNetLite0 the whole model as .keras. What cannot be loaded is an error, never
    replaced by random weights. `alpha` is the width of a MobileNet; others have none.

    Raises ValueError for an unknown name, a size or alpha that the network cannot have and a file that does
    not fit, FileNotFoundError for a missing file, and RuntimeError, with ways out, where ImageNet weights can
    neither be found nor downloaded.
    """
    _check(name)
    if alpha != 1 and not _has_alpha(name):
        raise ValueError(f"alpha={alpha}: {name} has no alpha; only the MobileNets can be made narrower")
    if weights in ("imagenet", "imagenet-224") and name in ELSEWHERE:
        body = _from_file(name, size, alpha, _kept(name))
    elif weights == "imagenet":
        body = _imagenet(name, size, alpha)
    elif weights == "imagenet-224":
        trained = _imagenet(name, 224, alpha)
        body = trained if size == 224 else _random(name, size, alpha)
        body.set_weights(trained.get_weights())
    elif weights == "none":
        body = _random(name, size, alpha)
    elif weights == "released":
        body = _released(name, size, alpha)
    else:
        body = _from_file(name, size, alpha, weights)
    if name == "VGG16-fc1":
        body = keras.Model(body.input, body.get_layer("fc1").output)
    # not sooner: EfficientNetV2 chooses its own scaling by the first letter of the name it is given
    body.name = "backbone"
    return body


def scaling(name: str) -> layers.Layer:
    """The layer, float32 to float32, that makes of pixels of 0 to 255 what the network `name` was trained on.

    The identity for networks that scale by themselves (EfficientNet, ConvNeXt, MobileNetV3).
    """
    _check(name)
    if name == "EfficientNetLite0":
        return layers.Rescaling(1 / 128, -127 / 128, dtype="float32", name="scaling")
    if name == "ResNet18":
        preprocess = functools.partial(keras.applications.imagenet_utils.preprocess_input, mode="torch")
    else:
        preprocess = inspect.getmodule(_constructor(name)).preprocess_input
    # Keras' own function says it, asked for a row of four pixels: black, red, green, blue
    black, *primaries = preprocess(255 * np.eye(4, 3, -1)[None], data_format="channels_last")[0]
    slopes = (np.array(primaries) - black) / 255
    layer = layers.Rescaling if np.diag(slopes).all() else RescalingToBGR
    return layer(slopes.sum(axis=0).tolist(), black.tolist(), dtype="float32", name="scaling")


@keras.saving.register_keras_serializable("agegender")
class RescalingToBGR(layers.Rescaling):
    """Rescaling of pictures whose channels are turned from RGB to BGR first, as networks from Caffe want."""

    def call(self, pictures):
        return super().call(ops.flip(pictures, axis=-1))


def loaded(name: str, weights: str, alpha: float = 1.0) -> str:
    """In words, what `load` with these arguments starts from; a file is named with its digest."""
    _check(name)
    if kept := weights in ("imagenet", "imagenet-224") and name in ELSEWHERE:
        weights = _kept(name)
    name = _full(name, alpha)
    if weights == "none":
        return f"{name} with random weights, not pre-trained"
    if weights in ("imagenet", "imagenet-224"):
        at = ", those trained at 224 px" if weights == "imagenet-224" else ""
        return f"{name} with ImageNet weights from keras.applications{at}"
    if weights == "released":
        from agegender.models import released

        return f"{name} from {released.said()}"
    path = Path(weights).expanduser()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{name} with the {'ImageNet ' if kept else ''}weights file {path.name} (SHA-256 {digest[:16]})"


def set_batch_norm(body: keras.Model, momentum: float | None) -> None:
    """Set the momentum of every batch norm in `body`, however deep; None leaves the network's own."""
    if momentum is None:
        return
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum={momentum}: batch norm needs a momentum from 0 to below 1, or None")
    for layer in body.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = momentum
        elif hasattr(layer, "layers"):
            set_batch_norm(layer, momentum)


def _check(name: str) -> None:
    if name not in names():
        same_case = {known.lower(): known for known in names()}
        near = [same_case[n] for n in difflib.get_close_matches(name.lower(), same_case, 5, 0.5)]
        said = f"the nearest known are {', '.join(near)}; " if near else ""
        others = ", ".join([*ELSEWHERE, "VGG16-fc1"])
        raise ValueError(f"backbone={name!r}: {said}known are the networks of keras.applications, {others}")


def _constructor(name: str):
    return getattr(keras.applications, name.removesuffix("-fc1"))


def _has_alpha(name: str) -> bool:
    return name not in ELSEWHERE and "alpha" in inspect.signature(_constructor(name)).parameters


def _full(name: str, alpha: float) -> str:
    return f"{name} (alpha {alpha:g})" if _has_alpha(name) else name


def _build(name: str, size: int, alpha: float, weights: str | None = None) -> keras.Model:
    if name == "ResNet18":
        return resnet18.build(size)
    if name == "EfficientNetLite0":
        raise ValueError(f"{ELSEWHERE[name]}, and give its path as `weights`")
    options = {"alpha": alpha} if _has_alpha(name) else {}
    top = name == "VGG16-fc1"
    return _constructor(name)(weights=weights, include_top=top, input_shape=(size, size, 3), **options)


def _random(name: str, size: int, alpha: float) -> keras.Model:
    try:
        return _build(name, size, alpha)
    except ValueError as error:
        raise ValueError(f"{name} cannot be built for pictures of {size} px: {error}") from error


def _kept(name: str) -> str:
    """The file of ImageNet weights of a network that Keras lacks; RuntimeError where it is not in Keras' cache."""
    path = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "models" / FILES[name]
    if not path.is_file():
        raise RuntimeError(
            f"keras.applications has no ImageNet weights of {name}: {ELSEWHERE[name]}, and keep it as "
            f"$KERAS_HOME/models/{path.name}, or give its path as `weights`"
        )
    return str(path)


def _imagenet(name: str, size: int, alpha: float) -> keras.Model:
    if name == "VGG16-fc1" and size != 224:
        raise ValueError(f"size={size}: the ImageNet weights of VGG16-fc1 need 224 px; VGG16 takes any")
    try:
        return _build(name, size, alpha, "imagenet")
    except Exception as error:
        _random(name, size, alpha)  # a size that the network cannot have is told as such
        raise RuntimeError(
            f"the ImageNet weights of {_full(name, alpha)} at {size} px could not be loaded: {error}\n"
            "Ways out: connect to the internet once (Keras then keeps the file in $KERAS_HOME/models); "
            'or get the file of keras.applications elsewhere ("no_top", but for VGG16-fc1) and give its path '
            'as `weights`; or set weights="none" to start from random numbers, which is another experiment.'
        ) from error


def _released(name: str, size: int, alpha: float) -> keras.Model:
    from agegender.models import released

    asked = released.record()["parameters"]
    if (name, alpha) != (asked["backbone"], asked["alpha"]):
        raise ValueError(
            f"{_full(name, alpha)}: the released model is {_full(asked['backbone'], asked['alpha'])}; that, or other "
            "weights, would be right"
        )
    return released.load(size).get_layer("backbone")


def _from_file(name: str, size: int, alpha: float, weights: str) -> keras.Model:
    path = Path(weights).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f'weights={weights!r}: no such file; give "imagenet", "none" or the path of a weights file'
        )
    body = None if name == "EfficientNetLite0" else _random(name, size, alpha)
    try:
        if body is None:
            return _lite0(path, size)
        # of layers that a file leaves as they were Keras only warns: here they show as what is no number
        body.set_weights([w if w.dtype.kind != "f" else np.full_like(w, np.nan) for w in body.get_weights()])
        if name == "ResNet18" and path.suffix == ".safetensors":
            resnet18.load_state_dict(body, path)
        else:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Skipping nested container")
                body.load_weights(path)
        if empty := [v.path for v in body.weights if np.isnan(ops.convert_to_numpy(v)).any()]:
            raise ValueError(f"no values for {len(empty)} weights, the first {empty[0]}")
    except Exception as error:
        full = _full(name, alpha)
        raise ValueError(f"weights={weights!r} do not fit {full} at {size} px: {error}") from error
    _true_variance(body)
    return body


def _lite0(path: Path, size: int) -> keras.Model:
    model = keras.saving.load_model(path, compile=False)
    if model.count_params() != LITE0_PARAMETERS:
        raise ValueError(f"the model has {model.count_params():,} parameters, not {LITE0_PARAMETERS:,}")
    # paddings stay those of 224 px, which are right for every multiple of 32
    body = keras.models.clone_model(model, input_tensors=keras.Input((size, size, 3)))
    body.set_weights(model.get_weights())
    return body


def _true_variance(body: keras.Model) -> None:
    """Repair the scaling inside EfficientNetB0 to B7 after loading a file.

    Their ImageNet files hold the channels' deviations where Normalization takes variances
    (tensorflow/tensorflow issue 49930); Keras makes up for it by one more layer, but only
    where it is asked for "imagenet", not where it is given the same file.
    """
    for layer in body.layers:
        if isinstance(layer, layers.Normalization) and layer.weights:
            mean, variance, count = layer.get_weights()
            if np.allclose(variance, (0.229, 0.224, 0.225), atol=1e-4):
                layer.set_weights([mean, variance**2, count])
                layer.finalize_state()
