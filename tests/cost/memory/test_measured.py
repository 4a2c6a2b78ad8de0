import torch
from torch import nn

from bnn.cost.memory.measured import measure_step, random_batch
from bnn.training.step import TrainingStep


def linear_step(batch_size: int, slice_size: int | None = None) -> TrainingStep:
    model = nn.Linear(50, 10, bias=False)
    return TrainingStep(model, [torch.optim.SGD(model.parameters(), lr=0.1)], (50,), batch_size, slice_size)


def test_meters_of_a_linear_layer():
    measured = measure_step(linear_step(40))
    # The input, the logits' softmax, the labels and the summed class weights; the weight is a parameter.
    assert measured.saved_bytes == measured.graph_bytes == 4 * 40 * (50 + 10) + 8 * 40 + 4
    # When the weight's gradient is formed: batch, labels, weight, its gradient, and that of the logits.
    least = 4 * 40 * 50 + 8 * 40 + 2 * 4 * 500 + 4 * 40 * 10
    assert least <= measured.peak_live_bytes < least + 4 * 40 * 10 + 200


def test_saved_bytes_are_those_of_a_slice_and_the_input_s_whole_memory():
    assert measure_step(linear_step(40, 10)).saved_bytes == 4 * 40 * 50 + 4 * 10 * 10 + 8 * 40 + 4


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
    model = nn.Sequential(nn.Linear(50, 10, bias=False), Hiding())
    step = TrainingStep(model, [torch.optim.SGD(model.parameters(), lr=0.1)], (50,), 40)
    measured = measure_step(step)
    assert measured.graph_bytes - measured.saved_bytes == 4 * 40 * 10


def test_batches_have_the_zeros_of_a_black_border():
    x, labels = random_batch(linear_step(30))
    assert x.shape == (30, 50)
    assert (x[:, 0] == 0).all()
    assert (x[:, 1:] != 0).all()
    assert set(labels.tolist()) == {0, 1}
