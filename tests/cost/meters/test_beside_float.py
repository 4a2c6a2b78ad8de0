"""What a training is compared with."""

from functools import partial

import pytest
import torch
from torch import nn

from bnn.cost.energy import HOROWITZ_45NM, count_step
from bnn.cost.float_twin import float_step
from bnn.cost.memory.predicted import predict_step
from bnn.cost.meters import EnergyMeter, FloatComparison
from bnn.models import mlp
from bnn.presets import prepare
from bnn.training import Run, Trainer
from tests.training.tiny_runs import EPOCHS, STEPS_AN_EPOCH, sgd_run, tiny_dataset


def test_figures_are_those_of_the_run_and_of_its_twin(tmp_path):
    run = sgd_run()
    summary = Trainer(run, tmp_path / "run", callbacks=[EnergyMeter(), FloatComparison()]).fit()
    figures, twin = summary["beside_float"], float_step(run)
    assert figures["energy_j"]["this"] == summary["energy_j"]
    memory = predict_step(twin, input_shape=(1, 6, 6), batch_size=12)
    assert figures["step_bytes"]["float"] == memory.table.total_bytes
    energy_J = count_step(twin.model, twin.optimizer, (1, 6, 6), batch_size=12).energy_J(HOROWITZ_45NM)
    assert figures["energy_j"]["float"] == pytest.approx(EPOCHS * STEPS_AN_EPOCH * energy_J)
    assert figures["network_bytes"]["float"] > figures["network_bytes"]["this"] > 0
    assert {parameter.device.type for parameter in run.model.parameters()} == {"cpu"}


def test_memory_is_that_of_a_step_in_training_though_the_run_has_been_tested(tmp_path):
    classes = tiny_dataset().num_classes

    def make():
        build = partial(mlp, input_shape=(1, 6, 6), classes=classes, hidden=(64, 64))
        return prepare("edge-min", build, input_shape=(1, 6, 6))

    run = Run(**vars(make()), data=tiny_dataset(), epochs=1, batch_size=12, seed=0)
    summary = Trainer(run, tmp_path / "run", callbacks=[FloatComparison()]).fit()
    with torch.device("meta"):
        step = make()
    expected = predict_step(step, input_shape=(1, 6, 6), batch_size=12).table.total_bytes
    assert summary["beside_float"]["step_bytes"]["this"] == expected
    assert not run.model.training


def test_the_optimizer_keeps_its_state(tmp_path):
    run = sgd_run()
    run.optimizer = torch.optim.Adam(run.model.parameters())
    Trainer(run, tmp_path / "run", callbacks=[FloatComparison()]).fit()
    for parameter in run.model.parameters():
        assert run.optimizer.state[parameter]["exp_avg"].device.type == "cpu"


class ReadsValues(nn.Module):
    def forward(self, x):
        return x if x.sum() > -1e9 else -x


def test_what_cannot_run_on_shapes_has_the_network_s_size_alone(tmp_path):
    run = sgd_run()
    run.model.append(ReadsValues())
    summary = Trainer(run, tmp_path / "run", callbacks=[EnergyMeter(), FloatComparison()]).fit()
    assert list(summary["beside_float"]) == ["network_bytes"]
