"""Product, pooling, batch norm and sign as one layer, between whose parts nothing but small transients exists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from bnn.bits import BitTensor, cat_rows, channels_last, slice_rows
from bnn.layers import products
from bnn.layers.binary_norm import BinaryNorm
from bnn.layers.conv import BinaryConv2d
from bnn.layers.linear import BinaryLinear
from bnn.layers.pool import MaxPool2d
from bnn.ops import window_outputs
from bnn.ops.fused import choices_shape, pooled_shape
from bnn.quantizers.gradients import draw_seed

_bnn = torch.ops.bnn

# Products that exist at a time before they are pooled (2 MiB of float16), and in evaluation (4 MiB of float32).
_CHUNK_ELEMENTS = 1 << 20


class BinaryBlock(nn.Module):
    """norm(pool(product(x))) as `BinaryNorm` of the other two, with narrow numbers inside and bits at its ends.

    Forward keeps for backward the bits of input, weight, output and window, 2 bits of each 2x2 pooling window, and
    constants of each channel. The products are float16, which holds them exactly (up to 2048, and even numbers up to
    4096; those of a real input are rounded). Backward forms the gradient of the norm straight as int8, and that of
    the input as bfloat16. In evaluation the three parts are called, some images at a time.

    Args:
        product: a layer that `fits`.
        pool: of windows that do not overlap; None for none. It needs a convolution.
        norm: the norm.
    """

    def __init__(self, product: BinaryConv2d | BinaryLinear, pool: MaxPool2d | None, norm: BinaryNorm) -> None:
        super().__init__()
        if not fits(product, pool):
            raise ValueError(
                "a block takes a layer without scale and bias whose gradient Int8Gradient rounds at random, and"
                " pooling windows that do not overlap"
            )
        self.product = product
        self.pool = pool
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] or [N, K] to the `BitTensor`, of dtype bfloat16, of [N, O, H', W'] or [N, O]."""
        if not self.training:
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


def fits(product: nn.Module, pool: nn.Module | None) -> bool:
    """Whether a `BinaryBlock` can be made of a layer and the pooling behind it, which may be None."""
    if not isinstance(product, (BinaryConv2d, BinaryLinear)) or not products.rounds_to_int8(product.grad_quantizer):
        return False
    if product.store.scale() is not None or product.learned_scale is not None or product.bias is not None:
        return False
    if pool is None:
        return True
    return isinstance(pool, MaxPool2d) and isinstance(product, BinaryConv2d) and pool.stride >= pool.kernel_size


def fuse(model: nn.Module) -> None:
    """Replaces, in every `nn.Sequential` of a model, each run of product, pooling and `BinaryNorm` by its block."""
    for sequence in [module for module in model.modules() if isinstance(module, nn.Sequential)]:
        layers = list(sequence)
        fused: list[nn.Module] = []
        while layers:
            layer = layers.pop(0)
            pool = layers[0] if len(layers) > 1 and isinstance(layers[0], MaxPool2d) else None
            norm = layers[0 if pool is None else 1] if layers else None
            if isinstance(norm, BinaryNorm) and fits(layer, pool):
                layer = BinaryBlock(cast(BinaryConv2d, layer), pool, norm)
                del layers[: 1 if pool is None else 2]
            fused.append(layer)
        while len(sequence):
            del sequence[-1]
        sequence.extend(fused)


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: BitTensor, bias: Tensor, block: BinaryBlock
    ) -> tuple[Tensor, Tensor, Tensor]:
        window = ctx.window = block.product.window
        if window is not None:
            weight = channels_last(weight)
            as_image = torch.channels_last
            x = channels_last(x) if isinstance(x, BitTensor) else x.contiguous(memory_format=as_image)
        y, choices, ctx.shape = _pooled(x, weight, block)
        if y.numel() <= y.shape[1]:
            raise ValueError(f"batch statistics need two values a channel, got a tensor of {tuple(y.shape)}")
        bits, inside, mean, deviation, omega = _bnn.norm_sign(y, bias, block.norm.eps)
        ctx.save_for_backward(x, weight, bits, inside, deviation + block.norm.eps, omega, choices)
        ctx.block = block
        ctx.mark_non_differentiable(mean, deviation)
        strides = torch.empty(y.movedim(1, -1).shape, device="meta").movedim(-1, 1).stride()
        return BitTensor(bits, y.shape, strides, torch.bfloat16), mean, deviation

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight, bits, inside, psi, omega, choices = ctx.saved_tensors
        product, pool = ctx.block.product, ctx.block.pool
        seed = draw_seed(product.grad_quantizer.generator)
        q, scale, grad_bias = _bnn.norm_sign_backward_int8(grads[0], bits, inside, psi, omega, seed)
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
