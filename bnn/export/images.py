"""The steps of layers that move pixels and channels about."""

from __future__ import annotations

from torch import Tensor, nn

from bnn.export.program import Blur, HalfTurn, Pad, Value
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
    """By [1 2 1] x [1 2 1] / 16."""
    if x.kind == "bits":
        raise Unsupported("its input are bits")
    out = values.new(x.kind, result.shape[2], result.shape[3], x.channels)
    values.steps.append(Blur(x, out))
    return out
