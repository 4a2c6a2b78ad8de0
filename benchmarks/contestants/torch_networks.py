"""The networks of `bnn.models` as people write them in plain PyTorch: float tensors that hold -1 and +1."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Sign(torch.autograd.Function):
    """Signs, +1 at 0; the gradient passes where |x| <= 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: D102
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:  # noqa: D102
        (x,) = ctx.saved_tensors
        return grads[0] * (x.abs() <= 1)


class ApproxSign(torch.autograd.Function):
    """Signs, +1 at 0; the gradient is multiplied by 2 - 2|x| where |x| < 1, else by 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: D102
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:  # noqa: D102
        (x,) = ctx.saved_tensors
        return grads[0] * (2 - 2 * x.abs()).clamp(min=0)


class BinaryConv2d(nn.Conv2d):
    """A 3x3 convolution with the signs of its weight and, where `sign` is given, of its input."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        sign: type[Sign | ApproxSign] | None,
        stride: int = 1,
        padding: int = 1,
        learned_scale: bool = False,
    ) -> None:
        super().__init__(inputs, outputs, 3, stride=stride, padding=padding, bias=False)
        self.sign = sign
        self.scale = nn.Parameter(torch.ones(outputs)) if learned_scale else None

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        if self.sign is not None:
            x = self.sign.apply(x)  # type: ignore[no-untyped-call]
        weight = Sign.apply(self.weight)  # type: ignore[no-untyped-call]
        y = F.conv2d(x, weight, None, self.stride, self.padding)
        return y if self.scale is None else y * self.scale.view(-1, 1, 1)


class BinaryLinear(nn.Linear):
    """A linear layer with the signs of its weight and, unless it is the first layer, of its input."""

    def __init__(self, inputs: int, outputs: int, *, binary_input: bool = True) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.binary_input = binary_input

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        if self.binary_input:
            x = Sign.apply(x)  # type: ignore[no-untyped-call]
        return F.linear(x, Sign.apply(self.weight))  # type: ignore[no-untyped-call]


def mlp(input_shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """See `bnn.models.mlp`."""
    layers: list[nn.Module] = [nn.Flatten()]
    features = math.prod(input_shape)
    for i, outputs in enumerate((256, 256, 256, 256, classes)):
        layers += [BinaryLinear(features, outputs, binary_input=i > 0), nn.BatchNorm1d(outputs)]
        features = outputs
    return nn.Sequential(*layers)


def binarynet(input_shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """See `bnn.models.binarynet`."""
    channels, height, width = input_shape
    layers: list[nn.Module] = []
    for i, outputs in enumerate((128, 128, 256, 256, 512, 512)):
        layers.append(BinaryConv2d(channels, outputs, sign=Sign if i else None))
        if i % 2:
            layers.append(nn.MaxPool2d(2))
        layers.append(nn.BatchNorm2d(outputs))
        channels = outputs
    layers.append(nn.Flatten())
    features = channels * (height // 8) * (width // 8)
    for outputs in (1024, 1024, classes):
        layers += [BinaryLinear(features, outputs), nn.BatchNorm1d(outputs)]
        features = outputs
    return nn.Sequential(*layers)


def cnv(input_shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """See `bnn.models.cnv`."""
    channels, height, width = input_shape
    layers: list[nn.Module] = []
    for i, outputs in enumerate((64, 64, 128, 128, 256, 256)):
        layers += [BinaryConv2d(channels, outputs, sign=None, padding=0), nn.BatchNorm2d(outputs), _SignLayer()]
        height, width = height - 2, width - 2
        if i in (1, 3):
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
        channels = outputs
    layers.append(nn.Flatten())
    features = channels * height * width
    for i, outputs in enumerate((512, 512, classes)):
        layers += [BinaryLinear(features, outputs, binary_input=i > 0), nn.BatchNorm1d(outputs)]
        features = outputs
    return nn.Sequential(*layers)


def resnet18(input_shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """See `bnn.models.resnet18`."""
    layers = [nn.Conv2d(input_shape[0], 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)]
    channels = 64
    for width in (64, 128, 256, 512):
        layers += [_PairBlock(channels, width), _PairBlock(width, width)]
        channels = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(channels), nn.Linear(channels, classes)]
    return nn.Sequential(*layers)


def resnete18(input_shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """See `bnn.models.resnete18`."""
    layers = [
        nn.BatchNorm2d(input_shape[0]),
        nn.Conv2d(input_shape[0], 64, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.BatchNorm2d(64),
    ]
    channels = 64
    for width in (64, 128, 256, 512):
        layers += [_SingleBlock(channels, width), *(_SingleBlock(width, width) for _ in range(3))]
        channels = width
    layers += [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
    return nn.Sequential(*layers)


class _SignLayer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Sign.apply(x)  # type: ignore[no-any-return, no-untyped-call]


class _PairBlock(nn.Module):
    """Two scaled binary convolutions inside one shortcut, which pools and pads with channels of zeros."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.missing = outputs - inputs
        self.conv1 = BinaryConv2d(inputs, outputs, stride=outputs // inputs, sign=ApproxSign, learned_scale=True)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = BinaryConv2d(outputs, outputs, sign=ApproxSign, learned_scale=True)
        self.norm2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        out = F.hardtanh(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        if self.missing:
            x = F.pad(F.avg_pool2d(x, 2), (0, 0, 0, 0, self.missing // 2, self.missing // 2))
        return F.hardtanh(out + x)


class _SingleBlock(nn.Module):
    """A binary convolution inside a shortcut, which pools and widens with a real 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        stride = outputs // inputs
        self.conv = BinaryConv2d(inputs, outputs, stride=stride, sign=Sign)
        self.norm = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride == 2:
            pool, widen = nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(inputs, outputs, 1, bias=False)
            self.shortcut = nn.Sequential(pool, widen, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x)) + self.shortcut(x)
        return out
