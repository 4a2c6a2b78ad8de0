"""What is predicted on shapes, beside what is measured."""

import pytest
import torch
from torch import nn

from bnn.cost.memory.measured import measure_step
from bnn.cost.memory.predicted import predict_step
from bnn.errors import RunError
from bnn.ops import cpu
from bnn.training import TrainingStep
from tests.cost.small_networks import NETWORKS, PRESETS, small_step


@pytest.mark.skipif(cpu.instruction_set() == "reference", reason="the reference makes float copies")
@pytest.mark.parametrize(("batch_size", "slice_size"), [(6, None), (11, 3)])
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("network", NETWORKS)
def test_saved_bytes_are_predicted_to_the_byte_and_the_peak_within_a_tenth(network, preset, batch_size, slice_size):
    predicted = predict_step(**small_step(network, preset, batch_size, slice_size, "meta"))
    measured = measure_step(**small_step(network, preset, batch_size, slice_size, "cpu"))
    assert predicted.saved_bytes == measured.saved_bytes == measured.graph_bytes
    assert predicted.table.total_bytes == pytest.approx(measured.peak_live_bytes, rel=0.1)


def test_variables_of_a_step_by_hand():
    layers = [nn.Flatten(), nn.Linear(192, 8, bias=False), nn.Linear(8, 5, bias=False)]
    with torch.device("meta"):
        model = nn.Sequential(*layers).to("meta")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    weights = 192 * 8 + 8 * 5
    memory = predict_step(TrainingStep(model=model, optimizer=optimizer), input_shape=(3, 8, 8), batch_size=20)
    sizes = {variable.name: variable.bytes for variable in memory.table.variables}
    assert sizes["other parameters"] == sizes["optimizer state"] == 4 * weights
    assert sum(v.bytes for v in memory.table.variables if v.name == "batch and labels") == 4 * 20 * 192 + 8 * 20
    # The input of the first layer, that of the second, the logits' softmax, the labels, and the summed class weights.
    assert memory.saved_bytes == 4 * 20 * (192 + 8 + 5) + 8 * 20 + 4


def test_presets_keep_what_they_say():
    def variables(preset):
        table = predict_step(**small_step("convolutions", preset, 200, None, "meta")).table
        return {(variable.name, variable.bits): variable for variable in table.variables}

    weights = 12 * 27 + 16 * 108 + 20 * 256 + 5 * 20
    standard, edge, edge_min = (variables(preset) for preset in PRESETS)
    assert standard["latent weights", 32].elements == weights
    assert edge["latent weights", 16].elements == weights
    assert edge_min["latent weights", 8].elements == weights
    assert standard["optimizer state", 32].bytes > 8 * weights
    assert edge["optimizer state", 16].elements >= 2 * weights
    assert ("optimizer state", 16) not in edge_min
    assert edge["windows", 1].elements >= 200 * 12 * 64
    assert edge["windows", 1].lifetime == "to backward"


def test_what_blocks_keep_by_hand():
    """Signs, windows of signs, two numbers a channel and packed weights; the image as it is; what the loss keeps."""
    saved = predict_step(**small_step("convolutions", "edge", 200, None, "meta")).saved_bytes
    image, label, loss = 4 * 3 * 64, 8, 4 * 5
    between = 2 * (12 * 64 // 8), 2 * (16 * 16 // 8), 2 * 3  # of 768, 256 and 20 elements
    channels, weights = 2 * 4 * (12 + 16 + 20 + 5), 12 * 4 + 16 * 14 + 20 * 32 + 5 * 3
    assert saved == 200 * (image + label + loss + sum(between)) + channels + weights + 4


def test_predicting_takes_no_memory_of_the_step_s_size():
    # 60 GB of activations would not fit.
    step = small_step("convolutions", "standard", 5_000_000, None, "meta")
    assert predict_step(**step).table.total_bytes > 6e10


def test_predicting_leaves_generators_as_they_were():
    generator = torch.Generator
    predict_step(**small_step("mlp", "edge", 4, None, "meta"))
    assert torch.Generator is generator
    with pytest.raises(RuntimeError):
        torch.Generator("meta")


class Branches(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Positions(nn.Module):
    def forward(self, x):
        return x.nonzero().float()


class FailsBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise OSError("no\nluck")


class Backward(nn.Module):
    def forward(self, x):
        return FailsBackward.apply(x)


@pytest.mark.parametrize(
    ("layers", "parts"),
    [
        ([nn.Linear(4, 3), Branches()], ["1 (Branches) cannot run", "one 4 example", "shapes alone"]),
        ([nn.Linear(5, 3)], ["0 (Linear) cannot run", "check the input's shape"]),
        ([nn.Linear(4, 3), Positions()], ["1 (Positions) cannot run", ": torch.nonzero() needs values;"]),
        ([nn.Linear(4, 3), Backward()], ["backward or update cannot run on shapes alone: no;", "peak_rss_mib"]),
    ],
)
def test_a_model_that_cannot_run_on_shapes_is_named(layers, parts):
    model = nn.Sequential(*layers).to("meta")
    step = TrainingStep(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(RunError) as caught:
        predict_step(step, input_shape=(4,), batch_size=6)
    assert all(part in str(caught.value) for part in parts), caught.value
    assert "\n" not in str(caught.value)
