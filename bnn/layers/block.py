"""`BinaryBlock`: product, pooling and batch norm, the unit that networks are built of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from bnn.bits import BitTensor, cat_rows, slice_rows
from bnn.layers import products
from bnn.layers.base import BinaryLayer
from bnn.layers.binary_norm import BinaryNorm, conditional_means
from bnn.layers.conv import BinaryConv2d
from bnn.layers.linear import BinaryLinear
from bnn.layers.pool import MaxPool2d
from bnn.ops.pooling import empty_choices

_bnn = torch.ops.bnn

# Products of a real input that exist at a time before they are pooled (2 MiB of float16), and of any in evaluation
# (4 MiB of float32).
_CHUNK_ELEMENTS = 1 << 20
# Of what lies between the parts of a fused block, and of the gradient between blocks.
_HALF_BITS = 16
_FUSED_FORWARDS = {BinaryConv2d.forward, BinaryLinear.forward, MaxPool2d.forward, BinaryNorm.forward}


@dataclass(frozen=True)
class PartWidths:
    """Bits of an element that a part of a fused block reads and writes."""

    input_bits: int | None
    """None for the product, which reads the block's own input."""
    output_bits: int
    gradient_bits: int
    """Bits of the output's gradient."""
    input_gradient_bits: int


class BinaryBlock(nn.Module):
    """norm(pool(product(x))), trained as one autograd node where its parts allow it.

    A *fused* block saves for backward one bit an element of input, weight, output and straight-through window, 2 bits
    for each 2x2 pooling window, and constants of each channel. Its products are float16, which represents them exactly
    (up to 2048, and even numbers up to 4096; those of a real input are rounded). Backward computes the gradient of the
    norm directly as integers, and that of the input in bfloat16. A channel that is constant over the batch has no
    gradient. Hooks on the parts are not called. In evaluation mode (that of the norm) the parts are called on a few
    images at a time.

    Any other block calls its parts one after the other. The names in a state dict are the same in both cases.

    Args:
        product: the layer with the weight.
        norm: of as many channels as the product has outputs.
        pool: between the two, behind a convolution; None for none.
    """

    def __init__(self, product: BinaryConv2d | BinaryLinear, norm: nn.Module, *, pool: MaxPool2d | None = None) -> None:
        super().__init__()
        if not isinstance(product, BinaryLayer):
            raise TypeError(f"a block is made of a BinaryConv2d or BinaryLinear, got {type(product).__name__}")
        if pool is not None and not isinstance(product, BinaryConv2d):
            raise TypeError(f"pooling stands behind a BinaryConv2d, not behind a {type(product).__name__}")
        self.product = product
        self.pool = pool
        self.norm = norm

    @property
    def is_fused(self) -> bool:
        """Whether the parts are trained as one node.

        They are where the norm is a `BinaryNorm`, the layer's weight is binary and its gradients are integers
        (`BinaryLayer.is_fusable`), and the pooling windows do not overlap. The node stands for the `forward` of these
        classes: a subclass with another one is called.
        """
        parts = [part for part in (self.product, self.pool, self.norm) if part is not None]
        return (
            all(type(part).forward in _FUSED_FORWARDS for part in parts)
            and self.product.is_fusable
            and (self.pool is None or self.pool.is_disjoint)
        )

    def widths(self, part: nn.Module) -> PartWidths | None:
        """Bits that a part of the block reads and writes in training; None where the block is not fused."""
        if not self.is_fused or self.product.grad_quantizer is None:
            return None
        first, last = part is self.product, part is self.norm
        inner_gradient_bits = self.product.grad_quantizer.storage_bits
        return PartWidths(
            input_bits=None if first else _HALF_BITS,
            output_bits=1 if last else _HALF_BITS,
            gradient_bits=_HALF_BITS if last else inner_gradient_bits,
            input_gradient_bits=_HALF_BITS if first else inner_gradient_bits,
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] or [N, K] to [N, O, H', W'] or [N, O]; of a fused block to the `BitTensor`, of dtype bfloat16.

        Raises:
            ValueError: a fused block gets images without batch, or batch statistics of fewer than two values a channel.
        """
        if not self.is_fused:
            return self._parts(x)
        if isinstance(self.product, BinaryConv2d) and x.dim() != 4:
            raise ValueError(f"a block with a convolution takes [N, C, H, W], got a tensor of {tuple(x.shape)}")
        norm = cast(BinaryNorm, self.norm)
        if not norm.training:
            if isinstance(x, BitTensor):
                x = products.in_rows(x)
            # On the meta device the parts are called once, so that counts see each of them once.
            rows = [x] if x.is_meta else self._row_parts(x)
            return cat_rows([cast(BitTensor, self._parts(part)) for part in rows])
        x = self.product.quantized(x)
        weight = self.product.store.read()
        bits, mean, deviation = _FusedBlock.apply(x, weight, norm.bias, self)  # type: ignore[no-untyped-call]
        norm.track(mean, deviation)
        return bits  # type: ignore[no-any-return]

    def _parts(self, x: Tensor) -> Tensor:
        product: Tensor = self.product(x)
        normalised: Tensor = self.norm(product if self.pool is None else self.pool(product))
        return normalised

    def _row_parts(self, x: Tensor) -> Iterator[Tensor]:
        """The batch in parts whose products take little memory."""
        step = max(1, _CHUNK_ELEMENTS // self._product_shape(x)[1:].numel())
        for start in range(0, max(1, len(x)), step):
            rows = slice(start, start + step)
            yield slice_rows(x, rows) if isinstance(x, BitTensor) else x[rows]

    def _product_shape(self, x: Tensor) -> torch.Size:
        shape, window = self.product.store.shape, self.product.window
        if window is None:
            return torch.Size((len(x), shape[0]))
        return torch.Size(window.output_shape(x.shape, shape))


class _FusedBlock(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: BitTensor, bias: Tensor, block: BinaryBlock
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.window = block.product.window
        weight = products.in_rows(weight)
        if isinstance(x, BitTensor):
            x = products.in_rows(x)
        elif x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        y, choices, ctx.shape = _pooled(x, weight, block)
        if y.numel() <= y.shape[1]:
            raise ValueError(f"batch statistics need two values a channel, got a tensor of {tuple(y.shape)}")
        eps = block.norm.eps
        bits, inside, mean, deviation = _bnn.norm_sign(y, bias, eps)
        # A channel without deviation would bring a gradient of 1 / eps, whose scale erases that of all others.
        denominator = torch.where(deviation > 0, deviation + eps, torch.inf)
        ctx.save_for_backward(x, weight, bits, inside, denominator, bias, choices)
        ctx.block = block
        ctx.mark_non_differentiable(mean, deviation)
        strides = torch.empty(y.movedim(1, -1).shape, device="meta").movedim(-1, 1).stride()
        return BitTensor(bits, y.shape, strides, torch.bfloat16), mean, deviation

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight, bits, inside, denominator, bias, choices = ctx.saved_tensors
        product, pool = ctx.block.product, ctx.block.pool
        rounding = (product.grad_quantizer.largest, product.grad_quantizer.seed())
        q, scale, grad_bias = _bnn.norm_sign_backward_integers(
            grads[0], bits, inside, denominator, conditional_means(bias), *rounding
        )
        if pool is not None:
            q = _bnn.max_pool2d_scatter(q, choices, ctx.shape, pool.window)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[1]:
            quantizer = product.store.gradient_quantizer
            grad_weight = products.weight_gradient(q, scale, x, weight, ctx.window, quantizer)
        if ctx.needs_input_grad[0]:
            grad_x = products.input_gradient(q, scale, x, weight, ctx.window)
        return grad_x, grad_weight, grad_bias, None


def _pooled(x: Tensor, weight: BitTensor, block: BinaryBlock) -> tuple[Tensor, Tensor | None, torch.Size]:
    """The input of the norm, the choices of its pooling, and the shape before the pooling."""
    window, pool = block.product.window, block.pool
    if window is None or pool is None:
        y = products.multiply(x, weight, window, torch.float16)
        return y, None, y.shape
    shape = block._product_shape(x)
    if isinstance(x, BitTensor):
        packed = (x.packed, list(x.shape), weight.packed, list(weight.shape))
        return *_bnn.conv2d_max_pool2d(*packed, window, pool.window), shape
    y, choices = empty_choices(x, shape, pool.window, torch.float16)
    start = 0
    for part_x in block._row_parts(x):
        rows = slice(start, start + len(part_x))
        start = rows.stop
        part = products.multiply(part_x, weight, window, torch.float16)
        y[rows], choices[:, rows] = _bnn.max_pool2d_choices(part, pool.window)
    return y, choices, shape
