"""The steps of layers that move pixels and channels about."""

from __future__ import annotations

import math

from torch import Tensor, nn

from bnn.export.program import AveragePool, Clamp, HalfTurn, Pad, Value, Window
from bnn.export.values import Unsupported, Values


def append_pad(values: Values, result: Tensor, x: Value, before: int) -> Value:
    """Channels of zeros around those of floats."""
    if x.kind == "bits":
        raise Unsupported("channels of zeros beside bits")
    out = values.new(x.kind, x.height, x.width, result.shape[1])
    values.steps.append(Pad(x, out, before))
    return out


def zero_pad(pad: nn.ZeroPad2d, values: Values, result: Tensor, x: Value) -> Value:
    """Pixels of zeros around those of floats."""
    left, _, top, _ = pad.padding
    if x.kind == "bits" or min(pad.padding) < 0:
        raise Unsupported("it pads bits, or takes pixels away")
    out = values.new(x.kind, result.shape[2], result.shape[3], x.channels)
    values.steps.append(Pad(x, out, top=top, left=left))
    return out


def half_turn(turn: nn.Module, values: Values, result: Tensor, x: Value) -> Value:
    """An image of floats, turned."""
    if x.kind == "bits":
        raise Unsupported("its input are bits")
    out = values.new(x.kind, x.height, x.width, x.channels)
    values.steps.append(HalfTurn(x, out))
    return out


def blur(module: nn.Module, values: Values, result: Tensor, x: Value) -> Value:
    """By means of 2x2 pixels twice, which together weigh [1 2 1] x [1 2 1]."""
    if x.kind == "bits":
        raise Unsupported("its input are bits")
    wide = values.mapped(x, [Clamp(-math.inf, math.inf)]) if x.kind == "bfloat16" else x
    padded = values.new("float32", x.height + 2, x.width + 2, x.channels)
    once = values.new("float32", x.height + 1, x.width + 1, x.channels)
    twice = values.new("float32", result.shape[2], result.shape[3], x.channels)
    values.steps += [
        Pad(wide, padded, top=1, left=1),
        AveragePool(padded, once, Window((2, 2))),
        AveragePool(once, twice, Window((2, 2), (2, 2))),
    ]
    return values.mapped(twice, [], result)
