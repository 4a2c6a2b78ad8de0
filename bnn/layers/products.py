"""The products of binary layers, with what becomes of the gradient of their output."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bnn.bits import BitTensor, channels_last
from bnn.quantizers.gradients import (
    GradientQuantizer,
    Int8Gradient,
    SignGradient,
    draw_seed,
    quantize_gradient,
)

_bnn = torch.ops.bnn


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
    if grad_quantizer is None:
        return F.linear(x, weight)
    if _in_integers(x, weight, grad_quantizer) and x.dim() == 2:
        return _Int8Linear.apply(x, weight, grad_quantizer, _sign_generator(weight_quantizer))  # type: ignore[no-any-return, no-untyped-call]
    return quantize_gradient(F.linear(x, weight), grad_quantizer)


def conv2d(
    x: Tensor,
    weight: Tensor,
    stride: int,
    padding: int,
    dilation: int,
    groups: int,
    grad_quantizer: GradientQuantizer | None,
    weight_quantizer: GradientQuantizer | None,
) -> Tensor:
    """`F.conv2d` of [N, C, H, W] whose backward pass sees the quantized gradient of the output; as `linear`."""
    if grad_quantizer is None:
        return F.conv2d(x, weight, None, stride, padding, dilation, groups)
    if _in_integers(x, weight, grad_quantizer):
        window = ([stride] * 2, [padding] * 2, [dilation] * 2, groups)
        return _Int8Conv2d.apply(x, weight, window, grad_quantizer, _sign_generator(weight_quantizer))  # type: ignore[no-any-return, no-untyped-call]
    return quantize_gradient(F.conv2d(x, weight, None, stride, padding, dilation, groups), grad_quantizer)


def _in_integers(x: Tensor, weight: Tensor, grad_quantizer: GradientQuantizer) -> bool:
    """Whether backward can multiply the bits with int8 gradients: the same values, and several times faster."""
    return (
        isinstance(x, BitTensor)
        and isinstance(weight, BitTensor)
        and isinstance(grad_quantizer, Int8Gradient)
        and grad_quantizer.generator is not None
        and grad_quantizer.quantile == 1
    )


def _sign_generator(weight_quantizer: GradientQuantizer | None) -> torch.Generator | None:
    """The generator of the signs of zeros where packed signs are all that is asked for, else None."""
    packed = isinstance(weight_quantizer, SignGradient) and weight_quantizer.packed
    return weight_quantizer.generator if packed and weight_quantizer is not None else None


class _Int8Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: BitTensor, weight: BitTensor, quantizer: Int8Gradient, signs: torch.Generator | None
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.quantizer, ctx.signs = quantizer, signs
        return F.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        q, scale = ctx.quantizer.codes(grads[0])
        features = x.shape[1]
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _bnn.linear_backward_input(q, scale, weight.packed, features, x.dtype)
        if ctx.needs_input_grad[1] and ctx.signs is None:
            grad_weight = _bnn.linear_backward_weight(q, scale, x.packed, features)
        elif ctx.needs_input_grad[1]:
            packed = _bnn.linear_backward_weight_sign(q, x.packed, features, draw_seed(ctx.signs))
            grad_weight = BitTensor(packed, weight.shape, weight.stride(), weight.dtype)
        return grad_x, grad_weight, None, None


class _Int8Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: BitTensor,
        weight: BitTensor,
        window: Any,
        quantizer: Int8Gradient,
        signs: torch.Generator | None,
    ) -> Tensor:
        x, weight = channels_last(x), channels_last(weight)
        ctx.save_for_backward(x, weight)
        ctx.window, ctx.quantizer, ctx.signs = window, quantizer, signs
        return F.conv2d(x, weight, None, *window)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        q, scale = ctx.quantizer.codes(grads[0].contiguous(memory_format=torch.channels_last))
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _bnn.conv2d_backward_input(q, scale, weight.packed, weight.shape, x.shape, *ctx.window, x.dtype)
        if ctx.needs_input_grad[1] and ctx.signs is None:
            grad_weight = _bnn.conv2d_backward_weight(q, scale, x.packed, x.shape, weight.shape, *ctx.window)
        elif ctx.needs_input_grad[1]:
            packed = _bnn.conv2d_backward_weight_sign(
                q, x.packed, x.shape, weight.shape, *ctx.window, draw_seed(ctx.signs)
            )
            grad_weight = BitTensor(packed, weight.shape, weight.stride(), weight.dtype)
        return grad_x, grad_weight, None, None, None
