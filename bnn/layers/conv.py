"""The binary convolution."""

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from bnn.layers import products
from bnn.layers.base import BinaryLayer
from bnn.ops.geometry import Window
from bnn.quantizers import Quantizer, Sign
from bnn.quantizers.gradients import GradientQuantizer
from bnn.weights import StoreFactory


class BinaryConv2d(BinaryLayer):
    """y = scale * conv2d(q_x(x), q_w(w)) + bias, padded with true zeros.

    With both quantizers of ±1 the product is exact, padded taps add nothing, and backward keeps one bit an input.
    The output is in channels-last memory format.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: height and width of the kernel.
        stride: step of the kernel.
        padding: zeros on each side; or as in torch `valid` for none, or `same` for an output of the input's size, which
            takes a stride of 1 and an odd kernel or an even dilation.
        dilation: distance of the kernel's taps.
        groups: groups of channels.
        store: makes the weight's store from its shape; None: that of `bnn.weights.default_store`.
        input_quantizer: pattern that is copied; None takes the input as it comes (real, or already quantized).
        grad_quantizer: pattern that is copied; what becomes of the gradient of the product before it is multiplied
            for those of input and weight. `Int8Gradient` with a generator makes these products of integers.
        learned_scale: whether a factor of each output channel is trained; starts at 1.
        bias: whether a term of each output channel is trained; starts at 0.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int | Literal["same", "valid"] = 0,
        dilation: int = 1,
        groups: int = 1,
        store: StoreFactory | None = None,
        input_quantizer: Quantizer | None = Sign(),  # noqa: B008  (a pattern, copied)
        grad_quantizer: GradientQuantizer | None = None,
        learned_scale: bool = False,
        bias: bool = False,
    ) -> None:
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"{groups} groups do not divide {in_channels} inputs and {out_channels} outputs")
        super().__init__(
            (out_channels, in_channels // groups, kernel_size, kernel_size),
            store=store,
            input_quantizer=input_quantizer,
            grad_quantizer=grad_quantizer,
            learned_scale=learned_scale,
            bias=bias,
        )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = _padding(padding, kernel_size, stride, dilation)
        self.dilation = dilation
        self.groups = groups

    @property
    def window(self) -> Window:
        """Stride, padding, dilation and groups, as the products take them."""
        return _window(self.stride, self.padding, self.dilation, self.groups)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] to float [N, out_channels, H', W']; or one image without N."""
        if x.dim() == 3:
            return self(x.unsqueeze(0)).squeeze(0)  # type: ignore[no-any-return]
        x, store = self.quantized(x.contiguous(memory_format=torch.channels_last)), self.store
        product = store.product(x, self.window)
        if product is None:
            product = products.conv2d(x, store.read(), self.window, self.grad_quantizer, store.gradient_quantizer)
        return self.scaled(product, trailing_dims=2)

    def extra_repr(self) -> str:  # noqa: D102
        out_channels, in_channels, kernel_size, _ = self.store.shape
        return (
            f"{in_channels * self.groups}, {out_channels}, {kernel_size}, stride={self.stride},"
            f" padding={self.padding}, dilation={self.dilation}, groups={self.groups}"
        )


@lru_cache(maxsize=256)  # layers ask at every step
def _window(stride: int, padding: int, dilation: int, groups: int) -> Window:
    return Window.of(stride=stride, padding=padding, dilation=dilation, groups=groups)


def _padding(padding: int | Literal["same", "valid"], kernel_size: int, stride: int, dilation: int) -> int:
    if padding == "valid":
        return 0
    if padding != "same":
        return padding
    reach = dilation * (kernel_size - 1)
    if stride != 1 or reach % 2:
        raise ValueError(
            f"padding 'same' takes a stride of 1 and as many zeros on each side, not a stride of {stride} and"
            f" {reach} zeros in all: give their number"
        )
    return reach // 2
