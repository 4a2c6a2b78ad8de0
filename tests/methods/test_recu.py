"""The schedule of ReCU's quantile."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from bnn.errors import Interrupted, RecipeError
from bnn.layers import BinaryLinear
from bnn.methods.recu import TauSchedule, recu_tau
from bnn.models import initialize
from bnn.optim import Adam
from bnn.quantizers import ReCU
from bnn.quantizers.gradients import SignGradient
from bnn.training import Callback, Run, Trainer
from bnn.training.directory import read_metrics
from bnn.weights import AccumulatorStore, named_stores
from tests.training.tiny_runs import SignalAt, assert_same_state, recu_run, tiny_dataset, training_state


@pytest.mark.parametrize(("epoch", "tau"), [(0, 0.85), (300, 0.902856), (599, 0.989631), (600, 0.99)])
def test_tau_of_the_published_schedule(epoch, tau):
    assert recu_tau(epoch, 600) == pytest.approx(tau, abs=5e-7)


def test_tau_in_closed_form():
    rise = 0.2 / (math.e - 1)
    assert recu_tau(3, 4, start=0.7, end=0.9) == pytest.approx(rise * math.exp(0.75) + 0.7 - rise)


@pytest.mark.parametrize("options", [{"start": 0.5}, {"end": 1.01}, {"start": math.nan}])
def test_tau_out_of_the_range_of_recu_is_refused(options):
    with pytest.raises(RecipeError, match=r"tau lies in \(0.5, 1\]"):
        TauSchedule(**options)


def test_ends_of_tau_s_range_are_those_of_recu(tmp_path):
    summary = Trainer(recu_run(callbacks=[TauSchedule(start=0.5001, end=1.0)]), tmp_path / "run").fit()
    assert summary["epochs"] == 3


def test_every_recu_of_the_model_gets_the_tau_of_the_epoch(tmp_path):
    taus = []

    class Watch(Callback):
        def on_step_end(self, trainer, loss):
            taus.append({m.tau for m in trainer.run.model.modules() if isinstance(m, ReCU)})

    Trainer(recu_run(), tmp_path / "run", callbacks=[Watch()]).fit()
    assert taus == [{recu_tau(epoch, 3)} for epoch in range(3) for _ in range(4)]


def test_the_metrics_tell_the_tau_of_each_epoch(tmp_path):
    Trainer(recu_run(), tmp_path / "run").fit()
    taus = [record["tau"] for record in read_metrics(tmp_path / "run")]
    assert taus == pytest.approx([recu_tau(epoch, 3) for epoch in range(3)])


def accumulator_run(dtype, **options) -> Run:
    """ReCU on accumulators with packed gradients, whose tau moves with the epochs."""
    gradient = SignGradient(packed=True, scale="none")
    quantizer = ReCU(tail="project", scope="filter")
    store = partial(AccumulatorStore, dtype=dtype, gain=4.0, quantizer=quantizer, gradient_quantizer=gradient)
    model = nn.Sequential(nn.Flatten(), BinaryLinear(36, 16, input_quantizer=None, store=store), nn.BatchNorm1d(16))
    model += nn.Sequential(BinaryLinear(16, 4, store=store), nn.BatchNorm1d(4))
    initialize(model, generator=torch.Generator().manual_seed(1))
    optimizer = Adam(model.parameters(), lr=0.02, state_dtype=torch.float16)
    return Run(
        model=model,
        data=tiny_dataset(),
        optimizer=optimizer,
        epochs=3,
        batch_size=12,
        seed=3,
        callbacks=[TauSchedule()],
        **options,
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.int8])
class TestOnAccumulators:
    def test_filters_stay_centered_and_within_the_reach_of_the_epoch(self, dtype, tmp_path):
        reached = []

        class Watch(Callback):
            def on_step_end(self, trainer, loss):
                for _, store in named_stores(trainer.run.model):
                    value = store.trained_value().double()
                    assert store.quantizer.tau == recu_tau(trainer.epoch, 3)
                    # The clamp makes the mean magnitude smaller, by which the bound was found.
                    reached.append(value.abs().amax(1) / value.abs().mean(1))
                    assert (value.mean(1).abs() < 0.2 * value.abs().mean(1)).all()

        Trainer(accumulator_run(dtype), tmp_path / "run", callbacks=[Watch()]).fit()
        assert all((ratio < 3.2).all() for ratio in reached[:8])

    def test_an_interrupted_run_goes_on_bit_for_bit(self, dtype, tmp_path):
        whole, resumed = accumulator_run(dtype), accumulator_run(dtype)
        Trainer(whole, tmp_path / "whole").fit()
        with pytest.raises(Interrupted):
            Trainer(accumulator_run(dtype), tmp_path / "parts", callbacks=[SignalAt(("step ends", 1, 2))]).fit()
        Trainer(resumed, tmp_path / "parts").resume()
        assert_same_state(training_state(whole), training_state(resumed))
