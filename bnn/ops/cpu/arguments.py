"""Arguments of native calls: checked rows of bits, values of each channel, codes of dtypes, and windows."""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from bnn.ops import memory
from bnn.ops.geometry import Pair, PoolWindow, Shape, Window
from bnn.ops.packing import packed_bytes

DTYPE_CODES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.int8: 3}
"""Codes of `Dtype` in kernels.h."""

Geometry = tuple[Sequence[int], Sequence[int], Pair, Pair, Pair, Pair]
"""The shape of images; the kernel's size, stride, padding and dilation; the size of the output."""


def matrix(name: str, x: Tensor) -> Tensor:
    """`x`, contiguous, if it is a matrix."""
    if x.dim() != 2:
        raise ValueError(f"{name} must be a matrix of packed or dense rows, has the shape {tuple(x.shape)}")
    return x.contiguous()


def packed_rows(name: str, x: Tensor, n: int) -> Tensor:
    """`x`, contiguous, if it has packed rows of `n` elements."""
    x, row_bytes = matrix(name, x), packed_bytes(n)
    if x.dtype is not torch.uint8 or x.shape[1] != row_bytes:
        raise ValueError(
            f"{name} must be uint8 with {row_bytes} bytes a row for {n} elements,"
            f" is {str(x.dtype).removeprefix('torch.')} with {x.shape[1]}"
        )
    return x


def packed_batch(name: str, x: Tensor, shape: Sequence[int]) -> Tensor:
    """`x`, contiguous, if it has the packed rows of a tensor of a shape."""
    if x.dim() != 2 or x.shape[0] != shape[0]:
        raise ValueError(f"{name} of the shape {list(shape)} cannot be packed as {tuple(x.shape)}")
    return packed_rows(name, x, math.prod(shape[1:]))


def packed_images(name: str, x: Tensor, shape: Sequence[int]) -> Tensor:
    """`packed_batch` of images, or of kernels."""
    if len(shape) != 4:
        raise ValueError(f"{name} of the shape {list(shape)} is none of images")
    return packed_batch(name, x, shape)


def per_channel(name: str, x: Tensor, channels: int) -> Tensor:
    """`x` as contiguous float32, if it has one value a channel."""
    if tuple(x.shape) != (channels,):
        raise ValueError(f"{name} must have {channels} values, one a channel, has the shape {tuple(x.shape)}")
    return x.float().contiguous()


def optional_per_channel(name: str, x: Tensor | None, channels: int) -> Tensor | int:
    """`per_channel`, or a null pointer where there is no `x`."""
    return 0 if x is None else per_channel(name, x, channels)


def empty_rows(rows: int, n: int) -> Tensor:
    """Packed rows of `n` elements, not yet written."""
    return memory.empty((rows, packed_bytes(n)), torch.uint8)


def empty_planes(planes: int, rows: int, n: int) -> Tensor:
    """Planes of packed rows of `n` elements, not yet written."""
    return memory.empty((planes, rows, packed_bytes(n)), torch.uint8)


def convolution(x_shape: Sequence[int], weight_shape: Sequence[int], window: Sequence[int]) -> tuple[Shape, Geometry]:
    """The shape of a convolution's result, and its geometry."""
    return _convolution(tuple(x_shape), tuple(weight_shape), tuple(window))


# Layers ask again at every step.
@lru_cache(maxsize=1024)
def _convolution(
    x_shape: tuple[int, ...], weight_shape: tuple[int, ...], window: tuple[int, ...]
) -> tuple[Shape, Geometry]:
    at = Window(*window)
    shape = at.output_shape(x_shape, weight_shape)
    return shape, (x_shape, weight_shape[2:], *at.for_torch[:3], shape[2:])


def pooling(x_shape: Sequence[int], pool: Sequence[int]) -> tuple[Shape, Geometry]:
    """The shape of a pooling's result, and its geometry."""
    return _pooling(tuple(x_shape), tuple(pool))


@lru_cache(maxsize=1024)
def _pooling(x_shape: tuple[int, ...], pool: tuple[int, ...]) -> tuple[Shape, Geometry]:
    at = PoolWindow(*pool)
    shape = at.output_shape(x_shape)
    return shape, (x_shape, *at.for_torch, shape[2:])
