"""QuickNet in three sizes: residual units of one binary convolution, rectified in front of its norm."""

from torch import Tensor, nn

from bnn.layers import BinaryBlock, BlurPool2d, HalfTurn, MaxPool2d
from bnn.models.zoo.parts import InputShape, check_shape, classifier, norms, sign_conv

_WINDOW = 1.25


def quicknet_small(*, input_shape: InputShape = (3, 224, 224), classes: int = 1000) -> nn.Sequential:
    """QuickNet-Small: stages of 4 units with 32, 64, 256 and 512 channels.

    12,642,848 weights at the defaults, of which 11,980,800 binary. Source: Bannink et al. 2021, arXiv 2011.09398, and
    larq-zoo.

    Args:
        input_shape: (C, H, W) of the images; H and W are multiples of 32.
        classes: outputs.
    """
    return _quicknet("quicknet_small", input_shape, classes, units=4, widths=(32, 64, 256, 512))


def quicknet(*, input_shape: InputShape = (3, 224, 224), classes: int = 1000) -> nn.Sequential:
    """QuickNet: stages of 4 units with 64, 128, 256 and 512 channels.

    13,219,392 weights at the defaults, of which 12,533,760 binary. Source: Bannink et al. 2021, arXiv 2011.09398, and
    larq-zoo.

    Args:
        input_shape: (C, H, W) of the images; H and W are multiples of 32.
        classes: outputs.
    """
    return _quicknet("quicknet", input_shape, classes, units=4, widths=(64, 128, 256, 512))


def quicknet_large(*, input_shape: InputShape = (3, 224, 224), classes: int = 1000) -> nn.Sequential:
    """QuickNet-Large: stages of 6, 8, 12 and 6 units with 64, 128, 256 and 512 channels.

    23,320,128 weights at the defaults, of which 22,634,496 binary. Source: Bannink et al. 2021, arXiv 2011.09398, and
    larq-zoo.

    Args:
        input_shape: (C, H, W) of the images; H and W are multiples of 32.
        classes: outputs.
    """
    return _quicknet("quicknet_large", input_shape, classes, units=(6, 8, 12, 6), widths=(64, 128, 256, 512))


def _quicknet(
    name: str,
    input_shape: InputShape,
    classes: int,
    *,
    units: int | tuple[int, ...],
    widths: tuple[int, ...],
) -> nn.Sequential:
    check_shape(name, input_shape)
    stem_norm, norm = norms(eps=1e-3, momentum=0.99), norms(eps=1e-5, momentum=0.9)
    counts = (units,) * len(widths) if isinstance(units, int) else units
    narrow, channels = widths[0] // 4, widths[0]
    depthwise = nn.Conv2d(narrow, narrow, 3, stride=2, padding=1, groups=narrow, bias=False)
    layers: list[nn.Module] = [
        HalfTurn(),
        BinaryBlock(
            nn.Conv2d(input_shape[0], narrow, 3, stride=2, padding=1, bias=False),
            stem_norm(narrow),
            activation=nn.ReLU(),
        ),
        BinaryBlock(depthwise, nn.BatchNorm2d(narrow, eps=1e-3, momentum=0.01, affine=False)),
        BinaryBlock(nn.Conv2d(narrow, channels, 1, bias=False), stem_norm(channels)),
    ]
    for count, width in zip(counts, widths, strict=True):
        if width != widths[0]:
            pooling = (nn.ReLU(), MaxPool2d(2, stride=1), BlurPool2d(channels))
            layers += [*pooling, BinaryBlock(nn.Conv2d(channels, width, 1, bias=False), norm(width))]
            channels = width
        layers += [QuickNetUnit(channels) for _ in range(count)]
    return nn.Sequential(*layers, nn.ReLU(), *classifier(channels, classes))


class QuickNetUnit(nn.Module):
    """A binary 3x3 convolution, rectified and normalised, added to its own input.

    Args:
        channels: of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        # A zero around the image has the sign +1, which is what these networks pad with.
        self.pad = nn.ZeroPad2d(1)
        norm = norms(eps=1e-5, momentum=0.9)
        conv = sign_conv(channels, channels, window=_WINDOW, padding=0)
        self.block = BinaryBlock(conv, norm(channels), rectifies=True)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] to the same shape."""
        out: Tensor = self.block(self.pad(x), x)
        return out
