"""The products of binary layers, with what becomes of the gradient of their output."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bnn.bits import BitTensor, channels_last
from bnn.quantizers.gradients import GradientQuantizer, Int8Gradient, quantize_gradient

_bnn = torch.ops.bnn


def linear(x: Tensor, weight: Tensor, grad_quantizer: GradientQuantizer | None) -> Tensor:
    """`F.linear` of [N, ..., K] and [O, K] whose backward pass sees the quantized gradient of the output."""
    if grad_quantizer is None:
        return F.linear(x, weight)
    if _in_integers(x, weight, grad_quantizer) and x.dim() == 2:
        return _Int8Linear.apply(x, weight, grad_quantizer)  # type: ignore[no-any-return, no-untyped-call]
    return quantize_gradient(F.linear(x, weight), grad_quantizer)


def conv2d(
    x: Tensor,
    weight: Tensor,
    stride: int,
    padding: int,
    dilation: int,
    groups: int,
    grad_quantizer: GradientQuantizer | None,
) -> Tensor:
    """`F.conv2d` of [N, C, H, W] whose backward pass sees the quantized gradient of the output."""
    if grad_quantizer is None:
        return F.conv2d(x, weight, None, stride, padding, dilation, groups)
    if _in_integers(x, weight, grad_quantizer):
        window = ([stride] * 2, [padding] * 2, [dilation] * 2, groups)
        return _Int8Conv2d.apply(x, weight, window, grad_quantizer)  # type: ignore[no-any-return, no-untyped-call]
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


class _Int8Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: BitTensor, weight: BitTensor, quantizer: Int8Gradient) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.quantizer = quantizer
        return F.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        q, scale = ctx.quantizer.codes(grads[0])
        features = x.shape[1]
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _bnn.linear_backward_input(q, scale, weight.packed, features, x.dtype)
        if ctx.needs_input_grad[1]:
            grad_weight = _bnn.linear_backward_weight(q, scale, x.packed, features)
        return grad_x, grad_weight, None


class _Int8Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: BitTensor, weight: BitTensor, window: Any, quantizer: Int8Gradient) -> Tensor:
        x, weight = channels_last(x), channels_last(weight)
        ctx.save_for_backward(x, weight)
        ctx.window, ctx.quantizer = window, quantizer
        return F.conv2d(x, weight, None, *window)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        q, scale = ctx.quantizer.codes(grads[0].contiguous(memory_format=torch.channels_last))
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _bnn.conv2d_backward_input(q, scale, weight.packed, weight.shape, x.shape, *ctx.window, x.dtype)
        if ctx.needs_input_grad[1]:
            grad_weight = _bnn.conv2d_backward_weight(q, scale, x.packed, x.shape, weight.shape, *ctx.window)
        return grad_x, grad_weight, None, None
