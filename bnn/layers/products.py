"""Products of binary layers, and the quantization of their output's gradient."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bnn.bits import BitTensor, channels_last, rows_first
from bnn.ops import functions as _bnn
from bnn.ops.geometry import Window
from bnn.ops.memory import empty
from bnn.quantizers.gradients import GradientQuantizer, quantize_gradient


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
    if grad_quantizer is not None and _in_integers(x, weight, grad_quantizer) and x.dim() == 2:
        return _IntegerProduct.apply(x, weight, None, grad_quantizer, weight_quantizer)  # type: ignore[no-any-return, no-untyped-call]
    if grad_quantizer is not None and grad_quantizer.bifurcates:
        return _BifurcatedProduct.apply(x, _as_wide(x, weight), None, grad_quantizer)  # type: ignore[no-any-return, no-untyped-call]
    if _is_of_narrow_bits(x, weight):
        product: Tensor = _Linear.apply(x, weight)  # type: ignore[no-untyped-call]
    else:
        product = F.linear(x, _as_wide(x, weight))
    return product if grad_quantizer is None else quantize_gradient(product, grad_quantizer)


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
    if grad_quantizer is not None and _in_integers(x, weight, grad_quantizer):
        return _IntegerProduct.apply(x, weight, window, grad_quantizer, weight_quantizer)  # type: ignore[no-any-return, no-untyped-call]
    if grad_quantizer is not None and grad_quantizer.bifurcates:
        return _BifurcatedProduct.apply(x, _as_wide(x, weight), window, grad_quantizer)  # type: ignore[no-any-return, no-untyped-call]
    if _is_of_narrow_bits(x, weight):
        product: Tensor = _Convolution.apply(x, weight, window)  # type: ignore[no-untyped-call]
    else:
        product = F.conv2d(x, _as_wide(x, weight), None, *window.for_torch)
    return product if grad_quantizer is None else quantize_gradient(product, grad_quantizer)


def _is_of_narrow_bits(x: Tensor, weight: Tensor) -> bool:
    return isinstance(weight, BitTensor) and weight.dtype.itemsize < x.dtype.itemsize


def _as_wide(x: Tensor, weight: Tensor) -> Tensor:
    """The weight in the dtype of the input, where it is narrower for the sake of its gradient."""
    return weight.to(x.dtype) if weight.dtype.itemsize < x.dtype.itemsize else weight


def in_rows(bits: BitTensor) -> BitTensor:
    """The same batch with one packed row a sample, as the operations on bits take it."""
    return channels_last(bits) if len(bits.shape) == 4 else rows_first(bits)


def of_rows(bits: Tensor, shape: torch.Size) -> BitTensor:
    """Packed rows in (..., C) order as a tensor of a shape [N, C, ...]."""
    return BitTensor(bits, shape, _strides_of_rows(shape), torch.bfloat16)


@lru_cache(maxsize=1024)  # blocks ask again at every step
def _strides_of_rows(shape: torch.Size) -> tuple[int, ...]:
    strides = [1]
    for size in (shape[1], *reversed(shape[2:])):
        strides.insert(0, strides[0] * max(size, 1))
    rows, *pixels, channels = strides
    return rows, channels, *pixels


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
        return _bnn.conv2d(x.packed, x.shape, weight.packed, weight.shape, window, dtype)  # type: ignore[no-any-return]
    return _bnn.real_conv2d(x, weight.packed, weight.shape, window, dtype)  # type: ignore[no-any-return]


def input_gradient(
    q: Tensor,
    scale: Tensor,
    x: Tensor,
    weight: BitTensor,
    window: Window | None,
    *,
    codes: Tensor | None = None,
    slopes: Sequence[float] = (),
    base: Tensor | None = None,
    outside: Tensor | None = None,
) -> Tensor:
    """The gradient of the input from that of the product, `q * scale` with int8 `q`; in the input's dtype.

    Args:
        q: int8, of the product's shape.
        scale: float32 [].
        x: the product's input.
        weight: the product's weight.
        window: of the convolution, or None.
        codes: of the input's elements, whose slopes multiply its gradient (see `bnn.ops.batch_norm`); None: all 1.
        slopes: of the codes.
        base: another gradient of the input, to which this one is added; None for none.
        outside: packed truth values: the elements of `base` that count 0; None for none. It needs `codes`.
    """
    dtype = torch.bfloat16 if x.dtype is torch.bfloat16 else torch.float32
    if codes is not None and len(codes):
        by = (codes, slopes, None if base is None else base.to(dtype), dtype, outside)
        if window is None:
            return _bnn.linear_backward_input_slopes(q, scale, weight.packed, x.shape[1], *by).to(x.dtype)  # type: ignore[no-any-return]
        shapes = (weight.packed, weight.shape, x.shape, window)
        return _bnn.conv2d_backward_input_slopes(q, scale, *shapes, *by).to(x.dtype)  # type: ignore[no-any-return]
    if window is None:
        grad: Tensor = _bnn.linear_backward_input(q, scale, weight.packed, x.shape[1], dtype)
    else:
        grad = _bnn.conv2d_backward_input(q, scale, weight.packed, weight.shape, x.shape, window, dtype)
    return grad.to(x.dtype) if base is None else base + grad.to(x.dtype)


def weight_gradient(
    q: Tensor,
    scale: Tensor,
    x: Tensor,
    weight: BitTensor,
    window: Window | None,
    quantizer: GradientQuantizer | None,
    of_output: GradientQuantizer | None = None,
    *,
    first_row: int = 0,
) -> Tensor:
    """The gradient of the weight from that of the product, `q * scale` with int8 `q`.

    Args:
        q: int8, of the product's shape.
        scale: float32 [].
        x: the product's input.
        weight: the product's weight.
        window: of the convolution, or None.
        quantizer: of the weight's gradient. Where the input is of bits, the result is formed in its dtype; if packed
            signs are all that it wants, it is a `BitTensor` of these.
        of_output: the quantizer of the product's gradient: where both are bits and values are wanted, a convolution's
            may be drawn to be ternary.
        first_row: of a larger weight, from which this one's rows are; it matters to the signs of zeros.
    """
    if not isinstance(x, BitTensor):
        if window is None:
            out = empty((q.shape[1], x.shape[1]), x.dtype, x.device)
            return torch.mm(q.t().to(x.dtype), x, out=out).mul_(scale)
        sums: Tensor = _bnn.real_conv2d_backward_weight(q, x, weight.shape, window)
        return sums.mul_(scale)
    seed = None if quantizer is None else quantizer.sign_seed()
    if seed is None:
        dtype = torch.float32 if quantizer is None else quantizer.dtype or torch.float32
        if window is None:
            return _bnn.linear_backward_weight(q, scale, x.packed, x.shape[1], dtype)  # type: ignore[no-any-return]
        of_product = (q, scale, x.packed, x.shape, weight.shape, window)
        ternary_seed = None if of_output is None else of_output.ternary_seed()
        if ternary_seed is not None:
            return _bnn.conv2d_backward_weight_ternary(*of_product, ternary_seed, dtype)  # type: ignore[no-any-return]
        return _bnn.conv2d_backward_weight(*of_product, dtype)  # type: ignore[no-any-return]
    if window is None:
        packed = _bnn.linear_backward_weight_sign(q, x.packed, x.shape[1], seed, first_row)
    else:
        packed = _bnn.conv2d_backward_weight_sign(q, x.packed, x.shape, weight.shape, window, seed, first_row)
    return BitTensor(packed, weight.shape, weight.stride(), weight.dtype)


def _in_integers(x: Tensor, weight: Tensor, grad_quantizer: GradientQuantizer) -> bool:
    """Whether backward can multiply the bits with integer gradients: the same values, and several times faster."""
    return isinstance(x, BitTensor) and isinstance(weight, BitTensor) and grad_quantizer.gives_integers


class _Convolution(torch.autograd.Function):
    """`F.conv2d` by a weight of bits that are narrower than the input, which keeps the bits.

    So does autograd, but by torch's dispatch to a subclass, which imports its package of distributed tensors: 40 MiB.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: BitTensor, window: Window) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.window = window
        x, dense = _dense_operands(x, weight)
        return F.conv2d(x, dense, None, *window.for_torch)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        operands = _dense_operands(x, weight)
        stride, padding, dilation, groups = ctx.window.for_torch
        wanted = [*ctx.needs_input_grad[:2], False]
        geometry = (None, stride, padding, dilation, False, [0, 0], groups, wanted)
        of_input, of_weight, _ = torch.ops.aten.convolution_backward(grads[0], *operands, *geometry)
        return of_input, None if of_weight is None else of_weight.to(weight.dtype), None


class _Linear(torch.autograd.Function):
    """`F.linear` by a weight of bits, for the same reason."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: BitTensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(*_dense_operands(x, weight))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        x, dense = _dense_operands(x, weight)
        rows = grads[0].flatten(0, -2)
        of_input = grads[0] @ dense if ctx.needs_input_grad[0] else None
        return of_input, (rows.t() @ x.flatten(0, -2)).to(weight.dtype) if ctx.needs_input_grad[1] else None


def _dense_operands(x: Tensor, weight: BitTensor) -> tuple[Tensor, Tensor]:
    """Both as floats of the wider dtype."""
    dtype = torch.promote_types(x.dtype, weight.dtype)
    return x.dense(dtype) if isinstance(x, BitTensor) else x.to(dtype), weight.dense(dtype)


class _IntegerProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: BitTensor,
        weight: BitTensor,
        window: Window | None,
        grad_quantizer: GradientQuantizer,
        weight_quantizer: GradientQuantizer | None,
    ) -> Tensor:
        x = in_rows(x)
        weight = in_rows(weight)
        ctx.save_for_backward(x, weight)
        ctx.window, ctx.grad_quantizer, ctx.weight_quantizer = window, grad_quantizer, weight_quantizer
        return multiply(x, weight, window)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        grad = grads[0]
        if ctx.window is not None:
            grad = grad.contiguous(memory_format=torch.channels_last)
        quantizer = ctx.grad_quantizer
        q, scale = quantizer.integers(grad)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = input_gradient(q, scale, x, weight, ctx.window)
        if ctx.needs_input_grad[1]:
            if quantizer.weight_largest not in (None, quantizer.largest):
                q, scale = quantizer.integers(grad, largest=quantizer.weight_largest)
            grad_weight = weight_gradient(q, scale, x, weight, ctx.window, ctx.weight_quantizer, quantizer)
        return grad_x, grad_weight, None, None, None


class _BifurcatedProduct(torch.autograd.Function):
    """A product of any operands whose two gradients are made of two quantized gradients of its output."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, window: Window | None, quantizer: GradientQuantizer) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.window, ctx.quantizer = window, quantizer
        return F.linear(x, weight) if window is None else F.conv2d(x, weight, None, *window.for_torch)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight = (tensor.dense() if isinstance(tensor, BitTensor) else tensor for tensor in ctx.saved_tensors)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _float_gradients(ctx.quantizer(grads[0]), x, weight, ctx.window, [True, False])[0]
        if ctx.needs_input_grad[1]:
            grad_weight = _float_gradients(ctx.quantizer.for_weight(grads[0]), x, weight, ctx.window, [False, True])[1]
        return grad_x, grad_weight, None, None


def _float_gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, window: Window | None, needs: list[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of input and weight by torch's formulas, those of them that are asked for."""
    if window is None:
        of_x = gradient @ weight if needs[0] else None
        return of_x, gradient.flatten(0, -2).t() @ x.flatten(0, -2) if needs[1] else None
    stride, padding, dilation, groups = window.for_torch
    of_x, of_weight, _ = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, stride, padding, dilation, False, [0, 0], groups, [*needs, False]
    )
    return of_x, of_weight
