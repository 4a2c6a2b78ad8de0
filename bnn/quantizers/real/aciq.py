"""Analytical clips for real values of few bits (ACIQ).

Steps of 2 a / 2^M between -a and a cost a^2 / (3 4^M) of mean squared error, and what lies beyond is clipped: the clip
a weighs one against the other. Source: Banner et al. 2019, arXiv 1810.05723.

The errors are those of many steps: a Laplace variable of b = 1 has 0.0510 at 4 bits and 0.398 at 2, by an integral, of
which they lack 10 and 28 %. What samples of 400,000 have deviates by 0.0008 and 0.003, since the few values beyond the
clip decide; that of an independent check has 0.0524 and 0.402.

The clips are of no use for binary weights: at 1 bit the levels would be ±0.62 standard deviations of normal values, and
the best ones are ±0.798, the mean magnitude, which `ScaledSign` takes.
"""

import math

import torch
from torch import Tensor

_NEWTON_STEPS = 40
_SEARCHES = 80


def laplace_clip(bits: int, *, rectified: bool = False) -> float:
    """The best clip in units of b, for the density e^(-|x| / b) / (2 b): W(3 4^bits), with W Lambert's function.

    Args:
        bits: 1 to 16.
        rectified: whether negative values are 0, and the steps lie between 0 and the clip: W(12 4^bits).

    Raises:
        ValueError: the width is out of its range.
    """
    _check(bits)
    return _lambert_w((12.0 if rectified else 3.0) * 4.0**bits)


def laplace_error(clip: float, bits: int) -> float:
    """Mean squared error in units of b^2: 2 e^(-a) + a^2 / (3 4^bits)."""
    return 2 * math.exp(-clip) + clip**2 / (3 * 4.0**bits)


def gaussian_error(clip: float, bits: int) -> float:
    """Mean squared error in units of the variance.

    (1 + a^2) (1 - erf(a / sqrt 2)) - sqrt(2 / pi) a e^(-a^2 / 2) + a^2 / (3 4^bits).
    """
    beyond = (1 + clip**2) * math.erfc(clip / math.sqrt(2))
    return beyond - math.sqrt(2 / math.pi) * clip * math.exp(-(clip**2) / 2) + clip**2 / (3 * 4.0**bits)


def gaussian_clip(bits: int) -> float:
    """The best clip of normal values in standard deviations.

    Args:
        bits: 1 to 16.

    Raises:
        ValueError: the width is out of its range.
    """
    _check(bits)
    golden = (math.sqrt(5) - 1) / 2
    low, high = 0.1, 12.0
    for _ in range(_SEARCHES):
        one, other = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, other) if gaussian_error(one, bits) < gaussian_error(other, bits) else (one, high)
    return (low + high) / 2


def bits_of_channels(clips: Tensor, *, mean_bits: float) -> Tensor:
    """Widths of channels that share a number of steps, so that their sum of errors is least: not rounded.

    M_i = log2(B a_i^(2/3) / sum of a_j^(2/3)), with B = n 2^mean_bits steps in all.

    Args:
        clips: a_i of each channel, [n], above 0.
        mean_bits: width that all would have.

    Raises:
        ValueError: a clip is out of its range.
    """
    if not (clips > 0).all():
        raise ValueError(f"the clip of a channel is above 0, got {clips.min().item():g}")
    shares: Tensor = clips.double().pow(2 / 3)
    steps: Tensor = len(clips) * 2.0**mean_bits * shares / shares.sum()
    return steps.log2()


def corrected(quantized: Tensor, weight: Tensor) -> Tensor:
    """The quantized weight with the mean and the norm about it that each channel of the real one has.

    Args:
        quantized: [out, ...]
        weight: the same shape.
    """
    of_channel = range(1, weight.dim())
    mean, mean_quantized = (x.mean(list(of_channel), keepdim=True) for x in (weight, quantized))
    centred = quantized - mean_quantized
    norms = [x.flatten(1).norm(dim=1).view(-1, *[1 for _ in of_channel]) for x in (weight - mean, centred)]
    factor: Tensor = norms[0] / norms[1].clamp_min(torch.finfo(weight.dtype).tiny)
    return centred * factor + mean


def _check(bits: int) -> None:
    if not 1 <= bits <= 16:
        raise ValueError(f"a clip is that of 1 to 16 bits, got {bits}")


def _lambert_w(z: float) -> float:
    """w with w e^w = z, for z above 1, by Newton's method."""
    w = math.log(z)
    for _ in range(_NEWTON_STEPS):
        w -= (w - z * math.exp(-w)) / (1 + w)
    return w
