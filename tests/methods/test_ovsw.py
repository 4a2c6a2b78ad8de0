"""OvSW (Xiang et al. 2024, arXiv 2407.05257): gradients of at least ratio |w|, and the decay of silent weights."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bnn.errors import Interrupted, RecipeError
from bnn.methods.ovsw import AdaptiveGradientScaling, SilenceAwareDecay
from bnn.quantizers import ReCU
from bnn.quantizers.gradients import SignGradient
from bnn.training import Callback, Run, Trainer
from bnn.weights import AccumulatorStore, DiscreteStore, LatentStore, WeightStore
from tests.contracts import randn
from tests.training.tiny_runs import (
    RUNS,
    SignalAt,
    adam_run,
    assert_same_state,
    recu_run,
    tiny_dataset,
    training_state,
)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("never trained")


def trainer_of(store: WeightStore, out) -> Trainer:
    """A trainer of one store, whose callbacks the tests call themselves."""
    optimizer = torch.optim.SGD(store.parameters(), lr=0.1)
    model = nn.Sequential(store)
    return Trainer(Run(model=model, data=tiny_dataset(), optimizer=optimizer, epochs=1, batch_size=12, seed=0), out)


def changed(callback: Callback, trainer: Trainer, gradient: Tensor) -> Tensor:
    """What the callback makes of the gradient of the trainer's store."""
    (store,) = trainer.run.model
    store.trained.grad = gradient.clone()
    callback.on_gradients(trainer)
    return store.trained.grad


class TestAdaptiveGradientScaling:
    """Afterwards every |g| is at least ratio |w|."""

    @given(st.integers(0, 2**31), st.floats(1e-4, 0.5), st.sampled_from([LatentStore, AccumulatorStore]))
    def test_small_gradients_reach_the_ratio_and_large_ones_stay(self, out, seed, ratio, kind):
        store = kind((4, 2, 3, 3))
        store.initialize(torch.Generator().manual_seed(seed))
        before = randn(4, 2, 3, 3, seed=seed) * torch.tensor([1e-5, 1e-3, 0.1, 10]).view(-1, 1, 1, 1)
        gradient = changed(AdaptiveGradientScaling(ratio=ratio), trainer_of(store, out), before)
        weights = store.trained_value().flatten(1).norm(dim=1)
        norms, norms_before = gradient.flatten(1).norm(dim=1), before.flatten(1).norm(dim=1)
        assert (norms >= ratio * weights * (1 - 1e-5)).all()
        low = norms_before < ratio * weights * (1 - 1e-5)
        torch.testing.assert_close(norms[low], (ratio * weights)[low])
        high = norms_before > ratio * weights * (1 + 1e-5)
        assert torch.equal(gradient[high], before[high])
        # Of the direction nothing is changed.
        torch.testing.assert_close(gradient / norms.view(-1, 1, 1, 1), before / norms_before.view(-1, 1, 1, 1))

    def test_floors_of_the_norms(self, out):
        store = LatentStore((3, 4))
        with torch.no_grad():
            store.weight.zero_()
            store.weight[1:] = 1
        gradient = torch.zeros(3, 4)
        gradient[0, 0], gradient[2, 0] = 1e-5, 1e-9
        scaled = changed(AdaptiveGradientScaling(ratio=0.1), trainer_of(store, out), gradient)
        # A filter of zeros counts 1e-3; no gradient stays none; one below 1e-6 is taken as 1e-6.
        torch.testing.assert_close(scaled[:, 0], torch.tensor([0.1 * 1e-3, 0.0, 0.1 * 2 * 1e-3]))

    def test_float16_gradients_are_measured_in_float32(self, out):
        store = LatentStore((1, 4), dtype=torch.float16)
        with torch.no_grad():
            store.weight.fill_(200)
        gradient = torch.full((1, 4), 2.0, dtype=torch.float16)
        scaled = changed(AdaptiveGradientScaling(ratio=0.5), trainer_of(store, out), gradient)
        assert scaled.tolist() == [[100.0] * 4]

    @pytest.mark.parametrize("make", [adam_run, recu_run])
    def test_a_tiny_ratio_changes_nothing_and_a_large_one_does(self, make, tmp_path):
        states = []
        for name, scalings in {
            "plain": [],
            "tiny": [AdaptiveGradientScaling(ratio=1e-12)],
            "large": [AdaptiveGradientScaling(ratio=1.0)],
        }.items():
            run = make(epochs=1)
            Trainer(run, tmp_path / name, callbacks=scalings).fit()
            states.append(training_state(run))
        plain, tiny, large = states
        assert all(torch.equal(plain[name], tiny[name]) for name in plain)
        assert not all(torch.equal(plain[name], large[name]) for name in plain)

    @pytest.mark.parametrize("ratio", [0.0, -1.0, math.inf, math.nan])
    def test_the_ratio_is_positive(self, ratio):
        with pytest.raises(RecipeError, match="finite and above 0"):
            AdaptiveGradientScaling(ratio=ratio)


class TestSilenceAwareDecay:
    @staticmethod
    def flip_average(trainer: Trainer) -> Tensor:
        (state,) = trainer.run.optimizer.state.values()
        return state["flip_average"]

    def test_one_flip_keeps_a_weight_from_being_silent_for_2301_steps(self, out):
        store = LatentStore((1, 2))
        trainer, zero = trainer_of(store, out), torch.zeros(1, 2)
        with torch.no_grad():
            store.weight.copy_(torch.tensor([[0.5, -2.0]]))
        decay = SilenceAwareDecay(decay=0.1)
        assert torch.equal(changed(decay, trainer, zero), 0.1 * store.weight.detach())
        with torch.no_grad():
            store.weight[0, 0] = -0.5
        decay.on_step_end(trainer, 0.0)
        steps = 0
        while changed(decay, trainer, zero)[0, 0] == 0:
            decay.on_step_end(trainer, 0.0)
            steps += 1
            assert steps < 5000
        assert steps == 2302  # 0.001 * 0.999^2301 is the last mean that is not below the threshold
        assert 1e-3 * 0.999**2301 >= 1e-4 > 1e-3 * 0.999**2302
        assert changed(decay, trainer, zero).tolist() == [pytest.approx([-0.05, -0.2])]

    def test_a_mean_at_the_threshold_is_not_silent(self, out):
        store = LatentStore((1, 2))
        trainer, zero = trainer_of(store, out), torch.zeros(1, 2)
        decay = SilenceAwareDecay(decay=0.5, momentum=0.75, threshold=0.25)
        changed(decay, trainer, zero)
        with torch.no_grad():
            store.weight[0, 0].neg_()
        decay.on_step_end(trainer, 0.0)
        assert self.flip_average(trainer).tolist() == [[0.25, 0.0]]
        pull = changed(decay, trainer, zero)
        assert pull[0, 0] == 0
        assert pull[0, 1] == 0.5 * store.weight[0, 1]
        decay.on_step_end(trainer, 0.0)
        assert torch.equal(changed(decay, trainer, zero), 0.5 * store.weight.detach()), "below it by now"

    @pytest.mark.parametrize(
        "make",
        [LatentStore, lambda shape: LatentStore(shape, quantizer=ReCU()), AccumulatorStore, DiscreteStore],
        ids=["latent", "recu", "accumulator", "states"],
    )
    def test_pulls_the_silent_weights_of_every_store_towards_zero(self, make, out):
        store = make((4, 6))
        store.initialize(torch.Generator().manual_seed(1))
        decay, trainer = SilenceAwareDecay(decay=0.25), trainer_of(store, out)
        gradient = randn(4, 6, seed=2)
        torch.testing.assert_close(changed(decay, trainer, gradient), gradient + 0.25 * store.trained_value())
        decay.on_step_end(trainer, 0.0)
        assert not self.flip_average(trainer).any()

    def test_is_weight_decay_as_long_as_every_weight_counts_as_silent(self, tmp_path):
        decayed, plain = adam_run(), adam_run()
        stores = {id(parameter) for name, parameter in plain.model.named_parameters() if "store" in name}
        parameters = list(plain.model.parameters())
        plain.optimizer = torch.optim.Adam(
            [
                {"params": [p for p in parameters if id(p) in stores], "weight_decay": 0.5},
                {"params": [p for p in parameters if id(p) not in stores]},
            ],
            lr=0.01,
        )
        decay = SilenceAwareDecay(decay=0.5, threshold=2.0)
        Trainer(decayed, tmp_path / "decayed", callbacks=[decay]).fit()
        Trainer(plain, tmp_path / "plain").fit()
        assert_same_state(decayed.model.state_dict(), plain.model.state_dict())

    @pytest.mark.parametrize("kind", ["adam", "sgd", "recu"])
    def test_an_interrupted_run_goes_on_bit_for_bit(self, kind, tmp_path):
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
    def test_options_out_of_their_range_are_refused(self, option, message):
        with pytest.raises(RecipeError, match=message):
            SilenceAwareDecay(**option)


@pytest.mark.parametrize("callback", [AdaptiveGradientScaling(), SilenceAwareDecay()], ids=lambda c: type(c).__name__)
def test_packed_gradients_and_none_are_refused(callback, out):
    store = AccumulatorStore((4, 6), gradient_quantizer=SignGradient(packed=True, scale="none"))
    trainer = trainer_of(store, out)
    with pytest.raises(RecipeError, match="needs a dense gradient of layer 0 before each step, it has none"):
        callback.on_gradients(trainer)
    store.read().backward(torch.ones(4, 6))
    with pytest.raises(RecipeError, match="it has BitTensor: use stores whose gradient is not packed"):
        callback.on_gradients(trainer)
