"""The networks of `bnn.models` in larq, images in (H, W, C) order.

Where a convolution has a stride, TensorFlow's "same" padding puts the zeros on other sides than torch's; the work
and the memory are the same.
"""

from typing import Any

import larq
import tensorflow as tf

layers = tf.keras.layers

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


def resnet18(x: Any, classes: int) -> Any:
    """See `bnn.models.resnet18`."""
    x = norm(layers.Conv2D(64, 3, padding="same", use_bias=False)(x))
    for width in (64, 128, 256, 512):
        for _ in range(2):
            missing = width - x.shape[-1]
            out = Scale()(conv(x, width, sign="approx_sign", stride=2 if missing else 1))
            out = tf.clip_by_value(norm(out), -1, 1)
            out = norm(Scale()(conv(out, width, sign="approx_sign")))
            if missing:
                x = tf.pad(layers.AveragePooling2D(2)(x), [[0, 0], [0, 0], [0, 0], [missing // 2, missing // 2]])
            x = tf.clip_by_value(out + x, -1, 1)
    return layers.Dense(classes)(norm(layers.GlobalAveragePooling2D()(x)))


def resnete18(x: Any, classes: int) -> Any:
    """See `bnn.models.resnete18`."""
    x = norm(layers.Conv2D(64, 7, strides=2, padding="same", use_bias=False)(norm(x)))
    x = norm(layers.MaxPooling2D(3, strides=2, padding="same")(layers.ReLU()(x)))
    for width in (64, 128, 256, 512):
        for _ in range(4):
            stride = 2 if width != x.shape[-1] else 1
            out = norm(conv(x, width, sign="ste_sign", stride=stride))
            if stride == 2:
                x = layers.AveragePooling2D(2, padding="same")(x)
                x = norm(layers.Conv2D(width, 1, use_bias=False)(x))
            x = out + x
    return layers.Dense(classes)(layers.GlobalAveragePooling2D()(layers.ReLU()(x)))


class Scale(layers.Layer):  # type: ignore[misc]
    """A trained factor of each channel."""

    def build(self, input_shape: Any) -> None:
        """One factor a channel, of 1."""
        self.scale = self.add_weight("scale", shape=(input_shape[-1],), initializer="ones")

    def call(self, x: Any) -> Any:
        """The input times its channels' factors."""
        return x * self.scale
