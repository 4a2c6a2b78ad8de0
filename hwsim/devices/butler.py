"""Switching of a perpendicular junction well above the critical current, in closed form."""

import math

import torch
from torch import Tensor

from hwsim.devices.base import SwitchingModel


class Butler(SwitchingModel):
    """P = exp{-θc² Δ (i - 1) / (i e^(2(i-1)τ) - 1)}; 0 at and below the critical current.

    The Fokker-Planck equation solved near the pole, where the start and the noise spread the angle; the rest of the
    way, to the equator, is the noise-free trajectory. That makes θc the angle from which exponential growth would
    reach the equator at the same time:
    ln θc = ½ ln 2 + (i - 1) ln 2 / (2(i + 1)) + ln((i - 1)/i) / (i + 1).

    Against the full equation the error is at most 0.025 for an overdrive of 2 or more and Δ of 30 or more, and 0.002
    near 3. Below 2 it grows quickly.

    Source: W. H. Butler et al., IEEE Trans. Magn. 48, 4684 (2012), which has π/2 for θc.
    """

    name = "butler"
    advice = "is for an overdrive of 2 or more; use fokker-planck below"

    def holds(self, delta: Tensor, overdrive: Tensor) -> Tensor:  # noqa: D102
        return (overdrive >= 2) | (overdrive <= 0)

    def _probability(self, delta: Tensor, overdrive: Tensor, tau: Tensor) -> Tensor:
        i, spread = _overdrive_and_spread(delta, overdrive)
        # (i - 1) / (i e^x - 1), divided by e^x so that nothing overflows.
        decay = torch.exp(-2 * (i - 1) * tau)
        p = torch.exp(-spread * decay / (i - decay))
        return torch.where(overdrive > 1, p, torch.zeros_like(p))

    def _quantile(self, delta: Tensor, overdrive: Tensor, probability: Tensor) -> Tensor:
        i, spread = _overdrive_and_spread(delta, overdrive)
        growth = torch.log((1 + spread / torch.log(probability).abs()) / i).clamp_min(0)
        return torch.where((overdrive > 1) | (probability == 0), growth / (2 * (i - 1)), math.inf)


def _overdrive_and_spread(delta: Tensor, overdrive: Tensor) -> tuple[Tensor, Tensor]:
    """The overdrive, kept above 1, and θc² Δ (i - 1)."""
    i = overdrive.clamp_min(1 + 1e-6)
    log_angle = math.log(2) / 2 + ((i - 1) * math.log(2) / 2 + torch.log((i - 1) / i)) / (i + 1)
    return i, torch.exp(2 * log_angle) * delta * (i - 1)
