"""The pre-trained networks: what they take, what they give, and that a file is really what is loaded."""

from __future__ import annotations

import functools
import hashlib
import inspect

import h5py
import keras
import numpy as np
import pytest
from keras import layers
from safetensors.numpy import save_file

from agegender.models import backbones

APPLICATIONS = [name for name in backbones.names() if name not in (*backbones.ELSEWHERE, "VGG16-fc1")]


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype("float32")


def of_type(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


def test_every_network_of_keras_is_known():
    public = {n for n in dir(keras.applications) if n[0].isupper()}
    assert set(APPLICATIONS) == public and len(public) >= 40
    assert set(backbones.names()) - public == {"ResNet18", "VGG16-fc1", "EfficientNetLite0"}


@pytest.mark.parametrize("name", APPLICATIONS)
def test_scaling_is_keras_own(name, pixels):
    preprocess = inspect.getmodule(getattr(keras.applications, name)).preprocess_input
    layer = backbones.scaling(name)
    wanted = preprocess(pixels.copy())
    assert np.allclose(layer(pixels), wanted, atol=2e-5)
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert np.allclose(again(pixels), wanted, atol=2e-5)


def test_scaling_in_figures():
    white_red = np.array([[[[255, 255, 255], [255, 0, 0]]]], "float32")

    def scaled(name):
        return np.asarray(backbones.scaling(name)(white_red))[0, 0]

    assert scaled("MobileNetV2").tolist() == [[1, 1, 1], [1, -1, -1]]
    caffe = [[151.061, 138.221, 131.32], [-103.939, -116.779, 131.32]]  # blue, green, red
    assert scaled("VGG16") == pytest.approx(np.array(caffe), abs=1e-4)
    assert (scaled("VGG16-fc1") == scaled("VGG16")).all()
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # torchvision's
    assert scaled("ResNet18") == pytest.approx((white_red[0, 0] / 255 - mean) / std, abs=1e-5)
    assert scaled("EfficientNetV2S").tolist() == white_red[0, 0].tolist()
    assert scaled("EfficientNetLite0") == pytest.approx((white_red[0, 0] - 127) / 128)
    assert backbones.scaling("ResNet50").compute_dtype == "float32"  # also where the policy is mixed


@pytest.mark.parametrize(
    ("name", "parameters", "channels"),
    [
        ("VGG16", 14_714_688, 512),
        ("ResNet18", 11_186_112, 512),
        ("ResNet50", 23_587_712, 2048),
        ("MobileNetV2", 2_257_984, 1280),
        ("EfficientNetV2S", 20_331_360, 1280),
    ],
)
def test_networks_of_the_source_projects(name, parameters, channels):
    body = backbones.load(name, 64, "none")
    assert body.name == "backbone" and body.count_params() == parameters
    assert body.output_shape == (None, 2, 2, channels)


def test_efficientnets_scale_by_themselves_as_they_were_trained():
    # Keras would take a network called "backbone" for one of B0 to B3
    small = backbones.load("EfficientNetV2S", 32, "none")
    (rescaling,) = of_type(small, layers.Rescaling)
    assert (rescaling.scale, rescaling.offset) == (1 / 128, -1) and not of_type(small, layers.Normalization)
    assert len(of_type(backbones.load("EfficientNetV2B0", 32, "none"), layers.Normalization)) == 1


def test_vgg16_with_its_first_dense_layer():
    body = backbones.load("VGG16-fc1", 32, "none")
    assert body.name == "backbone" and body.output_shape == (None, 4096)
    assert body.count_params() == 14_714_688 + (512 + 1) * 4096
    with pytest.raises(ValueError, match="size=128.*224 px"):
        backbones.load("VGG16-fc1", 128)


def test_what_cannot_be_built_is_said():
    with pytest.raises(ValueError, match="nearest known are .*ResNet18.*known are the networks"):
        backbones.load("resnet-18", 64)
    with pytest.raises(ValueError, match="backbone='VGG99'.*VGG16"):
        backbones.scaling("VGG99")
    for weights in ("none", "imagenet"):
        with pytest.raises(ValueError, match="InceptionV3 cannot be built for pictures of 64 px.*75x75"):
            backbones.load("InceptionV3", 64, weights)
    with pytest.raises(ValueError, match="ResNet18 cannot be built for pictures of 16 px.*32x32"):
        backbones.load("ResNet18", 16, "none")
    with pytest.raises(ValueError, match="alpha=0.5: ResNet18 has no alpha"):
        backbones.load("ResNet18", 64, "none", 0.5)
    with pytest.raises(RuntimeError, match="timm/resnet18.tv_in1k.*as `weights`"):
        backbones.load("ResNet18", 64)
    with pytest.raises(ValueError, match="EfficientNetLite0 cannot be built.*give its path"):
        backbones.load("EfficientNetLite0", 64, "none")


def test_weights_that_cannot_be_loaded_are_errors_with_a_way_out(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="none.h5"):
        backbones.load("MobileNetV2", 48, str(tmp_path / "none.h5"))
    for name, file in (
        ("MobileNetV2", "bad.h5"),
        ("ResNet18", "bad.safetensors"),
        ("EfficientNetLite0", "bad.keras"),
    ):
        (tmp_path / file).write_text("no weights")
        with pytest.raises(ValueError, match=f"{file}' do not fit {name}.* at 48 px"):
            backbones.load(name, 48, str(tmp_path / file))
    real = keras.applications.MobileNetV2

    @functools.wraps(real)
    def no_network(*args, weights, **kwargs):
        if weights == "imagenet":
            raise OSError("no network")
        return real(*args, weights=weights, **kwargs)

    monkeypatch.setattr(keras.applications, "MobileNetV2", no_network)
    with pytest.raises(RuntimeError, match='(?s)alpha 0.5.*no network.*Ways out.*weights="none"'):
        backbones.load("MobileNetV2", 48, "imagenet", 0.5)


def test_a_weights_file_is_really_loaded_and_named(imagenet_file):
    body = backbones.load("MobileNetV2", 96, str(imagenet_file), 0.35)
    with h5py.File(imagenet_file) as file:
        stored = {}
        file.visititems(lambda name, item: stored.update({name: item[()]} if hasattr(item, "shape") else {}))
    assert sum(np.size(values) for values in stored.values()) == body.count_params()
    (first,) = (values for name, values in stored.items() if name.startswith("Conv1/"))
    assert (body.get_layer("Conv1").get_weights()[0] == first).all()
    said = backbones.loaded("MobileNetV2", str(imagenet_file), 0.35)
    digest = hashlib.sha256(imagenet_file.read_bytes()).hexdigest()[:16]
    assert said == f"MobileNetV2 (alpha 0.35) with the weights file {imagenet_file.name} (SHA-256 {digest})"
    with pytest.raises(ValueError, match=r"0.35_224_no_top.h5' do not fit MobileNetV2 \(alpha 1\) at 96 px"):
        backbones.load("MobileNetV2", 96, str(imagenet_file))


def test_imagenet_weights_of_224_pixels_serve_any_size(imagenet_file, tmp_path, monkeypatch):
    """At 128 pixels Keras takes another file; these are in its cache under the name that it gives them."""
    real = keras.applications.MobileNetV2
    monkeypatch.setattr(
        keras.applications, "MobileNetV2",
        functools.wraps(real)(lambda weights=None, input_shape=None, **more: real(
            weights=str(imagenet_file) if (weights, input_shape) == ("imagenet", (224, 224, 3)) else weights,
            input_shape=input_shape, **more)),
    )  # fmt: skip
    body = backbones.load("MobileNetV2", 64, "imagenet-224", 0.35)
    kept = backbones.load("MobileNetV2", 64, str(imagenet_file), 0.35)
    assert body.output.shape == (None, 2, 2, 1280) and body.name == "backbone"
    assert all(np.array_equal(a, b) for a, b in zip(body.get_weights(), kept.get_weights()))
    assert backbones.loaded("MobileNetV2", "imagenet-224", 0.35).endswith("ImageNet weights from keras.applications, those trained at 224 px")


def test_what_keras_lacks_is_found_in_its_cache(lite0_file, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"no ImageNet weights of EfficientNetLite0: .*\$KERAS_HOME/models/efficientnet_lite0"):
        backbones.load("EfficientNetLite0", 64, "imagenet")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / lite0_file.name).symlink_to(lite0_file)
    body = backbones.load("EfficientNetLite0", 64, "imagenet")
    assert body.output.shape[1:] == (2, 2, 1280)
    assert "ImageNet weights file efficientnet_lite0_224_notop.keras (SHA-256 " in backbones.loaded("EfficientNetLite0", "imagenet")


def test_what_was_loaded_in_words():
    assert backbones.loaded("VGG16", "imagenet") == "VGG16 with ImageNet weights from keras.applications"
    assert (
        backbones.loaded("MobileNet", "none", 0.5)
        == "MobileNet (alpha 0.5) with random weights, not pre-trained"
    )


def test_a_whole_model_as_a_file(lite0_file):
    whole = keras.saving.load_model(lite0_file, compile=False)
    noise = np.random.default_rng(1).normal(size=(1, 224, 224, 3)).astype("float32")
    body = backbones.load("EfficientNetLite0", 224, str(lite0_file))
    assert np.allclose(body(noise), whole(noise), atol=1e-5)
    assert backbones.load("EfficientNetLite0", 96, str(lite0_file)).output_shape == (None, 3, 3, 1280)
    with pytest.raises(ValueError, match="lite0.* do not fit ResNet18"):
        backbones.load("ResNet18", 96, str(lite0_file))


@pytest.mark.parametrize("ending", [".h5", ".weights.h5", ".keras"])
def test_files_of_keras(ending, tmp_path, pixels):
    path = tmp_path / f"resnet18{ending}"
    body = backbones.load("ResNet18", 32, "none")
    body.save_weights(path) if ending == ".weights.h5" else body.save(path)
    again = backbones.load("ResNet18", 64, str(path))
    assert all((a == b).all() for a, b in zip(again.get_weights(), body.get_weights(), strict=True))
    weights = body.get_weights()
    weights[7][:] = np.nan
    body.set_weights(weights)
    body.save_weights(path) if ending == ".weights.h5" else body.save(path)
    with pytest.raises(ValueError, match="do not fit ResNet18 at 64 px: no values for 1 weights"):
        backbones.load("ResNet18", 64, str(path))


def test_efficientnet_from_a_file_is_scaled_as_with_imagenet(tmp_path, pixels):
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    body = backbones.load("EfficientNetB0", 32, "none")
    (norm,) = of_type(body, layers.Normalization)
    norm.set_weights([mean, std, np.array(1)])  # as in Keras' file: deviations, not variances
    body.save_weights(tmp_path / "b0.weights.h5")
    again = backbones.load("EfficientNetB0", 32, str(tmp_path / "b0.weights.h5"))
    rescaling, norm = again.layers[1:3]
    assert np.allclose(norm(rescaling(pixels)), (pixels / 255 - mean) / std, atol=1e-5)


def test_batch_norm_momentum_however_deep():
    inner = backbones.load("MobileNetV2", 32, "none", 0.35)
    outer = keras.Sequential([keras.Input((32, 32, 3)), inner])
    norms = of_type(inner, layers.BatchNormalization)
    backbones.set_batch_norm(outer, None)
    assert {norm.momentum for norm in norms} == {0.999}
    backbones.set_batch_norm(outer, 0.9)
    assert {norm.momentum for norm in norms} == {0.9}
    with pytest.raises(ValueError, match="momentum=1.5"):
        backbones.set_batch_norm(outer, 1.5)


@pytest.mark.parametrize("name", ["VGG16", "ResNet18"])
def test_scaling_and_body_can_be_stored_together(name, tmp_path):
    faces = keras.Input((32, 32, 3), dtype="uint8")
    model = keras.Model(faces, backbones.load(name, 32, "none")(backbones.scaling(name)(faces)))
    noise = np.random.default_rng(2).integers(0, 256, (2, 32, 32, 3), np.uint8)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.get_layer("backbone").name == "backbone"
    assert np.allclose(again(noise), model(noise), atol=1e-4)


# ResNet18 with torchvision's names and order of axes, evaluated by NumPy alone
NORM = ("weight", "bias", "running_mean", "running_var")


def torch_tensors(seed=0):
    """Random tensors under the names, in the shapes and in the order of torchvision's resnet18()."""
    rng = np.random.default_rng(seed)
    tensors = {}

    def conv(name, out, inn, kernel):
        scale = np.float32(np.sqrt(2 / (inn * kernel**2)))
        tensors[f"{name}.weight"] = scale * rng.standard_normal((out, inn, kernel, kernel), np.float32)

    def norm(name, count):
        for part, (low, high) in zip(NORM, ((0.5, 1.5), (-0.5, 0.5), (-1, 1), (0.5, 2))):
            tensors[f"{name}.{part}"] = rng.uniform(low, high, count).astype("float32")
        tensors[f"{name}.num_batches_tracked"] = np.array(7)

    conv("conv1", 64, 3, 7), norm("bn1", 64)
    inn = 64
    for group, out in enumerate((64, 128, 256, 512), 1):
        for block in (0, 1):
            name = f"layer{group}.{block}"
            conv(f"{name}.conv1", out, inn, 3), norm(f"{name}.bn1", out)
            conv(f"{name}.conv2", out, out, 3), norm(f"{name}.bn2", out)
            if inn != out:
                conv(f"{name}.downsample.0", out, inn, 1), norm(f"{name}.downsample.1", out)
            inn = out
    return {**tensors, "fc.weight": np.zeros((1000, 512), "float32"), "fc.bias": np.zeros(1000, "float32")}


def torch_resnet18(tensors, x):
    """What torchvision's resnet18 gives before its average pooling, in evaluation mode; x is (n, 3, h, w)."""

    def windows(x, kernel, stride, fill=0.0):
        edge = kernel // 2
        x = np.pad(x, ((0, 0), (0, 0), (edge, edge), (edge, edge)), constant_values=fill)
        return np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), (2, 3))[:, :, ::stride, ::stride]

    def conv(x, name, stride):
        kernel = tensors[f"{name}.weight"]
        seen = windows(x, kernel.shape[-1], stride)
        return np.tensordot(seen, kernel, ((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)

    def norm(x, name):
        weight, bias, mean, var = (tensors[f"{name}.{part}"][:, None, None] for part in NORM)
        return (x - mean) / np.sqrt(var + 1e-5) * weight + bias

    x = np.maximum(norm(conv(x, "conv1", 2), "bn1"), 0)
    x = windows(x, 3, 2, fill=-np.inf).max((-2, -1))
    for name in [f"layer{group}.{block}" for group in (1, 2, 3, 4) for block in (0, 1)]:
        stride = 2 if f"{name}.downsample.0.weight" in tensors else 1
        y = np.maximum(norm(conv(x, f"{name}.conv1", stride), f"{name}.bn1"), 0)
        y = norm(conv(y, f"{name}.conv2", 1), f"{name}.bn2")
        x = norm(conv(x, f"{name}.downsample.0", 2), f"{name}.downsample.1") if stride == 2 else x
        x = np.maximum(x + y, 0)
    return x


def test_resnet18_is_torchvisions(tmp_path):
    tensors = torch_tensors()
    save_file(tensors, tmp_path / "model.safetensors")
    body = backbones.load("ResNet18", 49, str(tmp_path / "model.safetensors"))  # odd maps: padding shows
    noise = np.random.default_rng(3).normal(size=(2, 3, 49, 49)).astype("float32")
    wanted = torch_resnet18(tensors, noise)
    said = np.asarray(body(noise.transpose(0, 2, 3, 1), training=False)).transpose(0, 3, 1, 2)
    assert said.shape == wanted.shape == (2, 512, 2, 2) and np.ptp(wanted) > 1
    assert np.abs(said - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_every_tensor_of_a_state_dict_is_used_once(tmp_path):
    path = tmp_path / "model.safetensors"
    tensors = torch_tensors()

    def error(name, value):
        changed = {**tensors, name: value}
        save_file({name: value for name, value in changed.items() if value is not None}, path)
        with pytest.raises(ValueError, match="model.safetensors' do not fit ResNet18 at 32 px") as raised:
            backbones.load("ResNet18", 32, str(path))
        return str(raised.value)

    assert "the tensor running_var of layer3_1_bn2 is missing" in error("layer3.1.bn2.running_var", None)
    more = error("layer1.2.conv1.weight", np.zeros((64, 64, 3, 3), "float32"))
    assert "lacks: layer1.2.conv1.weight" in more
    other = error("layer2.0.downsample.0.weight", np.zeros((128, 64, 3, 3), "float32"))
    assert "the tensor layer2.0.downsample.0.weight has" in other and "not (1, 1, 64, 128)" in other
