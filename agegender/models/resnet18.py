"""ResNet18 (S3), which keras.applications lacks: He et al., Deep residual learning, CVPR 2016."""

from __future__ import annotations

from pathlib import Path

import keras
from keras import layers


def build(size: int) -> keras.Model:
    """ResNet18 without its top, as in torchvision: (n, size, size, 3) to 512 maps of a 32nd of the side.

    Layers have torchvision's names, with _ for the dot. Padding is written out: with strides, "same" of
    Keras pads more below and to the right, where torchvision pads all sides alike.
    """

    def conv(x, filters, kernel, stride, name):
        if kernel > 1:
            x = layers.ZeroPadding2D(kernel // 2)(x)
        start = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
        return layers.Conv2D(filters, kernel, stride, use_bias=False, kernel_initializer=start, name=name)(x)

    def norm(x, name):
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)

    def block(x, filters, stride, name):
        y = layers.ReLU()(norm(conv(x, filters, 3, stride, f"{name}_conv1"), f"{name}_bn1"))
        y = norm(conv(y, filters, 3, 1, f"{name}_conv2"), f"{name}_bn2")
        if stride > 1:
            x = norm(conv(x, filters, 1, stride, f"{name}_downsample_0"), f"{name}_downsample_1")
        return layers.ReLU()(layers.add([x, y]))

    if size < 32:
        raise ValueError(f"Input size must be at least 32x32; Received: {size}")
    pictures = keras.Input((size, size, 3))
    x = layers.ReLU()(norm(conv(pictures, 64, 7, 2, "conv1"), "bn1"))
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))  # zeros do no harm: a ReLU gives nothing below
    for group, filters in enumerate((64, 128, 256, 512), start=1):
        x = block(x, filters, 1 if group == 1 else 2, f"layer{group}_0")
        x = block(x, filters, 1, f"layer{group}_1")
    return keras.Model(pictures, x, name="resnet18")


def load_state_dict(body: keras.Model, path: Path) -> None:
    """Give `body`, a ResNet18, the tensors of a state dict of torchvision or timm, stored as .safetensors.

    Each tensor is used once; only the classifier (fc) and torch's counters of batches have no use here.
    Raises ValueError naming a tensor that is missing, superfluous or of another shape.
    """
    from safetensors.numpy import load_file

    unused = {
        name: tensor
        for name, tensor in load_file(path).items()
        if name not in ("fc.weight", "fc.bias") and not name.endswith(".num_batches_tracked")
    }
    names = {name.replace(".", "_"): name for name in unused}
    parts = {
        layers.Conv2D: ["weight"],
        layers.BatchNormalization: ["weight", "bias", "running_mean", "running_var"],
    }
    for layer in body.layers:
        values = []
        for part, variable in zip(parts.get(type(layer), []), layer.weights):
            name = names.get(f"{layer.name}_{part}")
            if name is None:
                raise ValueError(f"the tensor {part} of {layer.name} is missing")
            value = unused.pop(name)
            if value.ndim == 4:
                value = value.transpose(2, 3, 1, 0)  # torch: output, input, height, width
            if value.shape != tuple(variable.shape):
                wanted = tuple(variable.shape)
                raise ValueError(
                    f"the tensor {name} has, as Keras wants it, shape {value.shape}, not {wanted}"
                )
            values.append(value)
        layer.set_weights(values)
    if unused:
        raise ValueError(f"the file has tensors that ResNet18 lacks: {', '.join(unused)}")
