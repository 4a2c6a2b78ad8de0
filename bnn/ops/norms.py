"""The l1 batch norm of binary networks, fused with the sign that follows it, and its gradient from bits.

Sums over a channel are formed in float64 and rounded to float32 once; every other step is rounded to float32 as it
stands, or to float64 where the input is float64. The signs and the window are packed rows in (..., C) order, see
`bnn.ops.packing`.
"""

import math

import torch
from torch import Tensor

from bnn.errors import NonFiniteError
from bnn.ops.operation import operation
from bnn.ops.packing import empty_rows, pack, unpack

SPREAD_OF_NORMAL = math.sqrt(math.pi / 2)
"""Standard deviation of normal values over their mean absolute deviation."""


def _norm_sign_shape(y: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    bits, inside = (empty_rows(y, len(y), math.prod(y.shape[1:])) for _ in range(2))
    mean, deviation = (y.new_empty(y.shape[1], dtype=_statistics_dtype(y)) for _ in range(2))
    return bits, inside, mean, deviation


@operation("(Tensor y, Tensor bias, float eps) -> (Tensor, Tensor, Tensor, Tensor)", shape=_norm_sign_shape)
def norm_sign(y: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Signs of the l1 batch norm x = (y - mean) / (deviation + eps) + bias, for each channel.

    Args:
        y: float [N, C, ...].
        bias: float [C].
        eps: added to the deviation.

    Returns:
        The packed signs of x and the packed truth values of |x| <= 1, with N rows of (..., C); and float32 [C] (or
        float64, if `y` is) mean and deviation sqrt(pi/2) mean|y - mean|, the standard deviation of normal values.

    Raises:
        NonFiniteError: the norm of `y` is not a number.
    """
    dtype = _statistics_dtype(y)
    y = y.movedim(1, -1)
    mean = _channel_means(y).to(dtype)
    deviation = (_channel_means((y - mean).abs()) * SPREAD_OF_NORMAL).to(dtype)
    x = (y - mean) / (deviation + eps) + bias.to(dtype)
    check_normalised(deviation, bias, eps)
    return pack(x.flatten(1)), pack((x.abs() <= 1).flatten(1)), mean, deviation


def empty_gradient(grad: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A gradient of `grad`'s shape, not yet written, whose memory is in (N, ..., C) order."""
    return torch.empty_like(grad.movedim(1, -1).contiguous(), dtype=dtype).movedim(-1, 1)


@operation(
    "(Tensor grad, Tensor bits, Tensor inside, Tensor denominator, Tensor levels) -> (Tensor, Tensor)",
    shape=lambda grad, bits, inside, denominator, levels: (empty_gradient(grad), torch.empty_like(denominator)),
)
def norm_sign_backward(
    grad: Tensor, bits: Tensor, inside: Tensor, denominator: Tensor, levels: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradient of `norm_sign`, with one of four levels in the place of each normalised value.

    With g = grad where `inside` and zero elsewhere, q the level that the sign and `inside` tell, and means over a
    channel, dL/dy = (g - mean(g) - mean(g q) q) / denominator and dL/dbias = sum(g): the gradient of a batch norm, as
    Wang et al. (arXiv 2102.04270, sec. 5) approximate it with two levels.

    Args:
        grad: float [N, C, ...], for the signs.
        bits: the first result of `norm_sign`.
        inside: the second.
        denominator: of the norm, deviation + eps: float [C].
        levels: float [4, C], of x < -1, -1 <= x < 0, 0 <= x <= 1 and 1 < x.

    Returns:
        dL/dy of `grad`'s shape and dtype, its memory in (N, ..., C) order, and dL/dbias [C] of the denominator's dtype.
    """
    passed, offset = _norm_gradient(grad, bits, inside, levels, denominator.dtype)
    grad_y = ((passed - offset) / denominator).to(grad.dtype)
    return grad_y.contiguous().movedim(-1, 1), _channel_sums(passed).to(denominator.dtype)


def _norm_gradient(
    grad: Tensor, bits: Tensor, inside: Tensor, levels: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """g [N, ..., C], and what the norm takes off each."""
    last = grad.movedim(1, -1)
    row_elements = math.prod(last.shape[1:])
    signs, window = (unpack(packed, row_elements, torch.bool).view(last.shape) for packed in (bits, inside))
    passed = torch.where(window, last, 0)
    mean, by_sign = _channel_means(passed), _channel_means(torch.where(signs, passed, -passed))
    wide = levels.double()
    along = wide[1] * ((mean - by_sign) / 2) + wide[2] * ((mean + by_sign) / 2)
    offsets = (mean + along * wide).to(dtype)
    of_minus, of_plus = torch.where(window, offsets[1], offsets[0]), torch.where(window, offsets[2], offsets[3])
    return passed, torch.where(signs, of_plus, of_minus)


def check_normalised(deviation: Tensor, bias: Tensor, eps: float) -> None:
    """Refuses a norm that gives values which are not numbers: their signs would be lost."""
    if torch.isnan(deviation / (deviation + eps) + bias).any():
        raise NonFiniteError("cannot take the sign of NaN: the tensor to normalise has NaN or infinite values, or none")


def _statistics_dtype(y: Tensor) -> torch.dtype:
    return torch.promote_types(y.dtype, torch.float32)


def _channel_sums(last: Tensor) -> Tensor:
    return last.sum(tuple(range(last.dim() - 1)), dtype=torch.float64)


def _channel_means(last: Tensor) -> Tensor:
    return _channel_sums(last) / math.prod(last.shape[:-1])
