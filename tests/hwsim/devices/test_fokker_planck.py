"""The table against the solutions that it interpolates, and where other models take over."""

import math

import pytest
import torch

from hwsim.devices.butler import Butler
from hwsim.devices.fokker_planck import FokkerPlanck, _solutions, _table
from hwsim.devices.fokker_planck_solver import log_quantiles, switched
from hwsim.devices.neel_brown import NeelBrown
from tests.hwsim.devices.test_fokker_planck_solver import GOLDEN, GOLDEN_P

MODEL = FokkerPlanck()


@pytest.mark.parametrize(("delta", "overdrive"), GOLDEN)
def test_reference_table(delta, overdrive):
    tau = torch.tensor(GOLDEN[delta, overdrive], dtype=torch.float64)
    assert (MODEL.probability(delta, overdrive, tau) - GOLDEN_P).abs().max() < 1e-3


@pytest.mark.slow
def test_accuracy_where_it_is_promised(generator):
    # To log_quantiles, which the solver's own tests hold to the solution, at 150 places of the domain.
    delta = 30 + 60 * torch.rand(150, generator=generator, dtype=torch.float64)
    overdrive = 0.8 + 5.2 * torch.rand(150, generator=generator, dtype=torch.float64) ** 2
    delta[:4], overdrive[:4] = torch.tensor([30.0, 30, 90, 90]), torch.tensor([0.8, 6, 0.8, 6])
    logits = torch.linspace(-10, 10, 81, dtype=torch.float64)
    tau = log_quantiles(delta, overdrive, logits).exp()
    p = MODEL.probability(delta[:, None], overdrive[:, None], tau)
    assert (p - torch.sigmoid(logits)).abs().max() < 1e-3


@pytest.mark.parametrize(("delta", "overdrive"), [(33.3, 0.83), (47.0, 1.31), (71.7, 4.4), (88.0, 5.9)])
def test_accuracy_against_the_solution_itself(delta, overdrive):
    tau = MODEL.quantile(delta, overdrive, torch.linspace(0.02, 0.98, 25, dtype=torch.float64))
    assert (switched(delta, overdrive, tau) - MODEL.probability(delta, overdrive, tau)).abs().max() < 1e-3


def test_the_table_rises_with_probability_and_falls_with_overdrive():
    assert bool((_solutions().diff(dim=2) > 0).all())
    assert bool((_solutions().diff(dim=1) < 0).all())


def test_the_table_is_the_same_whatever_the_rounding():
    # A solver that rounds differently is off by far less than what the table keeps.
    table = _table(torch.float64, torch.device("cpu"))
    assert torch.equal(table * 2**20, (table * 2**20).round())


def test_tails_go_on():
    p = MODEL.probability(60.0, 3.0, torch.tensor([0.2, 0.3, 0.4, 10.0, 12.0], dtype=torch.float64))
    assert bool((p[:3] > 0).all())
    assert bool((p.diff() > 0).all())
    assert p[2] < 1e-6
    assert 1 - p[4] < 1e-9


def test_thermal_activation_takes_over_smoothly():
    for delta in (30.0, 60.0, 90.0, 120.0):
        edge = 1 - math.sqrt(10 / delta)
        i = torch.tensor([edge - 1e-9, edge + 1e-9], dtype=torch.float64)
        tau = NeelBrown().quantile(delta, edge, torch.linspace(0.05, 0.95, 10, dtype=torch.float64))[:, None]
        below, above = MODEL.probability(delta, i, tau).T
        assert torch.equal(below, NeelBrown().probability(delta, i[:1], tau)[:, 0])
        assert (below - above).abs().max() < 2e-3


@pytest.mark.parametrize("delta", [30.0, 60.0, 90.0])
def test_the_closed_form_takes_over_far_above(delta):
    edge = 1 + 77 / math.sqrt(delta)
    i = torch.tensor([edge - 1e-9, edge + 1e-9], dtype=torch.float64)
    tau = Butler().quantile(delta, edge, torch.linspace(0.02, 0.98, 25, dtype=torch.float64))[:, None]
    below, above = MODEL.probability(delta, i, tau).T
    assert torch.equal(above, Butler().probability(delta, i[1:], tau)[:, 0])
    assert (below - above).abs().max() < 0.015


def test_through_it_pulses_of_the_closed_form_follow_tanh():
    # Pre-distortion: Butler's inverse gives the pulse that switches with tanh(3ν); the equation agrees to 0.002.
    nu = torch.linspace(0.005, 0.99, 198, dtype=torch.float64)
    target = torch.tanh(3 * nu)
    p = MODEL.probability(60.0, 3.0, Butler().quantile(60.0, 3.0, target))
    assert (p - target).abs().max() < 2e-3


@pytest.mark.parametrize(("model", "delta"), [(MODEL, 60.0), (Butler(), 60.0)])
def test_pre_distortion_is_exact_through_the_law_itself(model, delta):
    nu = torch.linspace(1e-6, 0.99, 500, dtype=torch.float64)
    target = torch.tanh(3 * nu)
    p = model.probability(delta, 3.0, model.quantile(delta, 3.0, target))
    assert (p - target).abs().max() < 1e-6
