"""The integer gradients on the CPU, by the kernels that `bnn.ops.cpu` has chosen. Importing registers them.

Every result equals the one of `bnn.ops.backward` or `bnn.ops.int8` bit for bit, whatever the number of threads.
Beside the result a call takes at most 4 MiB for weights as bytes and, for each thread, 1 MiB and the gradients that
reach 128 input pixels.
"""

import struct
import warnings

import torch
from torch import Tensor

from bnn.ops import backward, cpu, int8, packed_bytes
from bnn.ops.cpu import _isa_and_threads, _packed_image, _window

_RESULT_DTYPES = (torch.bfloat16, torch.float32)


def quantize_int8(grad: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Native `bnn.ops.int8.quantize_int8`."""
    if grad.dtype not in _RESULT_DTYPES:
        return int8.quantize_int8(grad, seed)
    grad, q = int8.dense(grad)
    n, itemsize = grad.numel(), grad.itemsize
    bits = cpu._native.largest_magnitude(*_isa_and_threads(), grad.data_ptr(), n, itemsize)
    (largest,) = struct.unpack("f", struct.pack("I", bits << 16 if itemsize == 2 else bits))
    scale, inverse = int8.scale_of(torch.tensor(largest))
    key = int8.hash_key(seed)
    cpu._native.quantize_int8(*_isa_and_threads(), grad.data_ptr(), q.data_ptr(), n, itemsize, inverse.item(), key)
    return q, scale


def linear_backward_input(q: Tensor, scale: Tensor, weight: Tensor, features: int, dtype: torch.dtype) -> Tensor:
    """Native `bnn.ops.backward.linear_backward_input`."""
    weight_shape, x_shape = _one_pixel(q, features)
    out = conv2d_backward_input(q[:, :, None, None], scale, weight, weight_shape, x_shape, *_ONE_TAP, dtype)
    return out.flatten(1)


def linear_backward_weight(q: Tensor, scale: Tensor, x: Tensor, features: int) -> Tensor:
    """Native `bnn.ops.backward.linear_backward_weight`."""
    weight_shape, x_shape = _one_pixel(q, features)
    return conv2d_backward_weight(q[:, :, None, None], scale, x, x_shape, weight_shape, *_ONE_TAP).flatten(1)


def linear_backward_weight_sign(q: Tensor, x: Tensor, features: int, seed: int) -> Tensor:
    """Native `bnn.ops.backward.linear_backward_weight_sign`."""
    weight_shape, x_shape = _one_pixel(q, features)
    return conv2d_backward_weight_sign(q[:, :, None, None], x, x_shape, weight_shape, *_ONE_TAP, seed)


def conv2d_backward_input(
    q: Tensor,
    scale: Tensor,
    weight: Tensor,
    weight_shape: list[int],
    x_shape: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    dtype: torch.dtype,
) -> Tensor:
    """Native `bnn.ops.backward.conv2d_backward_input`."""
    if dtype not in _RESULT_DTYPES:
        raise ValueError(f"the gradient's dtype must be float32 or bfloat16, is {dtype}")
    q, geometry = _gradient(q, x_shape, weight_shape, stride, padding, dilation, groups)
    weight = _packed_image("weight", weight, weight_shape)
    images, channels, height, width = x_shape
    out = q.new_empty((images, height, width, channels), dtype=dtype)
    cpu._native.conv2d_backward_input(
        *_isa_and_threads(),
        q.data_ptr(),
        scale.item(),
        weight.data_ptr(),
        out.data_ptr(),
        *geometry,
        groups,
        out.itemsize,
    )
    return out.permute(0, 3, 1, 2)


def conv2d_backward_weight(
    q: Tensor,
    scale: Tensor,
    x: Tensor,
    x_shape: list[int],
    weight_shape: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """Native `bnn.ops.backward.conv2d_backward_weight`."""
    q, geometry = _gradient(q, x_shape, weight_shape, stride, padding, dilation, groups)
    x = _packed_image("x", x, x_shape)
    outputs, channels, height, width = weight_shape
    out = q.new_empty((outputs, height, width, channels), dtype=torch.float32)
    cpu._native.conv2d_backward_weight(
        *_isa_and_threads(), q.data_ptr(), scale.item(), x.data_ptr(), out.data_ptr(), *geometry, groups
    )
    return out.permute(0, 3, 1, 2)


def conv2d_backward_weight_sign(
    q: Tensor,
    x: Tensor,
    x_shape: list[int],
    weight_shape: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    seed: int,
) -> Tensor:
    """Native `bnn.ops.backward.conv2d_backward_weight_sign`."""
    q, geometry = _gradient(q, x_shape, weight_shape, stride, padding, dilation, groups)
    x = _packed_image("x", x, x_shape)
    row = weight_shape[1] * weight_shape[2] * weight_shape[3]
    out = q.new_zeros((weight_shape[0], packed_bytes(row)), dtype=torch.uint8)
    cpu._native.conv2d_backward_weight_sign(
        *_isa_and_threads(),
        q.data_ptr(),
        x.data_ptr(),
        out.data_ptr(),
        *geometry,
        groups,
        int8.hash_key(seed),
    )
    return out


_ONE_TAP = ([1, 1], [0, 0], [1, 1], 1)  # stride, padding, dilation, groups of a convolution that is a product
_Geometry = tuple[list[int], cpu._Pair, cpu._Pair, cpu._Pair, cpu._Pair, cpu._Pair, int]


def _one_pixel(q: Tensor, features: int) -> tuple[list[int], list[int]]:
    if q.dim() != 2:
        raise ValueError(f"q must be a matrix, has the shape {tuple(q.shape)}")
    return [q.shape[1], features, 1, 1], [q.shape[0], features, 1, 1]


def _gradient(
    q: Tensor,
    x_shape: list[int],
    weight_shape: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> tuple[Tensor, _Geometry]:
    """`q` in (N, H', W', O) order, checked; and the arguments of the native calls that describe the convolution."""
    outputs, taps = weight_shape[0], weight_shape[1:]
    if groups < 1 or x_shape[1] != taps[0] * groups or outputs % groups:
        raise ValueError(f"a weight of {weight_shape} in {groups} groups does not fit an input of {x_shape}")
    window = _window(x_shape, taps[1:], stride, padding, dilation)
    if q.dtype is not torch.int8 or tuple(q.shape) != (x_shape[0], outputs, *window[-1]):
        raise ValueError(
            f"q must be int8 {(x_shape[0], outputs, *window[-1])},"
            f" is {str(q.dtype).removeprefix('torch.')} {tuple(q.shape)}"
        )
    return q.permute(0, 2, 3, 1).contiguous(), (*window, outputs)


def _products_are_right() -> bool:
    """Compares both gradients of a small convolution, with partial tiles and padding, to the reference."""
    x_shape, weight_shape, window = [3, 5, 7, 6], [37, 5, 3, 2], ([2, 1], [1, 2], [1, 2], 1)
    q = (torch.arange(3 * 37 * 4 * 8) ** 2 * 31 % 255 - 127).to(torch.int8).view(3, 37, 4, 8)
    bits = (torch.arange(37 * 27) ** 2 * 31 % 251).to(torch.uint8)
    x, weight, scale = bits[: 3 * 27].view(3, 27), bits[: 37 * 4].view(37, 4), torch.tensor(0.5)
    of_input = (q, scale, weight, weight_shape, x_shape, *window, torch.float32)
    of_weight = (q, scale, x, x_shape, weight_shape, *window)
    return torch.equal(conv2d_backward_input(*of_input), backward.conv2d_backward_input(*of_input)) and torch.equal(
        conv2d_backward_weight(*of_weight), backward.conv2d_backward_weight(*of_weight)
    )


def _register() -> None:
    if not _products_are_right():
        warnings.warn(
            f"the native {cpu.instruction_set()} kernels give wrong gradients on this machine: the int8 gradients run"
            " on their slow reference (reinstall, or set BNN_KERNELS=reference)",
            RuntimeWarning,
            stacklevel=2,
        )
        return
    for kernel in (
        quantize_int8,
        linear_backward_input,
        linear_backward_weight,
        linear_backward_weight_sign,
        conv2d_backward_input,
        conv2d_backward_weight,
        conv2d_backward_weight_sign,
    ):
        torch.library.impl(f"bnn::{kernel.__name__}", "CPU")(kernel)


if cpu.instruction_set() != "reference":
    _register()
