import math
from functools import partial

import pytest
import torch

from bnn.methods import boolean_step
from bnn.models import mlp
from bnn.optim import Boolean
from bnn.quantizers.gradients import BackwardScale
from bnn.weights import is_accumulator, named_stores
from tests.contracts import randn

NETWORK = partial(mlp, input_shape=(1, 4, 4), hidden=(32, 24))


@pytest.mark.parametrize(
    ("dtype", "reach", "at"),
    [
        (torch.float16, 1, {-1.0, 1.0}),
        (torch.float16, 16, {-1 / 16, 1 / 16}),
        (torch.int8, 1, {-128, 127}),
        (torch.int8, 16, {-8, 7}),
    ],
)
def test_weights_begin_as_fair_coins_that_nothing_has_pushed(dtype, reach, at):
    step = boolean_step(NETWORK, dtype=dtype, reach=reach, seed=3)
    for _, store in named_stores(step.model):
        assert set(store.trained.detach().unique().tolist()) == at
        assert 0.2 < (store.trained.detach() > 0).float().mean() < 0.8
    assert isinstance(step.optimizer, Boolean)


def test_binary_weights_and_others_have_their_own_rates():
    switches = {"leak": False, "hysteresis": 0.5, "magnitude": False, "relative": True}
    step = boolean_step(NETWORK, rate=7.0, learning_rate=0.02, **switches)
    of_weights, of_others = step.optimizer.param_groups
    assert all(map(is_accumulator, of_weights["params"]))
    assert (of_weights["lr"], of_others["lr"]) == (7.0, 0.02)
    for group in (of_weights, of_others):
        assert {name: group[name] for name in switches} == switches
    assert len(of_weights["params"]) + len(of_others["params"]) == len(list(step.model.parameters()))


def test_the_signal_goes_back_scaled_where_it_is_asked_for():
    step = boolean_step(NETWORK, scale_backward=True)
    factors = [module.factor for module in step.model.modules() if isinstance(module, BackwardScale)]
    assert factors == pytest.approx([math.sqrt(2 / width) for width in (32, 24, 10)])


def test_a_step_flips_weights_and_lowers_the_loss():
    step = boolean_step(NETWORK, rate=30.0)
    before = [store.read().dense() for _, store in named_stores(step.model)]
    x, labels = randn(40, 1, 4, 4), torch.arange(40) % 10
    losses = [step.take(x, labels).loss for _ in range(30)]
    assert losses[-1] < losses[0] - 0.3
    assert any(
        not torch.equal(a, store.read().dense()) for a, (_, store) in zip(before, named_stores(step.model), strict=True)
    )
