from functools import partial

import pytest
import torch
from torch import nn

from bnn.cost.memory import of_run
from bnn.cost.memory.predicted import predict_step
from bnn.data import Dataset, Split
from bnn.errors import RunError
from bnn.layers import BinaryLinear
from bnn.models import mlp
from bnn.optim import Adam
from bnn.optim.dst import DST
from bnn.presets import prepare
from bnn.reports import memory
from bnn.reports.memory import memory_figures
from bnn.training import Run
from bnn.weights import DiscreteStore

PRESETS = ("standard", "edge", "edge-min")


def a_run(model, optimizer, **options) -> Run:
    images = torch.zeros(1, 1, 8, 8, dtype=torch.uint8, device="cpu")
    split = Split(images, torch.zeros(1, dtype=torch.int64, device="cpu"))
    data = Dataset("none", split, split, tuple("0123456789"), (0.5,), (0.5,), "none")
    return Run(model=model, optimizer=optimizer, data=data, epochs=1, batch_size=20, seed=0, **options)


def of_preset(preset: str, **options) -> Run:
    made = prepare(preset, partial(mlp, input_shape=(1, 8, 8), classes=10, hidden=(64,)), input_shape=(1, 8, 8))
    return a_run(made.model, made.optimizer, slice_size=8, **options)


def discrete():
    model = nn.Sequential(
        nn.Flatten(), BinaryLinear(64, 32, store=DiscreteStore), nn.BatchNorm1d(32), nn.Linear(32, 10)
    )
    return a_run(model, DST(Adam(model.parameters())))


@pytest.mark.parametrize("preset", PRESETS)
def test_figures_are_those_of_the_same_model_made_on_the_meta_device(preset):
    predicted = memory_figures({preset: of_preset(preset)}).predicted[preset]
    with torch.device("meta"):
        run = of_preset(preset)
    expected = predict_step(run, input_shape=(1, 8, 8), batch_size=20)
    assert predicted == expected


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_measured_is_what_is_predicted(preset):
    figures = memory_figures({preset: of_preset(preset)})
    step = figures.predicted[preset]
    assert figures.measured.saved_bytes == figures.measured.graph_bytes == step.saved_bytes
    assert figures.measured.peak_live_bytes == pytest.approx(step.table.total_bytes, abs=300)


def test_discrete_weights_take_no_memory_of_floats():
    figures = memory_figures({"own": discrete()})
    step = figures.predicted["own"]
    (latent,) = (variable for variable in step.table.variables if variable.name == "latent weights")
    assert latent.bytes == 4  # the zero that stands for all of them
    assert figures.measured.saved_bytes == step.saved_bytes
    assert figures.measured.peak_live_bytes == pytest.approx(step.table.total_bytes, rel=0.25)


def test_the_run_s_own_comes_first_and_is_measured():
    figures = memory_figures({"edge-min": of_preset("edge-min"), "standard": of_preset("standard")})
    assert list(figures.predicted) == ["edge-min", "standard", "in float32"]
    assert figures.measured.peak_live_bytes < figures.predicted["standard"].table.total_bytes / 2


def test_model_and_optimizer_are_themselves_again():
    run = of_preset("edge-min")
    with of_run._on_meta([run.model]):
        assert {tensor.device.type for tensor in [*run.model.parameters(), *run.model.buffers()]} == {"meta"}
    before = {name: (id(value), value.clone()) for name, value in run.model.state_dict(keep_vars=True).items()}
    classes = [type(parameter) for parameter in run.model.parameters()]
    of_run.predict_run(run)
    for name, value in run.model.state_dict(keep_vars=True).items():
        assert id(value) == before[name][0], name
        assert torch.equal(value, before[name][1]), name
    assert [type(parameter) for parameter in run.model.parameters()] == classes
    assert not run.optimizer.state


def test_large_steps_are_not_taken(monkeypatch):
    monkeypatch.setattr(memory, "LARGEST_MEASURED_BYTES", 1000)
    figures = memory_figures({"standard": of_preset("standard")})
    assert figures.measured is None
    assert figures.predicted["standard"].table.total_bytes > 1000


def test_profiler_is_silent(capfd):
    memory_figures({"standard": of_preset("standard")})
    assert capfd.readouterr() == ("", "")


class ReadsValues(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_model_that_reads_values_is_named():
    model = nn.Sequential(nn.Flatten(), ReadsValues(), nn.Linear(64, 10))
    run = a_run(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(RunError, match=r"1 \(ReadsValues\)"):
        memory_figures({"own": run})
    assert model[2].weight.device.type == "cpu"


def test_loss_that_cannot_run_on_shapes_is_named_and_leaves_the_model_as_it_was():
    run = of_preset("standard", loss=nn.MultiMarginLoss())
    with pytest.raises(RunError, match="backward or update cannot run on shapes alone: aten::multi_margin_loss_b"):
        memory_figures({"standard": run})
    assert {parameter.device.type for parameter in run.model.parameters()} == {"cpu"}


class Refuses(nn.Module):
    def forward(self, x):
        if not x.is_meta:
            raise ValueError("not today")
        return x


def test_step_that_fails_is_not_measured():
    model = nn.Sequential(nn.Flatten(), Refuses(), nn.Linear(64, 10))
    figures = memory_figures({"own": a_run(model, torch.optim.SGD(model.parameters(), lr=0.1))})
    assert figures.measured is None
    assert figures.predicted["own"].saved_bytes


def test_what_is_measured_is_the_run_s_own_step():
    calls = []

    def likelihood(logits, labels):
        calls.append(logits.dtype)
        return -logits.log_softmax(1).gather(1, labels[:, None]).mean()

    figures = memory_figures({"standard": of_preset("standard", loss=likelihood, precision="bfloat16")})
    assert (figures.loss, figures.precision) == ("likelihood", "bfloat16")
    assert set(calls) == {torch.float32}
    # Activations of bfloat16 are saved where those of float32 are predicted.
    assert figures.measured.saved_bytes < figures.predicted["standard"].saved_bytes
    plain = memory_figures({"standard": of_preset("standard")})
    assert (plain.loss, plain.precision) == ("cross_entropy", "float32")
