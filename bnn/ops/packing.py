"""Packing and unpacking of bits.

A *packed* tensor is ``uint8 [rows, ceil(n / 8)]``. Bit ``i % 8`` (least significant first) of byte ``i // 8`` is
element ``i`` of the row; a set bit is +1, a clear bit is -1; the bits past ``n`` in a row's last byte are clear.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bnn.errors import NonFiniteError
from bnn.ops.operation import operation

# Moves the lowest bits of eight bytes, read as one little-endian 64-bit word, into that word's top byte.
_GATHER_BITS = 0x0102040810204080


def packed_bytes(n: int) -> int:
    """Bytes of a packed row of `n` elements."""
    return (n + 7) // 8


def empty_rows(like: Tensor, rows: int, n: int) -> Tensor:
    """Packed rows of `n` elements, not yet written, on the device of `like`."""
    return like.new_empty((rows, packed_bytes(n)), dtype=torch.uint8)


@operation("(Tensor x) -> Tensor", shape=lambda x: empty_rows(x, *x.shape))
def pack(x: Tensor) -> Tensor:
    """Packs the signs of a float or int8 matrix, or the truth values of a bool one.

    Args:
        x: float, int8 or bool [rows, n]; `sign(0)` is +1.

    Returns:
        Packed [rows, ceil(n / 8)].

    Raises:
        NonFiniteError: `x` has a NaN, whose sign would silently become -1.
    """
    if x.dtype is not torch.bool:
        if torch.isnan(x).any():
            raise nan_error()
        x = x >= 0
    rows, n = x.shape
    octets = x.new_zeros((rows, packed_bytes(n), 8))
    octets.flatten(1)[:, :n] = x
    words = octets.view(torch.int64).squeeze(-1)
    return ((words * _GATHER_BITS) >> 56).to(torch.uint8)


@operation(
    "(Tensor packed, int n, ScalarType dtype) -> Tensor",
    shape=lambda packed, n, dtype: packed.new_empty((packed.shape[0], n), dtype=dtype),
)
def unpack(packed: Tensor, n: int, dtype: torch.dtype) -> Tensor:
    """Unpacks rows of bits to +1 and -1 of a signed or floating `dtype`, or to truth values of `torch.bool`.

    Args:
        packed: [rows, ceil(n / 8)].
        n: elements of a row.
        dtype: dtype of the result.

    Returns:
        `dtype` [rows, n].
    """
    shifts = torch.arange(8, device=packed.device, dtype=torch.uint8)
    bits = ((packed.unsqueeze(-1) >> shifts) & 1).flatten(1)[:, :n]
    return bits.bool() if dtype is torch.bool else bits.to(dtype).mul_(2).sub_(1)


@operation(
    "(Tensor x, float window) -> (Tensor, Tensor)",
    shape=lambda x, window: (empty_rows(x, *x.shape), empty_rows(x, *x.shape)),
)
def sign_window(x: Tensor, window: float) -> tuple[Tensor, Tensor]:
    """Packs the signs of a float matrix, and where |x| <= window.

    Args:
        x: float [rows, n]; `sign(0)` is +1.
        window: rounded to the dtype of `x`.

    Returns:
        Packed [rows, ceil(n / 8)], twice.

    Raises:
        NonFiniteError: `x` has a NaN.
    """
    return pack(x), pack(x.abs() <= torch.tensor(window, dtype=x.dtype, device=x.device))


@operation("(Tensor grad, Tensor inside) -> Tensor", shape=lambda grad, inside: grad.new_empty(grad.shape))
def mask(grad: Tensor, inside: Tensor) -> Tensor:
    """The elements of a float matrix [rows, n] whose bit in packed `inside` is set; zero elsewhere."""
    return torch.where(unpack(inside, grad.shape[1], torch.bool), grad, 0)


def unpack_images(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """Packed rows in (H, W, C) order as float32 of a shape (N, C, H, W), which is a view of channels-last memory."""
    n, c, h, w = shape
    return unpack(packed, math.prod(shape[1:]), torch.float32).view(n, h, w, c).permute(0, 3, 1, 2)


def empty_images(like: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    """Images of a shape (N, C, H, W), not yet written, channels last, on the device of `like` and of its dtype."""
    images, channels, height, width = shape
    return like.new_empty((images, height, width, channels), dtype=dtype).movedim(-1, 1)


def nan_error() -> NonFiniteError:
    """The error that packing raises at a NaN."""
    return NonFiniteError("cannot take the sign of NaN: the tensor to pack has NaN values")
