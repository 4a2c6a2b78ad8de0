"""Blocks that recompute, and the formula in float64 that they are held against."""

import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn.bits import BitTensor
from bnn.layers import (
    BinaryBlock,
    BinaryConv2d,
    BinaryLinear,
    MaxPool2d,
    OffsetBatchNorm,
)
from bnn.quantizers import ApproxSign, Sign
from bnn.quantizers.gradients import Int8Gradient
from bnn.weights import AccumulatorStore
from tests.contracts import bits_of, dense, randn, signs


def rounding(seed: int = 7) -> Int8Gradient:
    return Int8Gradient(generator=torch.Generator().manual_seed(seed))


def conv(channels: int, outputs: int, kernel: int = 3, **options: Any) -> BinaryConv2d:
    options = {"store": AccumulatorStore, "grad_quantizer": rounding(), **options}
    return BinaryConv2d(channels, outputs, kernel, **options)


def linear(features: int, outputs: int, **options: Any) -> BinaryLinear:
    options = {"store": AccumulatorStore, "grad_quantizer": rounding(), **options}
    return BinaryLinear(features, outputs, **options)


def block_of(
    product: nn.Module,
    *,
    norm: nn.Module | None = None,
    pool: MaxPool2d | None = None,
    activation: Any = None,
    rectifies: bool = False,
) -> BinaryBlock:
    """A block that recomputes, whose scale, gamma and beta are those of a norm that has been trained for a while."""
    is_image = isinstance(product, (BinaryConv2d, nn.Conv2d))
    outputs = (product.store if hasattr(product, "store") else product.weight).shape[0]
    norm = norm or (nn.BatchNorm2d if is_image else nn.BatchNorm1d)(outputs)
    block = BinaryBlock(product, norm, pool=pool, rectifies=rectifies, activation=activation, recompute=True)
    with torch.no_grad():
        if norm.weight is not None:
            norm.weight.copy_(0.5 + randn(outputs, seed=20).abs() * (1 - 2 * (torch.arange(outputs) % 3 == 1)))
            norm.bias.copy_(0.3 * randn(outputs, seed=21))
        if getattr(product, "learned_scale", None) is not None:
            product.learned_scale.copy_(0.02 + 0.1 * randn(outputs, seed=22))
    return block


def eighths(*shape: int, seed: int = 0) -> Tensor:
    """Values of which a product with few signs is exact in float16."""
    return (randn(*shape, seed=seed) * 8).round() / 8 + 1 / 16


class Case(NamedTuple):
    make: Callable[[], BinaryBlock]
    x: Callable[[], Tensor]
    shortcut: str = "none"
    """`none`, `input` or `other`."""


CASES = {
    "residual unit": Case(
        lambda: block_of(
            conv(10, 10, padding=1, input_quantizer=ApproxSign(), learned_scale=True), activation=nn.Hardtanh()
        ),
        lambda: 0.6 * randn(3, 10, 7, 5),
        "input",
    ),
    "residual unit of bfloat16": Case(
        lambda: block_of(conv(16, 16, padding=1), activation=nn.Hardtanh()),
        lambda: randn(4, 16, 6, 6).clamp(-1, 1).bfloat16(),
        "input",
    ),
    "shortcut without activation": Case(
        lambda: block_of(conv(9, 9, padding=1, input_quantizer=ApproxSign())), lambda: randn(2, 9, 5, 5), "input"
    ),
    "another shortcut": Case(
        lambda: block_of(conv(5, 12, padding=1, learned_scale=True), activation=nn.Hardtanh(-0.5, 2.0)),
        lambda: randn(3, 5, 6, 7),
        "other",
    ),
    "another shortcut of ReLU": Case(
        lambda: block_of(conv(8, 7, 1), activation=nn.ReLU()), lambda: randn(3, 8, 3, 3), "other"
    ),
    "input of bits, which is the shortcut": Case(
        lambda: block_of(conv(8, 8, padding=1), activation=nn.Hardtanh()), lambda: bits_of(3, 8, 5, 5), "input"
    ),
    "nothing around it": Case(lambda: block_of(conv(3, 17)), lambda: randn(2, 3, 9, 6)),
    "stride and groups": Case(
        lambda: block_of(conv(6, 9, stride=2, padding=1, groups=3), activation=nn.Hardtanh()),
        lambda: randn(3, 6, 9, 8),
    ),
    "dilation": Case(lambda: block_of(conv(5, 6, padding=2, dilation=2), activation=Sign()), lambda: randn(2, 5, 7, 7)),
    "one image": Case(lambda: block_of(conv(5, 6), activation=nn.Hardtanh()), lambda: randn(1, 5, 4, 4)),
    "pooled": Case(
        # Some of its scales are negative, so that the smallest product is the largest.
        lambda: block_of(conv(6, 10, padding=1, learned_scale=True), pool=MaxPool2d(2), activation=nn.Hardtanh()),
        lambda: randn(3, 6, 8, 9),
    ),
    "pooled with a gap and padding": Case(
        lambda: block_of(conv(6, 10, padding=1), pool=MaxPool2d(2, stride=3, padding=1), activation=Sign()),
        lambda: bits_of(3, 6, 8, 8),
    ),
    "first layer": Case(
        lambda: block_of(conv(3, 11, padding=1, input_quantizer=None), activation=Sign(window=0.5)),
        lambda: eighths(4, 3, 7, 6),
    ),
    "pooled first layer": Case(
        lambda: block_of(conv(3, 11, padding=1, input_quantizer=None), pool=MaxPool2d(2), activation=ApproxSign()),
        lambda: eighths(4, 3, 8, 6),
    ),
    "signs that pass all": Case(
        lambda: block_of(conv(6, 5, input_quantizer=Sign(window=math.inf)), activation=Sign(window=math.inf)),
        lambda: 3 * randn(2, 6, 5, 5),
    ),
    "norm without factors": Case(
        lambda: block_of(conv(6, 5), norm=nn.BatchNorm2d(5, affine=False), activation=nn.Hardtanh()),
        lambda: randn(3, 6, 5, 5),
    ),
    "norm of an offset alone": Case(
        lambda: block_of(conv(6, 5), norm=OffsetBatchNorm(5), activation=nn.Hardtanh()), lambda: randn(3, 6, 5, 5)
    ),
    "rectified residual unit": Case(
        lambda: block_of(conv(9, 9, padding=1), rectifies=True), lambda: randn(3, 9, 6, 5), "input"
    ),
    "rectified and pooled": Case(
        lambda: block_of(conv(6, 10, padding=1), pool=MaxPool2d(2), rectifies=True, activation=Sign()),
        lambda: randn(3, 6, 8, 6),
    ),
    "rectified product of a real weight": Case(
        lambda: block_of(nn.Conv2d(3, 7, 3, bias=False), rectifies=True), lambda: eighths(2, 3, 6, 5)
    ),
    "norm with a large eps": Case(
        lambda: block_of(conv(6, 5, learned_scale=True), norm=nn.BatchNorm2d(5, eps=2.0), activation=nn.Hardtanh()),
        lambda: randn(3, 6, 5, 5),
    ),
    "linear": Case(lambda: block_of(linear(30, 20), activation=Sign()), lambda: bits_of(13, 30)),
    "linear of values": Case(lambda: block_of(linear(30, 7, input_quantizer=ApproxSign())), lambda: randn(13, 30)),
    "linear residual unit": Case(
        lambda: block_of(linear(12, 12, learned_scale=True), activation=nn.Hardtanh()), lambda: randn(9, 12), "input"
    ),
    "first linear layer": Case(
        lambda: block_of(linear(30, 7, input_quantizer=None), activation=ApproxSign()), lambda: eighths(13, 30)
    ),
    "real stem": Case(
        lambda: block_of(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), activation=nn.Hardtanh()),
        lambda: randn(3, 3, 8, 9),
    ),
    "pooled real stem": Case(
        lambda: block_of(nn.Conv2d(4, 6, 3, dilation=2, groups=2, bias=False), pool=MaxPool2d(2), activation=nn.ReLU()),
        lambda: randn(3, 4, 9, 8),
    ),
    "real 1x1 with its input": Case(
        lambda: block_of(nn.Conv2d(6, 6, 1, bias=False)), lambda: randn(3, 6, 4, 4), "input"
    ),
    "real linear": Case(lambda: block_of(nn.Linear(11, 6, bias=False), activation=Sign()), lambda: randn(9, 11)),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


class SteppedSign(torch.autograd.Function):
    """Signs whose gradient is multiplied by the quantizer's steps."""

    @staticmethod
    def forward(ctx, x, steps):
        ctx.save_for_backward(x)
        ctx.steps = steps
        return signs(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        edges, slopes = ctx.steps
        code = sum((x.abs() > torch.tensor(edge).double()).long() for edge in edges)
        return grad * torch.tensor(slopes, dtype=torch.float64)[code], None


class Replaced(torch.autograd.Function):
    """The input, whose gradient is the given one."""

    @staticmethod
    def forward(ctx, x, gradient):
        ctx.save_for_backward(gradient)
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return *ctx.saved_tensors, None


class Formula:
    """activation(norm(pool(product(x))) + shortcut) of a block with leaves of its own.

    Attributes:
        leaves: of what has a gradient, by name.
        y: the pooled product.
        rectified: what enters the norm.
        pre: before the activation.
        out: the result.
    """

    def __init__(
        self, block: BinaryBlock, x: Tensor, shortcut: Tensor | None, y_gradient: Tensor | None = None
    ) -> None:
        product, norm = block.product, block.norm
        is_binary = hasattr(product, "store")
        given = {
            "x": x,
            "weight": product.store.read() if is_binary else product.weight,
            "scale": getattr(product, "learned_scale", None),
            "gamma": norm.weight,
            "beta": norm.bias,
            "shortcut": shortcut,
        }
        self.leaves = {
            name: dense(value).detach().double().requires_grad_() for name, value in given.items() if value is not None
        }
        of = self.leaves.get
        quantizer = product.input_quantizer if is_binary else None
        operand = self.leaves["x"]
        if quantizer is not None and not isinstance(x, BitTensor):
            operand = SteppedSign.apply(operand, quantizer.slope_steps)
        if isinstance(product, (BinaryConv2d, nn.Conv2d)):
            options = (product.stride, product.padding, product.dilation, product.groups)
            y = F.conv2d(operand, self.leaves["weight"], None, *options)
            if not is_binary:  # it is kept as float16
                rows = x.detach().contiguous(memory_format=torch.channels_last)
                y = y + (F.conv2d(rows, product.weight.detach(), None, *options).half().double() - y.detach())
        else:
            y = F.linear(operand, self.leaves["weight"])
        size = of("scale")
        if block.pool is not None:
            if size is not None:  # what is pooled has the sign of the factor
                y = y * size.detach().sign().view(-1, 1, 1)
                size = size.abs()
            y = F.max_pool2d(y, block.pool.kernel_size, block.pool.stride, block.pool.padding)
        if y_gradient is not None:
            y = Replaced.apply(y, y_gradient.double())
        self.y = y
        self.rectified = y.relu() if block.rectifies else y
        if y.requires_grad:
            self.rectified.retain_grad()
        channels = (1, -1, *[1] * (y.dim() - 2))
        z = self.rectified if size is None else self.rectified * size.view(channels)
        dims = [d for d in range(z.dim()) if d != 1]
        self.mean, self.variance = z.mean(dims), z.var(dims, correction=0)
        x_hat = (z - self.mean.view(channels)) / (self.variance.view(channels) + norm.eps).sqrt()
        self.pre = x_hat if of("gamma") is None else x_hat * self.leaves["gamma"].view(channels)
        self.pre = self.pre if of("beta") is None else self.pre + self.leaves["beta"].view(channels)
        self.pre = self.pre if shortcut is None else self.pre + self.leaves["shortcut"]
        if block.output_steps is not None:
            self.out = SteppedSign.apply(self.pre, block.output_steps)
        else:
            self.out = self.pre if block.activation is None else block.activation(self.pre)

    def at_an_edge(self, block: BinaryBlock) -> Tensor:
        """Where the rounding of `pre` to float32 may decide on the slope, or on the sign."""
        pre = self.pre.detach()
        if block.output_steps is not None:
            distances = [pre.abs() - edge for edge in (0.0, *block.output_steps.edges)]
        elif block.activation is not None:
            distances = [pre - edge for edge in block.clamp_range]
        else:
            distances = []
        near = torch.zeros_like(pre, dtype=torch.bool)
        for distance in distances:
            near |= distance.abs() < 1e-4
        return near


def shortcut_of(case: Case, block: BinaryBlock, x: Tensor) -> Tensor | None:
    if case.shortcut == "other":
        with torch.no_grad():
            return randn(*copy.deepcopy(block)(x).shape, seed=5).clamp(-1, 1)
    return x if case.shortcut == "input" else None


class Spy:
    """The package's operations, whose calls are kept."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], Any]] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            result = getattr(torch.ops.bnn, name)(*args)
            self.calls.append((name, args, result))
            return result

        return call

    def has_called(self, name: str) -> bool:
        return any(called == name for called, _, _ in self.calls)

    def called(self, name: str) -> tuple[tuple[Any, ...], Any]:
        ((args, result),) = [(args, result) for called, args, result in self.calls if called == name]
        return args, result


def channel_dims(x: Tensor) -> tuple[int, ...]:
    return tuple(d for d in range(x.dim()) if d != 1)


def scale_of(block: BinaryBlock) -> nn.Parameter | None:
    return getattr(block.product, "learned_scale", None)


def parts_of(block: BinaryBlock, x: Tensor, shortcut: Tensor | None) -> Tensor:
    """The parts of a block, called one after the other."""
    out = block.product(x)
    out = out if block.pool is None else block.pool(out)
    out = block.norm(out.relu() if block.rectifies else out)
    out = out if shortcut is None else out + shortcut
    return out if block.activation is None else block.activation(out)
