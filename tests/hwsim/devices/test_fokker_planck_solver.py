"""The spectral solution against the reference's table, finite volumes, equilibrium and itself."""

import math

import pytest
import torch

from hwsim.devices.fokker_planck_solver import log_quantiles, switched

# (Δ, i): τ at which P is 0.01, 0.1, 0.5, 0.9 and 0.99, to a thousandth of P.
GOLDEN = {
    (60.0, 3.0): [0.754, 0.925, 1.224, 1.694, 2.281],
    (40.0, 2.0): [1.054, 1.367, 1.930, 2.844, 4.001],
    (60.0, 5.0): [0.424, 0.513, 0.664, 0.900, 1.194],
    (60.0, 1.1): [3.04, 4.24, 6.85, 11.89, 18.78],
    (60.0, 0.9): [4.66, 7.37, 15.13, 33.92, 60.75],
}
GOLDEN_P = torch.tensor([0.01, 0.1, 0.5, 0.9, 0.99], dtype=torch.float64)


@pytest.mark.parametrize(("delta", "overdrive"), GOLDEN)
def test_reference_table(delta, overdrive):
    tau = torch.tensor(GOLDEN[delta, overdrive], dtype=torch.float64)
    assert (switched(delta, overdrive, tau) - GOLDEN_P).abs().max() < 1e-3


def finite_volumes(delta: float, overdrive: float, tau: list[float], cells: int) -> list[float]:
    """P from fluxes between cells of even width in θ, centred differences, and the matrix exponential."""
    edges = torch.cos(torch.linspace(0, math.pi, cells + 1, dtype=torch.float64))  # from u = 1 down
    widths, centres = -edges.diff(), (edges[:-1] + edges[1:]) / 2
    inner = edges[1:-1]
    mean = torch.zeros(cells - 1, cells, dtype=torch.float64)
    slope = torch.zeros_like(mean)
    share = (centres[:-1] - inner) / (centres[:-1] - centres[1:])
    rows = torch.arange(cells - 1)
    mean[rows, rows], mean[rows, rows + 1] = 1 - share, share
    distance = centres[:-1] - centres[1:]
    slope[rows, rows], slope[rows, rows + 1] = 1 / distance, -1 / distance
    upward = (1 - inner**2)[:, None] * ((inner - overdrive)[:, None] * mean - slope / (2 * delta))
    matrix = torch.zeros(cells, cells, dtype=torch.float64)
    matrix[:-1] += upward  # through the lower edge of a cell, into it
    matrix[1:] -= upward
    matrix /= widths[:, None]
    start = torch.where(centres > 0, torch.exp(-delta * (1 - centres**2)), 0.0)
    start /= (start * widths).sum()
    below = torch.where(centres < 0, widths, 0.0)
    return [float(below @ torch.matrix_exp(matrix * time) @ start) for time in tau]


@pytest.mark.parametrize(("delta", "overdrive", "tau"), [(40.0, 2.0, [1.4, 1.93, 2.8]), (30.0, 0.8, [5.0, 15.0])])
def test_agrees_with_finite_volumes(delta, overdrive, tau):
    # Of second order in the width of a cell: two widths give the limit.
    coarse, fine = (torch.tensor(finite_volumes(delta, overdrive, tau, cells)) for cells in (120, 240))
    limit = fine + (fine - coarse) / 3
    assert (switched(delta, overdrive, torch.tensor(tau)) - limit).abs().max() < 5e-4


@pytest.mark.parametrize(("delta", "overdrive"), [(18.0, 0.3), (30.0, 6.0), (60.0, 1.0), (90.0, 0.8), (90.0, 6.0)])
def test_is_converged(delta, overdrive):
    tau = torch.logspace(-1, 2, 7, dtype=torch.float64)
    gap = switched(delta, overdrive, tau) - switched(delta, overdrive, tau, modes=320)
    assert gap.abs().max() < 1e-6


def test_without_current_half_are_switched_in_the_end():
    p = switched(18.0, 0.0, torch.tensor([0.0, 1.0, 1e9]))
    assert p[0].abs() < 1e-8
    assert 1e-8 < p[1] < 1e-6
    assert float(p[2]) == pytest.approx(0.5, abs=1e-9)


def test_without_a_barrier_the_mean_decays_with_the_noise():
    # ⟨u⟩ falls as e^(-τ/Δ) where only noise acts; with Δ → 0 nothing else does. Started in a half, P(τ) is then
    # ½ - ½ Σ over odd n of (2n + 1)(∫₀¹ P_n)² e^(-n(n + 1)τ/2Δ), whose first terms are ¾, 7/64 and 11/256.
    delta, tau = 1e-4, 1e-4
    terms = [3 / 4 * math.exp(-1), 7 / 64 * math.exp(-6), 11 / 256 * math.exp(-15)]
    assert float(switched(delta, 0.0, torch.tensor([tau]))) == pytest.approx(0.5 - sum(terms) / 2, abs=1e-4)


def test_quantiles_are_where_the_solution_has_these_levels():
    delta = torch.tensor([18.0, 30.0, 60.0, 90.0], dtype=torch.float64)
    overdrive = torch.tensor([0.8, 6.0, 3.0, 0.9], dtype=torch.float64)
    logits = torch.linspace(-14, 14, 9, dtype=torch.float64)
    log_tau = log_quantiles(delta, overdrive, logits)
    assert bool((log_tau.diff(dim=1) > 0).all())
    for d, i, times in zip(delta.tolist(), overdrive.tolist(), log_tau.exp(), strict=True):
        p = switched(d, i, times, modes=256)
        assert (p - torch.sigmoid(logits)).abs().max() < 1e-4
        assert (torch.logit(p) - logits).abs().max() < 0.02
