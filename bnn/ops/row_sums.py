"""Sums of a batch norm's passes (`bnn.ops.batch_norm`) over the pixels of each row, in float64.

Those of a row are formed by themselves, so that they are the same bits whatever other rows are there.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from bnn.ops.batch_norm import passed_gradient
from bnn.ops.operation import operation


@operation("(Tensor y) -> Tensor", shape=lambda y: empty_sums(y, torch.float64))
def row_moments(y: Tensor) -> Tensor:
    """Sums of a product [N, C, ...], float32 or float16, and of its squares, which are float32: float64 [N, 2, C]."""
    last = y.movedim(1, -1).flatten(1, -2).float() if y.dim() > 2 else y[:, None].float()
    return torch.stack([torch.stack((row.double().sum(0), (row * row).double().sum(0))) for row in last])


@operation(
    "(Tensor grad, Tensor codes, float[] slopes, Tensor y, Tensor mean) -> (Tensor, Tensor)",
    shape=lambda grad, codes, slopes, y, mean: (empty_sums(y, torch.float64), empty_sums(y, torch.float32)),
)
def row_norm_gradients(
    grad: Tensor, codes: Tensor, slopes: Sequence[float], y: Tensor, mean: Tensor
) -> tuple[Tensor, Tensor]:
    """What `norm_gradient_terms` forms of a row: with g the gradient times the slope of its code and d = y - mean.

    Args:
        grad: of the norm's result, float32 or bfloat16, of `y`'s shape.
        codes: of 0, 1 or 2 planes.
        slopes: of each code: 1, 2 or 4.
        y: float32 or float16 [N, C, ...].
        mean: of each channel, float32 [C].

    Returns:
        The sums of g and of g d, which is float32, float64 [N, 2, C]; the largest magnitudes of g and d, float32
        [N, 2, C].
    """
    passed = passed_gradient(grad, codes, slopes).view(len(y), -1, y.shape[1])
    centred = y.movedim(1, -1).float().reshape(passed.shape) - mean
    sums = [torch.stack((g.double().sum(0), (g * d).double().sum(0))) for g, d in zip(passed, centred, strict=True)]
    return torch.stack(sums), torch.stack((passed.abs().amax(1), centred.abs().amax(1)), dim=1)


def empty_sums(y: Tensor, dtype: torch.dtype) -> Tensor:
    """Two values of each row and channel, not yet written."""
    return y.new_empty((len(y), 2, y.shape[1]), dtype=dtype)
