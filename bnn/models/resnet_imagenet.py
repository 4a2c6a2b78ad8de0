"""Residual networks for ImageNet with a shortcut around every binary convolution."""

import copy
from functools import partial
from typing import Any

from torch import Tensor, nn

from bnn.layers import AvgPool2d, BinaryBlock, BinaryConv2d, GlobalAvgPool2d, MaxPool2d, NormFactory
from bnn.quantizers import ApproxSign, Quantizer, ScaledSign, Sign
from bnn.weights import LatentStore, StoreFactory

# Of the norms of ReCU's public code.
_RECU_FACTOR = 1e-8


def resnete18(
    *,
    input_shape: tuple[int, int, int] = (3, 224, 224),
    classes: int = 1000,
    store: StoreFactory | None = None,
    input_quantizer: Quantizer = Sign(),  # noqa: B008  (a pattern, copied)
) -> nn.Sequential:
    """ResNetE-18: 16 binary 3x3 convolutions of widths 64 to 512, each with its own shortcut.

    11,678,912 weights at the defaults, of which 10,985,472 binary. Stem, 1x1 downsampling and classifier are real.
    Source: Bethge et al. 2019, arXiv 1906.08637, in the arrangement of Wang et al., arXiv 2102.04270.

    Args:
        input_shape: (C, H, W) of the images.
        classes: outputs.
        store: makes the binary weights' stores; by default `bnn.weights.default_store`'s.
        input_quantizer: pattern for the binary convolutions' inputs.
    """
    channels = 64
    layers: list[nn.Module] = [
        nn.BatchNorm2d(input_shape[0]),
        BinaryBlock(
            nn.Conv2d(input_shape[0], channels, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(channels),
            activation=nn.ReLU(),
        ),
        MaxPool2d(3, stride=2, padding=1),
        nn.BatchNorm2d(channels),
    ]
    for width in (64, 128, 256, 512):
        for block in range(4):
            stride = 2 if width > 64 and block == 0 else 1
            layers.append(
                ResidualUnit(
                    channels,
                    width,
                    stride=stride,
                    store=store,
                    input_quantizer=input_quantizer,
                )
            )
            channels = width
    layers += [nn.ReLU(), GlobalAvgPool2d(), nn.Flatten(), nn.Linear(channels, classes)]
    return nn.Sequential(*layers)


def birealnet18(
    *,
    input_shape: tuple[int, int, int] = (3, 224, 224),
    classes: int = 1000,
    store: StoreFactory | None = None,
    input_quantizer: Quantizer = ApproxSign(),  # noqa: B008  (a pattern, copied)
) -> nn.Sequential:
    """Bi-Real-18: `resnete18` with the polynomial sign gradient and each filter scaled by its mean |w|.

    11,678,912 weights at the defaults, of which 10,985,472 binary. Source: Liu et al. 2018, arXiv 1808.00278, in
    the arrangement of Wang et al., arXiv 2102.04270.

    Args:
        input_shape: (C, H, W) of the images.
        classes: outputs.
        store: makes the binary weights' stores; by default latent weights behind `ScaledSign`.
        input_quantizer: pattern for the binary convolutions' inputs.
    """
    return resnete18(
        input_shape=input_shape,
        classes=classes,
        store=store or partial(LatentStore, quantizer=ScaledSign()),
        input_quantizer=input_quantizer,
    )


def recu_resnet18(
    *,
    input_shape: tuple[int, int, int] = (3, 224, 224),
    classes: int = 1000,
    store: StoreFactory | None = None,
    input_quantizer: Quantizer = ApproxSign(),  # noqa: B008  (a pattern, copied)
    real_weights: bool = False,
) -> nn.Sequential:
    """ReCU's ResNet-18: as `resnete18`, with a Hardtanh behind every sum and a learned scale of each filter.

    11,678,912 weights at the defaults, of which 10,985,472 binary. Downsampling is a real 1x1 convolution of stride 2;
    the norms of images begin with a factor of 1e-8, and the features are normalised in front of the classifier. Source:
    ReCU, Xu et al., arXiv 2103.12369, and its public code for ImageNet, https://github.com/z-hXu/ReCU.

    Args:
        input_shape: (C, H, W) of the images.
        classes: outputs.
        store: makes the binary weights' stores; by default `bnn.weights.default_store`'s.
        input_quantizer: pattern for the binary convolutions' inputs.
        real_weights: whether the convolutions between stem and classifier have real weights and binary inputs, as in
            the first of two stages; `store` makes nothing then.
    """
    channels, make_unit = 64, RealWeightUnit if real_weights else ResidualUnit
    stem = nn.Conv2d(input_shape[0], channels, 7, stride=2, padding=3, bias=False)
    layers: list[nn.Module] = [
        BinaryBlock(stem, nn.BatchNorm2d(channels), activation=nn.Hardtanh()),
        MaxPool2d(3, stride=2, padding=1),
    ]
    for width in (64, 128, 256, 512):
        for block in range(4):
            unit = make_unit(
                channels,
                width,
                stride=2 if width > 64 and block == 0 else 1,
                store=store,
                input_quantizer=input_quantizer,
                learned_scale=True,
                averages=False,
                activation=nn.Hardtanh(),
            )
            layers.append(unit)
            channels = width
    layers += [GlobalAvgPool2d(), nn.Flatten(), nn.BatchNorm1d(channels), nn.Linear(channels, classes)]
    network = nn.Sequential(*layers)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, _RECU_FACTOR)
    return network


class ResidualUnit(nn.Module):
    """A binary 3x3 convolution and a norm, added to its own input.

    Where the shape changes, the input goes through a real 1x1 convolution and a norm.

    Args:
        in_channels: channels of the input.
        channels: channels of the output.
        stride: of the convolution, 1 or 2.
        store: makes the binary weight's store; None: that of `bnn.weights.default_store`.
        input_quantizer: pattern for the convolution's input.
        norm: makes the norms.
        learned_scale: whether each filter has a factor that is trained.
        averages: whether an input that becomes smaller is averaged over pixels first, or else the real convolution
            leaves pixels out.
        activation: behind the sum; None for none.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        store: StoreFactory | None,
        input_quantizer: Quantizer,
        norm: NormFactory = nn.BatchNorm2d,
        learned_scale: bool = False,
        averages: bool = True,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        conv = BinaryConv2d(
            in_channels,
            channels,
            3,
            stride=stride,
            padding=1,
            store=store,
            input_quantizer=input_quantizer,
            learned_scale=learned_scale,
        )
        self.block = BinaryBlock(conv, norm(channels), activation=activation)
        self.shortcut: nn.Module | None = None
        if stride != 1 or in_channels != channels:
            left_out = 1 if averages else stride
            real = BinaryBlock(nn.Conv2d(in_channels, channels, 1, stride=left_out, bias=False), norm(channels))
            self.shortcut = nn.Sequential(AvgPool2d(stride, ceil_mode=True), real) if averages else real

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, channels, H', W']."""
        if isinstance(self.shortcut, nn.Sequential):
            pool, real = self.shortcut
            pooled, x = pool(x, with_input=True)
            shortcut = real(pooled)
        else:
            shortcut = x if self.shortcut is None else self.shortcut(x)
        out: Tensor = self.block(x, shortcut)
        return out


class RealWeightUnit(ResidualUnit):
    """A `ResidualUnit` whose convolution multiplies the signs of its input by real weights, without a learned scale.

    It is trained in the first of two stages; the second begins with its weights (`bnn.training.start.take_weights`).
    Source: Martinez et al. 2020, arXiv 2003.11535; Liu et al. 2020 (ReActNet), arXiv 2003.03488.

    Args:
        in_channels: channels of the input.
        channels: channels of the output.
        stride: of the convolution, 1 or 2.
        options: the others of `ResidualUnit`.
    """

    def __init__(self, in_channels: int, channels: int, *, stride: int, **options: Any) -> None:
        super().__init__(in_channels, channels, stride=stride, **options)
        conv = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.signs = copy.deepcopy(options["input_quantizer"])
        self.block = BinaryBlock(conv, self.block.norm, activation=self.block.activation)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, channels, H', W']."""
        out: Tensor = self.block(self.signs(x), x if self.shortcut is None else self.shortcut(x))
        return out
