"""The norm with sign on the CPU: few passes, without a copy of what has its channels last.

Sums over a channel are added up in float64, but in another order than the specification's.
"""

import math

import torch
from torch import Tensor

from bnn.ops import norms as specification
from bnn.ops.cpu.arguments import DTYPE_CODES, empty_rows, packed_rows, per_channel
from bnn.ops.cpu.native import call, kernel
from bnn.ops.norms import check_normalised

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


@kernel
def norm_sign(y: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if y.dtype not in _FLOATS or not y.numel():
        return specification.norm_sign(y, bias, eps)
    channels = y.shape[1]
    bias = per_channel("bias", bias, channels)
    y = y.movedim(1, -1).contiguous()
    bits, inside = (empty_rows(len(y), y.shape[1:].numel()) for _ in range(2))
    mean, deviation = (y.new_empty(channels, dtype=torch.float32) for _ in range(2))
    call("norm_sign", y, bias, eps, bits, inside, mean, deviation, *_rows(y), DTYPE_CODES[y.dtype])
    check_normalised(deviation, bias, eps)
    return bits, inside, mean, deviation


@kernel
def norm_sign_backward(
    grad: Tensor, bits: Tensor, inside: Tensor, denominator: Tensor, levels: Tensor
) -> tuple[Tensor, Tensor]:
    if grad.dtype not in _FLOATS or not grad.numel():
        return specification.norm_sign_backward(grad, bits, inside, denominator, levels)
    operands = _operands(grad, bits, inside, denominator, levels)
    last = operands[0]
    grad_y, grad_bias = torch.empty_like(last), last.new_empty(last.shape[-1], dtype=torch.float32)
    call("norm_sign_backward", *operands, grad_y, grad_bias, *_rows(last), DTYPE_CODES[last.dtype])
    return grad_y.movedim(-1, 1), grad_bias


def _operands(
    grad: Tensor, bits: Tensor, inside: Tensor, denominator: Tensor, levels: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The arguments of a gradient, checked, with the channels last."""
    channels, row_elements = grad.shape[1], math.prod(grad.shape[1:])
    bits, inside = packed_rows("bits", bits, row_elements), packed_rows("inside", inside, row_elements)
    denominator = per_channel("denominator", denominator, channels)
    if tuple(levels.shape) != (4, channels):
        raise ValueError(f"levels are 4 for each of {channels} channels, have the shape {tuple(levels.shape)}")
    return grad.movedim(1, -1).contiguous(), bits, inside, denominator, levels.float().contiguous()


def _rows(last: Tensor) -> tuple[int, int, int]:
    """Rows, pixels of each and channels of a tensor whose channels lie last."""
    return len(last), math.prod(last.shape[1:-1]), last.shape[-1]
