"""The operations of `bnn.ops.fused` on the CPU, by the native kernels that `bnn.ops.cpu` chose.

Results equal the reference's bit for bit wherever the sums over a channel do: these are added up in float64 here and
there, but in another order. No result depends on the number of threads. Dtypes that the kernels do not have, and
tensors without elements, go to the reference.
"""

import math

import torch
from torch import Tensor

from bnn.errors import NonFiniteError
from bnn.ops import cpu, fused, packed_bytes
from bnn.ops.cpu import _DTYPE_CODES, _INFINITY_BITS, _check_matrix, _isa_and_threads, _packed
from bnn.ops.int8 import check_finite, hash_key

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
_NO_DILATION = [1, 1]


def norm_sign(y: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Native `bnn.ops.fused.norm_sign`: three passes over `y`, without a copy of it if its channels lie last."""
    if y.dtype not in _FLOATS or not y.numel():
        return fused.norm_sign(y, bias, eps)
    channels = y.shape[1]
    bias = _per_channel("bias", bias, channels)
    y = y.movedim(1, -1).contiguous()
    bits, inside = (y.new_empty((len(y), packed_bytes(y[0].numel())), dtype=torch.uint8) for _ in range(2))
    mean, deviation = (y.new_empty(channels, dtype=torch.float32) for _ in range(2))
    out = (x.data_ptr() for x in (bits, inside, mean, deviation))
    cpu._native.norm_sign(
        *_isa_and_threads(), y.data_ptr(), bias.data_ptr(), eps, *out, *_rows(y), _DTYPE_CODES[y.dtype]
    )
    fused.check_normalised(deviation, bias, eps)
    return bits, inside, mean, deviation


def norm_sign_backward(
    grad: Tensor, bits: Tensor, inside: Tensor, psi: Tensor, levels: Tensor
) -> tuple[Tensor, Tensor]:
    """Native `bnn.ops.fused.norm_sign_backward`: two passes over `grad`."""
    if grad.dtype not in _FLOATS or not grad.numel():
        return fused.norm_sign_backward(grad, bits, inside, psi, levels)
    channels, row_elements = grad.shape[1], math.prod(grad.shape[1:])
    bits, inside = _packed("bits", bits, row_elements), _packed("inside", inside, row_elements)
    psi, levels = _per_channel("psi", psi, channels), _of_levels(levels, channels)
    grad = grad.movedim(1, -1).contiguous()
    grad_y, grad_bias = torch.empty_like(grad), psi.new_empty(channels)
    pointers = (x.data_ptr() for x in (grad, bits, inside, psi, levels, grad_y, grad_bias))
    cpu._native.norm_sign_backward(*_isa_and_threads(), *pointers, *_rows(grad), _DTYPE_CODES[grad.dtype])
    return grad_y.movedim(-1, 1), grad_bias


def norm_sign_backward_int8(
    grad: Tensor, bits: Tensor, inside: Tensor, psi: Tensor, levels: Tensor, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Native `bnn.ops.fused.norm_sign_backward_int8`: two passes over `grad`."""
    if grad.dtype not in _FLOATS or not grad.numel():
        return fused.norm_sign_backward_int8(grad, bits, inside, psi, levels, seed)
    channels, row_elements = grad.shape[1], math.prod(grad.shape[1:])
    bits, inside = _packed("bits", bits, row_elements), _packed("inside", inside, row_elements)
    psi, levels = _per_channel("psi", psi, channels), _of_levels(levels, channels)
    grad = grad.movedim(1, -1).contiguous()
    q, grad_bias = torch.empty_like(grad, dtype=torch.int8), psi.new_empty(channels)
    pointers = (x.data_ptr() for x in (grad, bits, inside, psi, levels, q, grad_bias))
    scale = torch.tensor(
        cpu._native.norm_sign_backward_int8(
            *_isa_and_threads(), *pointers, *_rows(grad), _DTYPE_CODES[grad.dtype], hash_key(seed)
        )
    )
    check_finite(scale)
    return q.movedim(-1, 1), scale, grad_bias


def max_pool2d_choices(
    x: Tensor, kernel_size: list[int], stride: list[int], padding: list[int]
) -> tuple[Tensor, Tensor]:
    """Native `bnn.ops.fused.max_pool2d_choices`."""
    if x.dtype not in _FLOATS:
        return fused.max_pool2d_choices(x, kernel_size, stride, padding)
    shape = images, channels, height, width = fused.pooled_shape(x.shape, kernel_size, stride, padding)
    window = (list(x.shape), kernel_size, stride, padding, _NO_DILATION, (height, width))
    x = x.movedim(1, -1).contiguous()
    values = x.new_empty((images, height, width, channels))
    choices = x.new_empty(fused.choices_shape(shape, kernel_size), dtype=torch.uint8)
    pointers = (x.data_ptr(), values.data_ptr(), choices.data_ptr())
    cpu._native.max_pool2d_choices(*_isa_and_threads(), *pointers, *window, len(choices), _DTYPE_CODES[x.dtype])
    return values.movedim(-1, 1), choices


def max_pool2d_scatter(
    grad: Tensor, choices: Tensor, x_shape: list[int], kernel_size: list[int], stride: list[int], padding: list[int]
) -> Tensor:
    """Native `bnn.ops.fused.max_pool2d_scatter`."""
    if grad.dtype not in _DTYPE_CODES:
        return fused.max_pool2d_scatter(grad, choices, x_shape, kernel_size, stride, padding)
    shape = fused.pooled_shape(x_shape, kernel_size, stride, padding)
    fused.check_choices(grad, choices, shape, kernel_size, stride)
    window = (x_shape, kernel_size, stride, padding, _NO_DILATION, shape[2:])
    grad, choices = grad.movedim(1, -1).contiguous(), choices.contiguous()
    out = grad.new_empty((x_shape[0], *x_shape[2:], x_shape[1]))
    pointers = (grad.data_ptr(), choices.data_ptr(), out.data_ptr())
    cpu._native.max_pool2d_scatter(*_isa_and_threads(), *pointers, *window, len(choices), _DTYPE_CODES[grad.dtype])
    return out.movedim(-1, 1)


def conv2d_max_pool2d(
    x: Tensor,
    x_shape: list[int],
    weight: Tensor,
    weight_shape: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    pool_size: list[int],
    pool_stride: list[int],
    pool_padding: list[int],
) -> tuple[Tensor, Tensor]:
    """Native `bnn.ops.fused.conv2d_max_pool2d`: the products of one image a thread exist at a time."""
    window = cpu._conv2d_window(x_shape, weight_shape, stride, padding, dilation, groups)
    x, weight = cpu._packed_image("x", x, x_shape), cpu._packed_image("weight", weight, weight_shape)
    products = [x_shape[0], weight_shape[0], *window[-1]]
    shape = images, channels, height, width = fused.pooled_shape(products, pool_size, pool_stride, pool_padding)
    pool = (products, pool_size, pool_stride, pool_padding, _NO_DILATION, (height, width))
    values = torch.empty((images, height, width, channels), dtype=torch.float16)
    choices = x.new_empty(fused.choices_shape(shape, pool_size))
    pointers = (x.data_ptr(), weight.data_ptr(), values.data_ptr(), choices.data_ptr())
    cpu._native.conv2d_max_pool2d(*_isa_and_threads(), *pointers, *window, *pool, groups, len(choices))
    return values.movedim(-1, 1), choices


def sign_window(x: Tensor, window: float) -> tuple[Tensor, Tensor]:
    """Native `bnn.ops.fused.sign_window`: one pass, which finds a NaN, too."""
    if x.dtype not in _INFINITY_BITS or x.dtype is torch.bool:
        return fused.sign_window(x, window)
    _check_matrix("x", x)
    x = x.contiguous()
    bits, inside = (x.new_empty((len(x), packed_bytes(x.shape[1])), dtype=torch.uint8) for _ in range(2))
    limit = torch.tensor(window, dtype=x.dtype).view(_INTEGERS[x.itemsize]).item()
    pointers = (x.data_ptr(), bits.data_ptr(), inside.data_ptr())
    if cpu._native.sign_window(*_isa_and_threads(), *pointers, *x.shape, x.itemsize, _INFINITY_BITS[x.dtype], limit):
        raise NonFiniteError("cannot take the sign of NaN: the tensor to pack has NaN values")
    return bits, inside


def mask(grad: Tensor, inside: Tensor) -> Tensor:
    """Native `bnn.ops.fused.mask`."""
    if grad.dtype not in _INFINITY_BITS or grad.dtype is torch.bool:
        return fused.mask(grad, inside)
    _check_matrix("grad", grad)
    grad, inside = grad.contiguous(), _packed("inside", inside, grad.shape[1])
    out = torch.empty_like(grad)
    pointers = (grad.data_ptr(), inside.data_ptr(), out.data_ptr())
    cpu._native.mask(*_isa_and_threads(), *pointers, *grad.shape, grad.itemsize)
    return out


def _rows(last: Tensor) -> tuple[int, int, int]:
    """Rows, pixels of each and channels of a tensor whose channels lie last."""
    return len(last), math.prod(last.shape[1:-1]), last.shape[-1]


def _per_channel(name: str, x: Tensor, channels: int) -> Tensor:
    if tuple(x.shape) != (channels,):
        raise ValueError(f"{name} must have {channels} values, one a channel, has the shape {tuple(x.shape)}")
    return x.float().contiguous()


def _of_levels(levels: Tensor, channels: int) -> Tensor:
    if tuple(levels.shape) != (4, channels):
        raise ValueError(f"levels are 4 for each of {channels} channels, have the shape {tuple(levels.shape)}")
    return levels.float().contiguous()


if cpu.instruction_set() != "reference":
    for _kernel in (
        norm_sign,
        norm_sign_backward,
        norm_sign_backward_int8,
        max_pool2d_choices,
        max_pool2d_scatter,
        conv2d_max_pool2d,
        sign_window,
        mask,
    ):
        torch.library.impl(f"bnn::{_kernel.__name__}", "CPU")(_kernel)
