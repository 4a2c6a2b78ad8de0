"""Max-pooling: of ±1 images, whose gradient needs the input's bits, and of real ones, whose needs the choices.

Packed images, of `x_shape` (N, C, H, W), have rows in (H, W, C) order (see `bnn.ops.packing`); `pool` is a
`bnn.ops.geometry.PoolWindow`. Images of floats come out in channels-last memory format.

The *choices* of a pooling are uint8 [planes, N, ceil(H' W' C / 8)]: plane p holds, packed, bit p of the number that
the chosen value of a window has in it, in row order. A pooling that keeps them takes windows without dilation.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from bnn.ops.geometry import PoolWindow, Shape, Window
from bnn.ops.operation import operation
from bnn.ops.packing import empty_images, empty_rows, pack, packed_bytes, unpack, unpack_images

MAX_WINDOW_SIZE = 256
"""Values of a pooling window: the number of a choice fits a byte."""

# Products before their pooling that exist at a time in the specification, about: 2 MiB of float16.
_CHUNK_ELEMENTS = 1 << 20


@operation(
    "(Tensor x, int[] x_shape, int[] pool) -> Tensor",
    shape=lambda x, x_shape, pool: empty_rows(x, x_shape[0], math.prod(PoolWindow(*pool).output_shape(x_shape)[1:])),
)
def max_pool2d(x: Tensor, x_shape: Sequence[int], pool: Sequence[int]) -> Tensor:
    """Max-pooling of packed ±1 images: the OR of each window's bits, packed rows in (H', W', C) order."""
    pooled = F.max_pool2d(unpack_images(x, x_shape), *PoolWindow(*pool).for_torch)
    return pack(pooled.permute(0, 2, 3, 1).flatten(1))


@operation(
    "(Tensor grad, Tensor x, int[] x_shape, int[] pool) -> Tensor",
    shape=lambda grad, x, x_shape, pool: empty_images(grad, x_shape),
)
def max_pool2d_backward(grad: Tensor, x: Tensor, x_shape: Sequence[int], pool: Sequence[int]) -> Tensor:
    """Gradient of `max_pool2d`; it goes to the first maximum of a window in row order, as in torch.

    Args:
        grad: float [N, C, H', W'].
        x: the packed input of `max_pool2d`.
        x_shape: (N, C, H, W).
        pool: of the pooling.

    Returns:
        [N, C, H, W] of `grad`'s dtype.
    """
    image = unpack_images(x, x_shape).to(grad.dtype)
    options = (*PoolWindow(*pool).for_torch, False)
    _, first = torch.ops.aten.max_pool2d_with_indices(image, *options)
    return cast(Tensor, torch.ops.aten.max_pool2d_with_indices_backward(grad, image, *options, first))


def empty_choices(
    like: Tensor, x_shape: Sequence[int], pool: Sequence[int], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The two results of `max_pool2d_choices`, of values of `dtype`, not yet written, on the device of `like`."""
    shape = pooled_shape(x_shape, pool)
    return empty_images(like, shape, dtype), like.new_empty(choices_shape(shape, pool), dtype=torch.uint8)


@operation("(Tensor x, int[] pool) -> (Tensor, Tensor)", shape=lambda x, pool: empty_choices(x, x.shape, pool, x.dtype))
def max_pool2d_choices(x: Tensor, pool: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Max-pooling, and which value of each window was the largest: the first of equals, the last NaN.

    Args:
        x: float [N, C, H, W].
        pool: of the pooling; at most 256 values, no dilation.

    Returns:
        [N, C, H', W'] of `x`'s dtype, and the choices.
    """
    window, shape = PoolWindow(*pool), pooled_shape(x.shape, pool)
    x = x.contiguous(memory_format=torch.channels_last)
    values, index = torch.ops.aten.max_pool2d_with_indices(x, *window.for_torch)
    top, left = (torch.arange(shape[2 + i], device=x.device) * window.stride[i] - window.padding[i] for i in (0, 1))
    choice = (index // x.shape[3] - top.unsqueeze(1)) * window.kernel_width + index % x.shape[3] - left
    rows = choice.movedim(1, -1).flatten(1)
    planes = values.new_empty(choices_shape(shape, pool), dtype=torch.uint8)
    for bit, plane in enumerate(planes):
        plane.copy_(pack((rows >> bit & 1).bool()))
    return values.contiguous(memory_format=torch.channels_last), planes


@operation(
    "(Tensor grad, Tensor choices, int[] x_shape, int[] pool) -> Tensor",
    shape=lambda grad, choices, x_shape, pool: empty_images(grad, x_shape),
)
def max_pool2d_scatter(grad: Tensor, choices: Tensor, x_shape: Sequence[int], pool: Sequence[int]) -> Tensor:
    """Gradient of `max_pool2d_choices`: each window's goes to its choice; sums are formed in the windows' order.

    Args:
        grad: float [N, C, H', W'], or int8 where windows do not overlap.
        choices: of the pooling.
        x_shape: (N, C, H, W).
        pool: of the pooling.

    Returns:
        [N, C, H, W] of `grad`'s dtype.
    """
    window = PoolWindow(*pool)
    images, channels, height, width = check_choices(grad, choices, x_shape, pool)
    choice = torch.zeros((images, height, width, channels), dtype=torch.uint8, device=grad.device)
    for bit, plane in enumerate(choices):
        choice += unpack(plane, height * width * channels, torch.bool).view(choice.shape).byte() << bit
    choice = choice.movedim(-1, 1)
    padded_size = [size + 2 * pad for size, pad in zip(x_shape[2:], window.padding, strict=True)]
    padded = grad.new_zeros((images, *padded_size, channels)).movedim(-1, 1)
    # The last value of a window first: where windows overlap, an element is then reached by the first of them first.
    for number in reversed(range(math.prod(window.kernel))):
        row, column = divmod(number, window.kernel_width)
        to = padded[:, :, row :: window.stride_height, column :: window.stride_width][:, :, :height, :width]
        to += torch.where(choice == number, grad, 0)
    top, left = window.padding
    inner = padded[:, :, top : top + x_shape[2], left : left + x_shape[3]]
    return inner.contiguous(memory_format=torch.channels_last)


@operation(
    "(Tensor x, int[] x_shape, Tensor weight, int[] weight_shape, int[] window, int[] pool) -> (Tensor, Tensor)",
    shape=lambda x, x_shape, weight, weight_shape, window, pool: empty_choices(
        x, Window(*window).output_shape(x_shape, weight_shape), pool, torch.float16
    ),
)
def conv2d_max_pool2d(
    x: Tensor,
    x_shape: Sequence[int],
    weight: Tensor,
    weight_shape: Sequence[int],
    window: Sequence[int],
    pool: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """`max_pool2d_choices` of the float16 result of a `bnn.ops.products.conv2d`, of which few images exist at a time.

    The operands are those of the two.
    """
    step = max(1, _CHUNK_ELEMENTS // (weight_shape[0] * math.prod(x_shape[2:])))
    parts = []
    for part in torch.split(x, step):
        part_shape = [len(part), *x_shape[1:]]
        products = torch.ops.bnn.conv2d(part, part_shape, weight, weight_shape, window, torch.float16)
        parts.append(max_pool2d_choices(products, pool))
    values, choices = zip(*parts, strict=True)
    return torch.cat(values), torch.cat(choices, 1)


def pooled_shape(x_shape: Sequence[int], pool: Sequence[int]) -> Shape:
    """Shape of a pooled image whose choices are kept; refuses windows of which a byte cannot tell them."""
    window = PoolWindow(*pool)
    if window.dilation != (1, 1) or not 1 <= math.prod(window.kernel) <= MAX_WINDOW_SIZE:
        raise ValueError(
            f"a window whose choice is kept has 1 to {MAX_WINDOW_SIZE} values and no dilation,"
            f" got a kernel of {window.kernel} with dilation {window.dilation}"
        )
    return window.output_shape(x_shape)


def choices_shape(pooled: Sequence[int], pool: Sequence[int]) -> tuple[int, int, int]:
    """Shape of the choices' planes for values of the shape `pooled`."""
    planes = (math.prod(PoolWindow(*pool).kernel) - 1).bit_length()
    return planes, pooled[0], packed_bytes(math.prod(pooled[1:]))


def check_choices(grad: Tensor, choices: Tensor, x_shape: Sequence[int], pool: Sequence[int]) -> Shape:
    """The pooled shape; refuses a gradient or choices of another pooling, and sums that int8 may not hold."""
    window, pooled = PoolWindow(*pool), pooled_shape(x_shape, pool)
    if grad.dtype is torch.int8 and window.overlaps:
        raise ValueError(
            f"an int8 gradient needs windows that do not overlap, got {window.kernel}, stride {window.stride}"
        )
    if tuple(grad.shape) != pooled:
        raise ValueError(f"grad must be {pooled}, is {tuple(grad.shape)}")
    planes = choices_shape(pooled, pool)
    if choices.dtype is not torch.uint8 or tuple(choices.shape) != planes:
        raise ValueError(f"choices must be torch.uint8 {planes}, are {choices.dtype} {tuple(choices.shape)}")
    return pooled
