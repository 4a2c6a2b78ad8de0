"""The steps of each layer that can be exported."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bnn.layers
import bnn.quantizers
from bnn.bits import BitTensor
from bnn.export.images import blur, half_turn, zero_pad
from bnn.export.program import (
    Add,
    AddValue,
    AveragePool,
    Clamp,
    Div,
    Elementwise,
    Map,
    MaxPool,
    Mul,
    MulAdd,
    PReLU,
    Product,
    Rounded,
    Value,
    Window,
)
from bnn.export.values import Unsupported, Values, pool_window
from bnn.layers.base import BinaryLayer
from bnn.ops import geometry
from bnn.ops.batch_norm import affine


def _product(layer: nn.Module, values: Values, x: Value, *, turned: Tensor | None = None) -> Value:
    """The sums of a layer with a weight, without scale and bias."""
    weight, window = _weight_and_window(layer, x)
    if isinstance(layer, BinaryLayer) and layer.input_quantizer is not None:
        if not layer.input_quantizer.is_sign:
            raise Unsupported(f"its input goes through {type(layer.input_quantizer).__name__}, which is no sign")
        x = values.signs(x)
    if x.kind == "bits" and weight.dtype is not torch.bool:
        raise Unsupported("a real weight and an input of bits")
    if x.kind == "bfloat16":
        out = values.new("float32", x.height, x.width, x.channels)
        values.steps.append(Map(x, out, ()))
        x = out
    if turned is not None:
        weight = weight ^ turned.view(-1, 1, 1, 1)
    product = Product(x, values.new("float32", 1, 1, len(weight)), weight, window, fuses=isinstance(layer, nn.Conv2d))
    out = values.new("float32", *product.unpooled, len(weight))
    values.steps.append(replace(product, out=out))
    return out


def _weight_and_window(layer: nn.Module, x: Value) -> tuple[Tensor, Window]:
    """[outputs, kernel height, kernel width, channels], bool where it is binary, and where its taps lie."""
    weight, window = _weight(layer), _geometry(layer)
    if window is None:
        # The elements of an image go through a linear layer in the order of torch's flattening.
        by_pixels = weight.view(len(weight), x.channels, x.height, x.width).permute(0, 2, 3, 1)
        return by_pixels.contiguous(), Window((x.height, x.width))
    stride, padding, dilation, groups = window.for_torch
    if groups != 1:
        weight = _dense_groups(weight, groups)
    kernel = (weight.shape[2], weight.shape[3])
    return weight.permute(0, 2, 3, 1).contiguous(), Window(kernel, stride, padding, dilation)


def _dense_groups(weight: Tensor, groups: int) -> Tensor:
    """The weight of a grouped convolution with zeros where it has none: [outputs, channels, kernel height, width]."""
    if weight.dtype is torch.bool:
        raise Unsupported(f"it has {groups} groups")
    parts = weight.chunk(groups)
    return torch.cat([F.pad(part, (0, 0) * 2 + _beside(part, number, groups)) for number, part in enumerate(parts)])


def _beside(part: Tensor, number: int, groups: int) -> tuple[int, int]:
    """Channels before and behind those of a group."""
    return number * part.shape[1], (groups - 1 - number) * part.shape[1]


def _weight(layer: nn.Module) -> Tensor:
    if not isinstance(layer, BinaryLayer):
        weight = layer.weight
        assert isinstance(weight, Tensor)
        return weight.detach().float()
    if not layer.store.is_binary:
        raise Unsupported("its weight is not binary")
    with torch.no_grad():
        return layer.store.read().dense(torch.bool)  # type: ignore[attr-defined, no-any-return]


def _geometry(layer: nn.Module) -> geometry.Window | None:
    """The window of a convolution; None of a linear layer."""
    if not isinstance(layer, nn.Conv2d):
        return layer.window if isinstance(layer, bnn.layers.BinaryConv2d) else None
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise Unsupported("it is not padded by a number of zeros")
    return geometry.Window.of(stride=layer.stride, padding=layer.padding, dilation=layer.dilation, groups=layer.groups)


def _factors(layer: nn.Module) -> list[Tensor]:
    if not isinstance(layer, BinaryLayer):
        return []
    return [factor.detach() for factor in (layer.store.scale(), layer.learned_scale) if factor is not None]


def _scaled(layer: nn.Module) -> list[Elementwise]:
    """What follows the sums of a layer: its scales and its bias."""
    bias = layer.bias
    return [*map(Mul, _factors(layer)), *([Add(bias.detach())] if isinstance(bias, Tensor) else [])]


def _layer(layer: nn.Module, values: Values, result: Tensor, x: Value) -> Value:
    out = _product(layer, values, x)
    return values.mapped(out, _scaled(layer), result)


def _block(
    block: bnn.layers.BinaryBlock,
    values: Values,
    result: Any,
    x: Value,
    shortcut: Value | None = None,
    *,
    with_input: bool = False,
) -> Any:
    layer, pool = block.product, block.pool
    given = result[0] if with_input else result
    fused = block.is_fused and not (shortcut is not None and block.output_steps is not None)
    factors = _factors(layer)
    turned = None
    if pool is not None and factors:
        # By a negative factor, the smallest product is the largest: the kernels of such channels are negated.
        turned = math.prod(factors, start=torch.ones(1)) < 0
    out = _product(layer, values, x, turned=turned)
    if pool is not None:
        size = _pooled_size(out, pool_window(pool))
        out = values.pooled(out, pool, MaxPool, size)
    rectified: list[Elementwise] = [Clamp(0.0, math.inf)] if block.rectifies else []
    after: list[Elementwise] = [] if shortcut is None else [AddValue(shortcut)]
    if fused:
        rounding: list[Elementwise] = [] if block.window is None else [Rounded("float16")]
        operations = [*rounding, *rectified, *_fused_norm(block, factors, turned), *after]
        if math.isfinite(block.clamp_range[0]) or math.isfinite(block.clamp_range[1]):
            operations.append(Clamp(*block.clamp_range))
        out = values.mapped(out, operations, given)
    else:
        scaled = _scaled(layer)
        if turned is not None:
            scaled = [Mul(operation.factor.abs()) if isinstance(operation, Mul) else operation for operation in scaled]
        is_sign, norm = _of_norm(block.norm)
        activation = [] if block.activation is None or is_sign else _activation(block.activation)
        out = values.mapped(out, [*scaled, *rectified, *norm, *after, *activation], given)
        if is_sign:
            out = values.signs(out)
    if isinstance(given, BitTensor):
        out = values.signs(out)
    return (out, x) if with_input else out


def _fused_norm(block: bnn.layers.BinaryBlock, factors: list[Tensor], turned: Tensor | None) -> list[Elementwise]:
    """As `BinaryBlock` evaluates it where it is fused."""
    norm = block.norm
    with torch.no_grad():
        inverse = (norm.running_var + norm.eps).rsqrt()  # type: ignore[operator]
        factor, offset = affine(norm.running_mean, inverse, None, norm.weight, norm.bias)  # type: ignore[arg-type]
        if factors:
            scale = factors[0] if len(factors) == 1 else factors[0] * factors[1]
            factor = factor * (scale if turned is None else scale.abs())
    return [Mul(factor.detach()), Add(offset.detach())]


def _of_norm(norm: nn.Module) -> tuple[bool, list[Elementwise]]:
    """The operations of a norm, and whether signs are taken behind them."""
    if isinstance(norm, bnn.layers.BinaryNorm):
        threshold = norm.running_mean - norm.bias * (norm.running_deviation + norm.eps)
        return True, [Add(-threshold.detach())]
    if isinstance(norm, bnn.layers.L1BatchNorm):
        operations: list[Elementwise] = [Add(-norm.running_mean), Div(norm.running_deviation + norm.eps)]
        if norm.weight is not None and norm.bias is not None:
            operations += [Mul(norm.weight.detach()), Add(norm.bias.detach())]
        return False, operations
    if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
        raise Unsupported(f"its norm is a {type(norm).__name__}")
    if norm.running_mean is None or norm.running_var is None:
        raise Unsupported("its norm has no running statistics")
    with torch.no_grad():
        factor = (norm.running_var + norm.eps).rsqrt()
        factor = factor if norm.weight is None else factor * norm.weight
        term = -norm.running_mean.double() * factor.double()
        term = term if norm.bias is None else term + norm.bias.double()
    return False, [MulAdd(factor.detach(), term.float())]


def _norm(norm: nn.Module, values: Values, result: Tensor, x: Value) -> Value:
    if x.kind == "bits":
        raise Unsupported("its input are bits")
    is_sign, operations = _of_norm(norm)
    if x.channels != len(next(iter(norm.buffers()))):  # of a flattened image
        raise Unsupported("it follows a flattened image")
    out = values.mapped(x, operations, result)
    return values.signs(out) if is_sign else out


def _activation(module: nn.Module) -> list[Elementwise]:
    match module:
        case nn.ReLU():
            return [Clamp(0.0, math.inf)]
        case nn.Hardtanh():
            return [Clamp(float(module.min_val), float(module.max_val))]
        case bnn.layers.RPReLU():
            gamma, slope, zeta = (x.detach() for x in (module.gamma, module.slope, module.zeta))
            return [Add(-gamma), PReLU(slope), Add(zeta)]
        case bnn.quantizers.Quantizer() if module.is_sign:
            return []
    raise Unsupported(f"its activation is a {type(module).__name__}")


def _real_activation(module: nn.Module, values: Values, result: Tensor, x: Value) -> Value:
    if x.kind == "bits":
        raise Unsupported("its input are bits")
    return values.mapped(x, _activation(module), result)


def _prelu(module: nn.PReLU, values: Values, result: Tensor, x: Value) -> Value:
    slope = module.weight.detach()
    return values.mapped(x, [PReLU(slope if len(slope) > 1 else slope.expand(x.channels))], result)


def _quantizer(module: bnn.quantizers.Quantizer, values: Values, result: Tensor, x: Value) -> Value:
    if not module.is_sign:
        raise Unsupported("it is no sign")
    return values.signs(x)


def _pooled_size(x: Value, window: Window) -> tuple[int, int]:
    height, width = (
        (extent + 2 * padding - kernel) // stride + 1
        for extent, kernel, stride, padding in zip(
            (x.height, x.width), window.kernel, window.stride, window.padding, strict=True
        )
    )
    return height, width


def _max_pool(pool: nn.Module, values: Values, result: Tensor, x: Value) -> Value:
    return values.pooled(x, pool, MaxPool, (result.shape[2], result.shape[3]))


def _average_pool(pool: nn.AvgPool2d, values: Values, result: Any, x: Value, *, with_input: bool = False) -> Any:
    size = (result[0] if with_input else result).shape[2:]
    if x.kind == "bits":
        raise Unsupported("its input are bits")
    if pool_window(pool).padding != (0, 0) or pool.divisor_override is not None:
        raise Unsupported("it has padding, or a divisor of its own")
    pooled = values.pooled(x, pool, AveragePool, (size[0], size[1]))
    return (pooled, x) if with_input else pooled


def _global_average(pool: nn.AdaptiveAvgPool2d, values: Values, result: Tensor, x: Value) -> Value:
    if tuple(result.shape[2:]) != (1, 1) or x.kind == "bits":
        raise Unsupported("it does not give one mean of floats a channel")
    out = values.new(x.kind, 1, 1, x.channels)
    values.steps.append(AveragePool(x, out, Window((x.height, x.width), (x.height, x.width))))
    return out


def _same(module: nn.Module, values: Values, result: Tensor, x: Value) -> Value:
    return x


def _flatten(module: nn.Flatten, values: Values, result: Tensor, x: Value) -> Value:
    if result.dim() != 2 or result.shape[1] != x.size:
        raise Unsupported("it keeps dimensions")
    return x


Lower = Callable[..., Any]

LAYERS: dict[type[nn.Module], Lower] = {
    bnn.layers.BinaryBlock: _block,
    **dict.fromkeys((bnn.layers.BinaryConv2d, bnn.layers.BinaryLinear, nn.Conv2d, nn.Linear), _layer),
    **dict.fromkeys((bnn.layers.BinaryNorm, bnn.layers.L1BatchNorm, nn.BatchNorm1d, nn.BatchNorm2d), _norm),
    **dict.fromkeys((nn.ReLU, nn.Hardtanh, bnn.layers.RPReLU), _real_activation),
    nn.PReLU: _prelu,
    **dict.fromkeys((bnn.quantizers.Sign, bnn.quantizers.ApproxSign), _quantizer),
    **dict.fromkeys((bnn.layers.MaxPool2d, nn.MaxPool2d), _max_pool),
    **dict.fromkeys((bnn.layers.AvgPool2d, nn.AvgPool2d), _average_pool),
    **dict.fromkeys((bnn.layers.GlobalAvgPool2d, nn.AdaptiveAvgPool2d), _global_average),
    nn.ZeroPad2d: zero_pad,
    bnn.layers.HalfTurn: half_turn,
    bnn.layers.BlurPool2d: blur,
    nn.Flatten: _flatten,
    **dict.fromkeys((nn.Identity, nn.Dropout, nn.Dropout2d), _same),
}
"""By class: appends the steps of a layer; takes it, the values, what it gave for an example, and its inputs."""
