import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.quantizers.gradients import LognormalPruning
from bnn.quantizers.gradients.lognormal_pruning import threshold_ratio


def lognormal(sigma: float, generator: torch.Generator, n: int = 200_000) -> torch.Tensor:
    magnitude = torch.randn(n, generator=generator).mul(sigma).sub(7).exp()
    return magnitude * torch.randn(n, generator=generator).sign()


@pytest.mark.parametrize(("sigma", "eps"), [(1, 10.69), (2, 26.69), (3, 71.1)])
def test_threshold_ratios_that_are_known(sigma, eps):
    assert threshold_ratio(0.85, sigma) == pytest.approx(eps, rel=1e-3)


def test_threshold_ratio_of_equal_magnitudes():
    # E[max(0, 1 - 1 / eps)] = 1 - 1 / eps
    assert threshold_ratio(0.75, 0.0) == pytest.approx(4, rel=1e-3)


@given(st.floats(0.01, 0.99), st.floats(0.01, 25))
def test_threshold_ratio_solves_its_equation(sparsity, sigma):
    """The expectation of max(0, 1 - |g| / t), by numbers."""
    log_eps = math.log(threshold_ratio(sparsity, sigma))
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    density = (-z.square() / 2).exp() / math.sqrt(2 * math.pi)
    pruned = (1 - (sigma * z - log_eps).clamp(max=0).exp()) * density
    assert torch.trapezoid(pruned, z).item() == pytest.approx(sparsity, abs=1e-4)


@pytest.mark.parametrize("sigma", [1, 2, 3])
@pytest.mark.parametrize("sparsity", [0.3, 0.85])
def test_prunes_the_wanted_part_and_keeps_the_sum(sigma, sparsity, generator):
    gradient = lognormal(sigma, generator)
    q = LognormalPruning(sparsity=sparsity, generator=generator)(gradient)
    assert (q == 0).float().mean().item() == pytest.approx(sparsity, abs=0.01)
    assert (q.abs().sum() / gradient.abs().sum()).item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("sigma", "cosine", "hard"), [(1, 0.63, 0.49), (2, 0.992, 0.83), (3, 1.0, 0.97)])
def test_direction_and_what_a_hard_threshold_would_lose(sigma, cosine, hard, generator):
    gradient = lognormal(sigma, generator)
    q = LognormalPruning(sparsity=0.85, generator=generator)(gradient)
    assert torch.cosine_similarity(q, gradient, dim=0).item() == pytest.approx(cosine, abs=0.01)
    magnitude = gradient.abs()
    kept = magnitude.topk(round(0.15 * len(magnitude))).values.sum() / magnitude.sum()
    assert kept.item() == pytest.approx(hard, abs=0.01)


def test_large_elements_stay_and_small_ones_become_the_threshold(generator):
    gradient = lognormal(2, generator)
    q = LognormalPruning(generator=generator)(gradient)
    threshold = q[q != gradient].abs().max()
    large = gradient.abs() >= threshold
    assert large.any()
    assert torch.equal(q[large], gradient[large])
    assert set(q[~large].abs().tolist()) == {0.0, threshold.item()}


def test_zeros_that_are_there_count(generator):
    gradient = lognormal(2, generator)
    gradient[: len(gradient) // 2] = 0
    q = LognormalPruning(sparsity=0.85, generator=generator)(gradient)
    assert (q == 0).float().mean().item() == pytest.approx(0.85, abs=0.01)


def test_enough_zeros_leave_the_rest_alone(generator):
    gradient = lognormal(2, generator)
    gradient[: len(gradient) * 9 // 10] = 0
    assert torch.equal(LognormalPruning(sparsity=0.85, generator=generator)(gradient), gradient)


def test_a_single_element_is_kept_or_pruned(generator):
    quantizer = LognormalPruning(sparsity=0.5, generator=generator)
    values = {round(quantizer(torch.tensor([3.0])).item(), 2) for _ in range(50)}
    assert values == {0.0, 6.0}


@pytest.mark.parametrize("sparsity", [0, 1, math.nan])
def test_options_are_checked(sparsity, generator):
    with pytest.raises(ValueError, match=r"sparsity of a pruned gradient lies in \(0, 1\)"):
        LognormalPruning(sparsity=sparsity, generator=generator)
