import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bnn.cost.memory.saved import kept_tensors
from bnn.errors import RunError
from bnn.quantizers import Sign
from bnn.training import TrainingStep


def step_of(model: nn.Module, batch_size: int, slice_size: int | None = None) -> TrainingStep:
    return TrainingStep(model, [torch.optim.SGD(model.parameters(), lr=0.5)], (6,), batch_size, slice_size)


@given(batch_size=st.integers(1, 300), slice_size=st.integers(1, 300))
def test_slices_are_those_of_the_trainer(batch_size, slice_size):
    sizes = step_of(nn.Linear(6, 2), batch_size, slice_size).slice_sizes
    rows = torch.zeros(batch_size).tensor_split(-(-batch_size // slice_size))
    assert sizes == [len(part) for part in rows]
    assert max(sizes) <= slice_size


@pytest.mark.parametrize("slice_size", [None, 4, 3])
def test_a_step_in_slices_is_a_step_of_the_batch(slice_size):
    torch.manual_seed(0)
    model = nn.Linear(6, 3)
    x, labels = torch.randn(10, 6), torch.randint(3, (10,))
    loss = F.cross_entropy(F.linear(x, model.weight, model.bias), labels)
    (gradient,) = torch.autograd.grad(loss, [model.weight])
    expected = model.weight.detach() - 0.5 * gradient
    losses = []
    step = step_of(model, 10, slice_size)
    step.take(x, labels, before_backward=losses.append)
    torch.testing.assert_close(model.weight.detach(), expected)
    assert len(losses) == len(step.slice_sizes)


def test_some_slices_alone():
    losses = []
    step = step_of(nn.Linear(6, 2), 12, 3)
    step.take(torch.randn(12, 6), torch.zeros(12, dtype=torch.long), slices=2, before_backward=losses.append)
    assert len(losses) == 2


def test_states_are_the_optimizers():
    model = nn.Linear(6, 2, bias=False)
    step = TrainingStep(model, [torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)], (6,), 4)
    assert step.states() == []
    step.take(torch.randn(4, 6), torch.zeros(4, dtype=torch.long))
    assert [state.shape for state in step.states()] == [(2, 6)]


class Gives(nn.Module):
    def __init__(self, *outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.outputs = outputs

    def forward(self, x):
        return self.outputs[0] if len(self.outputs) == 1 else self.outputs


@pytest.mark.parametrize(
    ("outputs", "what"),
    [((torch.ones(4, 2, 2),), "[4, 2, 2]"), ((torch.ones(3, 2),), "[3, 2]"), ((1, 2), "tuple")],
)
def test_what_gives_no_logits_is_refused(outputs, what):
    with pytest.raises(RunError) as caught:
        step_of(Gives(*outputs), 4).loss(torch.ones(4, 6), torch.zeros(4, dtype=torch.long))
    assert "must give logits [N, classes] of 4 examples" in str(caught.value)
    assert what in str(caught.value)


class Hides(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.hidden = [x * 2]
        return x * 3

    @staticmethod
    def backward(ctx, grad):
        return grad * 3


def kept_bytes(y):
    storages = {x.untyped_storage()._cdata: x.untyped_storage().nbytes() for x in kept_tensors(y)}
    return sum(storages.values())


def test_a_walk_finds_what_hooks_do_not_see():
    x = torch.ones(10, requires_grad=True)
    seen = []
    with torch.autograd.graph.saved_tensors_hooks(seen.append, lambda nothing: nothing):
        Hides.apply(x)
    assert [tensor.numel() for tensor in seen] == [10]
    assert kept_bytes(Hides.apply(x)) == 40 + 40


def test_a_walk_goes_through_the_whole_graph_and_knows_bits():
    x = torch.randn(4, 16, requires_grad=True)
    y = (Sign()(x) * x).exp()
    # The window's bits, the product's two factors (of which one is bits), and the result of exp.
    assert kept_bytes(y) == 4 * 2 + 4 * 2 + 4 * 64 + 4 * 64
    assert kept_bytes(torch.ones(3)) == 0
