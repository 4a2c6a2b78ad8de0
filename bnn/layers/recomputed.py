"""A block as one node of autograd, which keeps bits and forms its product again in backward."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn.bits import BitTensor
from bnn.layers import products
from bnn.ops.geometry import Window
from bnn.ops.memory import empty_images
from bnn.ops.pooling import choices_shape, pooled_shape

if TYPE_CHECKING:
    from bnn.layers.block import BinaryBlock

_bnn = torch.ops.bnn
# Products that exist at a time where they are worked off in parts: 1 MiB of float32.
_CHUNK_ELEMENTS = 1 << 18
_PASSES_ALL = [1.0]
_PASSES_INSIDE = [1.0, 0.0]


class Recomputed(torch.autograd.Function):
    """activation(norm(pool(product(quantize(x)))) + shortcut) of a `BinaryBlock`.

    Returns the result; the input, whose gradient is then added to the product's in the same pass; and mean and variance
    of the product for the norm's running statistics.
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        scale: Tensor | None,
        gamma: Tensor | None,
        beta: Tensor | None,
        shortcut: Tensor | None,
        block: BinaryBlock,
        adds_input: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ctx.block, ctx.adds_input, ctx.x_dtype = block, adds_input, x.dtype
        operand, input_codes = quantized(x, block)
        if isinstance(weight, BitTensor):
            weight = products.in_rows(weight)
        y, _, _ = product(operand, weight, block)
        if y.numel() <= y.shape[1]:
            raise ValueError(f"batch statistics need two values a channel, got a tensor of {tuple(y.shape)}")
        mean, variance = _bnn.channel_moments(y)
        inverse = inverse_deviation(variance, scale, cast(nn.BatchNorm2d, block.norm).eps)
        factor, offset = affine(mean, inverse, scale, gamma, beta)
        out, codes = finish(y, factor, offset, x if adds_input else shortcut, block)
        ctx.save_for_backward(operand, input_codes, weight, scale, gamma, mean, inverse, codes)
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return out, x.view_as(x), mean, variance

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:  # noqa: D102
        operand, input_codes, weight, scale, gamma, mean, inverse, codes = ctx.saved_tensors
        block, (grad, of_input, *_) = ctx.block, grads
        if grad is None:  # of the two results only the input was used
            return of_input, *[None] * 7
        slopes = output_slopes(block)
        y, choices, shape = product(operand, weight, block)
        sum_, along, largest, farthest = _bnn.norm_gradient_sums(grad, codes, slopes, y, mean)
        of_channels = _NormGradient(sum_, along, mean, inverse, scale, gamma, y.numel() // y.shape[1], block.norm.eps)
        terms = (grad, codes, slopes, y, of_channels.of_grad, of_channels.of_y, of_channels.constant)
        grad_x = grad_weight = None
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        to_input = ctx.adds_input and needs_x
        passed = None
        if ctx.needs_input_grad[5] or (to_input and not len(input_codes)):
            passed = _bnn.pass_slopes(grad, codes, slopes) if len(codes) else grad
        # What comes to the input by another way is added in the product's pass: of the shortcut, or of a later use.
        base, outside = of_input, None
        if to_input:
            base, outside = (passed, None) if passed is not None else (grad, codes[0] if len(codes) else None)
        if isinstance(weight, BitTensor):
            quantizer, bound = block.product.grad_quantizer, of_channels.bound(largest, farthest)

            def integers(largest: int) -> tuple[Tensor, Tensor]:
                q, scale = _bnn.norm_gradient_integers(*terms, bound, largest, quantizer.seed())
                if block.pool is not None:
                    q = _bnn.max_pool2d_scatter(q, choices, shape, block.pool.window)
                return q, scale

            q, q_scale = integers(quantizer.largest)
            of_weight = q, q_scale
            if needs_weight and quantizer.weight_largest not in (None, quantizer.largest):
                of_weight = integers(quantizer.weight_largest)
            del y, terms
            if needs_weight:
                sign = block.product.store.gradient_quantizer
                grad_weight = products.weight_gradient(*of_weight, operand, weight, block.window, sign)
            del of_weight
            if needs_x:
                grad_x = products.input_gradient(
                    q,
                    q_scale,
                    operand,
                    weight,
                    block.window,
                    codes=input_codes,
                    slopes=block.input_steps.slopes if len(input_codes) else (),
                    base=base,
                    outside=outside,
                )
        else:
            grad_x, grad_weight = _real_gradients(ctx, operand, weight, terms, choices, shape)
            del y, terms
            if grad_x is not None and base is not None:
                grad_x = grad_x + base
        if grad_x is not None:
            if to_input and of_input is not None:
                grad_x = grad_x + of_input
            grad_x = grad_x.to(ctx.x_dtype)
        grad_gamma = None if gamma is None else of_channels.of_gamma
        grad_beta = sum_.float() if ctx.needs_input_grad[4] else None
        grad_scale = None if scale is None else of_channels.of_scale
        grad_shortcut = passed if ctx.needs_input_grad[5] else None
        return grad_x, grad_weight, grad_scale, grad_gamma, grad_beta, grad_shortcut, None, None


class Turned(torch.autograd.Function):
    """The kernels of a weight of bits, some of them with the other sign."""

    @staticmethod
    def forward(ctx: Any, weight: BitTensor, which: Tensor) -> Tensor:  # noqa: D102
        ctx.which = which
        return _turned(products.in_rows(weight), which)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:  # noqa: D102
        return _turned(grads[0], ctx.which), None


def _turned(x: Tensor, which: Tensor) -> Tensor:
    """`x` [O, ...], negative where `which` [O] says so."""
    if not isinstance(x, BitTensor):
        return torch.where(which.view(-1, *[1] * (x.dim() - 1)), -x, x)
    bits = _bnn.pack(which[:, None].expand(-1, x.shape[1:].numel()))
    return BitTensor(x.packed ^ bits, x.shape, x.stride(), x.dtype)


class _NormGradient:
    """The gradient of a batch norm of z = scale y, channel by channel, from its sums.

    With x = (z - mean) / deviation and means over a channel,

        dL/dy = gamma scale / deviation (g - mean(g) - x mean(g x)) = of_grad g + of_y y + constant.

    A channel that is constant over the batch gets no gradient: it would be one of 1 / sqrt(eps), whose scale erases
    that of all others.
    """

    def __init__(
        self,
        sum_: Tensor,
        along: Tensor,
        mean: Tensor,
        inverse: Tensor,
        scale: Tensor | None,
        gamma: Tensor | None,
        count: int,
        eps: float,
    ) -> None:
        # As it is rounded: of a variance of 0, its square times eps is not always 1.
        varies = inverse < inverse_deviation(torch.zeros_like(mean), None, eps)
        inverse, mean = inverse.double(), mean.double()
        a = 1.0 if scale is None else scale.double()
        weight = 1.0 if gamma is None else gamma.double()
        self.of_gamma = (a * inverse * along).float()
        self.of_scale = (weight * eps * inverse**3 * along).float()
        of_grad = weight * a * inverse
        of_y = -of_grad * (a * inverse).square() * along / count
        centre = -of_grad * sum_ / count
        self.of_grad, self.of_y, self._centre, self.constant = (
            torch.where(varies, value, 0).float() for value in (of_grad, of_y, centre, centre - of_y * mean)
        )

    def bound(self, largest: Tensor, farthest: Tensor) -> Tensor:
        """Of |dL/dy|, float32 []: from the largest |g| and |y - mean| of each channel."""
        bounds = self.of_grad.abs() * largest + self.of_y.abs() * farthest + self._centre.abs()
        return bounds.amax()


def inverse_deviation(variance: Tensor, scale: Tensor | None, eps: float) -> Tensor:
    """1 / sqrt(variance of scale y + eps), float32 [C]."""
    variance = variance.double()
    return (variance if scale is None else variance * scale.double().square()).add(eps).rsqrt().float()


def affine(
    mean: Tensor, inverse: Tensor, scale: Tensor | None, gamma: Tensor | None, beta: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Factor and offset, [C] each, that make the norm of scale y from y; `mean` is that of y."""
    factor = inverse if gamma is None else inverse * gamma
    factor = factor if scale is None else factor * scale
    offset = -factor * mean
    return factor, offset if beta is None else offset + beta


def finish(
    y: Tensor, factor: Tensor, offset: Tensor, shortcut: Tensor | None, block: BinaryBlock
) -> tuple[Tensor, Tensor]:
    """The activation of y factor + offset + shortcut, and the codes of its gradient."""
    steps = block.output_steps
    if steps is not None:
        bits, codes = _bnn.sign_codes(y, factor, offset, steps.edges)
        return _in_rows(bits, y.shape), codes
    # What flows between convolutions is large and takes 16 bits.
    dtype = torch.bfloat16 if y.dim() == 4 else torch.float32
    low, high = block.clamp_range
    out, codes = _bnn.norm_clamp(y, factor, offset, shortcut, low, high, dtype)
    # A slice would keep the memory of all codes.
    return out, codes if math.isfinite(low) or math.isfinite(high) else codes.new_empty((0, *codes.shape[1:]))


def output_slopes(block: BinaryBlock) -> list[float]:
    """The slope of each code of the block's output."""
    if block.output_steps is not None:
        return list(block.output_steps.slopes)
    return _PASSES_INSIDE if any(map(math.isfinite, block.clamp_range)) else _PASSES_ALL


def product(x: Tensor, weight: Tensor, block: BinaryBlock) -> tuple[Tensor, Tensor | None, torch.Size]:
    """The pooled product, the choices of its pooling, and its shape before the pooling; the same at every call.

    A convolution is float16, which holds the whole numbers that bits give up to 2048, and even ones up to 4096; other
    products are float32.
    """
    window, pool = block.window, block.pool
    shape = block.product_shape(x)
    if window is None:
        y = (
            products.multiply(x, weight, None)
            if isinstance(weight, BitTensor)
            else F.linear(x.to(weight.dtype), weight)
        )
        return y, None, shape
    if isinstance(x, BitTensor):
        packed = (x.packed, list(x.shape), weight.packed, list(weight.shape))  # type: ignore[attr-defined]
        if pool is None:
            return _bnn.conv2d(*packed, window, torch.float16), None, shape
        return *_bnn.conv2d_max_pool2d(*packed, window, pool.window), shape
    y, choices = _empty_results(x, shape, block)
    for rows in row_slices(x, shape):
        part = _real_product(x[rows], weight, window)
        if pool is None:
            y[rows] = part
        else:
            y[rows], choices[:, rows] = _bnn.max_pool2d_choices(part, pool.window)
    return y, None if pool is None else choices, shape


def _real_product(x: Tensor, weight: Tensor, window: Window) -> Tensor:
    """Of real images; float16 by bits, float32 by a real weight."""
    if isinstance(weight, BitTensor):
        return products.multiply(x, weight, window, torch.float16)
    return F.conv2d(x.to(weight.dtype), weight, None, *window.for_torch)


def _empty_results(x: Tensor, shape: torch.Size, block: BinaryBlock) -> tuple[Tensor, Tensor]:
    """A float16 product and the choices of its pooling, not yet written."""
    if block.pool is None:
        return empty_images(shape, torch.float16, x.device), x.new_empty(0, dtype=torch.uint8)
    pooled = pooled_shape(shape, block.pool.window)
    choices = x.new_empty(choices_shape(pooled, block.pool.window), dtype=torch.uint8)
    return empty_images(pooled, torch.float16, x.device), choices


def row_slices(x: Tensor, shape: torch.Size) -> Iterator[slice]:
    """Cuts a batch into parts whose products, of `shape` for all of it, take little memory."""
    step = max(1, _CHUNK_ELEMENTS // max(1, shape[1:].numel()))
    for start in range(0, max(1, len(x)), step):
        yield slice(start, start + step)


def quantized(x: Tensor, block: BinaryBlock) -> tuple[Tensor, Tensor]:
    """What enters the product, as it is kept for backward, and the codes of its gradient."""
    steps = block.input_steps
    if isinstance(x, BitTensor):
        return products.in_rows(x), x.packed.new_empty((0, 0, 0))
    if steps is None:
        x = x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.contiguous_format)
        return x, torch.empty((0, 0, 0), dtype=torch.uint8, device=x.device)
    bits, codes = _bnn.sign_codes(x, None, None, steps.edges)
    return _in_rows(bits, x.shape), codes


def _in_rows(bits: Tensor, shape: torch.Size) -> BitTensor:
    """Packed rows in (..., C) order as a tensor of a shape [N, C, ...]."""
    strides = [1]
    for size in (shape[1], *reversed(shape[2:])):
        strides.insert(0, strides[0] * max(size, 1))
    rows, *pixels, channels = strides
    return BitTensor(bits, shape, (rows, channels, *pixels), torch.bfloat16)


def _real_gradients(
    ctx: Any,
    x: Tensor,
    weight: Tensor,
    terms: tuple[Any, ...],
    choices: Tensor | None,
    shape: torch.Size,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of input and real weight, where they are needed, from the terms of the norm's; a few rows at a time."""
    block, needs = ctx.block, ctx.needs_input_grad
    grad, codes, slopes, y, *of_channels = terms
    of_inputs, of_weight = [], torch.zeros_like(weight)
    for rows in row_slices(x, shape):
        part, input_part = (grad[rows], codes[:, rows], slopes, y[rows]), x[rows].to(weight.dtype)
        grad_y = _bnn.norm_gradient(*part, *of_channels)
        if block.window is None:
            of_inputs.append(grad_y @ weight if needs[0] else grad_y)
            of_weight.addmm_(grad_y.t(), input_part)
            continue
        if choices is not None:
            rows_shape = (len(input_part), *shape[1:])
            grad_y = _bnn.max_pool2d_scatter(grad_y, choices[:, rows], rows_shape, block.pool.window)
        stride, padding, dilation, groups = block.window.for_torch
        options = (None, stride, padding, dilation, False, (0, 0), groups, (needs[0], needs[1], False))
        of_input, of_part, _ = torch.ops.aten.convolution_backward(grad_y, input_part, weight, *options)
        of_inputs.append(of_input)
        if needs[1]:
            of_weight += of_part
    return torch.cat(of_inputs) if needs[0] else None, of_weight if needs[1] else None
