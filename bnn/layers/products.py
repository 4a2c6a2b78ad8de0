"""The products of binary layers, with what becomes of the gradient of their output."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bnn.bits import BitTensor, channels_last, rows_first
from bnn.quantizers.gradients import (
    GradientQuantizer,
    Int8Gradient,
    SignGradient,
    draw_seed,
    quantize_gradient,
)

_bnn = torch.ops.bnn

Window = tuple[list[int], list[int], list[int], int]
"""Stride, padding, dilation and groups of a convolution."""


def linear(
    x: Tensor,
    weight: Tensor,
    grad_quantizer: GradientQuantizer | None,
    weight_quantizer: GradientQuantizer | None,
) -> Tensor:
    """`F.linear` of [N, ..., K] and [O, K] whose backward pass sees the quantized gradient of the output.

    Args:
        x: input.
        weight: what a store read.
        grad_quantizer: of the output's gradient.
        weight_quantizer: the store's quantizer of the weight's gradient. If all that it asks for are packed signs,
            integer products give just these.
    """
    if not torch.is_grad_enabled() and isinstance(weight, BitTensor) and x.dim() == 2:
        return multiply(x, weight, None)
    if grad_quantizer is None:
        return F.linear(x, weight)
    if _in_integers(x, weight, grad_quantizer) and x.dim() == 2:
        return _Int8Product.apply(x, weight, None, grad_quantizer, sign_generator(weight_quantizer))  # type: ignore[no-any-return, no-untyped-call]
    return quantize_gradient(F.linear(x, weight), grad_quantizer)


def conv2d(
    x: Tensor,
    weight: Tensor,
    window: Window,
    grad_quantizer: GradientQuantizer | None,
    weight_quantizer: GradientQuantizer | None,
) -> Tensor:
    """`F.conv2d` of [N, C, H, W] whose backward pass sees the quantized gradient of the output; as `linear`."""
    if not torch.is_grad_enabled() and isinstance(weight, BitTensor):
        return multiply(x, weight, window)
    if grad_quantizer is None:
        return F.conv2d(x, weight, None, *window)
    if _in_integers(x, weight, grad_quantizer):
        return _Int8Product.apply(x, weight, window, grad_quantizer, sign_generator(weight_quantizer))  # type: ignore[no-any-return, no-untyped-call]
    return quantize_gradient(F.conv2d(x, weight, None, *window), grad_quantizer)


def rounds_to_int8(grad_quantizer: GradientQuantizer | None) -> bool:
    """Whether a gradient becomes int8 by a random rounding that clamps nothing, as the integer products need."""
    return (
        isinstance(grad_quantizer, Int8Gradient)
        and grad_quantizer.generator is not None
        and grad_quantizer.quantile == 1
    )


def sign_generator(weight_quantizer: GradientQuantizer | None) -> torch.Generator | None:
    """The generator of the signs of zeros where packed signs are all that is asked for, else None."""
    packed = isinstance(weight_quantizer, SignGradient) and weight_quantizer.packed
    return weight_quantizer.generator if packed and weight_quantizer is not None else None


def in_rows(bits: BitTensor) -> BitTensor:
    """The same batch with one packed row a sample, as the operations on bits take it."""
    return channels_last(bits) if bits.dim() == 4 else rows_first(bits)


def multiply(x: Tensor, weight: BitTensor, window: Window | None, dtype: torch.dtype = torch.float32) -> Tensor:
    """The product of an input, real or of bits, and of a weight of bits; without gradient.

    Args:
        x: [N, K] or [N, C, H, W].
        weight: [O, K] or [O, C / groups, kh, kw].
        window: of the convolution, or None.
        dtype: of the result of a convolution; that of other products is float32.
    """
    if window is None:
        if x.shape[-1] != weight.shape[1]:
            raise ValueError(f"a weight of {list(weight.shape)} does not fit an input of {list(x.shape)}")
        if isinstance(x, BitTensor):
            x = rows_first(x)
            return _bnn.linear(x.packed, weight.packed, x.shape[1])  # type: ignore[no-any-return]
        return F.linear(x, weight.dense(x.dtype))
    weight = in_rows(weight)
    if isinstance(x, BitTensor):
        x = in_rows(x)
        return _bnn.conv2d(x.packed, x.shape, weight.packed, weight.shape, *window, dtype)  # type: ignore[no-any-return]
    return _bnn.real_conv2d(x, weight.packed, weight.shape, *window, dtype)  # type: ignore[no-any-return]


def input_gradient(q: Tensor, scale: Tensor, x: Tensor, weight: BitTensor, window: Window | None) -> Tensor:
    """The gradient of the input from that of the product, `q * scale` with int8 `q`; in the input's dtype."""
    dtype = torch.bfloat16 if x.dtype is torch.bfloat16 else torch.float32
    if window is None:
        grad: Tensor = _bnn.linear_backward_input(q, scale, weight.packed, x.shape[1], dtype)
    else:
        grad = _bnn.conv2d_backward_input(q, scale, weight.packed, weight.shape, x.shape, *window, dtype)
    return grad.to(x.dtype)


def weight_gradient(
    q: Tensor, scale: Tensor, x: Tensor, weight: BitTensor, window: Window | None, signs: torch.Generator | None
) -> Tensor:
    """The gradient of the weight from that of the product, `q * scale` with int8 `q`.

    Args:
        q: int8, of the product's shape.
        scale: float32 [].
        x: the product's input.
        weight: the product's weight.
        window: of the convolution, or None.
        signs: where it is given and the input is of bits, the result is a `BitTensor` of the gradient's signs; the
            generator gives those of zeros.
    """
    if not isinstance(x, BitTensor):
        if window is None:
            return (q.t().to(x.dtype) @ x).mul_(scale)
        sums: Tensor = _bnn.real_conv2d_backward_weight(q, x, weight.shape, *window)
        return sums.mul_(scale)
    if signs is None:
        if window is None:
            return _bnn.linear_backward_weight(q, scale, x.packed, x.shape[1])  # type: ignore[no-any-return]
        return _bnn.conv2d_backward_weight(q, scale, x.packed, x.shape, weight.shape, *window)  # type: ignore[no-any-return]
    seed = draw_seed(signs)
    if window is None:
        packed = _bnn.linear_backward_weight_sign(q, x.packed, x.shape[1], seed)
    else:
        packed = _bnn.conv2d_backward_weight_sign(q, x.packed, x.shape, weight.shape, *window, seed)
    return BitTensor(packed, weight.shape, weight.stride(), weight.dtype)


def _in_integers(x: Tensor, weight: Tensor, grad_quantizer: GradientQuantizer) -> bool:
    """Whether backward can multiply the bits with int8 gradients: the same values, and several times faster."""
    return isinstance(x, BitTensor) and isinstance(weight, BitTensor) and rounds_to_int8(grad_quantizer)


class _Int8Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: BitTensor,
        weight: BitTensor,
        window: Window | None,
        quantizer: Int8Gradient,
        signs: torch.Generator | None,
    ) -> Tensor:
        x = in_rows(x)
        weight = in_rows(weight)
        ctx.save_for_backward(x, weight)
        ctx.window, ctx.quantizer, ctx.signs = window, quantizer, signs
        return multiply(x, weight, window)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        grad = grads[0]
        if ctx.window is not None:
            grad = grad.contiguous(memory_format=torch.channels_last)
        q, scale = ctx.quantizer.codes(grad)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = input_gradient(q, scale, x, weight, ctx.window)
        if ctx.needs_input_grad[1]:
            grad_weight = weight_gradient(q, scale, x, weight, ctx.window, ctx.signs)
        return grad_x, grad_weight, None, None, None
