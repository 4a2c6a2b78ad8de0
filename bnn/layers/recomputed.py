"""A block as one node of autograd, which keeps bits and forms its product again in backward."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bnn.bits import BitTensor
from bnn.layers import products
from bnn.ops.pooling import empty_choices

if TYPE_CHECKING:
    from bnn.layers.block import BinaryBlock

_bnn = torch.ops.bnn
# Products of a real input that exist at a time before they are pooled: 2 MiB of float16.
_CHUNK_ELEMENTS = 1 << 20
_PASSES_ALL = [1.0]
_PASSES_INSIDE = [1.0, 0.0]


class Recomputed(torch.autograd.Function):
    """activation(norm(pool(product(quantize(x)))) + shortcut) of a `BinaryBlock`.

    Returns the result, and mean and variance of the product for the norm's running statistics.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        scale: Tensor | None,
        gamma: Tensor | None,
        beta: Tensor | None,
        shortcut: Tensor | None,
        block: BinaryBlock,
        adds_input: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.block, ctx.adds_input, ctx.x_dtype = block, adds_input, x.dtype
        ctx.product_input_shape = x.shape
        operand, input_codes = quantized(x, block)
        if isinstance(weight, BitTensor):
            weight = products.in_rows(weight)
        y, _, _ = product(operand, weight, block)
        if y.numel() <= y.shape[1]:
            raise ValueError(f"batch statistics need two values a channel, got a tensor of {tuple(y.shape)}")
        mean, variance = _bnn.channel_moments(y)
        inverse = inverse_deviation(variance, scale, block.norm.eps)
        factor, offset = affine(mean, inverse, scale, gamma, beta)
        out, codes = finish(y, factor, offset, x if adds_input else shortcut, block)
        ctx.save_for_backward(operand, input_codes, weight, scale, gamma, mean, inverse, codes)
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        operand, input_codes, weight, scale, gamma, mean, inverse, codes = ctx.saved_tensors
        block, grad = ctx.block, grads[0]
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
        if isinstance(weight, BitTensor):
            quantizer = block.product.grad_quantizer
            rounding = (of_channels.bound(largest, farthest), quantizer.largest, quantizer.seed())
            q, q_scale = _bnn.norm_gradient_integers(*terms, *rounding)
            del y, terms
            if block.pool is not None:
                q = _bnn.max_pool2d_scatter(q, choices, shape, block.pool.window)
            if needs_weight:
                of_weight = block.product.store.gradient_quantizer
                grad_weight = products.weight_gradient(q, q_scale, operand, weight, block.window, of_weight)
            if needs_x:
                grad_x = products.input_gradient(
                    q,
                    q_scale,
                    operand,
                    weight,
                    block.window,
                    codes=input_codes,
                    slopes=block.input_steps.slopes if len(input_codes) else (),
                    base=(grad if passed is None else passed) if to_input else None,
                    outside=codes[0] if to_input and passed is None and len(codes) else None,
                )
        else:
            grad_y = _bnn.norm_gradient(*terms)
            del y, terms, grad
            if block.pool is not None:
                grad_y = _bnn.max_pool2d_scatter(grad_y, choices, shape, block.pool.window)
            grad_x, grad_weight = _real_gradients(grad_y, operand, weight, block, ctx.needs_input_grad)
            if to_input:
                grad_x = grad_x + passed
        if grad_x is not None:
            grad_x = grad_x.to(ctx.x_dtype)
        grad_gamma = None if gamma is None else of_channels.of_gamma
        grad_beta = sum_.float() if ctx.needs_input_grad[4] else None
        grad_scale = None if scale is None else of_channels.of_scale
        grad_shortcut = passed if ctx.needs_input_grad[5] else None
        return grad_x, grad_weight, grad_scale, grad_gamma, grad_beta, grad_shortcut, None, None


class _NormGradient:
    """The gradient of a batch norm of z = scale y, channel by channel, from its sums.

    With x = (z - mean) / deviation and means over a channel, dL/dy = gamma scale / deviation (g - mean(g) - x mean(g x)),
    which is `of_grad` g + `of_y` y + `constant`. A channel that is constant over the batch gets no gradient: it would be
    one of 1 / sqrt(eps), whose scale erases that of all others.
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
        inverse, mean = inverse.double(), mean.double()
        a = 1.0 if scale is None else scale.double()
        weight = 1.0 if gamma is None else gamma.double()
        self.of_gamma = (a * inverse * along).float()
        self.of_scale = (weight * eps * inverse**3 * along).float()
        of_grad = weight * a * inverse
        of_y = -of_grad * (a * inverse).square() * along / count
        centre = -of_grad * sum_ / count
        varies = inverse.square() * eps < 1
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
        strides = torch.empty(y.movedim(1, -1).shape, device="meta").movedim(-1, 1).stride()
        return BitTensor(bits, y.shape, strides, torch.bfloat16), codes
    # What flows between convolutions is large and takes 16 bits.
    dtype = torch.bfloat16 if y.dim() == 4 else torch.float32
    low, high = block.clamp_range
    out, codes = _bnn.norm_clamp(y, factor, offset, shortcut, low, high, dtype)
    return out, codes if math.isfinite(low) or math.isfinite(high) else codes[:0]


def output_slopes(block: BinaryBlock) -> list[float]:
    """The slope of each code of the block's output."""
    if block.output_steps is not None:
        return list(block.output_steps.slopes)
    return _PASSES_INSIDE if any(map(math.isfinite, block.clamp_range)) else _PASSES_ALL


def product(x: Tensor, weight: Tensor, block: BinaryBlock) -> tuple[Tensor, Tensor | None, torch.Size]:
    """The pooled product, the choices of its pooling, and its shape before the pooling; the same at every call.

    Of bits in float16, which holds these whole numbers up to 2048, and even ones up to 4096; or float32, of a matrix or
    a real weight.
    """
    window, pool = block.window, block.pool
    if not isinstance(weight, BitTensor):
        x = x.to(weight.dtype)
        y = F.linear(x, weight) if window is None else F.conv2d(x, weight, None, *window.for_torch)
        if pool is None:
            return y, None, y.shape
        return *_bnn.max_pool2d_choices(y, pool.window), y.shape
    if window is None or pool is None:
        y = products.multiply(x, weight, window, torch.float16)
        return y, None, y.shape
    shape = block.product_shape(x)
    if isinstance(x, BitTensor):
        packed = (x.packed, list(x.shape), weight.packed, list(weight.shape))
        return *_bnn.conv2d_max_pool2d(*packed, window, pool.window), shape
    y, choices = empty_choices(x, shape, pool.window, torch.float16)
    step = max(1, _CHUNK_ELEMENTS // shape[1:].numel())
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        part = products.multiply(x[rows], weight, window, torch.float16)
        y[rows], choices[:, rows] = _bnn.max_pool2d_choices(part, pool.window)
    return y, choices, shape


def quantized(x: Tensor, block: BinaryBlock) -> tuple[Tensor, Tensor]:
    """What enters the product, as it is kept for backward, and the codes of its gradient."""
    steps = block.input_steps
    if isinstance(x, BitTensor):
        return products.in_rows(x), x.packed.new_empty((0, 0, 0))
    if x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    if steps is None:
        return x, torch.empty((0, 0, 0), dtype=torch.uint8, device=x.device)
    bits, codes = _bnn.sign_codes(x, None, None, steps.edges)
    return BitTensor(bits, x.shape, x.stride(), torch.bfloat16), codes


def _real_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, block: BinaryBlock, needs: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of input and real weight, where they are needed."""
    x = x.to(weight.dtype)
    if block.window is None:
        return grad @ weight if needs[0] else None, grad.t() @ x if needs[1] else None
    stride, padding, dilation, groups = block.window.for_torch
    options = (None, stride, padding, dilation, False, (0, 0), groups, (needs[0], needs[1], False))
    grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(grad, x, weight, *options)
    return grad_x, grad_weight
