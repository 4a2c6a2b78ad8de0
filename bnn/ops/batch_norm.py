"""The passes of a batch norm between a product and what follows it: statistics, values or signs, and the gradient.

`y` is the product, float [N, C, ...], whose memory is in (N, ..., C) order where speed matters; factors, offsets and
moments are float32 [C]. What backward must know of an element is its *code*: how many of one or three ascending edges
its magnitude is beyond, in one or two planes of bits, uint8 [planes, N, row bytes], each of rows in (..., C) order (see
`bnn.ops.packing`); no plane at all stands for code 0 everywhere. The gradient of an element is multiplied by the slope
of its code.

Sums over a channel are formed in float64; every other step is rounded to float32 as it stands.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bnn.ops.operation import operation
from bnn.ops.packing import nan_error, pack, packed_bytes, unpack
from bnn.ops.rounding import round_stochastically, scale_of

EDGE_COUNTS = {1: 1, 3: 2}
"""Planes of the codes that a number of edges makes."""


def _moments_shape(y: Tensor) -> tuple[Tensor, Tensor]:
    mean, variance = (y.new_empty(y.shape[1], dtype=torch.float32) for _ in range(2))
    return mean, variance


@operation("(Tensor y) -> (Tensor, Tensor)", shape=_moments_shape)
def channel_moments(y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel, float32 [C]; the variance is that of all values, not an estimate.

    The sums of whole numbers, such as the products of bits, are exact, and so the same in any order.
    """
    last = y.movedim(1, -1).flatten(0, -2).float()
    mean = last.double().mean(0)
    variance = (last * last).double().mean(0) - mean.square()
    return mean.float(), variance.clamp_(min=0).float()


def empty_codes(y: Tensor, planes: int) -> Tensor:
    """Codes of the elements of `y`, not yet written."""
    return y.new_empty((planes, len(y), packed_bytes(math.prod(y.shape[1:]))), dtype=torch.uint8)


def empty_like_last(y: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor of `y`'s shape, not yet written, whose memory is in (N, ..., C) order."""
    return y.new_empty(y.movedim(1, -1).shape, dtype=dtype).movedim(-1, 1)


@operation(
    "(Tensor y, Tensor factor, Tensor offset, Tensor? shortcut, float low, float high, ScalarType dtype)"
    " -> (Tensor, Tensor)",
    shape=lambda y, factor, offset, shortcut, low, high, dtype: (empty_like_last(y, dtype), empty_codes(y, 1)),
)
def norm_clamp(
    y: Tensor,
    factor: Tensor,
    offset: Tensor,
    shortcut: Tensor | None,
    low: float,
    high: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """x = y factor + offset + shortcut, clamped to [low, high].

    Args:
        y: float32 or float16.
        factor: of each channel.
        offset: of each channel.
        shortcut: of `y`'s shape, float32 or bfloat16, or None.
        low: may be -inf.
        high: may be inf.
        dtype: of the result, float32 or bfloat16.

    Returns:
        The values, their memory in (N, ..., C) order, and codes of one plane: 1 where x is not inside (low, high).
    """
    x = _affine(y, factor, offset)
    if shortcut is not None:
        x = x + shortcut.movedim(1, -1).float()
    outside = ~((x > low) & (x < high))
    return x.clamp(low, high).to(dtype).contiguous().movedim(-1, 1), pack(outside.flatten(1))[None]


def _sign_codes_shape(
    y: Tensor, factor: Tensor | None, offset: Tensor | None, edges: Sequence[float]
) -> tuple[Tensor, Tensor]:
    bits = y.new_empty((len(y), packed_bytes(math.prod(y.shape[1:]))), dtype=torch.uint8)
    return bits, empty_codes(y, EDGE_COUNTS[len(edges)])


@operation(
    "(Tensor y, Tensor? factor, Tensor? offset, float[] edges) -> (Tensor, Tensor)",
    shape=_sign_codes_shape,
)
def sign_codes(
    y: Tensor, factor: Tensor | None, offset: Tensor | None, edges: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """The signs of x = y factor + offset, and the codes of |x| at the edges.

    Args:
        y: float32, bfloat16 or float16.
        factor: of each channel, or None for 1.
        offset: of each channel, or None for 0.
        edges: one or three, ascending.

    Returns:
        Packed signs with N rows of (..., C), and the codes; code k: |x| is above k of the edges.

    Raises:
        NonFiniteError: an x is not a number.
    """
    check_edges(edges)
    x = y.movedim(1, -1).float() if factor is None or offset is None else _affine(y, factor, offset)
    if x.isnan().any():
        raise nan_error()
    magnitude = x.abs().flatten(1)
    code = torch.zeros_like(magnitude, dtype=torch.uint8)
    for edge in edges:
        code += magnitude > torch.tensor(edge, dtype=torch.float32, device=y.device)
    planes = [pack((code >> plane & 1).bool()) for plane in range(EDGE_COUNTS[len(edges)])]
    return pack(x.flatten(1)), torch.stack(planes)


def _sums_shape(
    grad: Tensor, codes: Tensor, slopes: Sequence[float], y: Tensor, mean: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    sums, sums_along, largest, farthest = (mean.new_empty(mean.shape, dtype=torch.float64) for _ in range(4))
    return sums, sums_along, largest.float(), farthest.float()


@operation(
    "(Tensor grad, Tensor codes, float[] slopes, Tensor y, Tensor mean) -> (Tensor, Tensor, Tensor, Tensor)",
    shape=_sums_shape,
)
def norm_gradient_sums(
    grad: Tensor, codes: Tensor, slopes: Sequence[float], y: Tensor, mean: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the gradient of a norm needs of a channel, with g = grad times the slope of its code.

    Args:
        grad: float32 or bfloat16, of `y`'s shape.
        codes: of 0, 1 or 2 planes.
        slopes: of each code: 1, 2 or 4.
        y: float32 or float16.
        mean: of `y`, float32 [C].

    Returns:
        [C] each: the sums of g and of g (y - mean), float64; the largest |g| and the largest |y - mean|, float32.
    """
    passed = _passed(grad, codes, slopes).flatten(0, -2)
    centred = y.movedim(1, -1).float().flatten(0, -2) - mean
    return (
        passed.double().sum(0),
        (passed * centred).double().sum(0),
        passed.abs().amax(0),
        centred.abs().amax(0),
    )


@operation(
    "(Tensor grad, Tensor codes, float[] slopes, Tensor y, Tensor of_grad, Tensor of_y, Tensor constant) -> Tensor",
    shape=lambda grad, codes, slopes, y, of_grad, of_y, constant: empty_like_last(y, torch.float32),
)
def norm_gradient(
    grad: Tensor,
    codes: Tensor,
    slopes: Sequence[float],
    y: Tensor,
    of_grad: Tensor,
    of_y: Tensor,
    constant: Tensor,
) -> Tensor:
    """dL/dy = of_grad g + (of_y y + constant), float32 of `y`'s shape, with g as in `norm_gradient_sums`.

    Args:
        grad: as there, as are the three arguments that follow.
        codes: of the elements.
        slopes: of the codes.
        y: the product.
        of_grad: float32 [C].
        of_y: float32 [C].
        constant: float32 [C].
    """
    return _norm_gradient(grad, codes, slopes, y, of_grad, of_y, constant).contiguous().movedim(-1, 1)


@operation(
    "(Tensor grad, Tensor codes, float[] slopes, Tensor y, Tensor of_grad, Tensor of_y, Tensor constant, Tensor bound,"
    " int largest, int seed) -> (Tensor, Tensor)",
    shape=lambda grad, codes, slopes, y, of_grad, of_y, constant, bound, largest, seed: (
        empty_like_last(y, torch.int8),
        grad.new_empty((), dtype=torch.float32),
    ),
)
def norm_gradient_integers(
    grad: Tensor,
    codes: Tensor,
    slopes: Sequence[float],
    y: Tensor,
    of_grad: Tensor,
    of_y: Tensor,
    constant: Tensor,
    bound: Tensor,
    largest: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """`norm_gradient`, rounded stochastically to integers (see `bnn.ops.rounding`).

    Args:
        grad: as in `norm_gradient`, as are the six arguments that follow.
        codes: of the elements.
        slopes: of the codes.
        y: the product.
        of_grad: float32 [C].
        of_y: float32 [C].
        constant: float32 [C].
        bound: of |dL/dy|, float32 []; the scale is bound / largest.
        largest: in 1..127.
        seed: of the rounding.

    Returns:
        int8 q within ±largest, its memory in (N, ..., C) order, and the scale of q, float32 [].

    Raises:
        NonFiniteError: the bound is not finite.
    """
    scale, inverse = scale_of(bound, largest)
    in_steps = _norm_gradient(grad, codes, slopes, y, of_grad, of_y, constant) * inverse
    return round_stochastically(in_steps.contiguous().movedim(-1, 1), largest, seed), scale


@operation(
    "(Tensor grad, Tensor codes, float[] slopes) -> Tensor",
    shape=lambda grad, codes, slopes: empty_like_last(grad, grad.dtype),
)
def pass_slopes(grad: Tensor, codes: Tensor, slopes: Sequence[float]) -> Tensor:
    """The gradient times the slope of each element's code, of `grad`'s shape and dtype, in (N, ..., C) order."""
    return _passed(grad, codes, slopes).to(grad.dtype).contiguous().movedim(-1, 1)


def check_edges(edges: Sequence[float]) -> None:
    """Refuses edges that make no codes."""
    if len(edges) not in EDGE_COUNTS or list(edges) != sorted(edges):
        raise ValueError(f"codes take one or three ascending edges, got {list(edges)}")


def check_slopes(codes: Tensor, slopes: Sequence[float]) -> None:
    """Refuses what are no codes, and another number of slopes than of codes."""
    if codes.dtype is not torch.uint8 or codes.dim() != 3 or len(codes) > 2:
        kind = str(codes.dtype).removeprefix("torch.")
        raise ValueError(f"codes must be uint8 of at most two planes of rows, are {kind} {tuple(codes.shape)}")
    if len(slopes) != 2 ** len(codes):
        raise ValueError(f"codes of {len(codes)} planes have {2 ** len(codes)} slopes, got {len(slopes)}")


def _affine(y: Tensor, factor: Tensor, offset: Tensor) -> Tensor:
    return y.movedim(1, -1).float() * factor + offset


def _passed(grad: Tensor, codes: Tensor, slopes: Sequence[float]) -> Tensor:
    """float32 [N, ..., C]."""
    check_slopes(codes, slopes)
    last = grad.movedim(1, -1).float()
    n = math.prod(last.shape[1:])
    code = torch.zeros(last.shape, dtype=torch.int64, device=grad.device)
    for number, plane in enumerate(codes):
        code += unpack(plane, n, torch.bool).view(last.shape).long() << number
    return last * torch.tensor(list(slopes), dtype=torch.float32, device=grad.device)[code]


def _norm_gradient(
    grad: Tensor, codes: Tensor, slopes: Sequence[float], y: Tensor, of_grad: Tensor, of_y: Tensor, constant: Tensor
) -> Tensor:
    return _passed(grad, codes, slopes) * of_grad + (y.movedim(1, -1).float() * of_y + constant)
