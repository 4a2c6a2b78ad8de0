"""A block of bits in one call of the kernels each way, where there is one: `bnn.ops.cpu.blocks`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from bnn.bits import BitTensor
from bnn.layers import products
from bnn.layers.plan import Plan
from bnn.ops.batch_norm import clamped
from bnn.ops.cpu import blocks
from bnn.ops.cpu.blocks import Kept


def forward(
    x: Tensor, weight: Tensor, of_norm: tuple[Any, ...], shortcut: Tensor | None, plan: Plan
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Kept | None] | None:
    """The operand and the codes of its gradient, the result and the codes of its own, the moments of the product, and
    what is kept of it.

    None where no kernel forms them in one call.
    """
    if not (plan.is_of_bits and isinstance(weight, BitTensor)) or (
        plan.input_steps is None and not isinstance(x, BitTensor)
    ):
        return None
    bits = products.in_rows(x) if isinstance(x, BitTensor) else None
    given, norm = x if bits is None else bits.packed, blocks.BatchNorm(*of_norm)
    batches = cast(Tensor, plan.norm.num_batches_tracked)
    if not blocks.serves(given, norm, shortcut):
        return None
    edges, output_edges = (() if of is None else of.edges for of in (plan.input_steps, plan.output_steps))
    operands = blocks.Operands(given, x.shape, weight.packed, weight.shape, plan.window, plan.pool)
    packed, input_codes, out, codes, moments, kept = blocks.forward(
        operands, edges, norm, batches, shortcut, plan.clamp_range, output_edges, keeps_product=plan.keeps_product
    )
    if output_edges:
        result: Tensor = products.of_rows(out, plan.normed_shape(x.shape, weight.shape))
    else:
        result, codes = clamped(out), codes if plan.clamps else codes.new_empty((0, *codes.shape[1:]))
    return products.of_rows(packed, x.shape) if bits is None else bits, input_codes, result, codes, moments, kept


def backward(
    of_result: tuple[Tensor, Tensor, Sequence[float]],
    x: Tensor,
    weight: Tensor,
    of_norm: tuple[Tensor, Tensor | None, Tensor | None, float],
    of_x: tuple[Tensor, Sequence[float], Tensor | None, Tensor | None],
    plan: Plan,
    needs: tuple[bool, bool],
    kept: Kept | None,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """The gradients of input and weight, and those of scale, gamma and beta.

    None where no kernel forms them in one call.

    Args:
        of_result: the gradient of the result, its codes and their slopes.
        x: the operand, with the weight.
        weight: see above.
        of_norm: moments, scale, gamma and eps.
        of_x: codes of the input and their slopes, another gradient of it, and the elements of that which count 0.
        plan: what the block asks of its parts.
        needs: whether gradients of input and weight are needed.
        kept: of the product.
    """
    quantizer, of_weight = plan.grad_quantizer, plan.weight_quantizer
    if (
        not (all(needs) and plan.is_of_bits and isinstance(x, BitTensor) and isinstance(weight, BitTensor))
        or quantizer is None
        or quantizer.weight_largest not in (None, quantizer.largest)
        or (of_weight is not None and of_weight.storage_bits == 1)
        or (of_x[2] is not None and not len(of_x[0]))
        or x.dtype not in (torch.bfloat16, torch.float32)
    ):
        return None
    operands = blocks.Operands(x.packed, x.shape, weight.packed, weight.shape, plan.window, plan.pool)
    if not blocks.serves_gradient(of_result[0], operands, x.dtype, kept):
        return None
    input_codes, input_slopes, base, outside = of_x
    of_input = blocks.InputGradient(
        x.dtype, input_codes, input_slopes, None if base is None else base.to(x.dtype), outside
    )
    rounding = blocks.Rounding(quantizer.largest, quantizer.seed())
    weight_dtype = torch.float32 if of_weight is None else of_weight.dtype or torch.float32
    of_w = blocks.WeightGradient(weight_dtype, None if plan.window is None else quantizer.ternary_seed())
    return blocks.backward(*of_result, operands, of_norm, rounding, of_input, of_w, kept)
