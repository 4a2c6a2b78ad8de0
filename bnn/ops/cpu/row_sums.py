"""Sums over the pixels of each row on the CPU, added up in another order than the specification's."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bnn.ops import row_sums as specification
from bnn.ops.cpu.arguments import DTYPE_CODES, per_channel
from bnn.ops.cpu.batch_norm import FLOATS, STREAMS, gradient_operands, has_kernel, rows_of
from bnn.ops.cpu.native import call, kernel
from bnn.ops.memory import channels_last


@kernel
def row_moments(y: Tensor) -> Tensor:
    if not has_kernel(y, FLOATS):
        return specification.row_moments(y)
    sums = torch.zeros((len(y), 2, y.shape[1]), dtype=torch.float64)
    call("row_moments", channels_last(y), sums, *rows_of(y), DTYPE_CODES[y.dtype])
    return sums


@kernel
def row_norm_gradients(
    grad: Tensor, codes: Tensor, slopes: Sequence[float], y: Tensor, mean: Tensor
) -> tuple[Tensor, Tensor]:
    if grad.dtype not in STREAMS or not has_kernel(y, FLOATS):
        return specification.row_norm_gradients(grad, codes, slopes, y, mean)
    operands, shape = gradient_operands(grad, codes, slopes, y)
    channels = y.shape[1]
    sums, sizes = (torch.zeros((len(y), 2, channels), dtype=dtype) for dtype in (torch.float64, torch.float32))
    call("row_norm_gradients", *operands, per_channel("mean", mean, channels), sums, sizes, *shape)
    return sums, sizes
