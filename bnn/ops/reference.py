"""The specification of every packed operation, in plain torch. Runs on any device; slow, short and exact.

The product of two ±1 vectors of K elements is K - 2 popcount(a xor b). Here it is formed by unpacking and a float32
product, which is exact while K < 2**24 and is the same number.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from bnn.errors import NonFiniteError
from bnn.ops import packed_bytes

# Moves the lowest bits of eight bytes, read as one little-endian 64-bit word, into that word's top byte.
_GATHER_BITS = 0x0102040810204080
_EXACT_IN_FLOAT32 = 2**24


def pack(x: Tensor) -> Tensor:
    """Packs the signs of a float or int8 matrix, or the truth values of a bool one.

    Args:
        x: float, int8 or bool [rows, n]; `sign(0)` is +1.

    Returns:
        uint8 [rows, ceil(n / 8)].

    Raises:
        NonFiniteError: `x` has a NaN, whose sign would silently become -1.
    """
    if x.dtype is not torch.bool:
        if torch.isnan(x).any():
            raise NonFiniteError("cannot take the sign of NaN: the tensor to pack has NaN values")
        x = x >= 0
    rows, n = x.shape
    octets = x.new_zeros((rows, packed_bytes(n), 8))
    octets.flatten(1)[:, :n] = x
    words = octets.view(torch.int64).squeeze(-1)
    return ((words * _GATHER_BITS) >> 56).to(torch.uint8)


def unpack(packed: Tensor, n: int, dtype: torch.dtype) -> Tensor:
    """Unpacks rows of bits to +1 and -1 of a signed or floating `dtype`, or to truth values of `torch.bool`.

    Args:
        packed: uint8 [rows, ceil(n / 8)].
        n: elements of a row.
        dtype: dtype of the result.

    Returns:
        `dtype` [rows, n].
    """
    shifts = torch.arange(8, device=packed.device, dtype=torch.uint8)
    bits = ((packed.unsqueeze(-1) >> shifts) & 1).flatten(1)[:, :n]
    return bits.bool() if dtype is torch.bool else bits.to(dtype).mul_(2).sub_(1)


def linear(x: Tensor, weight: Tensor, features: int) -> Tensor:
    """Product of packed ±1 matrices: x [N, K] times weight [O, K] transposed.

    Args:
        x: packed [N, ceil(K / 8)].
        weight: packed [O, ceil(K / 8)].
        features: K, below 2**24.

    Returns:
        float32 [N, O], exact.
    """
    _check_exact(features)
    return F.linear(unpack(x, features, torch.float32), unpack(weight, features, torch.float32))


def conv2d(
    x: Tensor,
    x_shape: list[int],
    weight: Tensor,
    weight_shape: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Convolution of packed ±1 tensors. The padding is a true zero: padded taps add nothing.

    Args:
        x: packed, rows in (H, W, C) order; `x_shape` is (N, C, H, W).
        x_shape: see `x`.
        weight: packed, rows in (kh, kw, C / groups) order; `weight_shape` is (O, C / groups, kh, kw).
        weight_shape: see `weight`.
        stride: as in `torch.nn.functional.conv2d`, as are the arguments that follow.
        padding: zeros on each side.
        dilation: distance of the taps.
        groups: groups of channels.
        dtype: of the result; float16 is exact up to 2048, and of a kernel with an even number of values up to 4096.

    Returns:
        `dtype` [N, O, H', W'] in channels-last memory format; in float32 exact.
    """
    _check_exact(weight_shape[1] * weight_shape[2] * weight_shape[3])
    out = F.conv2d(_image(x, x_shape), _image(weight, weight_shape), None, stride, padding, dilation, groups)
    # A sum of padded taps alone may be -0, which no kernel of integers gives.
    return out.contiguous(memory_format=torch.channels_last).add_(0.0).to(dtype)


def max_pool2d(
    x: Tensor,
    x_shape: list[int],
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    """Max-pooling of a packed ±1 image: the OR of each window's bits. Padding never wins.

    Args:
        x: packed, rows in (H, W, C) order; `x_shape` is (N, C, H, W).
        x_shape: see `x`.
        kernel_size: as in `torch.nn.functional.max_pool2d`, as are the arguments that follow.
        stride: distance of the windows.
        padding: at most half the kernel.
        dilation: distance of the taps.

    Returns:
        packed, rows in (H', W', C) order.
    """
    pooled = F.max_pool2d(_image(x, x_shape), kernel_size, stride, padding, dilation)
    return pack(pooled.permute(0, 2, 3, 1).flatten(1))


def max_pool2d_backward(
    grad: Tensor,
    x: Tensor,
    x_shape: list[int],
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    """Gradient of `max_pool2d`; it goes to the first maximum of a window in row order, as in torch.

    Args:
        grad: float [N, C, H', W'].
        x: the packed input of `max_pool2d`; the other arguments are as there.
        x_shape: (N, C, H, W).
        kernel_size: as in `max_pool2d`.
        stride: as in `max_pool2d`.
        padding: as in `max_pool2d`.
        dilation: as in `max_pool2d`.

    Returns:
        float [N, C, H, W], of `grad`'s dtype.
    """
    image = _image(x, x_shape).to(grad.dtype)
    window = (kernel_size, stride, padding, dilation, False)
    _, first = torch.ops.aten.max_pool2d_with_indices(image, *window)
    return cast(Tensor, torch.ops.aten.max_pool2d_with_indices_backward(grad, image, *window, first))


def _image(packed: Tensor, shape: list[int]) -> Tensor:
    n, c, h, w = shape
    return unpack(packed, c * h * w, torch.float32).view(n, h, w, c).permute(0, 3, 1, 2)


def _check_exact(k: int) -> None:
    if k >= _EXACT_IN_FLOAT32:
        raise ValueError(f"a product over {k} elements is not exact in float32; split it below 2**24")


for _kernel in (pack, unpack, linear, conv2d, max_pool2d, max_pool2d_backward):
    torch.library.impl(f"bnn::{_kernel.__name__}", "CompositeExplicitAutograd")(_kernel)
