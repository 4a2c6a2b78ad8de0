"""The binary convolution."""

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
        padding: zeros on each side.
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
        padding: int = 0,
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
        self.padding = padding
        self.dilation = dilation
        self.groups = groups

    @property
    def window(self) -> Window:
        """Stride, padding, dilation and groups, as the products take them."""
        return Window.of(stride=self.stride, padding=self.padding, dilation=self.dilation, groups=self.groups)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] to float [N, out_channels, H', W']."""
        x = self.quantized(x.contiguous(memory_format=torch.channels_last))
        product = products.conv2d(x, self.store.read(), self.window, self.grad_quantizer, self.store.gradient_quantizer)
        return self.scaled(product, trailing_dims=2)

    def extra_repr(self) -> str:  # noqa: D102
        out_channels, in_channels, kernel_size, _ = self.store.shape
        return (
            f"{in_channels * self.groups}, {out_channels}, {kernel_size}, stride={self.stride},"
            f" padding={self.padding}, dilation={self.dilation}, groups={self.groups}"
        )
