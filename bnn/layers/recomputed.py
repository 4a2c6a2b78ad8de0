"""A block as one node of autograd, which keeps bits and forms its product again in backward, or keeps that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bnn.bits import BitTensor
from bnn.layers import one_call, products
from bnn.layers.plan import Plan, product_shape
from bnn.ops import functions as _bnn
from bnn.ops.batch_norm import clamped
from bnn.ops.cpu.blocks import Kept
from bnn.ops.cpu.normed_conv import keeps_no_product
from bnn.ops.geometry import Window
from bnn.ops.memory import channels_last, converted, empty_channels_last
from bnn.ops.pooling import choices_shape, pooled_shape
from bnn.ops.product_gradients import float_conv2d_backward_input

# Products that exist at a time where they are worked off in parts: 1 MiB of float32.
_CHUNK_ELEMENTS = 1 << 18

Integers = tuple[Tensor, Tensor]
"""A gradient of a product as int8, and its scale."""


class Passes:
    """The passes of a block whose results depend on all examples of a slice, or on where it is cut.

    These are of a slice that is here as a whole; those of one that several ranks share are in `bnn.layers.joint`. The
    arguments are those of the operations and functions of the same names.
    """

    are_of_whole_slices = True

    def quantized(self, x: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:  # noqa: D102
        return quantized(x, plan)

    def product(self, x: Tensor, weight: Tensor, plan: Plan) -> tuple[Tensor, Tensor | None, torch.Size]:  # noqa: D102
        return product(x, weight, plan)

    def values_a_channel(self, shape: torch.Size) -> int:
        """How many values the statistics of a channel are of, where what enters the norm has a shape."""
        return shape.numel() // max(1, shape[1])

    def batch_statistics(self, *arguments: Any) -> tuple[Tensor, Tensor]:  # noqa: D102
        return _bnn.batch_statistics(*arguments)  # type: ignore[no-any-return]

    def norm_gradient_terms(self, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:  # noqa: D102
        return _bnn.norm_gradient_terms(*arguments)  # type: ignore[no-any-return]

    def norm_gradient_integers(self, *arguments: Any) -> Integers:  # noqa: D102
        return _bnn.norm_gradient_integers(*arguments)  # type: ignore[no-any-return]

    def weight_gradient(self, *arguments: Any) -> Tensor:  # noqa: D102
        return products.weight_gradient(*arguments)

    def real_gradients(self, *arguments: Any) -> tuple[Tensor | None, Tensor | None]:  # noqa: D102
        return real_gradients(*arguments)


class Recomputed(torch.autograd.Function):
    """activation(norm(pool(product(quantize(x)))) + shortcut) of a block.

    Returns the result and, where it is asked for, the input, whose gradient is then added to the product's in the same
    pass. The norm's running statistics take in those of the product.
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
        leaf: Tensor | None,
        take: Callable[[Tensor], None] | None,
        plan: Plan,
        adds_input: bool,
        with_input: bool,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.plan, ctx.adds_input, ctx.x_dtype, ctx.take = plan, adds_input, x.dtype, take
        passes, norm = plan.passes, plan.norm
        if isinstance(weight, BitTensor):
            weight = products.in_rows(weight)
        if passes.values_a_channel(shape := plan.normed_shape(x.shape, weight.shape)) < 2:
            raise ValueError(f"batch statistics need two values a channel, got a tensor of {tuple(shape)}")
        of_norm = (scale, gamma, beta, norm.eps, norm.running_mean, norm.running_var, norm.momentum)
        added = x if adds_input else shortcut
        kept: tuple[Tensor | None, Tensor | None] = (None, None)
        if (made := one_call.forward(x, weight, of_norm, added, plan)) is not None:
            operand, input_codes, out, codes, moments, of_product = made
            kept = of_product or kept
        else:
            operand, input_codes = passes.quantized(x, plan)
            y, choices, _ = passes.product(operand, weight, plan)
            moments, affine = passes.batch_statistics(y, *of_norm)
            norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            if plan.keeps_product:
                kept = (y, choices)
                if plan.output_steps is None:  # else a real activation would take its place
                    y = empty_channels_last(y.shape, y.dtype, y.device).copy_(y)
            out, codes = finish(y, affine[0], affine[1], added, plan)
        ctx.save_for_backward(operand, input_codes, weight, scale, gamma, moments, codes, *kept)
        ctx.set_materialize_grads(False)
        return out, x.view_as(x) if with_input else None

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:  # noqa: D102
        plan, passes, (grad, of_input) = ctx.plan, ctx.plan.passes, grads
        if grad is None:  # of the two results only the input was used
            return of_input, *[None] * 10
        operand, input_codes, weight, scale, gamma, moments, codes, y, choices = ctx.saved_tensors
        grad = channels_last(grad)  # once for all passes
        needs_x, needs_weight, *needs_parameters, needs_shortcut, _ = ctx.needs_input_grad[:7]
        needs_weight = needs_weight or ctx.take is not None
        slopes = plan.output_slopes
        adds_input = ctx.adds_input and needs_x
        passed = None
        if needs_shortcut or (adds_input and not len(input_codes)):
            passed = _bnn.pass_slopes(grad, codes, slopes) if len(codes) else grad
        # What comes to the input by another way is added in the product's pass: of the shortcut, or of a later use.
        base, outside = of_input, None
        if adds_input:
            base, outside = (passed, None) if passed is not None else (grad, codes[0] if len(codes) else None)
        of_result, of_norm = (grad, codes, slopes), (moments, scale, gamma, plan.norm.eps)
        of_x = input_codes, plan.input_steps.slopes if plan.input_steps else (), base, outside
        grad_x = grad_weight = None
        needs = needs_x, needs_weight
        kept = None if y is None else Kept(y, choices)
        if (made := one_call.backward(of_result, operand, weight, of_norm, of_x, plan, needs, kept)) is not None:
            grad_x, grad_weight, of_parameters = made
        elif _keeps_no_product(operand, weight, plan, needs, base):
            of_conv = operand, weight, plan.window
            grad_x, grad_weight, of_parameters = _bnn.normed_conv2d_backward(*of_result, *of_conv, *of_norm, needs_x)
            grad_x = grad_x if needs_x else None
        else:
            if plan.keeps_product:
                shape = product_shape(operand.shape, weight.shape, plan.window)
            else:
                y, choices, shape = passes.product(operand, weight, plan)
            terms, bound, of_parameters = passes.norm_gradient_terms(*of_result, y, *of_norm)
            of_normed = (*of_result, y, terms)
            if isinstance(weight, BitTensor):
                for_x, for_weight = _integers((*of_normed, bound), choices, shape, plan, needs_weight)
                del y, of_normed
                if needs_weight:
                    quantizers = (plan.weight_quantizer, plan.grad_quantizer)
                    grad_weight = passes.weight_gradient(*for_weight, operand, weight, plan.window, *quantizers)
                del for_weight
                if needs_x:
                    of_codes = dict(zip(("codes", "slopes", "base", "outside"), of_x, strict=True))
                    grad_x = products.input_gradient(*for_x, operand, weight, plan.window, **of_codes)
            else:
                of_product = (operand, weight, choices, shape, plan)
                grad_x, grad_weight = passes.real_gradients(of_normed, *of_product, needs, base)
        if grad_weight is not None and ctx.take is not None:
            ctx.take(grad_weight)
            grad_weight = None
        if grad_x is not None:
            if adds_input and of_input is not None:
                grad_x = grad_x + of_input
            grad_x = grad_x.to(ctx.x_dtype)
        of_channels = (x if needed else None for x, needed in zip(of_parameters, needs_parameters, strict=True))
        return grad_x, grad_weight, *of_channels, passed if needs_shortcut else None, *[None] * 5


def _keeps_no_product(x: Tensor, weight: Tensor, plan: Plan, needs: tuple[bool, bool], base: Tensor | None) -> bool:
    """Whether a product of real numbers is formed again row by row, and its gradients with it."""
    needs_x, needs_weight = needs
    if isinstance(x, BitTensor) or isinstance(weight, BitTensor) or plan.window is None or plan.pool is not None:
        return False
    if plan.keeps_product or plan.rectifies or not plan.passes.are_of_whole_slices or not needs_weight:
        return False
    return base is None and keeps_no_product(x, weight, plan.window, with_input=needs_x)


def _integers(
    of_norm: tuple[Any, ...], choices: Tensor | None, shape: torch.Size, plan: Plan, needs_weight: bool
) -> tuple[Integers, Integers]:
    """The gradient of the product, by the arguments of `norm_gradient_integers`, for the input and for the weight."""
    quantizer = plan.grad_quantizer
    assert quantizer is not None

    def integers(largest: int) -> Integers:
        q, scale = plan.passes.norm_gradient_integers(*of_norm, largest, quantizer.seed())
        if plan.rectifies:
            q.mul_(of_norm[3] > 0)
        return q if choices is None else _bnn.max_pool2d_scatter(q, choices, shape, plan.pool), scale

    for_x, of_weight = integers(quantizer.largest), quantizer.weight_largest
    return for_x, for_x if not needs_weight or of_weight in (None, quantizer.largest) else integers(of_weight)


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
        signs = torch.where(which, -1, 1).to(x.dtype).view(-1, *[1] * (x.dim() - 1))
        return torch.mul(x, signs, out=empty_channels_last(x.shape, x.dtype, x.device))
    bits = _bnn.pack(which[:, None].expand(-1, x.shape[1:].numel()))
    return BitTensor(x.packed ^ bits, x.shape, x.stride(), x.dtype)


def finish(y: Tensor, factor: Tensor, offset: Tensor, shortcut: Tensor | None, plan: Plan) -> tuple[Tensor, Tensor]:
    """The activation of y factor + offset + shortcut, which may take the place of y, and the codes of its gradient.

    What flows between convolutions takes 16 bits, as their products do.
    """
    if plan.output_steps is not None:
        bits, codes = _bnn.sign_codes(y, factor, offset, plan.output_steps.edges)
        return products.of_rows(bits, y.shape), codes
    codes = _bnn.norm_clamp_(y, factor, offset, shortcut, *plan.clamp_range)
    # A slice would keep the memory of all codes.
    return clamped(y), codes if plan.clamps else codes.new_empty((0, *codes.shape[1:]))


def product(x: Tensor, weight: Tensor, plan: Plan) -> tuple[Tensor, Tensor | None, torch.Size]:
    """What enters the norm, the choices of the pooling, and the product's shape before it; the same at every call.

    A convolution is float16, which holds the whole numbers that bits give up to 2048, and even ones up to 4096; other
    products are float32.
    """
    y, choices, shape = _pooled_product(x, weight, plan)
    return y.relu_() if plan.rectifies else y, choices, shape


def _pooled_product(x: Tensor, weight: Tensor, plan: Plan) -> tuple[Tensor, Tensor | None, torch.Size]:
    window, pool = plan.window, plan.pool
    shape = product_shape(x.shape, weight.shape, window)
    if window is None:
        y = (
            products.multiply(x, weight, None)
            if isinstance(weight, BitTensor)
            else F.linear(x.to(weight.dtype), weight)
        )
        return y, None, shape
    if isinstance(x, BitTensor):
        packed = (x.packed, x.shape, weight.packed, weight.shape)  # type: ignore[attr-defined]
        if pool is None:
            return _bnn.conv2d(*packed, window, torch.float16), None, shape
        return *_bnn.conv2d_max_pool2d(*packed, window, pool), shape
    if pool is None:
        return _real_product(x, weight, window), None, shape
    pooled = pooled_shape(shape, pool)
    y = empty_channels_last(pooled, torch.float16, x.device)
    choices = x.new_empty(choices_shape(pooled, pool), dtype=torch.uint8)
    for rows in row_slices(x, shape):
        part = _real_product(x[rows], weight, window)
        y[rows], choices[:, rows] = _bnn.max_pool2d_choices(part, pool)
    return y, choices, shape


def _real_product(x: Tensor, weight: Tensor, window: Window) -> Tensor:
    """Of real images, float16."""
    if isinstance(weight, BitTensor):
        return products.multiply(x, weight, window, torch.float16)
    return _bnn.float_conv2d(x, weight, window, torch.float16)  # type: ignore[no-any-return]


def row_slices(x: Tensor, shape: torch.Size) -> Iterator[slice]:
    """Cuts a batch into parts whose products, of `shape` for all of it, take little memory."""
    step = max(1, _CHUNK_ELEMENTS // max(1, shape[1:].numel()))
    for start in range(0, max(1, len(x)), step):
        yield slice(start, start + step)


def quantized(x: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    """What enters the product, as it is kept for backward, and the codes of its gradient."""
    if isinstance(x, BitTensor):
        return products.in_rows(x), x.packed.new_empty((0, 0, 0))
    if plan.input_steps is None:
        x = channels_last(x)
        return x, x.new_empty((0, 0, 0), dtype=torch.uint8)
    bits, codes = _bnn.sign_codes(x, None, None, plan.input_steps.edges)
    return products.of_rows(bits, x.shape), codes


def real_gradients(
    of_norm: tuple[Any, ...],
    x: Tensor,
    weight: Tensor,
    choices: Tensor | None,
    shape: torch.Size,
    plan: Plan,
    needs: tuple[bool, bool],
    base: Tensor | None,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of input and real weight, where they are needed, a few rows at a time.

    `of_norm`: the arguments of `norm_gradient`; `base`: another gradient of the input, which is added.
    """
    grad, codes, slopes, y, terms = of_norm
    needs_x, needs_weight = needs
    of_x = empty_channels_last(x.shape, x.dtype, x.device) if needs_x else None
    of_weight = torch.zeros_like(weight)

    def take(part: Tensor, rows: slice) -> None:
        if of_x is not None:
            of_x[rows] = part if base is None else part.add_(base[rows])

    for rows in row_slices(x, shape):
        input_part = converted(x[rows], weight.dtype)
        grad_y = _bnn.norm_gradient(grad[rows], codes[:, rows], slopes, y[rows], terms)
        if plan.rectifies:
            grad_y = grad_y * (y[rows] > 0)
        if plan.window is None:
            if needs_x:
                take(grad_y @ weight, rows)
            of_weight.addmm_(grad_y.t(), input_part)
            continue
        if choices is not None:
            rows_shape = (len(input_part), *shape[1:])
            grad_y = _bnn.max_pool2d_scatter(grad_y, choices[:, rows], rows_shape, plan.pool)
        if needs_weight:
            of_weight += _bnn.real_conv2d_backward_weight(grad_y, input_part, weight.shape, plan.window)
        if needs_x:
            take(float_conv2d_backward_input(grad_y, input_part, weight, plan.window), rows)
    return of_x, of_weight if needs_weight else None
