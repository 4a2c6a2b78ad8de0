"""The networks of `bnn.models` as people write them in plain PyTorch: float tensors that hold -1 and +1."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.contestants.measure import Task


def network(task: Task) -> nn.Module:
    """The network of a task, with the layer that treats weights as the task says."""
    layer = {"conv": ReCUConv2d} if task.weights == "recu" else {}
    model: nn.Module = globals()[task.model](task.input_shape, task.classes, **layer)
    return model


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


class PassingSign(torch.autograd.Function):
    """Signs, +1 at 0; every gradient passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: D102
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:  # noqa: D102
        return grads[0]


class BinaryConv2d(nn.Conv2d):
    """A 3x3 convolution with the signs of its weight and, where `sign` is given, of its input."""

    is_clipped = True
    """Whether the weight is held within [-1, 1]."""

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
        y = F.conv2d(self.binary_input(x), self.binary_weight(), None, self.stride, self.padding)
        return y if self.scale is None else y * self.scale.view(-1, 1, 1)

    def binary_input(self, x: Tensor) -> Tensor:
        """What is multiplied with the weight."""
        return x if self.sign is None else self.sign.apply(x)  # type: ignore[no-untyped-call]

    def binary_weight(self) -> Tensor:
        """What is multiplied with the input."""
        return Sign.apply(self.weight)  # type: ignore[no-any-return, no-untyped-call]


class MeanScaledConv2d(BinaryConv2d):
    """Each filter is multiplied by the mean of its |weight| (XNOR-Net, Bi-Real Net)."""

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return super().forward(x) * self.weight.abs().mean((1, 2, 3)).view(-1, 1, 1)


class ReCUConv2d(BinaryConv2d):
    """Weights and inputs as ReCU's public code (arXiv 2103.12369) treats them, tau being that of the first epoch.

    Where that code calls `item()` in every layer of every step, a tensor is left, so that the network compiles whole.
    """

    is_clipped = False
    tau = 0.85

    def binary_input(self, x: Tensor) -> Tensor:
        """In training each example is divided by its deviation: this moves the window of the sign's gradient."""
        if self.training:
            x = x / (x.var((1, 2, 3), keepdim=True) + 1e-5).sqrt()
        return super().binary_input(x)

    def binary_weight(self) -> Tensor:
        """Filters of mean 0 and deviation 2 sqrt(2), clamped at the quantile of a Laplace distribution."""
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), correction=0, keepdim=True)
        standard = (self.weight - mean) / (variance + 1e-5).sqrt() * (2 * math.sqrt(2))
        bound = standard.detach().abs().mean() * -math.log(2 - 2 * self.tau)
        return PassingSign.apply(standard.clamp(-bound, bound))  # type: ignore[no-any-return, no-untyped-call]


class BinaryLinear(nn.Linear):
    """A linear layer with the signs of its weight and, where `binary_input` says so, of its input."""

    is_clipped = True

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


def vgg_small(input_shape: tuple[int, ...], classes: int, conv: type[BinaryConv2d] = BinaryConv2d) -> nn.Sequential:
    """See `bnn.models.vgg_small`."""
    channels, height, width = input_shape
    layers: list[nn.Module] = []
    for i, outputs in enumerate((128, 128, 256, 256, 512, 512)):
        if i == 0:
            layers.append(nn.Conv2d(channels, outputs, 3, padding=1, bias=False))
        else:
            layers.append(conv(channels, outputs, sign=ApproxSign, learned_scale=True))
        if i % 2:
            layers.append(nn.MaxPool2d(2))
        layers += [nn.BatchNorm2d(outputs), nn.Hardtanh()]
        channels = outputs
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * (height // 8) * (width // 8), classes))


def vgg7(input_shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """See `bnn.models.vgg7`."""
    channels, height, width = input_shape
    layers: list[nn.Module] = []
    for i, outputs in enumerate((128, 128, 256, 256, 512, 512)):
        if i == 0:
            layers.append(nn.Conv2d(channels, outputs, 3, padding=1, bias=False))
        else:
            layers.append(BinaryConv2d(channels, outputs, sign=None))
        if i % 2:
            layers.append(nn.MaxPool2d(2))
        layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
        channels = outputs
    features = channels * (height // 8) * (width // 8)
    layers += [nn.Flatten(), BinaryLinear(features, 1024, binary_input=False), nn.BatchNorm1d(1024), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(1024, classes))


def resnet8(input_shape: tuple[int, ...], classes: int, conv: type[BinaryConv2d] = BinaryConv2d) -> nn.Sequential:
    """See `bnn.models.resnet8`."""
    return _resnet(input_shape, classes, conv, widths=(16, 32, 64), blocks=1, double_skip=True, stem_stride=2)


def resnet18(input_shape: tuple[int, ...], classes: int, conv: type[BinaryConv2d] = BinaryConv2d) -> nn.Sequential:
    """See `bnn.models.resnet18`."""
    return _resnet(input_shape, classes, conv, widths=(64, 128, 256, 512), blocks=2, double_skip=False)


def resnet20(input_shape: tuple[int, ...], classes: int, conv: type[BinaryConv2d] = BinaryConv2d) -> nn.Sequential:
    """See `bnn.models.resnet20`."""
    return _resnet(input_shape, classes, conv, widths=(16, 32, 64), blocks=3, double_skip=True)


def resnete18(input_shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """See `bnn.models.resnete18`."""
    return _single_skips(input_shape, classes, BinaryConv2d, Sign)


def birealnet18(input_shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """See `bnn.models.birealnet18`."""
    return _single_skips(input_shape, classes, MeanScaledConv2d, ApproxSign)


def _resnet(
    input_shape: tuple[int, ...],
    classes: int,
    conv: type[BinaryConv2d],
    *,
    widths: tuple[int, ...],
    blocks: int,
    double_skip: bool,
    stem_stride: int = 1,
) -> nn.Sequential:
    channels = widths[0]
    layers: list[nn.Module] = [
        nn.Conv2d(input_shape[0], channels, 3, stride=stem_stride, padding=1, bias=False),
        nn.BatchNorm2d(channels),
    ]
    for width in widths:
        for _ in range(blocks):
            layers.append(_PairBlock(channels, width, conv, double_skip=double_skip))
            channels = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(channels), nn.Linear(channels, classes)]
    return nn.Sequential(*layers)


def _single_skips(
    input_shape: tuple[int, ...], classes: int, conv: type[BinaryConv2d], sign: type[Sign | ApproxSign]
) -> nn.Sequential:
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
        for _ in range(4):
            layers.append(_SingleBlock(channels, width, conv, sign))
            channels = width
    layers += [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
    return nn.Sequential(*layers)


class _SignLayer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Sign.apply(x)  # type: ignore[no-any-return, no-untyped-call]


class _PairBlock(nn.Module):
    """Two scaled binary convolutions inside one shortcut, or two; the first pools and pads with channels of zeros."""

    def __init__(self, inputs: int, outputs: int, conv: type[BinaryConv2d], *, double_skip: bool) -> None:
        super().__init__()
        self.missing = outputs - inputs
        self.double_skip = double_skip
        self.conv1 = conv(inputs, outputs, stride=outputs // inputs, sign=ApproxSign, learned_scale=True)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs, sign=ApproxSign, learned_scale=True)
        self.norm2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm1(self.conv1(x))
        if self.missing:
            x = F.pad(F.avg_pool2d(x, 2), (0, 0, 0, 0, self.missing // 2, self.missing // 2))
        if self.double_skip:
            out = x = F.hardtanh(out + x)
        else:
            out = F.hardtanh(out)
        return F.hardtanh(self.norm2(self.conv2(out)) + x)


class _SingleBlock(nn.Module):
    """A binary convolution inside a shortcut, which pools and widens with a real 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, conv: type[BinaryConv2d], sign: type[Sign | ApproxSign]) -> None:
        super().__init__()
        stride = outputs // inputs
        self.conv = conv(inputs, outputs, stride=stride, sign=sign)
        self.norm = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride == 2:
            pool, widen = nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(inputs, outputs, 1, bias=False)
            self.shortcut = nn.Sequential(pool, widen, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x)) + self.shortcut(x)
        return out
