"""Silence-aware decay (Xiang et al. 2024, arXiv 2407.05257)."""

import math

import pytest
import torch

from bnn.errors import Interrupted, RecipeError
from bnn.methods.ovsw import SilenceAwareDecay
from bnn.quantizers import ReCU
from bnn.training import Trainer
from bnn.weights import AccumulatorStore, DiscreteStore, LatentStore
from tests.contracts import randn
from tests.training.tiny_runs import RUNS, SignalAt, adam_run, assert_same_state, training_state


def pull_of(decay: SilenceAwareDecay, store, state) -> torch.Tensor:
    gradient = torch.zeros(store.shape)
    decay.before_step(store, gradient, state)
    return gradient


def test_one_flip_keeps_a_weight_from_being_silent_for_2301_steps():
    store = LatentStore((1, 2))
    with torch.no_grad():
        store.weight.copy_(torch.tensor([[0.5, -2.0]]))
    decay, state = SilenceAwareDecay(decay=0.1), {}
    assert torch.equal(pull_of(decay, store, state), 0.1 * store.weight.detach())
    with torch.no_grad():
        store.weight[0, 0] = -0.5
    decay.after_step(store, state)
    steps = 0
    while pull_of(decay, store, state)[0, 0] == 0:
        decay.after_step(store, state)
        steps += 1
        assert steps < 5000
    assert steps == 2302  # 0.001 * 0.999^2301 is the last mean that is not below the threshold
    assert 1e-3 * 0.999**2301 >= 1e-4 > 1e-3 * 0.999**2302
    assert pull_of(decay, store, state).tolist() == [pytest.approx([-0.05, -0.2])]


@pytest.mark.parametrize(
    "make",
    [LatentStore, lambda shape: LatentStore(shape, quantizer=ReCU()), AccumulatorStore, DiscreteStore],
    ids=["latent", "recu", "accumulator", "states"],
)
def test_pulls_the_silent_weights_of_every_store_towards_zero(make):
    store = make((4, 6))
    store.initialize(torch.Generator().manual_seed(1))
    decay = SilenceAwareDecay(decay=0.25)
    gradient = randn(4, 6, seed=2)
    expected = gradient + 0.25 * store.trained_value()
    decay.before_step(store, gradient, {})
    torch.testing.assert_close(gradient, expected)
    state = {}
    decay.after_step(store, state)
    assert not state["flip_average"].any()


def test_is_weight_decay_as_long_as_nothing_flips(tmp_path):
    runs = [adam_run(callbacks=[SilenceAwareDecay(decay=0.5, threshold=2.0)]), adam_run(callbacks=[])]
    for group in runs[1].optimizer.param_groups:
        group["params"] = list(runs[1].model.parameters())
    stores = {id(parameter) for name, parameter in runs[1].model.named_parameters() if "store" in name}
    parameters = runs[1].optimizer.param_groups[0]["params"]
    runs[1].optimizer = torch.optim.Adam(
        [
            {"params": [p for p in parameters if id(p) in stores], "weight_decay": 0.5},
            {"params": [p for p in parameters if id(p) not in stores]},
        ],
        lr=0.01,
    )
    weights = []
    for i, run in enumerate(runs):
        Trainer(run, tmp_path / str(i)).fit()
        weights.append(run.model.state_dict())
    assert_same_state(*weights)


@pytest.mark.parametrize("kind", ["adam", "sgd", "recu"])
def test_an_interrupted_run_goes_on_bit_for_bit(kind, tmp_path):
    def run():
        plain = RUNS[kind]()
        plain.callbacks = [*plain.callbacks, SilenceAwareDecay(decay=0.3, momentum=0.5, threshold=0.1)]
        return plain

    whole, resumed = run(), run()
    Trainer(whole, tmp_path / "whole").fit()
    with pytest.raises(Interrupted):
        Trainer(run(), tmp_path / "parts", callbacks=[SignalAt(("step ends", 1, 2))]).fit()
    Trainer(resumed, tmp_path / "parts").resume()
    assert any("flip_average" in name for name in training_state(whole))
    assert_same_state(training_state(whole), training_state(resumed))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"decay": -1e-9}, "decay is at least 0"),
        ({"decay": math.nan}, "decay is at least 0"),
        ({"momentum": 1.0}, r"momentum lies in \[0, 1\)"),
        ({"threshold": 0.0}, "threshold is above 0"),
    ],
)
def test_options_out_of_their_range_are_refused(option, message):
    with pytest.raises(RecipeError, match=message):
        SilenceAwareDecay(**option)
