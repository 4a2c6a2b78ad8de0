"""Blurring and taking every second pixel."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TAPS = (0.25, 0.5, 0.25)


class BlurPool2d(nn.Module):
    """Each channel times the kernel [1 2 1] x [1 2 1] / 16, every second pixel of it; zeros lie around the image.

    Nothing is trained, and nothing is saved for backward. Source: Zhang 2019, arXiv 1904.11486.

    Args:
        channels: of the images.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def kernel(self, x: Tensor) -> Tensor:
        """The kernel, [channels, 1, 3, 3], in the dtype of `x` and where it is."""
        taps = torch.tensor(_TAPS, dtype=x.dtype, device=x.device)
        return torch.outer(taps, taps).expand(self.channels, 1, 3, 3)

    def saved_for_backward(self, x: Tensor, output: Tensor) -> tuple[int, int]:
        """Nothing."""
        return 0, 0

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, ceil(H / 2), ceil(W / 2)]."""
        return _BlurPool2d.apply(x, self.kernel(x))  # type: ignore[no-any-return, no-untyped-call]

    def extra_repr(self) -> str:  # noqa: D102
        return f"{self.channels}"


class _BlurPool2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor) -> Tensor:
        ctx.shape, ctx.kernel = x.shape, kernel
        return F.conv2d(x, kernel, stride=2, padding=1, groups=len(kernel))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        _, channels, height, width = ctx.shape
        beyond = (1 - height % 2, 1 - width % 2)
        of_x = F.conv_transpose2d(grads[0], ctx.kernel, stride=2, padding=1, output_padding=beyond, groups=channels)
        return of_x, None
