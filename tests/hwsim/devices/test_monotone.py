"""Smoothing to rising probabilities, and what no noise explains."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.devices import junctions
from hwsim.devices.butler import Butler
from hwsim.devices.monotone import contradiction, monotone


def grid(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def noisy_table(seed: int, trials: int) -> torch.Tensor:
    """Fractions that switch, 11 x 11, of a lawful junction."""
    voltage_V = torch.linspace(0.45, 0.75, 11, dtype=torch.float64)[:, None]
    width_s = torch.linspace(0.4e-9, 3e-9, 11, dtype=torch.float64)
    p = junctions.consistent(model=Butler()).switch_probability(False, voltage_V=voltage_V, pulse_width_s=width_s)
    generator = torch.Generator().manual_seed(seed)
    return torch.binomial(torch.full_like(p, trials), p, generator=generator) / trials


def test_pools_neighbours_by_their_weights():
    assert monotone(grid([0.3, 0.1]), grid([1, 3])).tolist() == [pytest.approx([0.15, 0.15])]
    rising = grid([0.1, 0.2], [0.3, 0.4])
    torch.testing.assert_close(monotone(rising, torch.ones(2, 2)), rising, rtol=1e-12, atol=0)


def test_two_axes_at_once():
    # The centre of mass of all but the least and the greatest: by hand, from the conditions of optimality.
    found = monotone(grid([0.0, 0.6], [0.3, 0.3]), torch.ones(2, 2))
    assert found.flatten().tolist() == pytest.approx([0.0, 0.45, 0.3, 0.45])


@settings(max_examples=12)
@given(seed=st.integers(0, 200), trials=st.sampled_from([20, 100, 10_000]))
def test_is_the_projection_onto_rising_tables(seed, trials):
    """For a projection x of y onto a cone, <y - x, x> = 0 and <y - x, z> <= 0 for every z in the cone."""
    p = noisy_table(seed, trials)
    x = monotone(p, torch.ones_like(p))
    assert bool((x.diff(dim=0) >= 0).all() and (x.diff(dim=1) >= 0).all())
    rest = p - x
    assert float((rest * x).sum()) == pytest.approx(0, abs=1e-5)
    steps = (torch.arange(11)[:, None] >= 4) & (torch.arange(11) >= 6)
    assert float((rest * steps).sum()) <= 1e-5


@pytest.mark.parametrize("trials", [100, 10_000])
def test_noise_of_a_lawful_junction_is_no_contradiction(trials):
    full = torch.full((11, 11), float(trials), dtype=torch.float64)
    falling = 0
    for seed in range(100):
        p = noisy_table(seed, trials)
        falling += bool((p.diff(dim=0) < 0).any() or (p.diff(dim=1) < 0).any())
        assert contradiction(p, full) is None
    assert falling > 60  # so that there was something to forgive


def test_contradiction_is_found_wherever_it_is():
    p, trials = noisy_table(0, 100), torch.full((11, 11), 100.0, dtype=torch.float64)
    p[9, 9] = 0.4
    weaker, stronger = contradiction(p, trials)
    assert stronger == 9 * 11 + 9
    assert float(p.flatten()[weaker]) > 0.7
