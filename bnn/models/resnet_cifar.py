"""Residual networks for 32x32 images, as ReCU builds them."""

from torch import Tensor, nn

from bnn.layers import AvgPool2d, BinaryBlock, BinaryConv2d, GlobalAvgPool2d
from bnn.layers.pool import pad_channels
from bnn.quantizers import ApproxSign, Quantizer
from bnn.weights import StoreFactory


def resnet18(
    *,
    input_shape: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    store: StoreFactory | None = None,
    input_quantizer: Quantizer | None = ApproxSign(),  # noqa: B008  (a pattern, copied)
) -> nn.Sequential:
    """ResNet-18 for CIFAR: widths 64 to 512, one shortcut around each pair of binary convolutions.

    10,992,320 weights at the defaults, of which 10,985,472 binary. Stem and classifier are real. Source: ReCU,
    arXiv 2103.12369, and its public code.

    Args:
        input_shape: (C, H, W) of the images; H and W are multiples of 8.
        classes: outputs.
        store: makes the binary weights' stores; by default `bnn.weights.default_store`'s.
        input_quantizer: pattern for the binary convolutions' inputs; None leaves them real.
    """
    return _resnet(input_shape, classes, (64, 128, 256, 512), 2, False, store, input_quantizer)


def resnet20(
    *,
    input_shape: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    store: StoreFactory | None = None,
    input_quantizer: Quantizer | None = ApproxSign(),  # noqa: B008  (a pattern, copied)
) -> nn.Sequential:
    """ResNet-20 for CIFAR: widths 16 to 64, a shortcut around every binary convolution (Bi-Real Net).

    268,336 weights at the defaults, of which 267,264 binary. Stem and classifier are real. Source: ReCU,
    arXiv 2103.12369, and its public code.

    Args:
        input_shape: (C, H, W) of the images; H and W are multiples of 4.
        classes: outputs.
        store: makes the binary weights' stores; by default `bnn.weights.default_store`'s.
        input_quantizer: pattern for the binary convolutions' inputs; None leaves them real.
    """
    return _resnet(input_shape, classes, (16, 32, 64), 3, True, store, input_quantizer)


def resnet8(
    *,
    input_shape: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    width: int = 16,
    store: StoreFactory | None = None,
    input_quantizer: Quantizer | None = ApproxSign(),  # noqa: B008  (a pattern, copied)
) -> nn.Sequential:
    """ResNet-8 for quick comparisons: `resnet20` with one block a stage behind a stem that halves the image.

    74,800 weights at the defaults, of which 73,728 binary, and a thirteenth of the multiply-accumulates. Stem and
    classifier are real.

    Args:
        input_shape: (C, H, W) of the images; H and W are multiples of 8.
        classes: outputs.
        width: channels of the first stage; the later ones have twice and four times as many.
        store: makes the binary weights' stores; by default `bnn.weights.default_store`'s.
        input_quantizer: pattern for the binary convolutions' inputs; None leaves them real.
    """
    widths = (width, 2 * width, 4 * width)
    return _resnet(input_shape, classes, widths, 1, True, store, input_quantizer, stem_stride=2)


def _resnet(
    input_shape: tuple[int, int, int],
    classes: int,
    widths: tuple[int, ...],
    blocks: int,
    double_skip: bool,
    store: StoreFactory | None,
    input_quantizer: Quantizer | None,
    *,
    stem_stride: int = 1,
) -> nn.Sequential:
    channels = widths[0]
    layers: list[nn.Module] = [
        BinaryBlock(
            nn.Conv2d(input_shape[0], channels, 3, stride=stem_stride, padding=1, bias=False), nn.BatchNorm2d(channels)
        ),
    ]
    for stage, width in enumerate(widths):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(
                _Block(
                    channels,
                    width,
                    stride=stride,
                    double_skip=double_skip,
                    store=store,
                    input_quantizer=input_quantizer,
                )
            )
            channels = width
    layers += [GlobalAvgPool2d(), nn.Flatten(), nn.BatchNorm1d(channels), nn.Linear(channels, classes)]
    return nn.Sequential(*layers)


class _Block(nn.Module):
    """Two binary convolutions, each followed by batch norm and Hardtanh."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        double_skip: bool,
        store: StoreFactory | None,
        input_quantizer: Quantizer | None,
    ) -> None:
        super().__init__()
        self.double_skip = double_skip

        def block(inputs: int, stride: int) -> BinaryBlock:
            conv = BinaryConv2d(
                inputs,
                channels,
                3,
                stride=stride,
                padding=1,
                store=store,
                input_quantizer=input_quantizer,
                learned_scale=True,
            )
            return BinaryBlock(conv, nn.BatchNorm2d(channels), activation=nn.Hardtanh())

        self.first = block(in_channels, stride)
        self.second = block(channels, 1)
        self.pool = AvgPool2d(stride) if stride != 1 else None
        self.missing_channels = channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        if self.double_skip:
            shortcut, x = self.shortcut(x)
            out = shortcut = self.first(x, shortcut)
        else:
            out, x = self.first(x, with_input=True)
            shortcut, _ = self.shortcut(x)
        return self.second(out, shortcut)  # type: ignore[no-any-return]

    def shortcut(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`x` at the size and width of the block's output, averaged and padded with channels of zeros; and `x`."""
        shortcut = x
        if self.pool is not None:
            shortcut, x = self.pool(x, with_input=True)
        missing = self.missing_channels
        return pad_channels(shortcut, missing // 2, missing - missing // 2) if missing else shortcut, x
