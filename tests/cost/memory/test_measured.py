import pytest
import torch
from torch import nn

from bnn.cost.memory.measured import MeasuredMemory, measure_step, random_batch
from bnn.ops.memory import RESULTS, empty
from bnn.training import TrainingStep


def measured(model: nn.Module, slice_size: int | None = None) -> MeasuredMemory:
    """Of a step of 40 examples of 50 elements."""
    step = TrainingStep(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), slice_size=slice_size)
    return measure_step(step, input_shape=(50,), batch_size=40)


def linear() -> nn.Module:
    return nn.Linear(50, 10, bias=False)


def test_meters_of_a_linear_layer():
    of = measured(linear())
    # The input, the logits' softmax, the labels, and the summed class weights; the weight is a parameter.
    assert of.saved_bytes == of.graph_bytes == 4 * 40 * (50 + 10) + 8 * 40 + 4
    # When the weight's gradient is formed: batch, labels, weight, its gradient, the logits and theirs.
    least = 4 * 40 * 50 + 8 * 40 + 2 * 4 * 500 + 2 * 4 * 40 * 10
    assert least <= of.peak_live_bytes < least + 4 * 40 * 10 + 200


def test_saved_bytes_are_those_of_a_slice_and_the_input_s_whole_memory():
    assert measured(linear(), slice_size=10).saved_bytes == 4 * 40 * 50 + 4 * 10 * 10 + 8 * 40 + 4


class Hides(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.hidden = x * 2
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad


class Hiding(nn.Module):
    def forward(self, x):
        return Hides.apply(x)


def test_what_hides_from_hooks_is_in_the_graph():
    of = measured(nn.Sequential(linear(), Hiding()))
    assert of.graph_bytes - of.saved_bytes == 4 * 40 * 10


def test_copies_of_running_statistics_are_in_the_peak():
    model = nn.Sequential(nn.Flatten(), linear())
    plain = measured(model).peak_live_bytes
    model.register_buffer("statistics", torch.zeros(100_000))
    # The buffer itself, and its copy.
    assert measured(model).peak_live_bytes - plain == pytest.approx(2 * 400_000, abs=300)


class Stages(nn.Module):
    """Makes a result of 4 MiB, lets go of it, and makes one of 1 MiB, which does not take its place."""

    def forward(self, x):
        empty((1 << 20,), torch.float32)
        empty((1 << 18,), torch.float32)
        return x


def test_what_is_kept_for_results_counts_until_it_is_given_back(monkeypatch):
    monkeypatch.setattr(RESULTS, "is_kept", True)
    plain = measured(linear()).peak_live_bytes
    # The piece of 1 MiB goes back to the system before one of 4 MiB comes from there.
    assert measured(nn.Sequential(Stages(), linear())).peak_live_bytes - plain == pytest.approx(4 << 20, rel=0.01)
    RESULTS.give_back()


def test_batches_have_the_zeros_of_a_black_border():
    x, labels = random_batch((50,), 30)
    assert x.shape == (30, 50)
    assert (x[:, 0] == 0).all()
    assert (x[:, 1:] != 0).all()
    assert set(labels.tolist()) == {0, 1}
