"""Packing and unpacking of bits on the CPU; one pass each, which finds a NaN, too."""

import torch
from torch import Tensor

from bnn.ops import packing as specification
from bnn.ops.cpu.arguments import empty_rows, matrix, packed_rows
from bnn.ops.cpu.native import call, kernel
from bnn.ops.memory import empty
from bnn.ops.packing import nan_error

_INFINITY_BITS = {
    torch.float16: 0x7C00,
    torch.bfloat16: 0x7F80,
    torch.float32: 0x7F80_0000,
    torch.float64: 0x7FF0_0000_0000_0000,
}
_PACK_ITEMSIZES = {torch.bool: 1, torch.int8: -1}  # of kernels.h
_PLUS_MINUS_BITS = {
    torch.bool: (1, 0),
    torch.int8: (0x01, 0xFF),
    torch.float16: (0x3C00, 0xBC00),
    torch.bfloat16: (0x3F80, 0xBF80),
    torch.float32: (0x3F80_0000, 0xBF80_0000),
}
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@kernel
def pack(x: Tensor) -> Tensor:
    if x.dtype not in _INFINITY_BITS and x.dtype not in _PACK_ITEMSIZES:
        return specification.pack(x)
    x = matrix("x", x)
    out = empty_rows(*x.shape)
    itemsize = _PACK_ITEMSIZES.get(x.dtype, x.itemsize)
    if call("pack", x, out, *x.shape, itemsize, _INFINITY_BITS.get(x.dtype, 0)):
        raise nan_error()
    return out


@kernel
def unpack(packed: Tensor, n: int, dtype: torch.dtype) -> Tensor:
    if dtype not in _PLUS_MINUS_BITS:
        return specification.unpack(packed, n, dtype)
    packed = packed_rows("packed", packed, n)
    out = empty((packed.shape[0], n), dtype)
    call("unpack", packed, out, *out.shape, out.itemsize, *_PLUS_MINUS_BITS[dtype])
    return out


@kernel
def sign_window(x: Tensor, window: float) -> tuple[Tensor, Tensor]:
    if x.dtype not in _INFINITY_BITS:
        return specification.sign_window(x, window)
    x = matrix("x", x)
    bits, inside = empty_rows(*x.shape), empty_rows(*x.shape)
    limit = torch.tensor(window, dtype=x.dtype).view(_INTEGERS[x.itemsize]).item()
    if call("sign_window", x, bits, inside, *x.shape, x.itemsize, _INFINITY_BITS[x.dtype], limit):
        raise nan_error()
    return bits, inside


@kernel
def mask(grad: Tensor, inside: Tensor) -> Tensor:
    if grad.dtype not in _INFINITY_BITS:
        return specification.mask(grad, inside)
    grad = matrix("grad", grad)
    inside = packed_rows("inside", inside, grad.shape[1])
    out = torch.empty_like(grad)
    call("mask", grad, inside, out, *grad.shape, grad.itemsize)
    return out
