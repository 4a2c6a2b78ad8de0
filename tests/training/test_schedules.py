import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnn.errors import RecipeError
from bnn.methods import TauSchedule
from bnn.quantizers import ReCU
from bnn.training import Callback, Trainer, recu_tau, sequential, warmup_cosine
from tests.training.tiny_runs import recu_run


@pytest.mark.parametrize(
    ("epoch", "factor"),
    [(0, 0.0), (1, 0.2), (2.5, 0.5), (5, 1.0), (52.5, 0.5), (28.75, 0.5 + math.sqrt(0.125)), (100, 0.0)],
)
def test_warmup_is_linear_and_then_comes_half_a_cosine(epoch, factor):
    assert warmup_cosine(100, warmup_epochs=5)(epoch) == pytest.approx(factor, abs=1e-12)


def test_without_warmup_it_starts_at_one():
    assert [warmup_cosine(4)(epoch) for epoch in (0, 2, 4)] == pytest.approx([1, 0.5, 0], abs=1e-12)


def test_one_schedule_after_another_begins_at_its_own_start():
    factor = sequential(warmup_cosine(4), 4, warmup_cosine(2))
    assert [factor(epoch) for epoch in (0, 2, 3.999, 4, 5, 6)] == pytest.approx([1, 0.5, 0, 1, 0.5, 0], abs=1e-6)
    lower = sequential(warmup_cosine(4), 4, warmup_cosine(2), scale=0.1)
    assert [lower(epoch) for epoch in (0, 2, 4, 5)] == pytest.approx([1, 0.5, 0.1, 0.05], abs=1e-6)


@given(
    epochs=st.integers(1, 600),
    part=st.floats(0, 0.99),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_factor_lies_in_0_to_1_and_falls_after_the_warmup(epochs, part, place):
    factor = warmup_cosine(epochs, warmup_epochs=part * epochs)
    low, high = sorted(place)
    assert 0 <= factor(low * epochs) <= 1
    if low >= part:
        assert factor(low * epochs) >= factor(high * epochs) - 1e-12


@pytest.mark.parametrize(
    ("epochs", "warmup", "message"),
    [
        (0, 0, "a run has at least 1 epoch, got 0"),
        (5, 5, "a warm-up of 5 epochs does not fit a training of 5"),
        (5, -1, "a warm-up of -1"),
        (5, math.nan, "a warm-up of nan"),
    ],
)
def test_schedule_that_does_not_fit_is_refused(epochs, warmup, message):
    with pytest.raises(RecipeError, match=message):
        warmup_cosine(epochs, warmup_epochs=warmup)


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
