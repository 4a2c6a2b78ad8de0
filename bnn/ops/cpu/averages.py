"""Means over windows on the CPU."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bnn.ops import averages as specification
from bnn.ops.averages import averaged_shape, check_base, spread_shape
from bnn.ops.cpu.arguments import DTYPE_CODES
from bnn.ops.cpu.native import call, kernel
from bnn.ops.memory import channels_last, empty_channels_last

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


@kernel
def window_means(x: Tensor, kernel: Sequence[int]) -> Tensor:
    shape = averaged_shape(x, kernel)
    if x.dtype not in _FLOATS:
        return specification.window_means(x, kernel)
    out = empty_channels_last(shape, x.dtype)
    call("window_means", channels_last(x), out, *_last(shape), *kernel, DTYPE_CODES[x.dtype])
    return out


@kernel
def window_means_backward(grad: Tensor, kernel: Sequence[int], base: Tensor | None) -> Tensor:
    if grad.dtype not in _FLOATS:
        return specification.window_means_backward(grad, kernel, base)
    shape = spread_shape(grad, kernel)
    check_base(base, grad, shape)
    out = empty_channels_last(shape, grad.dtype)
    operands = (channels_last(grad), 0 if base is None else channels_last(base), out)
    call("window_means_backward", *operands, *_last(grad.shape), *kernel, DTYPE_CODES[grad.dtype])
    return out


def _last(shape: Sequence[int]) -> tuple[int, int, int]:
    """Rows of windows of all images, windows of each and channels."""
    images, channels, height, width = shape
    return images * height, width, channels
