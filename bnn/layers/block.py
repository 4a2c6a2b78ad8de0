"""Product, pooling, batch norm and sign as one layer, between whose parts nothing but small transients exists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from bnn.bits import BitTensor, cat_rows, slice_rows
from bnn.layers import products
from bnn.layers.binary_norm import BinaryNorm, levels
from bnn.layers.conv import BinaryConv2d
from bnn.layers.linear import BinaryLinear
from bnn.layers.pool import MaxPool2d
from bnn.ops import window_outputs
from bnn.ops.fused import choices_shape, pooled_shape
from bnn.quantizers.gradients import draw_seed

_bnn = torch.ops.bnn

# Products of a real input that exist at a time before they are pooled (2 MiB of float16), and of any in evaluation
# (4 MiB of float32).
_CHUNK_ELEMENTS = 1 << 20
# Of what lies between the parts of a block, and of the gradient between blocks.
_HALF_BITS = 16


@dataclass(frozen=True)
class PartWidths:
    """Bits of an element that a part of a fused block reads and writes."""

    input_bits: int | None
    """None for the product, which reads the block's own input."""
    output_bits: int
    gradient_bits: int
    """Of the output's gradient."""
    input_gradient_bits: int


class BinaryBlock(nn.Module):
    """norm(pool(product(x))) as `BinaryNorm` of the other two, with narrow numbers inside and bits at its ends.

    Forward keeps for backward the bits of input, weight, output and window, 2 bits of each 2x2 pooling window, and
    constants of each channel. The products are float16, which holds them exactly (up to 2048, and even numbers up to
    4096; those of a real input are rounded). Backward forms the gradient of the norm straight as int8, and that of
    the input as bfloat16. A channel that is constant over the batch has no gradient. In evaluation, which is when the
    norm is in it, the three parts are called, some images at a time; in training hooks on the parts are not.

    Args:
        product: a layer that `fits`.
        pool: of windows that do not overlap; None for none. It needs a convolution.
        norm: the norm.
    """

    def __init__(self, product: BinaryConv2d | BinaryLinear, pool: MaxPool2d | None, norm: BinaryNorm) -> None:
        super().__init__()
        if not fits(product, pool, norm):
            raise ValueError(
                "a block takes a layer of ±1 weights without scale and bias, whose gradient Int8Gradient rounds at"
                " random, pooling windows that do not overlap, and a BinaryNorm"
            )
        self.product = product
        self.pool = pool
        self.norm = norm

    def widths(self, part: nn.Module) -> PartWidths | None:
        """What a part of the block reads and writes in training; None where the block is not fused."""
        if self.product.grad_quantizer is None:
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
        """[N, C, H, W] or [N, K] to the `BitTensor`, of dtype bfloat16, of [N, O, H', W'] or [N, O]."""
        if isinstance(self.product, BinaryConv2d) and x.dim() != 4:
            raise ValueError(f"a block with a convolution takes [N, C, H, W], got a tensor of {tuple(x.shape)}")
        if isinstance(x, BitTensor):
            x = products.in_rows(x)
        if not self.norm.training:
            # On shapes alone the parts are called once, for what looks at them.
            return self._parts(x) if x.is_meta else cat_rows([self._parts(part) for part in self._row_parts(x)])
        x = self.product.quantized(x)
        weight = self.product.store.read()
        bits, mean, deviation = _Block.apply(x, weight, self.norm.bias, self)  # type: ignore[no-untyped-call]
        self.norm.track(mean, deviation)
        return bits  # type: ignore[no-any-return]

    def _parts(self, x: Tensor) -> BitTensor:
        product = self.product(x)
        return cast(BitTensor, self.norm(product if self.pool is None else self.pool(product)))

    def _row_parts(self, x: Tensor) -> Iterator[Tensor]:
        """A batch in parts whose products are few enough to exist at a time."""
        step = max(1, _CHUNK_ELEMENTS // self._product_shape(x)[1:].numel())
        for start in range(0, max(1, len(x)), step):
            rows = slice(start, start + step)
            yield slice_rows(x, rows) if isinstance(x, BitTensor) else x[rows]

    def _product_shape(self, x: Tensor) -> torch.Size:
        shape, window = self.product.store.shape, self.product.window
        if window is None:
            return torch.Size((len(x), shape[0]))
        size = window_outputs(x.shape[2:], shape[2:], *window[:3])  # type: ignore[arg-type]
        return torch.Size((len(x), shape[0], *size))


def fits(product: nn.Module, pool: nn.Module | None, norm: nn.Module) -> bool:
    """Whether a `BinaryBlock` can be made of a layer, the pooling behind it, which may be None, and a norm."""
    if type(product) not in (BinaryConv2d, BinaryLinear) or type(norm) is not BinaryNorm:
        return False
    layer = cast("BinaryConv2d | BinaryLinear", product)
    scaled = layer.store.scale() is not None or layer.learned_scale is not None or layer.bias is not None
    if scaled or not products.rounds_to_int8(layer.grad_quantizer):
        return False
    with torch.no_grad():
        if not isinstance(layer.store.read(), BitTensor):
            return False
    if pool is None:
        return True
    return type(pool) is MaxPool2d and isinstance(layer, BinaryConv2d) and pool.stride >= pool.kernel_size


def fuse(model: nn.Module) -> None:
    """Replaces, in every `nn.Sequential` of a model, each run of product, pooling and `BinaryNorm` by its block.

    A block takes the name of its product, below which the parts are called `product`, `pool` and `norm`: a state dict
    of the fused model does not fit the model that is not, nor the other way round.
    """
    for sequence in [module for module in model.modules() if type(module) is nn.Sequential]:
        layers = list(sequence.named_children())
        fused: list[tuple[str, nn.Module]] = []
        while layers:
            name, layer = layers.pop(0)
            pool = layers[0][1] if len(layers) > 1 and type(layers[0][1]) is MaxPool2d else None
            behind = layers[0 if pool is None else 1 :]
            if behind and fits(layer, pool, behind[0][1]):
                layer = BinaryBlock(cast(BinaryConv2d, layer), pool, cast(BinaryNorm, behind[0][1]))
                layers = behind[1:]
            fused.append((name, layer))
        if len(fused) < len(sequence):
            for name, _ in list(sequence.named_children()):
                delattr(sequence, name)
            for name, layer in fused:
                sequence.add_module(name, layer)


class _Block(torch.autograd.Function):
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
        bits, inside, mean, deviation = _bnn.norm_sign(y, bias, block.norm.eps)
        # A channel without deviation would bring a gradient of 1 / eps, whose scale erases that of all others.
        psi = torch.where(deviation > 0, deviation + block.norm.eps, torch.inf)
        ctx.save_for_backward(x, weight, bits, inside, psi, bias, choices)
        ctx.block = block
        ctx.mark_non_differentiable(mean, deviation)
        strides = torch.empty(y.movedim(1, -1).shape, device="meta").movedim(-1, 1).stride()
        return BitTensor(bits, y.shape, strides, torch.bfloat16), mean, deviation

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight, bits, inside, psi, bias, choices = ctx.saved_tensors
        product, pool = ctx.block.product, ctx.block.pool
        seed = draw_seed(product.grad_quantizer.generator)
        q, scale, grad_bias = _bnn.norm_sign_backward_int8(grads[0], bits, inside, psi, levels(bias), seed)
        if pool is not None:
            q = _bnn.max_pool2d_scatter(q, choices, ctx.shape, *_pool_window(pool))
        grad_x = grad_weight = None
        if ctx.needs_input_grad[1]:
            signs = products.sign_generator(product.store.gradient_quantizer)
            grad_weight = products.weight_gradient(q, scale, x, weight, ctx.window, signs)
        if ctx.needs_input_grad[0]:
            grad_x = products.input_gradient(q, scale, x, weight, ctx.window)
        return grad_x, grad_weight, grad_bias, None


def _pooled(x: Tensor, weight: BitTensor, block: BinaryBlock) -> tuple[Tensor, Tensor | None, torch.Size]:
    """What is to be normalised, the choices of its pooling, and the shape before it."""
    window, pool = block.product.window, block.pool
    if window is None or pool is None:
        y = products.multiply(x, weight, window, torch.float16)
        return y, None, y.shape
    shape = block._product_shape(x)
    if isinstance(x, BitTensor):
        packed = (x.packed, list(x.shape), weight.packed, list(weight.shape))
        return *_bnn.conv2d_max_pool2d(*packed, *window, *_pool_window(pool)), shape
    pooled = pooled_shape(shape, *_pool_window(pool))
    choices = weight.packed.new_empty(choices_shape(pooled, [pool.kernel_size] * 2))
    y = torch.empty(pooled, dtype=torch.float16, device=x.device, memory_format=torch.channels_last)
    start = 0
    for part_x in block._row_parts(x):
        rows = slice(start, start + len(part_x))
        start = rows.stop
        part = products.multiply(part_x, weight, window, torch.float16)
        y[rows], choices[:, rows] = _bnn.max_pool2d_choices(part, *_pool_window(pool))
    return y, choices, shape


def _pool_window(pool: MaxPool2d) -> tuple[list[int], list[int], list[int]]:
    return [pool.kernel_size] * 2, [pool.stride] * 2, [pool.padding] * 2
