"""Poolings that save little: the position of each maximum in a few bits, or nothing."""

from typing import Any, Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn.bits import BitTensor
from bnn.ops import functions
from bnn.ops.geometry import PoolWindow
from bnn.ops.memory import empty_channels_last


class MaxPool2d(nn.Module):
    """`torch.nn.MaxPool2d` that saves ceil(log2(k^2)) bits a window for backward.

    torch saves the input and a 64-bit index for each window; two bits tell which of 2x2 values was the largest. The
    first of equal values wins. A `BitTensor` is pooled to a `BitTensor`, and its bits are saved.

    Args:
        kernel_size: height and width of a window.
        stride: distance of the windows; by default the kernel size.
        padding: border of values that never win; at most half the kernel size.
    """

    def __init__(self, kernel_size: int, *, stride: int | None = None, padding: int = 0) -> None:
        super().__init__()
        if kernel_size < 1 or (stride is not None and stride < 1):
            raise ValueError(f"kernel and stride are at least 1, got {kernel_size} and {stride}")
        if not 0 <= 2 * padding <= kernel_size:
            raise ValueError(f"the padding is at most half the kernel of {kernel_size}, got {padding}")
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding

    @property
    def is_disjoint(self) -> bool:
        """Whether no value lies in two windows."""
        return self.stride >= self.kernel_size

    def saved_for_backward(self, x: Tensor, output: Tensor) -> tuple[int, int]:
        """Elements, and bits of each: the choice of each window, or the input's bits."""
        if isinstance(x, BitTensor):
            return x.numel(), 1
        return output.numel(), (self.kernel_size**2 - 1).bit_length()

    @property
    def window(self) -> PoolWindow:
        """Kernel, stride and padding, as the operations take them."""
        return PoolWindow.of(self.kernel_size, stride=self.stride, padding=self.padding)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, H', W']; or one image without N."""
        if x.dim() == 3:
            return self(x.unsqueeze(0)).squeeze(0)  # type: ignore[no-any-return]
        if isinstance(x, BitTensor):
            return F.max_pool2d(x, self.kernel_size, self.stride, self.padding)
        return _MaxPool2d.apply(x, self.window)  # type: ignore[no-any-return, no-untyped-call]

    def extra_repr(self) -> str:  # noqa: D102
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _MaxPool2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, window: PoolWindow) -> Tensor:
        ctx.shape, ctx.window = x.shape, window
        values, choices = functions.max_pool2d_choices(x, window)
        ctx.save_for_backward(choices)
        return values  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (choices,) = ctx.saved_tensors
        return functions.max_pool2d_scatter(grads[0], choices, ctx.shape, ctx.window), None


class AvgPool2d(nn.AvgPool2d):
    """`torch.nn.AvgPool2d` that saves nothing for backward; torch saves the input, for the sake of its shape."""

    @overload
    def forward(self, x: Tensor, *, with_input: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(self, x: Tensor, *, with_input: Literal[True]) -> tuple[Tensor, Tensor]: ...

    def forward(self, x: Tensor, *, with_input: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """[N, C, H, W] to [N, C, H', W']; or one image without N.

        Args:
            x: the images.
            with_input: whether to return them, too, for another use: its gradient is then added in the pass that forms
                the pooling's, without a tensor of its own.
        """
        if x.dim() == 3:
            pooled = self(x.unsqueeze(0), with_input=with_input)
            return (pooled[0].squeeze(0), pooled[1].squeeze(0)) if with_input else pooled.squeeze(0)
        options = (self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)
        pooled, same = _AvgPool2d.apply(x, with_input, *options, self.divisor_override)  # type: ignore[no-untyped-call]
        return (pooled, same) if with_input else pooled


class GlobalAvgPool2d(nn.AdaptiveAvgPool2d):
    """`torch.nn.AdaptiveAvgPool2d(1)`, in training by the kernels of `AvgPool2d`: sums are of float32 in either."""

    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, 1, 1]; or one image without N."""
        if x.dim() != 4 or not self.training:
            return super().forward(x)
        size = tuple(x.shape[2:])
        pooled, _ = _AvgPool2d.apply(x, False, size, size, 0, False, True, None)  # type: ignore[no-untyped-call]
        return pooled  # type: ignore[no-any-return]

    def extra_repr(self) -> str:  # noqa: D102
        return ""


class _AvgPool2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, with_input: bool, *options: Any) -> tuple[Tensor, Tensor | None]:
        ctx.shape, ctx.options = x.shape, options
        ctx.kernel = _dividing_kernel(x.shape, *options)
        ctx.set_materialize_grads(False)
        pooled = F.avg_pool2d(x, *options) if ctx.kernel is None else functions.window_means(x, ctx.kernel)
        return pooled, x.view_as(x) if with_input else None

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grad, of_x), (kernel_size, stride, padding, *rest) = grads, ctx.options
        if grad is not None and ctx.kernel is not None:
            of_x = functions.window_means_backward(grad, ctx.kernel, of_x)
        elif grad is not None:
            # Of the input, backward reads the shape only.
            x = grad.new_empty(()).expand(ctx.shape)
            window = (_pair(kernel_size), _pair(stride), _pair(padding))
            of_pooled = torch.ops.aten.avg_pool2d_backward(grad, x, *window, *rest)
            of_x = of_pooled if of_x is None else of_x + of_pooled
        return of_x, *[None] * (1 + len(ctx.options))


def pad_channels(x: Tensor, before: int, after: int) -> Tensor:
    """`F.pad` of [N, C, H, W] by channels of zeros on either side, in the memory of large results.

    Whatever traces or counts operations sees `F.pad` itself.
    """
    if type(x) is not Tensor or x.is_meta:
        return F.pad(x, (0, 0, 0, 0, before, after))
    return _PadChannels.apply(x, before, after)  # type: ignore[no-any-return, no-untyped-call]


class _PadChannels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, before: int, after: int) -> Tensor:
        images, channels, *size = x.shape
        ctx.place = before, channels
        out = empty_channels_last((images, before + channels + after, *size), x.dtype, x.device).zero_()
        out.narrow(1, *ctx.place).copy_(x)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0].narrow(1, *ctx.place), None, None


def _dividing_kernel(
    shape: torch.Size, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, count_padding: bool, divisor: Any
) -> list[int] | None:
    """Height and width of windows that an image divides into; None where it does not."""
    kernel = _pair(kernel_size)
    divide = all(size % of == 0 for size, of in zip(shape[2:], kernel, strict=True))
    return kernel if divide and kernel == _pair(stride) and not any(_pair(padding)) and divisor is None else None


def _pair(size: Any) -> list[int]:
    return [size] * 2 if isinstance(size, int) else list(size)
