"""Adaptive gradient scaling (Xiang et al. 2024, arXiv 2407.05257): afterwards every |g| is at least ratio |w|."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.errors import RecipeError
from bnn.methods.ovsw import AdaptiveGradientScaling
from bnn.training import Trainer
from bnn.weights import AccumulatorStore, LatentStore
from tests.contracts import randn
from tests.training.tiny_runs import adam_run, recu_run, training_state


@given(st.integers(0, 2**31), st.floats(1e-4, 0.5), st.sampled_from([LatentStore, AccumulatorStore]))
def test_small_gradients_reach_the_ratio_and_large_ones_stay(seed, ratio, kind):
    store = kind((4, 2, 3, 3))
    store.initialize(torch.Generator().manual_seed(seed))
    before = randn(4, 2, 3, 3, seed=seed) * torch.tensor([1e-5, 1e-3, 0.1, 10]).view(-1, 1, 1, 1)
    gradient = before.clone()
    AdaptiveGradientScaling(ratio=ratio).before_step(store, gradient, {})
    weights = store.trained_value().flatten(1).norm(dim=1)
    norms, norms_before = gradient.flatten(1).norm(dim=1), before.flatten(1).norm(dim=1)
    assert (norms >= ratio * weights * (1 - 1e-5)).all()
    low = norms_before < ratio * weights * (1 - 1e-5)
    torch.testing.assert_close(norms[low], (ratio * weights)[low])
    high = norms_before > ratio * weights * (1 + 1e-5)
    assert torch.equal(gradient[high], before[high])
    # Of the direction nothing is changed.
    torch.testing.assert_close(gradient / norms.view(-1, 1, 1, 1), before / norms_before.view(-1, 1, 1, 1))


def test_floors_of_the_norms():
    store = LatentStore((3, 4))
    with torch.no_grad():
        store.weight.zero_()
        store.weight[1:] = 1
    gradient = torch.zeros(3, 4)
    gradient[0, 0], gradient[2, 0] = 1e-5, 1e-9
    AdaptiveGradientScaling(ratio=0.1).before_step(store, gradient, {})
    # A filter of zeros counts 1e-3; no gradient stays none; one below 1e-6 is taken as 1e-6.
    torch.testing.assert_close(gradient[:, 0], torch.tensor([0.1 * 1e-3, 0.0, 0.1 * 2 * 1e-3]))


def test_float16_gradients_are_measured_in_float32():
    store = LatentStore((1, 4), dtype=torch.float16)
    with torch.no_grad():
        store.weight.fill_(200)
    gradient = torch.full((1, 4), 2.0, dtype=torch.float16)
    AdaptiveGradientScaling(ratio=0.5).before_step(store, gradient, {})
    assert gradient.tolist() == [[100.0] * 4]


@pytest.mark.parametrize("make", [adam_run, recu_run])
def test_a_tiny_ratio_changes_nothing_and_a_large_one_does(make, tmp_path):
    states = []
    for i, callbacks in enumerate([[], [AdaptiveGradientScaling(ratio=1e-12)], [AdaptiveGradientScaling(ratio=1.0)]]):
        run = make(callbacks=callbacks, epochs=1)
        Trainer(run, tmp_path / str(i)).fit()
        states.append(training_state(run))
    plain, tiny, large = states
    assert all(torch.equal(plain[name], tiny[name]) for name in plain)
    assert not all(torch.equal(plain[name], large[name]) for name in plain)


@pytest.mark.parametrize("ratio", [0.0, -1.0, math.inf, math.nan])
def test_the_ratio_is_positive(ratio):
    with pytest.raises(RecipeError, match="finite and above 0"):
        AdaptiveGradientScaling(ratio=ratio)
