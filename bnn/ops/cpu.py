"""The operations on packed bits on the CPU, by the native kernels of `bnn._native`. Importing registers them.

The environment variable ``BNN_KERNELS`` chooses: ``amx``, ``avx512``, ``avx2``, ``neon`` or ``generic`` forces an
instruction set, ``reference`` forces `bnn.ops.reference`; unset, the best set of this CPU is used. A build without the
extension, or one whose results are wrong here, falls back to the reference with one RuntimeWarning.

Every result equals the reference's bit for bit. Dtypes that the kernels do not have go to the reference, too.
"""

import importlib
import math
import os
import warnings
from types import ModuleType

import torch
from torch import Tensor

from bnn.errors import BnnError, NonFiniteError
from bnn.ops import packed_bytes, reference, window_outputs
from bnn.ops.reference import _check_exact

_INFINITY_BITS = {
    torch.bool: 0,
    torch.float16: 0x7C00,
    torch.bfloat16: 0x7F80,
    torch.float32: 0x7F80_0000,
    torch.float64: 0x7FF0_0000_0000_0000,
}
_PLUS_MINUS_BITS = {
    torch.bool: (1, 0),
    torch.int8: (0x01, 0xFF),
    torch.float16: (0x3C00, 0xBC00),
    torch.bfloat16: (0x3F80, 0xBF80),
    torch.float32: (0x3F80_0000, 0xBF80_0000),
}
_DTYPE_CODES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.int8: 3}  # of kernels.h
_GRADIENT_DTYPES = (torch.bfloat16, torch.float32, torch.float64)

_native: ModuleType
_instruction_set = "reference"


def instruction_set() -> str:
    """The instruction set of the kernels in use: amx, avx512, avx2, neon, generic; or reference where not native."""
    return _instruction_set


def pack(x: Tensor) -> Tensor:
    """Native `bnn.ops.reference.pack`; the check for NaN is part of the same pass over `x`."""
    if x.dtype not in _INFINITY_BITS and x.dtype is not torch.int8:
        return reference.pack(x)
    _check_matrix("x", x)
    x = x.contiguous()
    rows, n = x.shape
    out = x.new_empty((rows, packed_bytes(n)), dtype=torch.uint8)
    infinity, itemsize = _INFINITY_BITS.get(x.dtype, 0), -1 if x.dtype is torch.int8 else x.itemsize
    if _native.pack(*_isa_and_threads(), x.data_ptr(), out.data_ptr(), rows, n, itemsize, infinity):
        raise NonFiniteError("cannot take the sign of NaN: the tensor to pack has NaN values")
    return out


def unpack(packed: Tensor, n: int, dtype: torch.dtype) -> Tensor:
    """Native `bnn.ops.reference.unpack`."""
    if dtype not in _PLUS_MINUS_BITS:
        return reference.unpack(packed, n, dtype)
    packed = _packed("packed", packed, n)
    out = packed.new_empty((packed.shape[0], n), dtype=dtype)
    plus, minus = _PLUS_MINUS_BITS[dtype]
    _native.unpack(
        *_isa_and_threads(), packed.data_ptr(), out.data_ptr(), packed.shape[0], n, out.itemsize, plus, minus
    )
    return out


def linear(x: Tensor, weight: Tensor, features: int) -> Tensor:
    """Native `bnn.ops.reference.linear`."""
    _check_exact(features)
    x, weight = _packed("x", x, features), _packed("weight", weight, features)
    rows, outputs = x.shape[0], weight.shape[0]
    out = x.new_empty((rows, outputs), dtype=torch.float32)
    _native.linear(*_isa_and_threads(), x.data_ptr(), weight.data_ptr(), out.data_ptr(), rows, outputs, features)
    return out


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
    """Native `bnn.ops.reference.conv2d`."""
    if dtype not in (torch.float32, torch.float16):
        return reference.conv2d(x, x_shape, weight, weight_shape, stride, padding, dilation, groups, dtype)
    window = _conv2d_window(x_shape, weight_shape, stride, padding, dilation, groups)
    x, weight = _packed_image("x", x, x_shape), _packed_image("weight", weight, weight_shape)
    outputs, (height, width) = weight_shape[0], window[-1]
    out = torch.empty((x_shape[0], height, width, outputs), dtype=dtype)
    pointers = (x.data_ptr(), weight.data_ptr(), out.data_ptr())
    _native.conv2d(*_isa_and_threads(), *pointers, *window, outputs, groups, _DTYPE_CODES[dtype])
    return out.permute(0, 3, 1, 2)


def max_pool2d(
    x: Tensor,
    x_shape: list[int],
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    """Native `bnn.ops.reference.max_pool2d`."""
    x = _packed_image("x", x, x_shape)
    window = _pool_window(x_shape, kernel_size, stride, padding, dilation)
    height, width = window[-1]
    out = x.new_empty((x_shape[0], packed_bytes(height * width * x_shape[1])))
    _native.max_pool2d(*_isa_and_threads(), x.data_ptr(), out.data_ptr(), *window)
    return out


def max_pool2d_backward(
    grad: Tensor,
    x: Tensor,
    x_shape: list[int],
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    """Native `bnn.ops.reference.max_pool2d_backward`."""
    if grad.dtype not in _GRADIENT_DTYPES:
        return reference.max_pool2d_backward(grad, x, x_shape, kernel_size, stride, padding, dilation)
    x = _packed_image("x", x, x_shape)
    images, channels, in_height, in_width = x_shape
    window = _pool_window(x_shape, kernel_size, stride, padding, dilation)
    if tuple(grad.shape) != (images, channels, *window[-1]):
        raise ValueError(f"grad must be {(images, channels, *window[-1])}, is {tuple(grad.shape)}")
    grad = grad.contiguous(memory_format=torch.channels_last)
    out = grad.new_empty((images, in_height, in_width, channels))
    _native.max_pool2d_backward(
        *_isa_and_threads(), grad.data_ptr(), x.data_ptr(), out.data_ptr(), *window, grad.itemsize
    )
    return out.permute(0, 3, 1, 2)


_Pair = tuple[int, int]


def _conv2d_window(
    x_shape: list[int],
    weight_shape: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> tuple[list[int], _Pair, _Pair, _Pair, _Pair, _Pair]:
    outputs, *taps = weight_shape
    if groups < 1 or x_shape[1] != taps[0] * groups or outputs % groups:
        raise ValueError(f"a weight of {weight_shape} in {groups} groups does not fit an input of {x_shape}")
    _check_exact(math.prod(taps))
    return _window(x_shape, taps[1:], stride, padding, dilation)


def _isa_and_threads() -> tuple[str, int]:
    return _instruction_set, torch.get_num_threads()


def _check_matrix(name: str, x: Tensor) -> None:
    if x.dim() != 2:
        raise ValueError(f"{name} must be a matrix of packed or dense rows, has the shape {tuple(x.shape)}")


def _packed(name: str, x: Tensor, n: int) -> Tensor:
    _check_matrix(name, x)
    if x.dtype is not torch.uint8 or x.shape[1] != packed_bytes(n):
        raise ValueError(
            f"{name} must be uint8 with {packed_bytes(n)} bytes a row for {n} elements,"
            f" is {str(x.dtype).removeprefix('torch.')} with {x.shape[1]}"
        )
    return x.contiguous()


def _packed_image(name: str, x: Tensor, shape: list[int]) -> Tensor:
    if len(shape) != 4 or x.dim() != 2 or x.shape[0] != shape[0]:
        raise ValueError(f"{name} of the shape {shape} cannot be packed as {tuple(x.shape)}")
    return _packed(name, x, math.prod(shape[1:]))


def _window(
    x_shape: list[int], kernel_size: list[int], stride: list[int], padding: list[int], dilation: list[int]
) -> tuple[list[int], _Pair, _Pair, _Pair, _Pair, _Pair]:
    kernel, step, pad, gap = ((x[0], x[1]) for x in (kernel_size, stride, padding, dilation))
    if min(*x_shape[1:], *kernel, *step, *gap) < 1 or min(pad) < 0:
        raise ValueError(
            f"sizes, strides and dilations must be positive and padding not negative:"
            f" image {x_shape}, kernel {kernel}, stride {step}, padding {pad}, dilation {gap}"
        )
    size = window_outputs((x_shape[2], x_shape[3]), kernel, step, pad, gap)
    return x_shape, kernel, step, pad, gap, size


def _pool_window(
    x_shape: list[int], kernel_size: list[int], stride: list[int], padding: list[int], dilation: list[int]
) -> tuple[list[int], _Pair, _Pair, _Pair, _Pair, _Pair]:
    for i in (0, 1):
        if 2 * padding[i] > dilation[i] * (kernel_size[i] - 1) + 1:
            raise ValueError(f"padding {padding} is more than half of the kernel {kernel_size}")
    return _window(x_shape, kernel_size, stride, padding, dilation)


def _products_are_right(native: ModuleType, isa: str) -> bool:
    """Compares products of a few sizes, with partial words and tiles, to a loop over Python's integers."""
    for rows, outputs, features in ((5, 19, 139), (9, 33, 256), (3, 2, 1)):
        row_bytes = packed_bytes(features)
        packed = (torch.arange((rows + outputs) * row_bytes) ** 2 * 31 % 251).to(torch.uint8).view(-1, row_bytes)
        out = torch.full((rows, outputs), torch.nan)
        x, weight = packed[:rows], packed[rows:]
        native.linear(isa, 1, x.data_ptr(), weight.data_ptr(), out.data_ptr(), rows, outputs, features)
        bits = [int.from_bytes(row, "little") % 2**features for row in packed.numpy()]
        right = [[features - 2 * (a ^ b).bit_count() for b in bits[rows:]] for a in bits[:rows]]
        if out.tolist() != right:
            return False
    return True


def _load() -> None:
    """Chooses the kernels and registers them; without any, the reference stays in place."""
    global _native, _instruction_set
    wanted = os.environ.get("BNN_KERNELS", "")
    if wanted == "reference":
        return
    try:
        native = importlib.import_module("bnn._native")
        names = native.instruction_sets()
    except ImportError:
        native, names = None, []
    if wanted and wanted not in names:
        raise BnnError(
            f"BNN_KERNELS={wanted}, but there is {' '.join(names) or 'no native kernel'} here;"
            " unset it for the best, or set it to reference"
        )
    if native is None:
        reason = "the native kernels are not built"
        advice = "install a C++ compiler and reinstall, or set BNN_KERNELS=reference"
    elif not _products_are_right(native, wanted or names[0]):
        reason = f"the native {wanted or names[0]} kernels give wrong products on this machine"
        advice = "reinstall, or set BNN_KERNELS=reference"
    else:
        _native, _instruction_set = native, wanted or names[0]
        for kernel in (pack, unpack, linear, conv2d, max_pool2d, max_pool2d_backward):
            torch.library.impl(f"bnn::{kernel.__name__}", "CPU")(kernel)
        return
    warnings.warn(
        f"{reason}: the packed operations run on their slow reference ({advice})",
        RuntimeWarning,
        stacklevel=2,
    )


_load()
