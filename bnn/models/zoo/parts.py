"""What the networks of the zoo share."""

from functools import partial

from torch import nn

from bnn.layers import BinaryConv2d, GlobalAvgPool2d, NormFactory
from bnn.quantizers import Quantizer, Sign
from bnn.weights import LatentStore, StoreFactory

InputShape = tuple[int, int, int]
"""Channels, height and width of the images."""


def latent(quantizer: Quantizer, *, limit: float | None) -> StoreFactory:
    """Makes latent weights behind a quantizer, which are clipped to [-limit, limit] after each step."""
    return partial(LatentStore, quantizer=quantizer, limit=limit)


def sign_conv(
    inputs: int, outputs: int, *, window: float, stride: int = 1, padding: int = 1, dilation: int = 1
) -> BinaryConv2d:
    """A binary 3x3 convolution whose signs, of input and weight, pass gradients in [-window, window]."""
    return BinaryConv2d(
        inputs,
        outputs,
        3,
        stride=stride,
        padding=padding,
        dilation=dilation,
        store=latent(Sign(window=window), limit=window),
        input_quantizer=Sign(window=window),
    )


def norms(*, eps: float, momentum: float) -> NormFactory:
    """Makes batch norms with a momentum as Keras has it: the weight of the past."""
    return partial(nn.BatchNorm2d, eps=eps, momentum=1 - momentum)


def check_shape(name: str, input_shape: InputShape) -> None:
    """Refuses images on which TensorFlow's padding and torch's behind a half turn would differ."""
    if any(size < 32 or size % 32 for size in input_shape[1:]):
        raise ValueError(f"{name} takes images whose sides are multiples of 32, got {tuple(input_shape[1:])}")


def classifier(channels: int, classes: int) -> list[nn.Module]:
    """The mean of each channel, and a linear layer."""
    return [GlobalAvgPool2d(), nn.Flatten(), nn.Linear(channels, classes)]
