"""Scales that are powers of two, so that multiplying by them is a shift.

Source: Bae, Zielinski and Chatterjee 2022, arXiv 2210.03671, which compares the two families here.
"""

import math

import torch
from torch import Tensor, nn

from bnn.quantizers.real.uniform import check_width, rounded

_FITS = 3
_NEIGHBOURS = range(-3, 4)
_OUTLIER_SIGMAS = 2.0


def best_exponent(weight: Tensor, bits: int, *, mask_outliers: bool = True, importance: Tensor | None = None) -> int:
    """The k for which 2^k q, with q whole numbers of so many bits, is nearest to a weight in squares.

    Three fits by least squares, s = sum(q x) / sum(q q), each rounded to a power of two, then the best of the exponents
    up to three beside it.

    Args:
        weight: of any shape, not all 0.
        bits: 2 to 16.
        mask_outliers: whether weights beyond two standard deviations do not count; a single large one would double
            the scale of all.
        importance: factor of each square, such as the root of a mean square of gradients; None: 1.

    Raises:
        ValueError: the width is out of its range, or the weight is 0.
    """
    check_width(bits, least=2)
    x = weight.detach().float().flatten()
    factor = torch.ones_like(x) if importance is None else importance.detach().float().flatten()
    if mask_outliers:
        inside = (x - x.mean()).abs() <= _OUTLIER_SIGMAS * x.std(correction=0)
        x, factor = x[inside], factor[inside]
    largest = float(x.abs().max())
    if largest == 0:
        raise ValueError("a weight of zeros has no scale")
    exponent = math.ceil(math.log2(largest / (2 ** (bits - 1) - 1)))
    for _ in range(_FITS):
        q = rounded(x, 2.0**exponent, bits)
        square = float((factor * q * q).sum())
        if square:
            exponent = round(math.log2(2.0**exponent * max(float((factor * q * x).sum()) / square, 1e-30)))
    errors = {
        exponent + k: float((factor * (rounded(x, 2.0 ** (exponent + k), bits) - x).square()).sum())
        for k in _NEIGHBOURS
    }
    return min(errors, key=lambda k: errors[k])


class PowerOfTwoScale(nn.Module):
    """2^k q of a weight, k by `best_exponent` and a running mean, lest it goes to and fro, until it is frozen.

    For `torch.nn.utils.parametrize.register_parametrization(layer, "weight", PowerOfTwoScale(bits=4))`. The gradient
    passes.

    Args:
        bits: of q, 2 to 16.
        momentum: of the running mean, in [0, 1).
        mask_outliers: see `best_exponent`.

    Raises:
        ValueError: an option is out of its range.
    """

    exponent: Tensor

    def __init__(self, *, bits: int, momentum: float = 0.99, mask_outliers: bool = True) -> None:
        super().__init__()
        check_width(bits, least=2)
        if not 0 <= momentum < 1:
            raise ValueError(f"the momentum of an exponent lies in [0, 1), got {momentum}")
        self.bits = bits
        self.momentum = momentum
        self.mask_outliers = mask_outliers
        self.frozen = False
        self.register_buffer("exponent", torch.tensor(math.nan))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight in multiples of its scale, of the same shape."""
        if self.training and not self.frozen:
            found = float(best_exponent(weight, self.bits, mask_outliers=self.mask_outliers))
            before = float(self.exponent)
            mean = found if math.isnan(before) else self.momentum * before + (1 - self.momentum) * found
            self.exponent.fill_(mean)
        return weight + (rounded(weight, self.scale, self.bits) - weight).detach()

    @property
    def scale(self) -> float:
        """The power of two in force."""
        return 2.0 ** round(float(self.exponent))


class LearnedPowerOfTwoScale(nn.Module):
    """2^k q of a weight, with k beside a trained log2 s: of floor and ceiling the one that is nearer to the weight.

    For `register_parametrization`, as `PowerOfTwoScale`. s begins so that three standard deviations of the weight that
    comes first are the largest. Its gradient is that of s round(w / s) with the rounding left out of the derivative;
    the weight's passes where it is not clamped.

    Args:
        bits: of q, 2 to 16.

    Raises:
        ValueError: the width is out of its range.
    """

    def __init__(self, *, bits: int) -> None:
        super().__init__()
        check_width(bits, least=2)
        self.bits = bits
        self.log2_scale = nn.Parameter(torch.tensor(math.nan))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight in multiples of its scale, of the same shape."""
        if self.log2_scale.isnan():
            with torch.no_grad():
                largest = 3 * weight.std(correction=0).clamp_min(1e-12)
                self.log2_scale.copy_((largest / (2 ** (self.bits - 1) - 1)).log2())
        low, high = (2.0 ** way(self.log2_scale.item()) for way in (math.floor, math.ceil))
        with torch.no_grad():
            errors = {
                scale: float((rounded(weight, scale, self.bits) - weight).square().sum()) for scale in (low, high)
            }
            chosen = min(errors, key=lambda scale: errors[scale])
        # Its value is the chosen power of two, its gradient that of the trained scale.
        scale = torch.exp2(self.log2_scale)
        scale = scale * (chosen / scale.detach())
        largest = 2 ** (self.bits - 1) - 1
        steps = (weight / scale).clamp(-largest, largest)
        return (steps + (steps.round() - steps).detach()) * scale
