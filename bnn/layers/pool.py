"""Max-pooling that remembers its choices in a few bits."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn.bits import BitTensor
from bnn.ops import window_outputs


class MaxPool2d(nn.Module):
    """`torch.nn.MaxPool2d`, forward and backward, whose backward keeps ceil(log2(k^2)) bits a window.

    torch keeps the input and a 64-bit index for each window; two bits tell which of 2x2 values was the largest. The
    first of equal values wins. Of a `BitTensor` the result is one, and what is kept is the input's bits.

    Args:
        kernel_size: height and width of a window.
        stride: distance of the windows; by default the kernel size.
        padding: border of values that never win; at most half the kernel size.
    """

    def __init__(self, kernel_size: int, *, stride: int | None = None, padding: int = 0) -> None:
        super().__init__()
        if not 0 <= 2 * padding <= kernel_size:
            raise ValueError(f"the padding is at most half the kernel of {kernel_size}, got {padding}")
        self.kernel_size = kernel_size
        self.stride = stride or kernel_size
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, H', W']."""
        if isinstance(x, BitTensor):
            return F.max_pool2d(x, self.kernel_size, self.stride, self.padding)
        return _MaxPool2d.apply(x, self.kernel_size, self.stride, self.padding)  # type: ignore[no-any-return, no-untyped-call]

    def extra_repr(self) -> str:  # noqa: D102
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _MaxPool2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel_size: int, stride: int, padding: int) -> Tensor:
        ctx.shape, ctx.window = x.shape, (kernel_size, stride, padding)
        largest: Tensor | None = None
        for number, tap in enumerate(_taps(x, kernel_size, stride, padding=padding, fill=-math.inf)):
            if largest is None:
                largest, choice = tap.clone(), torch.zeros_like(tap, dtype=torch.uint8)
            else:
                choice.masked_fill_(tap > largest, number)
                torch.maximum(largest, tap, out=largest)
        assert largest is not None  # a window has at least one tap
        planes = (choice.bitwise_and(1 << bit).bool() for bit in range((kernel_size**2 - 1).bit_length()))
        ctx.save_for_backward(*(BitTensor.from_dense(plane) for plane in planes))
        return largest

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        grad = grads[0]
        choice = torch.zeros_like(grad, dtype=torch.uint8)
        for bit, plane in enumerate(ctx.saved_tensors):
            choice += plane.dense(torch.bool).to(torch.uint8) << bit
        n, c, height, width = ctx.shape
        padding = ctx.window[2]
        padded = grad.new_zeros((n, height + 2 * padding, width + 2 * padding, c)).permute(0, 3, 1, 2)
        taps = _taps(padded, *ctx.window[:2], padding=0)
        # The last first: where windows overlap, gradients then add up in the order of torch's own pooling.
        for number in reversed(range(len(taps))):
            taps[number].add_(grad * (choice == number))
        return padded[:, :, padding : padding + height, padding : padding + width], None, None, None


def _taps(x: Tensor, kernel_size: int, stride: int, *, padding: int, fill: float = 0.0) -> list[Tensor]:
    """For each place in the window, in row order, the view [N, C, H', W'] of the values at that place."""
    window = ((kernel_size,) * 2, (stride,) * 2, (padding,) * 2, (1, 1))
    height, width = window_outputs((x.shape[2], x.shape[3]), *window)
    if padding:
        x = F.pad(x, (padding,) * 4, value=fill)
    return [
        x[:, :, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
        for i in range(kernel_size)
        for j in range(kernel_size)
    ]
