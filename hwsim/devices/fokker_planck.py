"""Switching by the Fokker-Planck equation, solved once and tabulated: valid at every current."""

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from hwsim.devices.base import SwitchingModel
from hwsim.devices.butler import Butler
from hwsim.devices.fokker_planck_solver import log_quantiles
from hwsim.devices.neel_brown import NeelBrown

# The table holds ln τ on a grid of three coordinates, in which it bends little:
# ln Δ, the distance v = b from the critical current, ln(1 + b) above it, with b = √Δ (i - 1), and logit P.
_LOW_DELTA, _HIGH_DELTA = 18.0, 120.0
_LOW_B, _HIGH_B = -math.sqrt(10.0), 77.0
_LOW_V, _HIGH_V = _LOW_B, math.log1p(_HIGH_B)
_LOGIT = 14.0
_DELTAS, _VS, _LOGITS = 17, 193, 113


class FokkerPlanck(SwitchingModel):
    """P from the Fokker-Planck equation of a perpendicular, axially symmetric macrospin.

    The equation, in `fokker_planck_solver`, is exact for a macrospin: thermal activation, the crossing of the critical
    current and the precessional regime are one. Its solutions are tabulated when the model is first used, which takes
    a few seconds, and interpolated between. The interpolation is within 0.001 of the solution for Δ in 30..90 and
    overdrives of 0.8..6; the tails, P or 1 - P below 8e-7, are extrapolated. Where the barrier Δ(1 - i)² is above 10,
    `NeelBrown` takes over, with a step in P of at most 0.002, and above an overdrive of 1 + 77/√Δ, which is 8 or more,
    `Butler`. `quantile` and `probability` are each other's exact inverse.

    Source: W. F. Brown, Phys. Rev. 130, 1677 (1963), with the spin torque as a field along the axis.
    """

    name = "fokker-planck"
    advice = (
        f"is for Δ in {_LOW_DELTA:g}..{_HIGH_DELTA:g}, or a barrier Δ(1 - i)² above 10; "
        "use butler at an overdrive of 2 or more, else the simulation llg"
    )

    def holds(self, delta: Tensor, overdrive: Tensor) -> Tensor:  # noqa: D102
        b = delta.sqrt() * (overdrive - 1)
        return (b < _LOW_B) | (b > _HIGH_B) | ((delta >= _LOW_DELTA) & (delta <= _HIGH_DELTA))

    def _quantile(self, delta: Tensor, overdrive: Tensor, probability: Tensor) -> Tensor:
        lookup = _Lookup(delta, overdrive)
        level, fraction = _cell(probability.logit(), -_LOGIT, _LOGIT, _LOGITS)
        low, high = lookup.log_tau(level), lookup.log_tau(level, up=1)
        tau = torch.exp(low + fraction * (high - low))
        return lookup.or_outside(tau, lambda model: model._quantile(delta, overdrive, probability))

    def _probability(self, delta: Tensor, overdrive: Tensor, tau: Tensor) -> Tensor:
        lookup = _Lookup(delta, overdrive)
        log_tau = tau.log()
        level = torch.zeros((), dtype=torch.long, device=tau.device)
        step = 1 << (_LOGITS - 2).bit_length()
        while step := step // 2:
            higher = (level + step).clamp_max(_LOGITS - 2)
            level = torch.where(lookup.log_tau(higher) <= log_tau, higher, level)
        low, high = lookup.log_tau(level), lookup.log_tau(level, up=1)
        logit = (level + (log_tau - low) / (high - low)) * (2 * _LOGIT / (_LOGITS - 1)) - _LOGIT
        # Not torch.sigmoid, which rounds differently at the end of a tensor.
        p = 1 / (1 + torch.exp(-logit))
        return lookup.or_outside(p, lambda model: model._probability(delta, overdrive, tau))


class _Lookup:
    """The table at given thermal stabilities and overdrives, as a function of the level of P."""

    def __init__(self, delta: Tensor, overdrive: Tensor) -> None:
        self.b = delta.sqrt() * (overdrive - 1)
        b = self.b.clamp(_LOW_B, _HIGH_B)
        v = torch.where(b < 0, b, b.clamp_min(0).log1p())
        v_index, self.v_fraction = _cell(v, _LOW_V, _HIGH_V, _VS)
        log_delta = delta.clamp(_LOW_DELTA, _HIGH_DELTA).log()
        d_index, self.d_fraction = _cell(log_delta, math.log(_LOW_DELTA), math.log(_HIGH_DELTA), _DELTAS)
        self.row = (d_index * _VS + v_index) * _LOGITS
        self.table = _table(delta.dtype, delta.device)

    def log_tau(self, level: Tensor, *, up: int = 0) -> Tensor:
        """ln τ at a level of P, or `up` levels above it."""
        index = self.row + level
        flat = index.reshape(-1)

        def corner(d: int, v: int) -> Tensor:
            offset = (d * _VS + v) * _LOGITS + up
            return self.table[offset:].index_select(0, flat).view(index.shape)

        near, far = corner(0, 0), corner(1, 0)
        near = near + self.v_fraction * (corner(0, 1) - near)
        far = far + self.v_fraction * (corner(1, 1) - far)
        return near + self.d_fraction * (far - near)

    def or_outside(self, inside: Tensor, evaluate: Callable[[SwitchingModel], Tensor]) -> Tensor:
        """What the table gave, where it has the overdrive; elsewhere what the model does that is good there."""
        for model, outside in ((NeelBrown(), self.b < _LOW_B), (Butler(), self.b > _HIGH_B)):
            if bool(outside.any()):
                inside = torch.where(outside, evaluate(model), inside)
        return inside


def _cell(x: Tensor, low: float, high: float, points: int) -> tuple[Tensor, Tensor]:
    """The cell of an even grid that a value is in, and where in it; outside, the nearest cell, beyond 0..1."""
    position = (x - low) * ((points - 1) / (high - low))
    cell = position.clamp(0, points - 2).floor()
    return cell.long(), position - cell


@cache
def _table(dtype: torch.dtype, device: torch.device) -> Tensor:
    """ln τ over (ln Δ, v, logit P), flat. Rounded, so that no machine's rounding shows in what follows from it."""
    return (_solutions() * 2**20).round().div(2**20).flatten().to(dtype=dtype, device=device)


@cache
def _solutions() -> Tensor:
    """float64 [deltas, vs, logits], by Chebyshev interpolation of solutions at few points."""
    ln_delta = _chebyshev_points(6, math.log(_LOW_DELTA), math.log(_HIGH_DELTA))
    # Unlike v, asinh is smooth at the critical current.
    asinh = _chebyshev_points(36, math.asinh(_LOW_B / 2), math.asinh(_HIGH_B / 2))
    logits = torch.linspace(-_LOGIT, _LOGIT, _LOGITS, dtype=torch.float64)
    delta = ln_delta.exp()
    solved = torch.stack([log_quantiles(delta, 1 + b / delta.sqrt(), logits) for b in 2 * asinh.sinh()], dim=1)

    v = torch.linspace(_LOW_V, _HIGH_V, _VS, dtype=torch.float64)
    b = torch.where(v < 0, v, v.clamp_min(0).expm1())
    even = torch.linspace(float(ln_delta[0]), float(ln_delta[-1]), _DELTAS, dtype=torch.float64)
    to_delta, to_v = _interpolation(ln_delta, even), _interpolation(asinh, torch.asinh(b / 2))
    return torch.einsum("dx,vy,xyz->dvz", to_delta, to_v, solved)


def _chebyshev_points(count: int, low: float, high: float) -> Tensor:
    """Extrema of a Chebyshev polynomial, ascending from `low` to `high`: float64 [count]."""
    cosine = torch.cos(torch.linspace(math.pi, 0, count, dtype=torch.float64))
    return low + (high - low) * (cosine + 1) / 2


def _interpolation(points: Tensor, x: Tensor) -> Tensor:
    """Matrix from values at Chebyshev points to those of their polynomial at x: float64 [x, points]."""

    def polynomials(y: Tensor) -> Tensor:
        angle = torch.arccos((2 * (y - points[0]) / (points[-1] - points[0]) - 1).clamp(-1, 1))
        return torch.cos(torch.arange(len(points), dtype=torch.float64) * angle[:, None])

    matrix: Tensor = torch.linalg.solve(polynomials(points), polynomials(x), left=False)
    return matrix
