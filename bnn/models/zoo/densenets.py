"""BinaryDenseNets: every binary convolution adds 64 channels to its input."""

import torch
from torch import Tensor, nn

from bnn.layers import BinaryBlock, HalfTurn, MaxPool2d
from bnn.models.zoo.parts import InputShape, check_shape, classifier, norms, sign_conv

_GROWTH = 64
_WINDOW = 1.3


def binary_densenet28(*, input_shape: InputShape = (3, 224, 224), classes: int = 1000) -> nn.Sequential:
    """BinaryDenseNet28: stages of 6, 6, 6 and 5 binary convolutions.

    5,111,488 weights at the defaults, of which 4,202,496 binary. Source: Bethge et al. 2019, arXiv 1906.08637, and
    larq-zoo.

    Args:
        input_shape: (C, H, W) of the images; H and W are multiples of 32.
        classes: outputs.
    """
    return _densenet("binary_densenet28", input_shape, classes, (6, 6, 6, 5), (160, 192, 256))


def binary_densenet37(*, input_shape: InputShape = (3, 224, 224), classes: int = 1000) -> nn.Sequential:
    """BinaryDenseNet37: stages of 6, 8, 12 and 6 binary convolutions.

    8,669,376 weights at the defaults, of which 7,593,984 binary. Source: Bethge et al. 2019, arXiv 1906.08637, and
    larq-zoo.

    Args:
        input_shape: (C, H, W) of the images; H and W are multiples of 32.
        classes: outputs.
    """
    return _densenet("binary_densenet37", input_shape, classes, (6, 8, 12, 6), (128, 192, 256))


def binary_densenet37_dilated(*, input_shape: InputShape = (3, 224, 224), classes: int = 1000) -> nn.Sequential:
    """BinaryDenseNet37 whose last two stages spread their taps 2 and 4 pixels apart in place of smaller images.

    8,669,376 weights at the defaults, of which 7,593,984 binary. Source: Bethge et al. 2019, arXiv 1906.08637, and
    larq-zoo.

    Args:
        input_shape: (C, H, W) of the images; H and W are multiples of 32.
        classes: outputs.
    """
    name = "binary_densenet37_dilated"
    return _densenet(name, input_shape, classes, (6, 8, 12, 6), (128, 192, 256), dilations=(1, 1, 2, 4))


def binary_densenet45(*, input_shape: InputShape = (3, 224, 224), classes: int = 1000) -> nn.Sequential:
    """BinaryDenseNet45: stages of 6, 12, 14 and 8 binary convolutions.

    13,838,784 weights at the defaults, of which 12,349,440 binary. Source: Bethge et al. 2019, arXiv 1906.08637, and
    larq-zoo.

    Args:
        input_shape: (C, H, W) of the images; H and W are multiples of 32.
        classes: outputs.
    """
    return _densenet("binary_densenet45", input_shape, classes, (6, 12, 14, 8), (160, 288, 288))


def _densenet(
    name: str,
    input_shape: InputShape,
    classes: int,
    counts: tuple[int, ...],
    widths: tuple[int, ...],
    *,
    dilations: tuple[int, ...] = (1, 1, 1, 1),
) -> nn.Sequential:
    check_shape(name, input_shape)
    norm = norms(eps=1e-5, momentum=0.9)
    channels = 64
    stem = nn.Conv2d(input_shape[0], channels, 7, stride=2, padding=3, bias=False)
    layers: list[nn.Module] = [
        HalfTurn(),
        BinaryBlock(stem, norm(channels), activation=nn.ReLU()),
        MaxPool2d(3, stride=2, padding=1),
    ]
    for stage, (count, dilation) in enumerate(zip(counts, dilations, strict=True)):
        if stage:
            width = widths[stage - 1]
            layers += transition(channels, width, pools=dilation == 1)
            channels = width
        for _ in range(count):
            layers.append(DenseUnit(channels, dilation=dilation))
            channels += _GROWTH
    return nn.Sequential(*layers, norm(channels), nn.ReLU(), *classifier(channels, classes))


def transition(inputs: int, outputs: int, *, pools: bool = True) -> list[nn.Module]:
    """Norm, pooling to half the size if asked for, ReLU, and a real 1x1 convolution."""
    pooling = [MaxPool2d(2)] if pools else []
    norm = norms(eps=1e-5, momentum=0.9)
    return [norm(inputs), *pooling, nn.ReLU(), nn.Conv2d(inputs, outputs, 1, bias=False)]


class DenseUnit(nn.Module):
    """Norm and a binary 3x3 convolution to 64 channels, which are put behind those of the input.

    Args:
        channels: of the input.
        dilation: distance of the convolution's taps.
    """

    def __init__(self, channels: int, *, dilation: int = 1) -> None:
        super().__init__()
        self.channels = channels
        self.dilation = dilation
        self.norm = norms(eps=1e-5, momentum=0.9)(channels)
        self.conv = sign_conv(channels, _GROWTH, window=_WINDOW, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] to [N, channels + 64, H, W]."""
        return torch.cat([x, self.conv(self.norm(x))], dim=1)
