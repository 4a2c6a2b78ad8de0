"""A network as a list of steps over values of one example, which the writers of C and ONNX read.

Values are laid out in (height, width, channels) order; a vector is an image of one pixel. Weights are laid out in the
order of their patch: [outputs, kernel height, kernel width, channels].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Kind = Literal["bits", "float32", "bfloat16", "uint8"]


@dataclass(frozen=True)
class Value:
    """What a step makes: one image of ±1 bits, of floats, or of the pixels that a program takes."""

    number: int
    kind: Kind
    height: int
    width: int
    channels: int

    @property
    def pixels(self) -> int:
        """Height times width."""
        return self.height * self.width

    @property
    def size(self) -> int:
        """Elements."""
        return self.pixels * self.channels


class Mul(NamedTuple):
    """y = y factor, rounded to float32."""

    factor: Tensor
    """float32 [channels]."""

    def __call__(self, y: Tensor) -> Tensor:
        """[..., channels] to the same shape; as of the other operations."""
        return y * self.factor


class Add(NamedTuple):
    """y = y + term, rounded to float32."""

    term: Tensor
    """float32 [channels]."""

    def __call__(self, y: Tensor) -> Tensor:  # noqa: D102
        return y + self.term


class Div(NamedTuple):
    """y = y / divisor, rounded to float32."""

    divisor: Tensor
    """float32 [channels]."""

    def __call__(self, y: Tensor) -> Tensor:  # noqa: D102
        return y / self.divisor


class MulAdd(NamedTuple):
    """y = y factor + term, rounded once, as torch's batch norm is evaluated."""

    factor: Tensor
    """float32 [channels]."""
    term: Tensor
    """float32 [channels]."""

    def __call__(self, y: Tensor) -> Tensor:  # noqa: D102
        return (y.double() * self.factor.double() + self.term.double()).float()


class Clamp(NamedTuple):
    """y = min(max(y, low), high)."""

    low: float
    high: float

    def __call__(self, y: Tensor) -> Tensor:  # noqa: D102
        return y.clamp(self.low, self.high)


class PReLU(NamedTuple):
    """y = y slope where y < 0."""

    slope: Tensor
    """float32 [channels]."""

    def __call__(self, y: Tensor) -> Tensor:  # noqa: D102
        return torch.where(y >= 0, y, y * self.slope)


class Rounded(NamedTuple):
    """y is rounded to a float of 16 bits, to the nearest one, and of two to the even one."""

    dtype: Literal["float16", "bfloat16"]

    def __call__(self, y: Tensor) -> Tensor:  # noqa: D102
        return y.to(getattr(torch, self.dtype)).float()


class AddValue(NamedTuple):
    """y = y + value, rounded to float32."""

    value: Value


Elementwise = Mul | Add | Div | MulAdd | Clamp | PReLU | Rounded | AddValue


@dataclass(frozen=True)
class Window:
    """Where a kernel's taps lie; padding is of zeros, and does not take part in a maximum. (Height, width) each."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Thresholds:
    """A sign of elementwise operations, folded: the bit is (y >= least) xor inverted."""

    least: Tensor
    """[channels], int64 for whole y, else float32."""
    inverted: Tensor
    """bool [channels]."""


@dataclass(frozen=True)
class Product:
    """out = tail(max over pool of the convolution of x); a linear layer has a kernel as large as its image."""

    x: Value
    out: Value
    weight: Tensor
    """[outputs, kernel height, kernel width, channels], bool of ±1 (True is +1), or float32."""
    window: Window
    pool: Window | None = None
    tail: tuple[Elementwise, ...] | Thresholds = ()
    fuses: bool = False
    """Of real factors: whether a term's product is not rounded before it is added, as in real convolutions."""

    @property
    def is_binary(self) -> bool:
        """Whether both operands are of bits."""
        return self.x.kind == "bits"

    @property
    def needs_order(self) -> bool:
        """Whether both operands are real and sums are rounded to 16 bits, so that the order of their terms shows."""
        if self.is_binary or self.weight.dtype is torch.bool or isinstance(self.tail, Thresholds):
            return False
        return any(isinstance(operation, Rounded) for operation in self.tail)

    @property
    def taps(self) -> int:
        """Terms of a sum."""
        return self.weight[0].numel()

    @property
    def unpooled(self) -> tuple[int, int]:
        """Height and width before the pooling."""
        return _outputs((self.x.height, self.x.width), self.window)


@dataclass(frozen=True)
class Map:
    """Elementwise operations."""

    x: Value
    out: Value
    operations: tuple[Elementwise, ...]


@dataclass(frozen=True)
class Signs:
    """Bits: +1 where x >= 0."""

    x: Value
    out: Value


@dataclass(frozen=True)
class MaxPool:
    """Maxima of windows, of bits or floats."""

    x: Value
    out: Value
    window: Window


@dataclass(frozen=True)
class AveragePool:
    """Means of windows without padding; of those that reach beyond the image, of what lies in it."""

    x: Value
    out: Value
    window: Window


@dataclass(frozen=True)
class Blur:
    """Every second pixel of each channel times [1 2 1] x [1 2 1] / 16, behind one pixel of zeros around the image."""

    x: Value
    out: Value


@dataclass(frozen=True)
class Pad:
    """Zeros around x: channels before and behind its own, and pixels."""

    x: Value
    out: Value
    before: int = 0
    """Channels."""
    top: int = 0
    left: int = 0


@dataclass(frozen=True)
class HalfTurn:
    """The image turned by half a turn."""

    x: Value
    out: Value


@dataclass(frozen=True)
class Normalize:
    """Pixels of uint8 to floats: pixel scale + shift, in two roundings, as `Preprocessing.normalized` has them."""

    x: Value
    out: Value
    scale: Tensor
    """float32 [channels]."""
    shift: Tensor
    """float32 [channels]."""


Step = Product | Map | Signs | MaxPool | AveragePool | Blur | Pad | HalfTurn | Normalize


@dataclass(frozen=True)
class Program:
    """The steps of a network, from its input to its logits."""

    input: Value
    input_shape: tuple[int, ...]
    """(C, H, W), or (features,), of one example as the network takes it."""
    steps: tuple[Step, ...]
    output: Value
    """float32, one pixel of as many channels as there are classes."""
    classes: tuple[str, ...] = ()


def reads(step: Step) -> Iterator[Value]:
    """The values that a step needs."""
    yield step.x
    operations = step.operations if isinstance(step, Map) else step.tail if isinstance(step, Product) else ()
    if not isinstance(operations, Thresholds):
        yield from (operation.value for operation in operations if isinstance(operation, AddValue))


def applied(operations: Sequence[Elementwise], y: Tensor) -> Tensor:
    """Elementwise operations without values, of float32 [..., channels]."""
    for operation in operations:
        assert not isinstance(operation, AddValue)
        y = operation(y)
    return y


def _outputs(size: tuple[int, int], window: Window) -> tuple[int, int]:
    height, width = (
        (extent + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for extent, kernel, stride, padding, dilation in zip(
            size, window.kernel, window.stride, window.padding, window.dilation, strict=True
        )
    )
    return height, width
