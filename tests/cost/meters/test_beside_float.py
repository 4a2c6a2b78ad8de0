"""What a training is compared with."""

import sys
from functools import partial

import pytest
import torch
from torch import nn

from bnn.cost.energy import HOROWITZ_45NM, count_step
from bnn.cost.float_twin import float_step
from bnn.cost.memory.predicted import predict_step
from bnn.cost.meters import EnergyMeter, FloatComparison, beside_float
from bnn.models import mlp
from bnn.presets import prepare
from bnn.training import Run, Trainer
from tests.training.tiny_runs import EPOCHS, STEPS_AN_EPOCH, sgd_run, tiny_dataset


def test_figures_are_those_of_the_run_and_of_its_twin(tmp_path):
    run = sgd_run()
    summary = Trainer(run, tmp_path / "run", callbacks=[EnergyMeter(), FloatComparison()]).fit()
    figures, twin = summary["beside_float"], float_step(run)
    assert figures["energy_j"]["this"] == summary["energy_j"]
    energy_J = count_step(twin.model, twin.optimizer, (1, 6, 6), batch_size=12).energy_J(HOROWITZ_45NM)
    assert figures["energy_j"]["float"] == pytest.approx(EPOCHS * STEPS_AN_EPOCH * energy_J)
    assert figures["network_bytes"]["float"] > figures["network_bytes"]["this"] > 0
    assert {parameter.device.type for parameter in run.model.parameters()} == {"cpu"}


CLASSES = tiny_dataset().num_classes


def make():
    build = partial(mlp, input_shape=(1, 6, 6), classes=CLASSES, hidden=(64, 64))
    return prepare("edge-min", build, input_shape=(1, 6, 6))


def compared(out, **changes):
    run = Run(**vars(make()), data=tiny_dataset(), epochs=1, batch_size=12, seed=0, **changes)
    summary = Trainer(run, out, callbacks=[FloatComparison()]).fit()
    return run, summary["beside_float"]["step_bytes"]


def predicted():
    with torch.device("meta"):
        step = make()
    tables = (predict_step(s, input_shape=(1, 6, 6), batch_size=12).table for s in (step, float_step(make())))
    return [table.total_bytes for table in tables]


@pytest.fixture
def unmeasured(monkeypatch):
    monkeypatch.setattr(beside_float, "available_bytes", lambda: None)


@pytest.mark.skipif(sys.platform != "linux", reason="processes can be copied on Linux alone")
def test_memory_is_measured_in_a_copy_and_the_run_stays_as_it_is(tmp_path):
    run, figures = compared(tmp_path / "run")
    ours, in_float = predicted()
    assert figures.pop("how") == "measured"
    assert figures == {"this": pytest.approx(ours, rel=0.1), "float": pytest.approx(in_float, rel=0.02)}
    assert not run.model.training
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    FloatComparison().on_fit_end(Trainer(run, tmp_path / "again"), {})
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())


@pytest.mark.usefixtures("unmeasured")
def test_predicted_memory_is_that_of_a_step_in_training_though_the_run_has_been_tested(tmp_path):
    run, figures = compared(tmp_path / "run")
    assert figures == {**dict(zip(("this", "float"), predicted(), strict=True)), "how": "predicted"}
    assert not run.model.training


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
def test_what_does_not_fit_is_predicted(tmp_path, monkeypatch):
    monkeypatch.setattr(beside_float, "available_bytes", lambda: 2**12)
    # More than what this process has left over from other tests.
    monkeypatch.setattr(beside_float, "measure_live", lambda *_, **__: torch.zeros(2**28).nbytes)
    assert compared(tmp_path / "run")[1]["how"] == "predicted"


@pytest.mark.skipif(sys.platform != "linux", reason="processes can be copied on Linux alone")
def test_a_step_that_takes_too_long_is_predicted(tmp_path, monkeypatch):
    monkeypatch.setattr(beside_float, "_LIMIT_S", 0.0)
    assert compared(tmp_path / "run")[1]["how"] == "predicted"


def test_the_optimizer_keeps_its_state(tmp_path):
    run = sgd_run()
    run.optimizer = torch.optim.Adam(run.model.parameters())
    Trainer(run, tmp_path / "run", callbacks=[FloatComparison()]).fit()
    for parameter in run.model.parameters():
        assert run.optimizer.state[parameter]["exp_avg"].device.type == "cpu"


class ReadsValues(nn.Module):
    def forward(self, x):
        return x if x.sum() > -1e9 else -x


def reading_values(out):
    run = sgd_run()
    run.model.append(ReadsValues())
    return Trainer(run, out, callbacks=[EnergyMeter(), FloatComparison()]).fit()["beside_float"]


@pytest.mark.usefixtures("unmeasured")
def test_what_cannot_run_on_shapes_has_the_network_s_size_alone(tmp_path):
    assert list(reading_values(tmp_path / "run")) == ["network_bytes"]


@pytest.mark.skipif(sys.platform != "linux", reason="processes can be copied on Linux alone")
def test_what_cannot_run_on_shapes_is_measured(tmp_path):
    assert reading_values(tmp_path / "run")["step_bytes"]["how"] == "measured"
