"""Optimizer steps by a gradient or its signs, in place, with stochastic rounding of the results.

Signs are packed rows, see `bnn.ops.packing`, of the tensors that are changed.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bnn.errors import NonFiniteError
from bnn.ops.operation import operation
from bnn.ops.packing import packed_bytes, unpack
from bnn.random.lowbias32 import random_bits

_MOST_CODES = 256  # further than from one end to the other
_SQUARE_BITS = 15  # of the whole numbers that are squared
_LEAST_EXPONENT = -100  # of a row's largest magnitude
_MIN_NORMAL = 2.0**-14
_RANDOM_BITS = 13  # by which float32's mantissa is longer than float16's
_NAN = 0x7E00  # of float16
_LARGEST = 65504.0  # of float16
_EXPONENT_OFFSET = 112 << 23  # between the biases of float32's and float16's exponents


@operation(
    "(Tensor(a!) codes, Tensor signs, float step_codes, float hysteresis_codes, int seed) -> ()",
    shape=lambda codes, signs, step_codes, hysteresis_codes, seed: None,
)
def step_by_signs(codes: Tensor, signs: Tensor, step_codes: float, hysteresis_codes: float, seed: int) -> None:
    """codes = clamp(codes - step sign), where the step is rounded stochastically to whole codes.

    A code whose sign changes, from negative to not or back, goes at least `hysteresis_codes`, rounded up, away from 0.

    Element i in the order of memory moves by one code more than floor(step) where its random number of 16 bits is
    below 2^16 times the fraction of the step, rounded up. That number is the lower half (of an even i) or the upper
    half of the hash of `seed` and i // 2.

    Args:
        codes: int8 [rows, n], contiguous; changed in place and kept within -128..127.
        signs: packed [rows, ceil(n / 8)]: the signs of the gradient.
        step_codes: in codes, at least 0.
        hysteresis_codes: in codes, in 0..127.
        seed: a new one for every step.
    """
    whole, limit, beyond = code_factors(codes, signs, step_codes, hysteresis_codes)
    more = _half_words(codes, seed) < limit
    _move_(codes, (whole + more) * unpack(signs, codes.shape[1], torch.int32), beyond)


@operation(
    "(Tensor(a!) codes, Tensor(b!) squares, Tensor gradient, float step_codes, float decay, float eps,"
    " float limit_steps, float hysteresis_codes, int step, int seed) -> ()",
    shape=lambda codes, squares, gradient, step_codes, decay, eps, limit_steps, hysteresis_codes, step, seed: None,
)
def adam_by_rows(
    codes: Tensor,
    squares: Tensor,
    gradient: Tensor,
    step_codes: float,
    decay: float,
    eps: float,
    limit_steps: float,
    hysteresis_codes: float,
    step: int,
    seed: int,
) -> None:
    """A step of Adam without a mean, whose mean square v is one of a whole row.

        v = decay v + (1 - decay) mean of gradient^2
        codes = clamp(codes - clamp(step_codes gradient / (sqrt(v / (1 - decay^step)) + eps), +-limit_steps step_codes))

    The mean is that of `row_squares`, v is formed in float64 and kept in float32, and the codes move as
    `step_by_values` says. Source: Zhang et al. 2024, arXiv 2406.16793, of which this is the second moment.

    Args:
        codes: int8 [rows, n], contiguous; changed in place and kept within -128..127.
        squares: float32 [rows], at least 0; changed in place.
        gradient: bfloat16 [rows, n], contiguous; n at most 2^23.
        step_codes: the learning rate, in codes, at least 0.
        decay: in [0, 1).
        eps: added to the root, above 0.
        limit_steps: the largest step, in learning rates, finite and at least 0.
        hysteresis_codes: in codes, in 0..127.
        step: counts the steps, from 1.
        seed: a new one for every step.

    Raises:
        NonFiniteError: a gradient is not finite, or the mean square of a row is beyond float32, the gradient's or that
            of the steps before; nothing is changed.
    """
    check_rows(codes, squares, gradient, step_codes, decay, eps, limit_steps, hysteresis_codes, step)
    means = row_squares(gradient)
    if not (means <= torch.finfo(torch.float32).max).all() or not squares.isfinite().all():
        raise not_finite()
    squares.copy_(squares.double() * decay + means * (1 - decay))
    roots = (squares.double() / (1 - decay**step)).sqrt()
    rates = (step_codes / (roots + eps)).float()
    step_by_values(codes, gradient, rates, limit_steps * step_codes, hysteresis_codes, seed)


def not_finite() -> NonFiniteError:
    """The error of a row without a mean square."""
    return NonFiniteError("a row has no finite mean square")


def row_squares(gradient: Tensor) -> Tensor:
    """The mean square of each row, the same bits in any order of the work: float64 [rows]; NaN where it is not finite.

    With 2^e the least power of two above the largest magnitude of a row, and e at least -100, magnitudes are rounded
    to whole multiples of 2^(e - 15), half ones up, whose squares add up exactly.
    """
    if not gradient.numel():
        return gradient.new_zeros(len(gradient), dtype=torch.float64)
    sizes = gradient.float().abs()
    largest = sizes.amax(1)
    exponents = largest.frexp().exponent.clamp_(min=_LEAST_EXPONENT)
    units = _powers_of_two(_SQUARE_BITS - exponents).float()
    wholes = (sizes * units[:, None] + 0.5).floor_().double()
    sums = wholes.square_().sum(1) * _powers_of_two(2 * (exponents - _SQUARE_BITS))
    return torch.where(largest.isfinite(), sums / gradient.shape[1], math.nan)


def step_by_values(
    codes: Tensor, gradient: Tensor, rates: Tensor, bound_codes: float, hysteresis_codes: float, seed: int
) -> None:
    """codes = clamp(codes - clamp(rate gradient, -bound, bound)), the step rounded stochastically to whole codes.

    A code whose sign changes, from negative to not or back, goes at least `hysteresis_codes`, rounded up, away from 0.

    The step is floor(clamp(rate gradient, -bound, bound) + (u + 1/2) 2^-16), in float32, where u is the random number
    of 16 bits that `step_by_signs` has for the element. `rates`: float32 [rows], codes for a gradient of 1. A bound
    beyond 256 counts 256.
    """
    bound, beyond = min(bound_codes, _MOST_CODES), math.ceil(hysteresis_codes)
    moves = (gradient.float() * rates[:, None]).clamp_(-bound, bound)
    shifts = (_half_words(codes, seed).float() + 0.5) * 2.0**-16
    _move_(codes, (moves + shifts).floor_().int(), beyond)


def _half_words(codes: Tensor, seed: int) -> Tensor:
    """A random number of 16 bits for each element, int64."""
    words = random_bits(seed, (codes.numel() + 1) // 2, codes.device)
    return torch.stack((words & 0xFFFF, words >> 16), dim=1).flatten()[: codes.numel()].view_as(codes)


def _move_(codes: Tensor, moves: Tensor, beyond: int) -> None:
    moved = codes.int() - moves
    away = torch.where(moved < 0, moved.clamp(max=-beyond), moved.clamp(min=beyond))
    codes.copy_(torch.where((moved < 0) != (codes < 0), away, moved).clamp_(-128, 127))


def _powers_of_two(exponents: Tensor) -> Tensor:
    """float64, of whole exponents in -1022..1023."""
    return (exponents.long() + 1023 << 52).view(torch.float64)


@operation(
    "(Tensor(a!) weight, Tensor(b!) mean, Tensor(c!) root, Tensor signs,"
    " float lr, float[2] betas, float eps, float hysteresis, int step, int seed) -> ()",
    shape=lambda weight, mean, root, signs, lr, betas, eps, hysteresis, step, seed: None,
)
def adam_by_signs(
    weight: Tensor,
    mean: Tensor,
    root: Tensor,
    signs: Tensor,
    lr: float,
    betas: Sequence[float],
    eps: float,
    hysteresis: float,
    step: int,
    seed: int,
) -> None:
    """A step of Adam, in float32, by a gradient g of +1 and -1, whose results are rounded stochastically to float16.

        mean = mean + (1 - b1) (g - mean)
        root = sqrt(b2 root^2 + (1 - b2))
        weight = clamp(weight - lr mean / (1 - b1^step) / (root / sqrt(1 - b2^step) + eps), -1, 1)

    A weight whose sign changes, from negative to not or back, goes at least `hysteresis` away from 0.

    The last fraction is reduced by sqrt(1 - b2^step). Source: Kingma and Ba 2015, arXiv 1412.6980, algorithm 1 and the
    more efficient order below it.

    Each result x goes to one of the two numbers of float16 around it and is right on average: to the one of larger
    magnitude with the probability (|x| - |below|) / (|above| - |below|), a multiple of 2^-13. It holds below 2^-14
    too, but for what |x| has beyond 2^-37, which is cut off. The 13 random bits are those of the hashes 2i and 2i + 1
    of `seed` for element i in the order of memory: for the weight the lowest and for the mean the highest of the
    first, for the root the lowest of the second. What is not finite, or beyond 65504, becomes NaN.

    Args:
        weight: float16 [rows, n], contiguous; changed in place.
        mean: the running mean of the gradient, likewise.
        root: the root of the running mean of its square, likewise; at least 0.
        signs: packed [rows, ceil(n / 8)]: the signs of the gradient.
        lr: learning rate, at least 0.
        betas: b1 and b2, in [0, 1).
        eps: added to the root, at least 0.
        hysteresis: in units of the weight, in 0..1.
        step: counts the steps, from 1.
        seed: a new one for every step.
    """
    factors = adam_factors(weight, mean, root, signs, lr, betas, eps, hysteresis, step)
    _adam(weight, mean, root, unpack(signs, weight.shape[1], torch.float32), factors, seed)


@operation(
    "(Tensor(a!) weight, Tensor(b!) mean, Tensor(c!) root, Tensor gradient,"
    " float lr, float[2] betas, float eps, float hysteresis, int step, int seed) -> ()",
    shape=lambda weight, mean, root, gradient, lr, betas, eps, hysteresis, step, seed: None,
)
def adam_by_values(
    weight: Tensor,
    mean: Tensor,
    root: Tensor,
    gradient: Tensor,
    lr: float,
    betas: Sequence[float],
    eps: float,
    hysteresis: float,
    step: int,
    seed: int,
) -> None:
    """The step of `adam_by_signs` by the gradient itself, float32 [rows, n], contiguous: the same but for

    root = sqrt(b2 root^2 + (1 - b2) g^2)
    """
    factors = adam_factors(weight, mean, root, gradient, lr, betas, eps, hysteresis, step)
    _adam(weight, mean, root, gradient, factors, seed)


def _adam(weight: Tensor, mean: Tensor, root: Tensor, gradient: Tensor, factors: tuple[float, ...], seed: int) -> None:
    mean_part, beta2, square_part, rate, eps, beyond = factors
    values = mean.float()
    means = values + (gradient - values) * mean_part
    values = root.float()
    # torch's square root of float32 is not always the nearest float32.
    roots = (values * values * beta2 + gradient * gradient * square_part).double().sqrt().float()
    moved = weight.float() - means * rate / (roots + eps)
    near = ((moved < 0) != (weight < 0)) & (moved.abs() < beyond)
    weights = torch.where(near, torch.where(moved < 0, -beyond, beyond), moved).clamp_(-1, 1)
    words = random_bits(seed, 2 * weight.numel(), weight.device).view(*weight.shape, 2)
    weight.copy_(_to_float16(weights, words[..., 0]))
    mean.copy_(_to_float16(means, words[..., 0] >> 32 - _RANDOM_BITS))
    root.copy_(_to_float16(roots, words[..., 1]))


def _to_float16(x: Tensor, random: Tensor) -> Tensor:
    """float32 to float16, at random by the lowest bits of int64 `random`; NaN where it has no such number."""
    size = x.abs()
    # Either way a step of float16 is 2^13: of the float's own bits, or below 2^-14, of whole 2^-37.
    steps = (size * 2.0 ** (24 + _RANDOM_BITS)).long()
    fine = torch.where(size < _MIN_NORMAL, steps, size.view(torch.int32).long() - _EXPONENT_OFFSET)
    halves = fine + (random & (1 << _RANDOM_BITS) - 1) >> _RANDOM_BITS
    halves = torch.where(size <= _LARGEST, halves, _NAN)
    return halves.to(torch.int16).view(torch.float16).copysign(x)


def code_factors(codes: Tensor, signs: Tensor, step_codes: float, hysteresis_codes: float) -> tuple[int, int, int]:
    """Whole codes of a step, the rest in 65,536ths, rounded up, and the hysteresis in codes, of checked arguments."""
    _check_codes(codes, hysteresis_codes)
    if signs.dtype is not torch.uint8 or list(signs.shape) != [len(codes), packed_bytes(codes.shape[1])]:
        raise ValueError(f"signs of codes {list(codes.shape)} are packed, got {signs.dtype} {list(signs.shape)}")
    if not 0 <= step_codes < math.inf:
        raise ValueError(f"a step is finite and at least 0, got {step_codes}")
    whole = min(math.floor(step_codes), _MOST_CODES)
    return whole, math.ceil((step_codes - math.floor(step_codes)) * 65536), math.ceil(hysteresis_codes)


def check_rows(
    codes: Tensor,
    squares: Tensor,
    gradient: Tensor,
    step_codes: float,
    decay: float,
    eps: float,
    limit_steps: float,
    hysteresis_codes: float,
    step: int,
) -> tuple[float, int]:
    """The bound of a step and the hysteresis, in codes, of checked arguments of `adam_by_rows`."""
    _check_codes(codes, hysteresis_codes)
    is_matrix = gradient.dtype is torch.bfloat16 and gradient.dim() == 2 and gradient.is_contiguous()
    if not is_matrix or gradient.shape != codes.shape:
        raise ValueError(
            f"a gradient of rows {list(codes.shape)} is a contiguous bfloat16 matrix, got {gradient.dtype}"
            f" {list(gradient.shape)}"
        )
    if squares.dtype is not torch.float32 or squares.shape != codes.shape[:1] or not squares.is_contiguous():
        raise ValueError(
            f"mean squares of codes {list(codes.shape)} are float32, one a row, got {squares.dtype}"
            f" {list(squares.shape)}"
        )
    if not (0 <= step_codes < math.inf and 0 <= limit_steps < math.inf and 0 <= decay < 1 and eps > 0 and step >= 1):
        raise ValueError(
            "a step and its limit are finite and at least 0, the decay lies in [0, 1), eps is above 0, and steps count"
            f" from 1, got {step_codes}, {limit_steps}, {decay}, {eps} and {step}"
        )
    return min(limit_steps * step_codes, _MOST_CODES), math.ceil(hysteresis_codes)


def _check_codes(codes: Tensor, hysteresis_codes: float) -> None:
    if codes.dtype is not torch.int8 or codes.dim() != 2 or not codes.is_contiguous():
        raise ValueError(f"codes are a contiguous int8 [rows, n], got {codes.dtype} {list(codes.shape)}")
    if not 0 <= hysteresis_codes <= 127:
        raise ValueError(f"a hysteresis lies in 0..127 codes, got {hysteresis_codes}")


def adam_factors(
    weight: Tensor,
    mean: Tensor,
    root: Tensor,
    gradient: Tensor,
    lr: float,
    betas: Sequence[float],
    eps: float,
    hysteresis: float,
    step: int,
) -> tuple[float, float, float, float, float, float]:
    """1 - b1, b2, 1 - b2, learning rate and eps with the corrections of the moments, and the hysteresis, checked."""
    for x in (weight, mean, root):
        if x.dtype is not torch.float16 or x.dim() != 2 or x.shape != weight.shape or not x.is_contiguous():
            raise ValueError(
                f"weight, mean and root are contiguous float16 [rows, n] of one shape, got {x.dtype} {list(x.shape)}"
            )
    rows, columns = weight.shape
    fitting = {torch.uint8: [rows, packed_bytes(columns)], torch.float32: [rows, columns]}
    if fitting.get(gradient.dtype) != list(gradient.shape) or not gradient.is_contiguous():
        raise ValueError(
            f"a gradient of weights {list(weight.shape)} is contiguous float32, or its signs are packed,"
            f" got {gradient.dtype} {list(gradient.shape)}"
        )
    if not (0 <= lr < math.inf and all(0 <= beta < 1 for beta in betas) and eps >= 0 and step >= 1):
        raise ValueError(
            "lr and eps are at least 0, betas lie in [0, 1), and steps count from 1,"
            f" got lr {lr}, betas {betas}, eps {eps}, step {step}"
        )
    if not 0 <= hysteresis <= 1:
        raise ValueError(f"a hysteresis lies in 0..1, got {hysteresis}")
    beta1, beta2 = betas
    correction = math.sqrt(1 - beta2**step)
    return 1 - beta1, beta2, 1 - beta2, lr * correction / (1 - beta1**step), eps * correction, hysteresis
