"""The networks of `bnn.models` in larq, images in (H, W, C) order.

Where a convolution has a stride, TensorFlow's "same" padding puts the zeros on other sides than torch's; the work
and the memory are the same.
"""

from typing import Any

import larq
import tensorflow as tf
from larq_zoo.literature import (
    BinaryAlexNet,
    BinaryDenseNet28,
    BinaryDenseNet37,
    BinaryDenseNet37Dilated,
    BinaryDenseNet45,
    BinaryResNetE18,
    BiRealNet,
    DoReFaNet,
    MeliusNet22,
    RealToBinaryNet,
    XNORNet,
)
from larq_zoo.sota import QuickNet, QuickNetLarge, QuickNetSmall

layers = tf.keras.layers

OF_ZOO = {
    "resnete18": BinaryResNetE18,
    "birealnet18": BiRealNet,
    "binary_resnet_e18": BinaryResNetE18,
    "birealnet": BiRealNet,
    "quicknet_small": QuickNetSmall,
    "quicknet": QuickNet,
    "quicknet_large": QuickNetLarge,
    "binary_alexnet": BinaryAlexNet,
    "xnornet": XNORNet,
    "dorefanet": DoReFaNet,
    "binary_densenet28": BinaryDenseNet28,
    "binary_densenet37": BinaryDenseNet37,
    "binary_densenet37_dilated": BinaryDenseNet37Dilated,
    "binary_densenet45": BinaryDenseNet45,
    "meliusnet22": MeliusNet22,
    "real_to_binary_net": RealToBinaryNet,
}
"""Networks that larq-zoo has itself. They end in a softmax; the first two differ from `bnn.models` at the stem."""

_BINARY_WEIGHT = {"kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip", "use_bias": False}


def conv(x: Any, outputs: int, *, sign: str | None, stride: int = 1, padding: str = "same") -> Any:
    """A binary 3x3 convolution; `sign` is larq's name of the input's quantizer, None takes the input as it comes."""
    layer = larq.layers.QuantConv2D(outputs, 3, strides=stride, padding=padding, input_quantizer=sign, **_BINARY_WEIGHT)
    return layer(x)


def linear(x: Any, outputs: int, *, sign: str | None) -> Any:
    """A binary linear layer; see `conv`."""
    return larq.layers.QuantDense(outputs, input_quantizer=sign, **_BINARY_WEIGHT)(x)


def norm(x: Any) -> Any:
    """Batch norm with torch's settings."""
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def mlp(x: Any, classes: int) -> Any:
    """See `bnn.models.mlp`."""
    x = layers.Flatten()(x)
    for i, outputs in enumerate((256, 256, 256, 256, classes)):
        x = norm(linear(x, outputs, sign="ste_sign" if i else None))
    return x


def binarynet(x: Any, classes: int) -> Any:
    """See `bnn.models.binarynet`."""
    for i, outputs in enumerate((128, 128, 256, 256, 512, 512)):
        x = conv(x, outputs, sign="ste_sign" if i else None)
        if i % 2:
            x = layers.MaxPooling2D(2)(x)
        x = norm(x)
    x = layers.Flatten()(x)
    for outputs in (1024, 1024, classes):
        x = norm(linear(x, outputs, sign="ste_sign"))
    return x


def cnv(x: Any, classes: int) -> Any:
    """See `bnn.models.cnv`."""
    for i, outputs in enumerate((64, 64, 128, 128, 256, 256)):
        x = larq.quantizers.SteSign()(norm(conv(x, outputs, sign=None, padding="valid")))
        if i in (1, 3):
            x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)
    for i, outputs in enumerate((512, 512, classes)):
        x = norm(linear(x, outputs, sign="ste_sign" if i else None))
    return x


def vgg_small(x: Any, classes: int) -> Any:
    """See `bnn.models.vgg_small`."""
    for i, outputs in enumerate((128, 128, 256, 256, 512, 512)):
        x = Scale()(conv(x, outputs, sign="approx_sign")) if i else real_conv(x, outputs)
        if i % 2:
            x = layers.MaxPooling2D(2)(x)
        x = hardtanh(norm(x))
    return layers.Dense(classes)(layers.Flatten()(x))


def vgg7(x: Any, classes: int) -> Any:
    """See `bnn.models.vgg7`."""
    for i, outputs in enumerate((128, 128, 256, 256, 512, 512)):
        x = conv(x, outputs, sign=None) if i else real_conv(x, outputs)
        if i % 2:
            x = layers.MaxPooling2D(2)(x)
        x = layers.ReLU()(norm(x))
    x = layers.ReLU()(norm(linear(layers.Flatten()(x), 1024, sign=None)))
    return layers.Dense(classes)(x)


def resnet8(x: Any, classes: int) -> Any:
    """See `bnn.models.resnet8`."""
    return _resnet(x, classes, widths=(16, 32, 64), blocks=1, double_skip=True, stem_stride=2)


def resnet18(x: Any, classes: int) -> Any:
    """See `bnn.models.resnet18`."""
    return _resnet(x, classes, widths=(64, 128, 256, 512), blocks=2, double_skip=False)


def resnet20(x: Any, classes: int) -> Any:
    """See `bnn.models.resnet20`."""
    return _resnet(x, classes, widths=(16, 32, 64), blocks=3, double_skip=True)


def real_conv(x: Any, outputs: int, *, stride: int = 1) -> Any:
    """A 3x3 convolution of real weights."""
    return layers.Conv2D(outputs, 3, strides=stride, padding="same", use_bias=False)(x)


def hardtanh(x: Any) -> Any:
    """Clipped to [-1, 1]."""
    return tf.clip_by_value(x, -1, 1)


def _resnet(
    x: Any, classes: int, *, widths: tuple[int, ...], blocks: int, double_skip: bool, stem_stride: int = 1
) -> Any:
    x = norm(real_conv(x, widths[0], stride=stem_stride))
    for width in widths:
        for _ in range(blocks):
            missing = width - x.shape[-1]
            out = norm(Scale()(conv(x, width, sign="approx_sign", stride=2 if missing else 1)))
            if missing:
                x = tf.pad(layers.AveragePooling2D(2)(x), [[0, 0], [0, 0], [0, 0], [missing // 2, missing // 2]])
            if double_skip:
                out = x = hardtanh(out + x)
            else:
                out = hardtanh(out)
            x = hardtanh(norm(Scale()(conv(out, width, sign="approx_sign"))) + x)
    return layers.Dense(classes)(norm(layers.GlobalAveragePooling2D()(x)))


class Scale(layers.Layer):  # type: ignore[misc]
    """A trained factor of each channel."""

    def build(self, input_shape: Any) -> None:
        """One factor a channel, of 1."""
        self.scale = self.add_weight("scale", shape=(input_shape[-1],), initializer="ones")

    def call(self, x: Any) -> Any:
        """The input times its channels' factors."""
        return x * self.scale
