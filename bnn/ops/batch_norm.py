"""The passes of a batch norm between a product and what follows it: statistics, values or signs, and the gradient.

`y` is the product, float [N, C, ...], whose memory is in (N, ..., C) order where speed matters; values of channels are
float32. What backward must know of an element is its *code*: how many of one or three ascending edges its magnitude is
beyond, in one or two planes of bits, uint8 [planes, N, row bytes], each of rows in (..., C) order (see
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


@operation(
    "(Tensor y, Tensor? scale, Tensor? gamma, Tensor? beta, float eps, Tensor(a!) running_mean,"
    " Tensor(b!) running_var, float momentum) -> (Tensor, Tensor)",
    shape=lambda y, *_: (_of_channels(y, 2), _of_channels(y, 2)),
)
def batch_statistics(
    y: Tensor,
    scale: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    eps: float,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
) -> tuple[Tensor, Tensor]:
    """Statistics of a batch for the norm of z = scale y, which the running ones take in as torch's batch norm does.

    Sums of whole numbers, such as the products of bits, are exact, and so the same in any order.

    Args:
        y: float32, float16 or bfloat16, two values a channel.
        scale: of each channel, or None for 1.
        gamma: factor behind the norm, or None for 1.
        beta: offset behind the norm, or None for 0.
        eps: added to the variance of z.
        running_mean: of z, [C]; changed in place.
        running_var: of z, its estimate of more than the batch, [C]; changed in place.
        momentum: weight of the batch in the running statistics.

    Returns:
        float32 [2, C] twice: the mean of y, and 1 / sqrt(variance of z + eps) with the variance of the batch itself;
        the factor and offset that make the result of the norm from y.
    """
    last = y.movedim(1, -1).flatten(0, -2).float()
    mean = last.double().mean(0)
    variance = (last * last).double().mean(0) - mean.square()
    return statistics_of(mean, variance, len(last), scale, gamma, beta, eps, running_mean, running_var, momentum)


def statistics_of(
    mean: Tensor,
    variance: Tensor,
    count: int,
    scale: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    eps: float,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
) -> tuple[Tensor, Tensor]:
    """What `batch_statistics` makes of the mean and variance of `count` values a channel, float64 [C] each."""
    mean, variance = mean.float(), variance.clamp(min=0).float().double()
    a = torch.ones_like(variance) if scale is None else scale.double()
    variance = variance * a.square()
    inverse = variance.add(eps).rsqrt().float()
    for running, of_batch in ((running_mean, mean * a), (running_var, variance * (count / (count - 1)))):
        running.copy_(momentum * of_batch + (1 - momentum) * running.double())
    return torch.stack((mean, inverse)), torch.stack(affine(mean, inverse, scale, gamma, beta))


def affine(
    mean: Tensor, inverse: Tensor, scale: Tensor | None, gamma: Tensor | None, beta: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Factor and offset, [C] each, that make the norm of scale y from y; `mean` is that of y."""
    factor = inverse if gamma is None else inverse * gamma
    factor = factor if scale is None else factor * scale
    offset = -factor * mean
    return factor, offset if beta is None else offset + beta


def _of_channels(y: Tensor, count: int) -> Tensor:
    return y.new_empty((count, y.shape[1]), dtype=torch.float32)


def empty_codes(y: Tensor, planes: int) -> Tensor:
    """Codes of the elements of `y`, not yet written."""
    rows, *row = y.shape
    return y.new_empty((planes, rows, packed_bytes(math.prod(row))), dtype=torch.uint8)


def empty_like_last(y: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor of `y`'s shape, not yet written, whose memory is in (N, ..., C) order."""
    return y.new_empty(y.movedim(1, -1).shape, dtype=dtype).movedim(-1, 1)


@operation(
    "(Tensor(a!) y, Tensor factor, Tensor offset, Tensor? shortcut, float low, float high) -> Tensor",
    shape=lambda y, *_: empty_codes(y, 1),
)
def norm_clamp_(y: Tensor, factor: Tensor, offset: Tensor, shortcut: Tensor | None, low: float, high: float) -> Tensor:
    """x = y factor + offset + shortcut, clamped to [low, high], which takes the place of y: see `clamped`.

    Args:
        y: float, its memory in (N, ..., C) order; its values are lost.
        factor: of each channel.
        offset: of each channel.
        shortcut: of `y`'s shape, float32 or bfloat16, or None.
        low: may be -inf.
        high: may be inf.

    Returns:
        Codes of one plane: 1 where x is not inside (low, high).
    """
    check_place(y)
    x = _affine(y, factor, offset)
    if shortcut is not None:
        x = x + shortcut.movedim(1, -1).float()
    outside = ~((x > low) & (x < high))
    clamped(y).copy_(x.clamp(low, high).movedim(-1, 1))
    return pack(outside.flatten(1))[None]


def clamped(y: Tensor) -> Tensor:
    """The values that `norm_clamp_` has left in the memory of `y`: of its dtype, or bfloat16 in place of float16."""
    return y.view(torch.bfloat16).detach() if y.dtype is torch.float16 else y


def check_place(y: Tensor) -> None:
    """Refuses a product in whose place no result can be written."""
    if not y.movedim(1, -1).is_contiguous():
        raise ValueError(f"y must lie in (N, ..., C) order, has the shape {tuple(y.shape)} and strides {y.stride()}")


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


@operation(
    "(Tensor grad, Tensor codes, float[] slopes, Tensor y, Tensor moments, Tensor? scale, Tensor? gamma, float eps)"
    " -> (Tensor, Tensor, Tensor)",
    shape=lambda grad, codes, slopes, y, *_: (
        _of_channels(y, 3),
        y.new_empty((), dtype=torch.float32),
        _of_channels(y, 3),
    ),
)
def norm_gradient_terms(
    grad: Tensor,
    codes: Tensor,
    slopes: Sequence[float],
    y: Tensor,
    moments: Tensor,
    scale: Tensor | None,
    gamma: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of a batch norm of z = scale y, but for what differs from element to element.

    Let g be grad times the slope of its code, x = (z - mean) / deviation, and take means over a channel. Then

        dL/dy = gamma scale / deviation (g - mean(g) - x mean(g x)) = of_grad g + of_y y + constant.

    A channel that is constant over the batch gets no gradient: it would be one of 1 / sqrt(eps), whose scale erases
    that of all others.

    Args:
        grad: of the norm's result, float32 or bfloat16, of `y`'s shape.
        codes: of 0, 1 or 2 planes.
        slopes: of each code: 1, 2 or 4.
        y: float32, float16 or bfloat16.
        moments: float32 [2, C] of `batch_statistics`.
        scale: float32 [C], or None for 1.
        gamma: float32 [C], or None for 1.
        eps: of the norm.

    Returns:
        float32 [3, C], of_grad, of_y and constant; a bound of |dL/dy|, float32 [], which is not finite where g is not;
        float32 [3, C], the gradients of scale, gamma and beta.
    """
    passed = passed_gradient(grad, codes, slopes).flatten(0, -2)
    centred = y.movedim(1, -1).float().flatten(0, -2) - moments[0]
    sum_, along = passed.double().sum(0), (passed * centred).double().sum(0)
    terms, centre, of_parameters = gradient_terms_of(sum_, along, len(passed), moments, scale, gamma, eps)
    return terms, bound_of(terms, centre, passed.abs().amax(0), centred.abs().amax(0)), of_parameters


def bound_of(terms: Tensor, centre: Tensor, passed: Tensor, centred: Tensor) -> Tensor:
    """A bound of |dL/dy|, float32 [], by what `gradient_terms_of` gives and the largest |g| and |y - mean| [..., C]."""
    bounds = terms[0].abs() * passed + terms[1].abs() * centred + centre.abs()
    return bounds.amax() if bounds.numel() else bounds.new_zeros(())


def gradient_terms_of(
    sum_: Tensor, along: Tensor, count: int, moments: Tensor, scale: Tensor | None, gamma: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """What `norm_gradient_terms` makes of sum(g) and sum(g (y - mean)) of `count` values a channel, float64 [C] each.

    Returns:
        The terms; the gradient where g is 0 and y is the mean, float32 [C]; the gradients of scale, gamma and beta.
    """
    # As it is rounded: of a variance of 0, its square times eps is not always 1.
    varies = moments[1] < torch.full((), eps, dtype=torch.float64, device=moments.device).rsqrt().float()
    mean, inverse = moments.double()
    a = torch.ones_like(mean) if scale is None else scale.double()
    weight = torch.ones_like(mean) if gamma is None else gamma.double()
    of_grad = weight * a * inverse
    of_y = -of_grad * (a * inverse).square() * along / count
    of_mean = -of_grad * sum_ / count
    terms = torch.stack((of_grad, of_y, of_mean - of_y * mean))
    of_parameters = torch.stack((weight * eps * inverse**3 * along, a * inverse * along, sum_)).float()
    return torch.where(varies, terms, 0).float(), torch.where(varies, of_mean, 0).float(), of_parameters


@operation(
    "(Tensor grad, Tensor codes, float[] slopes, Tensor y, Tensor terms, ScalarType dtype=float) -> Tensor",
    shape=lambda grad, codes, slopes, y, terms, dtype=torch.float32: empty_like_last(y, dtype),
)
def norm_gradient(
    grad: Tensor,
    codes: Tensor,
    slopes: Sequence[float],
    y: Tensor,
    terms: Tensor,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """dL/dy of `norm_gradient_terms`, of_grad g + (of_y y + constant), of `y`'s shape, in (N, ..., C) order.

    Args:
        grad: as there, as are the three arguments that follow.
        codes: of the elements.
        slopes: of the codes.
        y: the product.
        terms: float32 [3, C]: of_grad, of_y and constant.
        dtype: of the result, to which it is rounded: float32 or bfloat16.
    """
    return _norm_gradient(grad, codes, slopes, y, terms).to(dtype).contiguous().movedim(-1, 1)


@operation(
    "(Tensor grad, Tensor codes, float[] slopes, Tensor y, Tensor terms, Tensor bound, int largest, int seed,"
    " int first_row=0) -> (Tensor, Tensor)",
    shape=lambda grad, codes, slopes, y, terms, bound, largest, seed, first_row=0: (
        empty_like_last(y, torch.int8),
        grad.new_empty((), dtype=torch.float32),
    ),
)
def norm_gradient_integers(
    grad: Tensor,
    codes: Tensor,
    slopes: Sequence[float],
    y: Tensor,
    terms: Tensor,
    bound: Tensor,
    largest: int,
    seed: int,
    first_row: int = 0,
) -> tuple[Tensor, Tensor]:
    """`norm_gradient`, rounded stochastically to integers (see `bnn.ops.rounding`).

    Args:
        grad: as in `norm_gradient`, as are the four arguments that follow.
        codes: of the elements.
        slopes: of the codes.
        y: the product.
        terms: of the channels.
        bound: of |dL/dy|, float32 []; the scale is bound / largest.
        largest: in 1..127.
        seed: of the rounding.
        first_row: of a larger batch, from which these rows are: they are rounded as they would be there.

    Returns:
        int8 q within ±largest, its memory in (N, ..., C) order, and the scale of q, float32 [].

    Raises:
        NonFiniteError: the bound is not finite.
    """
    scale, inverse = scale_of(bound, largest)
    in_steps = _norm_gradient(grad, codes, slopes, y, terms) * inverse
    first = first_row * y[:1].numel()
    return round_stochastically(in_steps.contiguous().movedim(-1, 1), largest, seed, first), scale


@operation(
    "(Tensor grad, Tensor codes, float[] slopes) -> Tensor",
    shape=lambda grad, codes, slopes: empty_like_last(grad, grad.dtype),
)
def pass_slopes(grad: Tensor, codes: Tensor, slopes: Sequence[float]) -> Tensor:
    """The gradient times the slope of each element's code, of `grad`'s shape and dtype, in (N, ..., C) order."""
    return passed_gradient(grad, codes, slopes).to(grad.dtype).contiguous().movedim(-1, 1)


def check_edges(edges: Sequence[float]) -> None:
    """Refuses edges that make no codes."""
    if len(edges) not in EDGE_COUNTS or list(edges) != sorted(edges):
        raise ValueError(f"codes take one or three ascending edges, got {list(edges)}")


def check_slopes(codes: Tensor, slopes: Sequence[float]) -> None:
    """Refuses what are no codes, and another number of slopes than of codes."""
    if codes.dtype is not torch.uint8 or codes.dim() != 3 or codes.shape[0] > 2:
        kind = str(codes.dtype).removeprefix("torch.")
        raise ValueError(f"codes must be uint8 of at most two planes of rows, are {kind} {tuple(codes.shape)}")
    planes = codes.shape[0]
    if len(slopes) != 2**planes:
        raise ValueError(f"codes of {planes} planes have {2**planes} slopes, got {len(slopes)}")


def _affine(y: Tensor, factor: Tensor, offset: Tensor) -> Tensor:
    return y.movedim(1, -1).float() * factor + offset


def passed_gradient(grad: Tensor, codes: Tensor, slopes: Sequence[float]) -> Tensor:
    """The gradient times the slope of each element's code, float32 [N, ..., C]."""
    check_slopes(codes, slopes)
    last = grad.movedim(1, -1).float()
    n = math.prod(last.shape[1:])
    code = torch.zeros(last.shape, dtype=torch.int64, device=grad.device)
    for number, plane in enumerate(codes):
        code += unpack(plane, n, torch.bool).view(last.shape).long() << number
    return last * torch.tensor(list(slopes), dtype=torch.float32, device=grad.device)[code]


def _norm_gradient(grad: Tensor, codes: Tensor, slopes: Sequence[float], y: Tensor, terms: Tensor) -> Tensor:
    of_grad, of_y, constant = terms.unbind()
    return passed_gradient(grad, codes, slopes) * of_grad + (y.movedim(1, -1).float() * of_y + constant)
