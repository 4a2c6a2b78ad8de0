"""`BinaryBlock`: product, pooling, batch norm, sum and activation, the unit that networks are built of."""

from __future__ import annotations

import math
from typing import Literal, overload

import torch
from torch import Tensor, nn

from bnn.bits import BitTensor, cat_rows, slice_rows
from bnn.layers import products
from bnn.layers.base import BinaryLayer
from bnn.layers.conv import BinaryConv2d
from bnn.layers.linear import BinaryLinear
from bnn.layers.pool import MaxPool2d
from bnn.layers.recomputed import Recomputed, Turned, affine, finish, product, quantized, row_slices
from bnn.ops.geometry import Window
from bnn.quantizers import Quantizer
from bnn.quantizers.base import SlopeSteps

_PRODUCTS = {BinaryConv2d.forward, BinaryLinear.forward, nn.Conv2d.forward, nn.Linear.forward}
_NORMS = {nn.BatchNorm1d.forward}  # which that of images shares
# The interval that a real activation clamps to.
_CLAMPS = {
    nn.Hardtanh.forward: lambda activation: (float(activation.min_val), float(activation.max_val)),
    nn.ReLU.forward: lambda activation: (0.0, math.inf),
}


class BinaryBlock(nn.Module):
    """activation(norm(pool(product(x))) + shortcut).

    With `recompute`, training makes it one node of autograd that keeps bits and forms the product again in backward: of
    a binary product the signs of input and weight, and so few bits for the gradients of the quantizer and of the
    activation as these have steps (`Quantizer.slope_steps`): 1 for a window, 2 for a polynomial. The gradient of the
    batch norm is exact. Products of bits are exact in float16 (up to 2048, and even numbers up to 4096; those of a real
    input are rounded). Their gradient is rounded to integers, and what flows between convolutions is bfloat16. Of a
    product with a real weight the input is kept as it is. A channel that is constant over the batch has no gradient.
    Hooks on the parts are not called.

    Any other block calls its parts one after the other. The names in a state dict are the same in both cases.

    Args:
        product: the layer with the weight: binary, or torch's `Conv2d` or `Linear`, as in the stem of a network.
        norm: of as many channels as the product has outputs.
        pool: between the two, behind a convolution; None for none.
        activation: behind the sum: a module, such as `Hardtanh`, or a quantizer of ±1 for a block whose result is bits;
            None for none.
        recompute: see above; it takes effect where `obstacle` is None.
    """

    def __init__(
        self,
        product: BinaryConv2d | BinaryLinear | nn.Conv2d | nn.Linear,
        norm: nn.Module,
        *,
        pool: MaxPool2d | None = None,
        activation: nn.Module | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(product, (BinaryLayer, nn.Conv2d, nn.Linear)):
            raise TypeError(f"a block is made of a convolution or a linear layer, got {type(product).__name__}")
        if pool is not None and isinstance(product, (BinaryLinear, nn.Linear)):
            raise TypeError(f"pooling stands behind a convolution, not behind a {type(product).__name__}")
        self.product = product
        self.pool = pool
        self.norm = norm
        self.activation = activation
        self.recompute = recompute

    @property
    def obstacle(self) -> str | None:
        """Why the block cannot recompute its product; None where it can.

        It stands for the `forward` of its parts' classes: a subclass with another one is an obstacle.
        """
        if type(self.product).forward not in _PRODUCTS:
            return f"its product is a {type(self.product).__name__}"
        if self.product.bias is not None:
            return "its product has a bias, which the norm takes away: leave it out"
        if isinstance(self.product, BinaryLayer):
            if self.product.obstacle is not None:
                return self.product.obstacle
        elif isinstance(self.product, nn.Conv2d) and (
            self.product.padding_mode != "zeros" or isinstance(self.product.padding, str)
        ):
            return "its convolution is not padded by a number of zeros"
        if type(self.norm).forward not in _NORMS:
            return f"its norm is a {type(self.norm).__name__}, not torch's batch norm"
        if not self.norm.track_running_stats or self.norm.momentum is None:
            return "its norm has no running statistics with a momentum"
        if self.pool is not None and (type(self.pool).forward is not MaxPool2d.forward or not self.pool.is_disjoint):
            return "its pooling windows overlap"
        clamps = self.activation is None or type(self.activation).forward in _CLAMPS
        if not clamps and self.output_steps is None:
            return f"its activation is a {type(self.activation).__name__}"
        return None

    @property
    def is_fused(self) -> bool:
        """Whether the block is trained as one node that recomputes its product."""
        return self.recompute and self.obstacle is None

    @property
    def input_steps(self) -> SlopeSteps | None:
        """Steps of the gradient of the product's input quantizer."""
        quantizer = self.product.input_quantizer if isinstance(self.product, BinaryLayer) else None
        return None if quantizer is None else quantizer.slope_steps

    @property
    def output_steps(self) -> SlopeSteps | None:
        """Steps of the gradient of the activation, if that takes signs."""
        activation = self.activation
        return activation.slope_steps if isinstance(activation, Quantizer) and activation.is_sign else None

    @property
    def clamp_range(self) -> tuple[float, float]:
        """The interval that a real activation clamps to."""
        if self.activation is None:
            return -math.inf, math.inf
        return _CLAMPS[type(self.activation).forward](self.activation)

    @property
    def window(self) -> Window | None:
        """Of the convolution; None of a linear layer."""
        if isinstance(self.product, BinaryLayer):
            return self.product.window
        if isinstance(self.product, nn.Linear):
            return None
        conv = self.product
        return Window.of(stride=conv.stride, padding=conv.padding, dilation=conv.dilation, groups=conv.groups)

    @overload
    def forward(self, x: Tensor, shortcut: Tensor | None = None, *, with_input: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(
        self, x: Tensor, shortcut: Tensor | None = None, *, with_input: Literal[True]
    ) -> tuple[Tensor, Tensor]: ...

    def forward(
        self, x: Tensor, shortcut: Tensor | None = None, *, with_input: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """[N, C, H, W] to [N, O, H', W'], or [N, K] to [N, O].

        Args:
            x: the input.
            shortcut: what is added to the norm, of the result's shape; it may be `x` itself.
            with_input: whether to return the input, too, for a shortcut around more than this block: its gradient is
                then added in the pass that forms the block's, without a tensor of its own.

        Raises:
            ValueError: a fused block gets another number of dimensions, or batch statistics of fewer than two values a
                channel; or the shortcut has another shape.
        """
        out, same = self._run(x, shortcut)
        return (out, same) if with_input else out

    def _run(self, x: Tensor, shortcut: Tensor | None) -> tuple[Tensor, Tensor]:
        """The result and the input."""
        # There are no passes for a sum in front of a quantizer, nor for a gradient through the running statistics.
        evaluates = not self.norm.training
        as_parts = evaluates and torch.is_grad_enabled()
        if not self.is_fused or as_parts or (shortcut is not None and self.output_steps is not None):
            return self._parts(x, shortcut), x
        takes = "[N, K]" if self.window is None else "[N, C, H, W]"
        if x.dim() != takes.count(",") + 1:
            raise ValueError(f"a block with this product takes {takes}, got a tensor of {tuple(x.shape)}")
        if evaluates:
            return self._evaluated(x, shortcut), x
        weight, scale = self._operand_and_scale()
        adds_input = shortcut is x and not isinstance(x, BitTensor)
        given = None if adds_input else shortcut
        out, same, mean, variance = Recomputed.apply(  # type: ignore[no-untyped-call]
            x, weight, scale, self.norm.weight, self.norm.bias, given, self, adds_input
        )
        self._track(mean, variance, scale, out.numel() // out.shape[1])
        return out, same

    def product_shape(self, x: Tensor) -> torch.Size:
        """Shape of the product of an input, before the pooling."""
        weight = self.product.store if isinstance(self.product, BinaryLayer) else self.product.weight
        if self.window is None:
            return torch.Size((len(x), weight.shape[0]))
        return torch.Size(self.window.output_shape(x.shape, weight.shape))

    def _parts(self, x: Tensor, shortcut: Tensor | None) -> Tensor:
        out: Tensor = self.product(x)
        out = self.norm(out if self.pool is None else self.pool(out))
        if shortcut is not None:
            out = out + shortcut
        return out if self.activation is None else self.activation(out)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, scale: Tensor | None, count: int) -> None:
        """Takes the statistics of a batch into the running ones, as torch's batch norm does."""
        norm = self.norm
        if scale is not None:
            mean, variance = mean * scale, variance * scale.square()
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
        norm.running_var.lerp_((variance * (count / (count - 1))).to(norm.running_var.dtype), norm.momentum)

    def _evaluated(self, x: Tensor, shortcut: Tensor | None) -> Tensor:
        """The result by the running statistics, a few rows at a time."""
        norm = self.norm
        weight, scale = self._operand_and_scale()
        inverse = (norm.running_var + norm.eps).rsqrt()
        factor, offset = affine(norm.running_mean, inverse, None, norm.weight, norm.bias)
        factor = factor if scale is None else factor * scale
        if isinstance(x, BitTensor):
            x = products.in_rows(x)
        parts = []
        for rows in row_slices(x, self.product_shape(x)):
            part = slice_rows(x, rows) if isinstance(x, BitTensor) else x[rows]
            y, _, _ = product(quantized(part, self)[0], weight, self)
            parts.append(finish(y, factor, offset, None if shortcut is None else shortcut[rows], self)[0])
        return cat_rows(parts) if isinstance(parts[0], BitTensor) else torch.cat(parts)

    def _operand_and_scale(self) -> tuple[Tensor, Tensor | None]:
        """The weight as the product takes it, and the factor of each channel of the product."""
        if not isinstance(self.product, BinaryLayer):
            return self.product.weight, None
        weight, scale = self.product.store.read(), self.product.scale()
        if self.pool is None or scale is None:
            return weight, scale
        # The factor comes before the pooling: by a negative one, the smallest product is the largest.
        return Turned.apply(weight, scale < 0), scale.abs()  # type: ignore[no-untyped-call]
