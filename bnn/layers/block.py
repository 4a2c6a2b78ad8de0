"""`BinaryBlock`: product, pooling, batch norm, sum and activation, the unit that networks are built of."""

from __future__ import annotations

import math
from typing import Literal, cast, overload

import torch
from torch import Tensor, nn

from bnn.bits import BitTensor, cat_rows, slice_rows
from bnn.layers import products
from bnn.layers.base import BinaryLayer
from bnn.layers.conv import BinaryConv2d
from bnn.layers.joint import passes_in_use
from bnn.layers.linear import BinaryLinear
from bnn.layers.plan import Plan, product_shape
from bnn.layers.pool import MaxPool2d
from bnn.layers.recomputed import Recomputed, Turned, finish, product, quantized, row_slices
from bnn.ops.batch_norm import affine
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
# What a node of autograd depends on if it hands the gradient of its weight over by itself.
_LEAF = torch.zeros((), requires_grad=True)
# Products that an element of what enters the norm takes; they cost more time than two bytes of memory are worth.
_KEPT_FROM = 4096


class BinaryBlock(nn.Module):
    """activation(norm(pool(product(x))) + shortcut); where it rectifies, max(0, pool(product(x))) enters the norm.

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
        rectifies: whether the norm takes the product where that is above 0, and else 0.
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
        rectifies: bool = False,
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
        self.rectifies = rectifies
        self.norm = norm
        self.activation = activation
        self.recompute = recompute

    @property
    def obstacle(self) -> str | None:
        """Why the block cannot recompute its product; None where it can.

        It stands for the `forward` of its parts' classes: a subclass with another one is an obstacle.
        """
        product, norm, pool, activation = self.product, self.norm, self.pool, self.activation
        if type(product).forward not in _PRODUCTS:
            return f"its product is a {type(product).__name__}"
        if product.bias is not None:
            return "its product has a bias, which the norm takes away: leave it out"
        if isinstance(product, BinaryLayer):
            if (obstacle := product.obstacle) is not None:
                return obstacle
        elif isinstance(product, nn.Conv2d) and (product.padding_mode != "zeros" or isinstance(product.padding, str)):
            return "its convolution is not padded by a number of zeros"
        if type(norm).forward not in _NORMS:
            return f"its norm is a {type(norm).__name__}, not torch's batch norm"
        if not norm.track_running_stats or norm.momentum is None:
            return "its norm has no running statistics with a momentum"
        if pool is not None and (type(pool).forward is not MaxPool2d.forward or not pool.is_disjoint):
            return "its pooling windows overlap"
        if self.rectifies and isinstance(product, BinaryLayer) and product.learned_scale is not None:
            return "a product with a learned scale, which may be negative, is rectified"
        if activation is not None and type(activation).forward not in _CLAMPS and self.output_steps is None:
            return f"its activation is a {type(activation).__name__}"
        return None

    @property
    def is_fused(self) -> bool:
        """Whether the block is trained as one node that recomputes its product."""
        return self.recompute and self.obstacle is None

    def keeps_product(self, x: Tensor) -> bool:
        """Whether a fused block keeps what enters the norm, instead of forming it again: where that takes long for the
        memory that it saves, as a product of floats does of a linear layer, with a value for each output."""
        weight = self.product.store if isinstance(self.product, BinaryLayer) else self.product.weight
        windows = 1 if self.pool is None else math.prod(self.pool.window.kernel)
        if windows * math.prod(weight.shape[1:]) >= _KEPT_FROM:
            return True
        return not isinstance(x, BitTensor) and self.input_steps is None and self.window is None

    @property
    def input_steps(self) -> SlopeSteps | None:
        """Steps of the gradient of the product's input quantizer."""
        product = self.product
        quantizer = product.input_quantizer if isinstance(product, BinaryLayer) else None
        return None if quantizer is None else quantizer.slope_steps

    @property
    def output_steps(self) -> SlopeSteps | None:
        """Steps of the gradient of the activation, if that takes signs."""
        activation = self.activation
        return activation.slope_steps if isinstance(activation, Quantizer) and activation.is_sign else None

    @property
    def clamp_range(self) -> tuple[float, float]:
        """The interval that a real activation clamps to; all numbers where there is none."""
        activation = self.activation
        clamp = None if activation is None else _CLAMPS.get(type(activation).forward)
        return (-math.inf, math.inf) if clamp is None else clamp(activation)

    @property
    def window(self) -> Window | None:
        """Of the convolution; None of a linear layer."""
        product = self.product
        if isinstance(product, BinaryLayer):
            return product.window
        if isinstance(product, nn.Linear):
            return None
        return Window.of(
            stride=product.stride,
            padding=cast(tuple[int, ...], product.padding),
            dilation=product.dilation,
            groups=product.groups,
        )

    def _plan(self, x: Tensor) -> Plan:
        pool, product = self.pool, self.product if isinstance(self.product, BinaryLayer) else None
        return Plan(
            window=self.window,
            pool=None if pool is None else pool.window,
            rectifies=self.rectifies,
            norm=cast(nn.BatchNorm2d, self.norm),
            clamp_range=self.clamp_range,
            input_steps=self.input_steps,
            output_steps=self.output_steps,
            grad_quantizer=None if product is None else product.grad_quantizer,
            weight_quantizer=None if product is None else product.store.gradient_quantizer,
            keeps_product=self.keeps_product(x),
            passes=passes_in_use(),
        )

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
        # There are no passes for a sum in front of a quantizer, nor for a gradient through the running statistics.
        evaluates = not self.norm.training
        as_parts = evaluates and torch.is_grad_enabled()
        if not self.is_fused or as_parts or (shortcut is not None and self.output_steps is not None):
            out, same = self._parts(x, shortcut), x
        else:
            plan = self._plan(x)
            takes = "[N, K]" if plan.window is None else "[N, C, H, W]"
            if x.dim() != takes.count(",") + 1:
                raise ValueError(f"a block with this product takes {takes}, got a tensor of {tuple(x.shape)}")
            if evaluates:
                out, same = self._evaluated(x, shortcut, plan), x
            else:
                out, same = self._recomputed(x, shortcut, plan, with_input)
        return (out, same) if with_input else out

    def product_shape(self, x: Tensor) -> torch.Size:
        """Shape of the product of an input, before the pooling."""
        weight = self.product.store if isinstance(self.product, BinaryLayer) else self.product.weight
        return product_shape(x.shape, weight.shape, self.window)

    def _parts(self, x: Tensor, shortcut: Tensor | None) -> Tensor:
        out: Tensor = self.product(x)
        out = out if self.pool is None else self.pool(out)
        out = self.norm(out.relu() if self.rectifies else out)
        if shortcut is not None:
            out = out + shortcut
        return out if self.activation is None else self.activation(out)

    def _recomputed(self, x: Tensor, shortcut: Tensor | None, plan: Plan, with_input: bool) -> tuple[Tensor, Tensor]:
        """The result by the statistics of the batch, and the input where it is asked for."""
        layer = self.product if isinstance(self.product, BinaryLayer) else None
        is_turned = layer is not None and self.pool is not None and layer.scale() is not None
        apart = None if layer is None or is_turned else layer.store.read_apart()
        weight, scale = self._operand_and_scale(None if apart is None else apart[0])
        leaf, take = (None, None) if apart is None else (_LEAF, apart[1])
        adds_input = shortcut is x and not isinstance(x, BitTensor)
        given = None if adds_input else shortcut
        norm = plan.norm
        return Recomputed.apply(  # type: ignore[no-any-return, no-untyped-call]
            x, weight, scale, norm.weight, norm.bias, given, leaf, take, plan, adds_input, with_input
        )

    def _evaluated(self, x: Tensor, shortcut: Tensor | None, plan: Plan) -> Tensor:
        """The result by the running statistics, a few rows at a time."""
        norm = plan.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        weight, scale = self._operand_and_scale()
        inverse = (norm.running_var + norm.eps).rsqrt()
        factor, offset = affine(norm.running_mean, inverse, None, norm.weight, norm.bias)
        factor = factor if scale is None else factor * scale
        if isinstance(x, BitTensor):
            x = products.in_rows(x)
        parts = []
        for rows in row_slices(x, self.product_shape(x)):
            part = slice_rows(x, rows) if isinstance(x, BitTensor) else x[rows]
            y, _, _ = product(quantized(part, plan)[0], weight, plan)
            parts.append(finish(y, factor, offset, None if shortcut is None else shortcut[rows], plan)[0])
        return cat_rows(cast(list[BitTensor], parts)) if plan.output_steps is not None else torch.cat(parts)

    def _operand_and_scale(self, read: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The weight as the product takes it, of what has been read, and the factor of each channel of the product."""
        if not isinstance(self.product, BinaryLayer):
            return self.product.weight, None
        weight, scale = self.product.store.read() if read is None else read, self.product.scale()
        if self.pool is None or scale is None:
            return weight, scale
        # The factor comes before the pooling: by a negative one, the smallest product is the largest.
        return Turned.apply(weight, scale < 0), scale.abs()  # type: ignore[no-untyped-call]
