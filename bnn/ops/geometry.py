"""Geometry of convolutions and poolings, as tuples that an operation's schema takes as one `int[]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

Pair = tuple[int, int]
"""Height and width."""

Shape = tuple[int, int, int, int]
"""Images, channels, height and width."""


class Window(NamedTuple):
    """How the kernel of a convolution moves over images, as in `torch.nn.functional.conv2d`; padding is of zeros."""

    stride_height: int
    stride_width: int
    padding_height: int
    padding_width: int
    dilation_height: int
    dilation_width: int
    groups: int

    @staticmethod
    def of(
        *,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> Window:
        """A window from one number for height and width, or from both."""
        return Window(*_pair(stride), *_pair(padding), *_pair(dilation), groups)

    @property
    def for_torch(self) -> tuple[Pair, Pair, Pair, int]:
        """Stride, padding, dilation and groups: the last arguments of `torch.nn.functional.conv2d`."""
        height, width = self[0:6:2], self[1:6:2]
        stride, padding, dilation = zip(height, width, strict=True)
        return stride, padding, dilation, self.groups

    def is_of_pixels(self, weight_shape: Sequence[int]) -> bool:
        """Whether an output is of the pixel at its place alone, so that the convolution is a product of matrices."""
        return self == Window.of() and tuple(weight_shape[2:]) == (1, 1)

    def outputs(self, size: Sequence[int], kernel: Sequence[int]) -> Pair:
        """Height and width of the output for an image's and a kernel's.

        Raises:
            ValueError: the window does not fit the image, or has a stride, padding or dilation that none can have.
        """
        return _outputs(size, kernel, *self.for_torch[:3])

    def output_shape(self, x_shape: Sequence[int], weight_shape: Sequence[int]) -> Shape:
        """(N, O, H', W') for images (N, C, H, W) and a weight (O, C / groups, kh, kw); raises a ValueError, too."""
        groups = self.groups
        fits = len(x_shape) == len(weight_shape) == 4 and groups >= 1 and weight_shape[1] >= 1
        if not fits or x_shape[1] != weight_shape[1] * groups or weight_shape[0] % groups:
            raise ValueError(
                f"a weight of {tuple(weight_shape)} in {groups} groups does not fit an input of {tuple(x_shape)}"
            )
        return x_shape[0], weight_shape[0], *self.outputs(x_shape[2:], weight_shape[2:])


class PoolWindow(NamedTuple):
    """How the windows of a pooling lie in images, as in `torch.nn.functional.max_pool2d`; padding never wins."""

    kernel_height: int
    kernel_width: int
    stride_height: int
    stride_width: int
    padding_height: int
    padding_width: int
    dilation_height: int
    dilation_width: int

    @staticmethod
    def of(
        kernel: int | Sequence[int],
        *,
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
    ) -> PoolWindow:
        """A window from one number for height and width, or from both; the stride is the kernel's size by default."""
        return PoolWindow(*_pair(kernel), *_pair(stride or kernel), *_pair(padding), *_pair(dilation))

    @property
    def kernel(self) -> Pair:
        """Values of a window."""
        return self.kernel_height, self.kernel_width

    @property
    def stride(self) -> Pair:
        """Distance of neighbouring windows."""
        return self.stride_height, self.stride_width

    @property
    def padding(self) -> Pair:
        """Border on each side; at most half of the kernel."""
        return self.padding_height, self.padding_width

    @property
    def dilation(self) -> Pair:
        """Distance of the values of a window."""
        return self.dilation_height, self.dilation_width

    @property
    def for_torch(self) -> tuple[Pair, Pair, Pair, Pair]:
        """Kernel, stride, padding and dilation: the arguments of `torch.nn.functional.max_pool2d`."""
        return self.kernel, self.stride, self.padding, self.dilation

    @property
    def overlaps(self) -> bool:
        """Whether an element may lie in several windows."""
        extents = _extents(self.kernel, self.dilation)
        return any(step < extent for step, extent in zip(self.stride, extents, strict=True))

    def outputs(self, size: Sequence[int]) -> Pair:
        """Height and width of the output for an image's.

        Raises:
            ValueError: the window does not fit the image, or has a stride, padding or dilation that none can have.
        """
        if any(2 * pad > size for pad, size in zip(self.padding, self.kernel, strict=True)):
            raise ValueError(f"a padding of {self.padding} is more than half the kernel of {self.kernel}")
        return _outputs(size, self.kernel, self.stride, self.padding, self.dilation)

    def output_shape(self, x_shape: Sequence[int]) -> Shape:
        """(N, C, H', W') for images (N, C, H, W); raises a ValueError, too."""
        images, channels, *size = x_shape
        return images, channels, *self.outputs(size)


def _pair(value: int | Sequence[int]) -> Pair:
    if isinstance(value, int):
        return value, value
    return value[0], value[-1]


def _extents(kernel: Pair, dilation: Pair) -> Pair:
    return dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1


def _outputs(size: Sequence[int], kernel: Sequence[int], stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    size, kernel = (size[0], size[1]), (kernel[0], kernel[1])
    if min(*size, *kernel, *stride, *dilation) < 1 or min(padding) < 0:
        raise ValueError(
            f"sizes, strides and dilations must be positive and padding not negative:"
            f" image {size}, kernel {kernel}, stride {stride}, padding {padding}, dilation {dilation}"
        )
    extents = _extents(kernel, dilation)
    height, width = ((size[i] + 2 * padding[i] - extents[i]) // stride[i] + 1 for i in (0, 1))
    if height < 1 or width < 1:
        raise ValueError(f"a window of {kernel} with dilation {dilation} does not fit an image of {size}")
    return height, width
