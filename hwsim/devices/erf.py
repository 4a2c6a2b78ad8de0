"""Switching of an in-plane junction well above the critical current, whose angle grows from a thermal start."""

import math

import torch
from torch import Tensor

from hwsim.devices.base import SwitchingModel


class Erf(SwitchingModel):
    """P = 1 - erf[π / (2√2 θ0 e^x)] with x = (i - 1)τ and θ0 = 1/√(2Δ); 0 at and below the critical current.

    The angle starts from a normal distribution of width θ0 in one plane, as that of an in-plane junction does, and
    grows without noise; it has switched at π/2. For a perpendicular junction, whose start has two dimensions, the law
    is wrong by 0.4 at equal Δ: use `FokkerPlanck`.

    Source: arXiv 1912.12636, where x = Δt (I - Ic0) / C with C = 2 Ic0 / (αγ0 Ms); B is then μ0 Ms / 2.
    """

    name = "erf"
    advice = "is for an overdrive above 1, where the start decides; use neel-brown or fokker-planck below"

    def holds(self, delta: Tensor, overdrive: Tensor) -> Tensor:  # noqa: D102
        return (overdrive > 1) | (overdrive <= 0)

    def _probability(self, delta: Tensor, overdrive: Tensor, tau: Tensor) -> Tensor:
        growth = (overdrive - 1).clamp_min(0) * tau
        p = torch.erfc(math.pi / 2 * delta.sqrt() * torch.exp(-growth))
        return torch.where(overdrive > 1, p, torch.zeros_like(p))

    def _quantile(self, delta: Tensor, overdrive: Tensor, probability: Tensor) -> Tensor:
        # The inverse of erfc, through that of the normal distribution: exact where the probability is tiny.
        start = torch.special.ndtri(probability / 2).abs() / math.sqrt(2)
        growth = torch.log(math.pi / 2 * delta.sqrt() / start).clamp_min(0)
        return torch.where((overdrive > 1) | (probability == 0), growth / (overdrive - 1).clamp_min(1e-6), math.inf)
