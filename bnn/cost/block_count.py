"""Counts the parts of a `BinaryBlock` that is trained as one node and forms its product again in backward."""

from dataclasses import replace

import torch
from torch import Tensor

from bnn.bits import BitTensor
from bnn.cost.layer_count import LayerCount, bits_of, count_layer, count_operation
from bnn.layers import BinaryBlock, BinaryLayer
from bnn.quantizers.base import SlopeSteps

_FLOAT_BITS = 32


def count_block(
    name: str, block: BinaryBlock, x: Tensor, shortcut: Tensor | None, output: Tensor, *, trained_before: bool
) -> tuple[list[LayerCount], list[LayerCount]]:
    """Counts the parts of a fused block, with the widths of what moves between them.

    Two passes make the output: product and pooling; norm, sum and activation. What one part hands to the next of its
    pass does not move, and has a width of 0. Backward repeats the first pass, or reads its kept result.

    Args:
        name: of the block.
        block: one with `is_fused`.
        x: its input; values do not matter.
        shortcut: its second input, if any.
        output: what it made of them.
        trained_before: whether a gradient is handed down to the input.

    Returns:
        The modules, and the sum with the shortcut, if there is one.
    """
    prefix = f"{name}." if name else ""
    # Products of images are float16, their gradient is that of the product's quantizer.
    dtype = torch.float32 if block.window is None else torch.float16
    y = torch.empty(block.product_shape(x), dtype=dtype, device="meta")
    pooled = torch.empty(output.shape, dtype=dtype, device="meta")
    bits, inner_bits, outer_bits = 8 * dtype.itemsize, _product_gradient_bits(block), 8 * output.dtype.itemsize
    pool, activation, keeps = block.pool, block.activation, block.keeps_product(x)

    product = replace(
        count_layer(f"{prefix}product", block.product, x, y, trained_before=trained_before),
        output_bits=0 if pool else bits,
        saved_elements=x.numel(),
        saved_bits=_kept_bits(x, block.input_steps),
        gradient_bits=inner_bits,
        recomputed_bits=None if keeps else 0 if pool else bits,
    )
    if not isinstance(block.product, BinaryLayer) or block.product.grad_quantizer is None:
        product = replace(product, gradient_bits_for_weight=inner_bits)
    norm = replace(
        count_layer(f"{prefix}norm", block.norm, pooled, output, trained_before=True),
        output_bits=0 if activation else bits_of(output),
        saved_elements=pooled.numel() if keeps else 0,
        saved_bits=bits,
        gradient_bits=0 if activation else outer_bits,
        input_gradient_bits=inner_bits,
    )
    modules, operations = [product, norm], []
    if pool is not None:
        count = count_layer(f"{prefix}pool", pool, y, pooled, trained_before=True)
        count = replace(count, input_bits=0, gradient_bits=inner_bits, input_gradient_bits=inner_bits)
        if not keeps:
            count = replace(count, saved_elements=0, recomputed_bits=bits + count.saved_bits)
        modules.insert(1, count)
    if shortcut is not None:
        count = count_operation(
            f"{prefix}add", "add", [shortcut], output, saves_inputs=False, trained_before=trained_before
        )
        operations.append(
            replace(count, output_bits=0, gradient_bits=0, input_gradient_bits=8 * shortcut.dtype.itemsize)
        )
    if activation is not None:
        planes = _planes(block.output_steps) if block.output_steps else 1
        modules.append(
            replace(
                count_layer(f"{prefix}activation", activation, pooled, output, trained_before=True),
                input_bits=0,
                saved_elements=output.numel(),
                saved_bits=planes,
                input_gradient_bits=0,
            )
        )
    return modules, operations


def _product_gradient_bits(block: BinaryBlock) -> int:
    quantizer = block.product.grad_quantizer if isinstance(block.product, BinaryLayer) else None
    return _FLOAT_BITS if quantizer is None else quantizer.storage_bits


def _kept_bits(x: Tensor, steps: SlopeSteps | None) -> int:
    """Bits of an input element that the block keeps: of bits these, of others the sign and the code."""
    if isinstance(x, BitTensor) or steps is None:
        return bits_of(x)
    return 1 + _planes(steps)


def _planes(steps: SlopeSteps) -> int:
    """Bits of a code."""
    return len(steps.edges).bit_length()
