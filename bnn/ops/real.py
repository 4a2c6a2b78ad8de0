"""Convolutions of a real image and packed weights, as in the first layer of a network, and their weights' gradient.

Schemas, shape rules, the specification in plain torch, and the native kernels of the CPU. Real sums depend on the
order of the work in their last bits: the kernels' do not depend on the number of threads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

import bnn.ops
from bnn.ops import cpu
from bnn.ops.cpu import _DTYPE_CODES, _isa_and_threads, _packed_image, _window
from bnn.ops.reference import _image

# [N, C, H, W], packed rows in (kh, kw, C/groups) order -> dtype [N, O, H', W'], channels last
torch.library.define(
    "bnn::real_conv2d",
    "(Tensor x, Tensor weight, int[] weight_shape, int[2] stride, int[2] padding, int[2] dilation, int groups,"
    " ScalarType dtype) -> Tensor",
)
# int8 [N, O, H', W'], [N, C, H, W] -> float32 [O, C/groups, kh, kw], channels last
torch.library.define(
    "bnn::real_conv2d_backward_weight",
    "(Tensor q, Tensor x, int[] weight_shape, int[2] stride, int[2] padding, int[2] dilation, int groups) -> Tensor",
)

# What exists at a time where the reference works off a batch in parts: 8 MiB of float32.
_CHUNK_ELEMENTS = 1 << 21
# Partial sums of the native gradient: 16 MiB.
_MAX_NATIVE_WEIGHTS = 1 << 18


def real_conv2d(
    x: Tensor,
    weight: Tensor,
    weight_shape: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    dtype: torch.dtype,
) -> Tensor:
    """Convolution of a real image and ±1 weights; the padding is zero.

    Args:
        x: float [N, C, H, W].
        weight: packed, rows in (kh, kw, C / groups) order; `weight_shape` is (O, C / groups, kh, kw).
        weight_shape: see `weight`.
        stride: as in `torch.nn.functional.conv2d`, as are the arguments that follow.
        padding: zeros on each side.
        dilation: distance of the taps.
        groups: groups of channels.
        dtype: of the result, to which it is rounded.

    Returns:
        `dtype` [N, O, H', W'], channels last.
    """
    images = _image(weight, weight_shape).to(x.dtype)
    parts = [F.conv2d(part, images, None, stride, padding, dilation, groups).to(dtype) for part in _parts(x)]
    return torch.cat(parts).contiguous(memory_format=torch.channels_last)


def real_conv2d_backward_weight(
    q: Tensor,
    x: Tensor,
    weight_shape: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """Gradient of the weight of `real_conv2d`, over the scale of `q`.

    Args:
        q: int8 [N, O, H', W'], the gradient of the product over its scale.
        x: float [N, C, H, W].
        weight_shape: (O, C / groups, kh, kw).
        stride: as in the convolution, as are the arguments that follow.
        padding: zeros on each side.
        dilation: distance of the taps.
        groups: groups of channels.

    Returns:
        `x.dtype` [O, C / groups, kh, kw], channels last.
    """
    options = (None, stride, padding, dilation, False, [0, 0], groups, [False, True, False])
    weight = x.new_empty(()).expand(weight_shape)
    total = x.new_zeros(weight_shape)
    for q_part, x_part in zip(_parts(q), torch.split(x, _part_size(q)), strict=True):
        total += torch.ops.aten.convolution_backward(q_part.to(x.dtype), x_part, weight, *options)[1]
    return total.contiguous(memory_format=torch.channels_last)


def _part_size(x: Tensor) -> int:
    return max(1, _CHUNK_ELEMENTS * max(1, len(x)) // max(1, x.numel()))


def _parts(x: Tensor) -> tuple[Tensor, ...]:
    return torch.split(x, _part_size(x))


def _real_conv2d_native(
    x: Tensor,
    weight: Tensor,
    weight_shape: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    dtype: torch.dtype,
) -> Tensor:
    arguments = (weight_shape, stride, padding, dilation, groups)
    if x.dtype is not torch.float32 or dtype not in (torch.float32, torch.float16) or groups != 1:
        return real_conv2d(x, weight, *arguments, dtype)
    window = _checked_window(x, weight_shape, stride, padding, dilation)
    weight = _packed_image("weight", weight, weight_shape)
    x = x.movedim(1, -1).contiguous()
    out = x.new_empty((len(x), *window[-1], weight_shape[0]), dtype=dtype)
    pointers = (x.data_ptr(), weight.data_ptr(), out.data_ptr())
    cpu._native.real_conv2d(*_isa_and_threads(), *pointers, *window, weight_shape[0], _DTYPE_CODES[dtype])
    return out.movedim(-1, 1)


def _real_conv2d_backward_weight_native(
    q: Tensor,
    x: Tensor,
    weight_shape: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    arguments = (weight_shape, stride, padding, dilation, groups)
    outputs, channels, height, width = weight_shape
    if x.dtype is not torch.float32 or groups != 1 or outputs * channels * height * width > _MAX_NATIVE_WEIGHTS:
        return real_conv2d_backward_weight(q, x, *arguments)
    window = _checked_window(x, weight_shape, stride, padding, dilation)
    if q.dtype is not torch.int8 or tuple(q.shape) != (len(x), outputs, *window[-1]):
        raise ValueError(f"q must be int8 {(len(x), outputs, *window[-1])}, is {q.dtype} {tuple(q.shape)}")
    q, x = q.movedim(1, -1).contiguous(), x.movedim(1, -1).contiguous()
    out = x.new_empty((outputs, height, width, channels))
    pointers = (q.data_ptr(), x.data_ptr(), out.data_ptr())
    cpu._native.real_conv2d_backward_weight(*_isa_and_threads(), *pointers, *window, outputs)
    return out.movedim(-1, 1)


def _checked_window(
    x: Tensor, weight_shape: list[int], stride: list[int], padding: list[int], dilation: list[int]
) -> tuple[list[int], cpu._Pair, cpu._Pair, cpu._Pair, cpu._Pair, cpu._Pair]:
    if x.dim() != 4 or x.shape[1] != weight_shape[1]:
        raise ValueError(f"a weight of {weight_shape} does not fit an input of {tuple(x.shape)}")
    return _window(list(x.shape), weight_shape[2:], stride, padding, dilation)


def _real_conv2d_shape(
    x: Tensor,
    weight: Tensor,
    weight_shape: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    dtype: torch.dtype,
) -> Tensor:
    return bnn.ops._conv2d_shape(x, list(x.shape), weight, weight_shape, stride, padding, dilation, groups, dtype)


def _real_conv2d_backward_weight_shape(
    q: Tensor,
    x: Tensor,
    weight_shape: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    return x.new_empty(weight_shape).contiguous(memory_format=torch.channels_last)


for _kernel, _native_kernel, _shape_rule in (
    (real_conv2d, _real_conv2d_native, _real_conv2d_shape),
    (real_conv2d_backward_weight, _real_conv2d_backward_weight_native, _real_conv2d_backward_weight_shape),
):
    torch.library.register_fake(f"bnn::{_kernel.__name__}", _shape_rule)
    torch.library.impl(f"bnn::{_kernel.__name__}", "CompositeExplicitAutograd")(_kernel)
    if cpu.instruction_set() != "reference":
        torch.library.impl(f"bnn::{_kernel.__name__}", "CPU")(_native_kernel)
