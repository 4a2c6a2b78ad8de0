"""The schedule of ReCU's quantile."""

import math

import pytest

from bnn.errors import RecipeError
from bnn.methods.recu import TauSchedule, recu_tau
from bnn.quantizers import ReCU
from bnn.training import Callback, Trainer
from bnn.training.directory import read_metrics
from tests.training.tiny_runs import recu_run


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
