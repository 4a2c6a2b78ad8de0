"""The in-plane law of arXiv 1912.12636 against its table, and against the solution for perpendicular junctions."""

import math

import pytest
import torch

from hwsim.devices.erf import Erf
from hwsim.devices.fokker_planck import FokkerPlanck

DELTA = 1250.0  # θ0 = 1/√(2Δ) = 0.02 rad


def law(x: torch.Tensor, delta: float = DELTA) -> torch.Tensor:
    """P against x = (i - 1)τ."""
    return Erf().probability(delta, 2.0, x)


def test_reference_table():
    p = law(torch.tensor([3.0, 4, 5, 6, 8], dtype=torch.float64))
    for value, expected in zip(p.tolist(), [9e-5, 0.1503, 0.5967, 0.8456, 0.9790], strict=True):
        assert value == pytest.approx(expected, abs=5e-5)
    assert float(Erf().quantile(DELTA, 2.0, 0.5)) == pytest.approx(4.757, abs=5e-4)


def test_is_the_share_of_normal_angles_that_reach_the_equator(generator):
    angles = torch.randn(1_000_000, generator=generator) / math.sqrt(2 * DELTA)
    for x in (4.0, 5.0, 6.0):
        share = ((angles * math.exp(x)).abs() > math.pi / 2).double().mean()
        assert float(law(torch.tensor(x, dtype=torch.float64))) == pytest.approx(float(share), abs=4 * 0.5e-3)


@pytest.mark.parametrize("delta", [300.0, 1250.0, 5000.0])
def test_steepest_slope_is_that_of_every_small_start(delta):
    x = torch.linspace(0, 12, 24_001, dtype=torch.float64)
    p = law(x, delta)
    slope = p.diff() / x.diff()
    steepest = int(slope.argmax())
    assert float(slope[steepest]) == pytest.approx(0.4839, abs=1e-4)
    assert float(p[steepest]) == pytest.approx(0.317, abs=1e-3)


def test_never_switches_at_or_below_the_critical_current():
    i = torch.tensor([-1.0, 0.0, 1.0])
    assert not Erf().probability(DELTA, i[[0, 1]], 1e6).any()
    with pytest.warns(match="use neel-brown or fokker-planck"):
        assert Erf().probability(DELTA, i[2], 1e6) == 0


def test_does_not_fit_a_perpendicular_junction():
    tau = torch.linspace(0.2, 6, 600, dtype=torch.float64)
    gap = Erf().probability(60.0, 3.0, tau) - FokkerPlanck().probability(60.0, 3.0, tau)
    assert float(gap.abs().max()) == pytest.approx(0.415, abs=2e-3)
