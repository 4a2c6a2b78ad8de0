"""Means over the windows that an image is cut into, and their gradient.

Images of floats come out in channels-last memory format.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bnn.ops.operation import operation
from bnn.ops.packing import empty_images


@operation("(Tensor x, int[] kernel) -> Tensor", shape=lambda x, kernel: empty_images(x, averaged_shape(x, kernel)))
def window_means(x: Tensor, kernel: Sequence[int]) -> Tensor:
    """Average-pooling by windows that lie side by side and leave nothing over.

    Args:
        x: float [N, C, H, W].
        kernel: height and width of a window, which divide those of the image.

    Returns:
        [N, C, H', W'] of `x`'s dtype; sums are of float32.
    """
    averaged_shape(x, kernel)
    return F.avg_pool2d(x, list(kernel)).contiguous(memory_format=torch.channels_last)


@operation(
    "(Tensor grad, int[] kernel, Tensor? base) -> Tensor",
    shape=lambda grad, kernel, base: empty_images(grad, spread_shape(grad, kernel)),
)
def window_means_backward(grad: Tensor, kernel: Sequence[int], base: Tensor | None) -> Tensor:
    """Gradient of `window_means`, [N, C, H, W] of `grad`'s dtype.

    Args:
        grad: float [N, C, H', W'].
        kernel: of the windows.
        base: another gradient of the same image, of `grad`'s dtype, to which this one is added; None for none.
    """
    shape, part = spread_shape(grad, kernel), grad / math.prod(kernel)
    check_base(base, grad, shape)
    spread = part[:, :, :, None, :, None].expand(-1, -1, -1, kernel[0], -1, kernel[1]).reshape(shape)
    return (spread if base is None else base + spread).contiguous(memory_format=torch.channels_last)


def check_base(base: Tensor | None, grad: Tensor, shape: Sequence[int]) -> None:
    """Refuses another gradient that is of another image."""
    if base is not None and (base.dtype is not grad.dtype or base.shape != tuple(shape)):
        raise ValueError(f"base must be {grad.dtype} {tuple(shape)}, is {base.dtype} {tuple(base.shape)}")


def averaged_shape(x: Tensor, kernel: Sequence[int]) -> tuple[int, ...]:
    """Shape of the means; refuses an image that windows do not divide."""
    images, channels, *size = x.shape
    if len(kernel) != len(size) or any(of < 1 or extent % of for extent, of in zip(size, kernel, strict=False)):
        raise ValueError(f"windows of {list(kernel)} do not divide an image of {size}")
    return images, channels, *(extent // of for extent, of in zip(size, kernel, strict=True))


def spread_shape(grad: Tensor, kernel: Sequence[int]) -> tuple[int, ...]:
    """Shape of the image whose means have the shape of `grad`."""
    images, channels, *size = grad.shape
    return images, channels, *(extent * of for extent, of in zip(size, kernel, strict=True))
