"""MeliusNet22: each dense unit is followed by one that improves the new channels."""

import torch
from torch import Tensor, nn

from bnn.layers import BinaryBlock, HalfTurn, MaxPool2d
from bnn.models.zoo.densenets import DenseUnit, transition
from bnn.models.zoo.parts import InputShape, check_shape, classifier, norms, sign_conv

_IMPROVED = 64
_WINDOW = 1.3


def meliusnet22(*, input_shape: InputShape = (3, 224, 224), classes: int = 1000) -> nn.Sequential:
    """MeliusNet22: stages of 4, 5, 4 and 4 pairs of binary convolutions behind a stem of three real ones.

    6,918,496 weights at the defaults, of which 6,119,424 binary. Source: Bethge et al. 2020, arXiv 2001.05936, and
    larq-zoo.

    Args:
        input_shape: (C, H, W) of the images; H and W are multiples of 32.
        classes: outputs.
    """
    check_shape("meliusnet22", input_shape)
    norm = norms(eps=1e-5, momentum=0.9)

    def stem(inputs: int, outputs: int, *, stride: int = 1, groups: int = 1) -> BinaryBlock:
        conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, groups=groups, bias=False)
        return BinaryBlock(conv, norm(outputs), activation=nn.ReLU())

    layers: list[nn.Module] = [
        HalfTurn(),
        stem(input_shape[0], 32, stride=2),
        stem(32, 32, groups=4),
        stem(32, 64, groups=8),
        MaxPool2d(2),
    ]
    channels = 64
    for count, width in ((4, 160), (5, 224), (4, 256), (4, None)):
        for _ in range(count):
            layers += [DenseUnit(channels), ImprovementUnit(channels + _IMPROVED)]
            channels += _IMPROVED
        if width is not None:
            layers += transition(channels, width)
            channels = width
    return nn.Sequential(*layers, norm(channels), nn.ReLU(), *classifier(channels, classes))


class ImprovementUnit(nn.Module):
    """Norm and a binary 3x3 convolution to 64 channels, which are added to the last 64 of the input.

    Args:
        channels: of input and output, at least 64.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.norm = norms(eps=1e-5, momentum=0.9)(channels)
        self.conv = sign_conv(channels, _IMPROVED, window=_WINDOW)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] to the same shape."""
        improved = x[:, -_IMPROVED:] + self.conv(self.norm(x))
        return torch.cat([x[:, :-_IMPROVED], improved], dim=1)
