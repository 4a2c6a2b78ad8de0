"""The values and steps of a program while it is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bnn.bits import BitTensor
from bnn.export.program import AveragePool, Elementwise, Kind, Map, MaxPool, Rounded, Signs, Step, Value, Window


class Unsupported(Exception):
    """A layer cannot be exported; the message says what about it."""


class Values:
    """The steps so far, and the numbers of their values."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._count = 0

    def new(self, kind: Kind, height: int, width: int, channels: int) -> Value:
        """A value that no step makes yet."""
        self._count += 1
        return Value(self._count - 1, kind, height, width, channels)

    def like(self, result: Tensor) -> Value:
        """A value for what a layer gave, [1, C] or [1, C, H, W]."""
        channels, height, width = (*result.shape[1:], 1, 1)[:3]
        if isinstance(result, BitTensor):
            return self.new("bits", height, width, channels)
        return self.new("bfloat16" if result.dtype is torch.bfloat16 else "float32", height, width, channels)

    def mapped(self, x: Value, operations: Sequence[Elementwise], result: Tensor | None = None) -> Value:
        """The value of elementwise operations; of float32 unless `result` is of bfloat16."""
        narrow = result is not None and result.dtype is torch.bfloat16 and not isinstance(result, BitTensor)
        if not operations and not narrow:
            return x
        last: list[Elementwise] = [Rounded("bfloat16")] if narrow else []
        out = self.new("bfloat16" if narrow else "float32", x.height, x.width, x.channels)
        self.steps.append(Map(x, out, (*operations, *last)))
        return out

    def signs(self, x: Value) -> Value:
        """The signs of a value, which is itself where it is bits."""
        if x.kind == "bits":
            return x
        out = self.new("bits", x.height, x.width, x.channels)
        self.steps.append(Signs(x, out))
        return out

    def pooled(self, x: Value, pool: nn.Module, step: type[MaxPool | AveragePool], size: tuple[int, int]) -> Value:
        """The value of a pooling, of this height and width."""
        out = self.new(x.kind, *size, x.channels)
        self.steps.append(step(x, out, pool_window(pool)))
        return out


def pool_window(pool: Any) -> Window:
    """Where the windows of a pooling lie."""

    def pair(size: Any) -> tuple[int, int]:
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    if getattr(pool, "dilation", 1) not in (1, (1, 1)):
        raise Unsupported("its windows have gaps")
    return Window(pair(pool.kernel_size), pair(pool.stride), pair(pool.padding))
