"""Switching over an energy barrier that the current lowers, by thermal activation."""

import math

import torch
from torch import Tensor

from hwsim.devices.base import SwitchingModel

LOWEST_BARRIER = 7.0


class NeelBrown(SwitchingModel):
    """P = P∞ (1 - e^(-(k + k_back) τ)): both states are left at the rates that thermal activation gives.

    k = √(Δ/π) (1 - i)² (1 + i) e^(-B) (1 - 1/B) with the barrier B = Δ(1 - i)²; k_back/k = e^(-4Δi) (1 + i)/(1 - i).
    P∞ = k/(k + k_back) is the occupancy of the other state in equilibrium. Without current it is a half, and a state
    is kept for the time 1/k.

    The rate is that of a uniaxial macrospin, within 2 % of the Fokker-Planck equation's where B is 7 or more. Beyond,
    it is held at its value for B = 7.

    Source: W. F. Brown, Phys. Rev. 130, 1677 (1963), for high barriers; the factor (1 - 1/B) is the next order of the
    mean first-passage time.
    """

    name = "neel-brown"
    advice = f"is for a barrier Δ(1 - i)² of {LOWEST_BARRIER:g} or more; use fokker-planck where it is lower"

    def holds(self, delta: Tensor, overdrive: Tensor) -> Tensor:  # noqa: D102
        return overdrive <= 1 - (LOWEST_BARRIER / delta).sqrt()

    def _probability(self, delta: Tensor, overdrive: Tensor, tau: Tensor) -> Tensor:
        rate, occupancy = _total_rate_and_occupancy(delta, overdrive)
        return -occupancy * torch.expm1(-rate * tau)

    def _quantile(self, delta: Tensor, overdrive: Tensor, probability: Tensor) -> Tensor:
        rate, occupancy = _total_rate_and_occupancy(delta, overdrive)
        return -torch.log1p(-(probability / occupancy).clamp_max(1)) / rate


def _total_rate_and_occupancy(delta: Tensor, overdrive: Tensor) -> tuple[Tensor, Tensor]:
    """k + k_back in units of 1/τ, and P∞."""
    # A current beyond -1 undoes the other state: there is nowhere to go. Just above, the rate is already 0 in effect.
    i = torch.minimum(overdrive, 1 - (LOWEST_BARRIER / delta).sqrt()).clamp_min(-1 + 1e-6)
    barrier = delta * (1 - i) ** 2
    correction = 1 - 1 / barrier.clamp_min(LOWEST_BARRIER)
    log_rate = torch.log((delta / math.pi).sqrt() * (1 - i) ** 2 * (1 + i) * correction) - barrier
    log_back = torch.log((1 + i) / (1 - i)) - 4 * delta * i
    # torch's softplus and sigmoid round differently at the end of a tensor.
    log_total = log_rate + log_back.clamp_min(0) + torch.log1p(torch.exp(-log_back.abs()))
    occupancy = 1 / (1 + torch.exp(log_back))
    # The least number in place of 0, so that no quotient is 0/0.
    tiny = torch.finfo(delta.dtype).tiny
    return log_total.exp().clamp_min(tiny), occupancy.clamp_min(tiny)
