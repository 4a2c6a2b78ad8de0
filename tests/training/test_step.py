import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bnn.errors import RecipeError
from bnn.training import TrainingStep


def step_of(model: nn.Module, slice_size: int | None = None, **options) -> TrainingStep:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    return TrainingStep(model=model, optimizer=optimizer, slice_size=slice_size, **options)


@given(batch_size=st.integers(1, 300), slice_size=st.integers(1, 300))
def test_slices_are_as_few_as_can_be(batch_size, slice_size):
    count = step_of(nn.Linear(6, 2), slice_size).slice_count(batch_size)
    sizes = [len(part) for part in torch.zeros(batch_size).tensor_split(count)]
    assert max(sizes) <= slice_size
    assert count == 1 or slice_size * (count - 1) < batch_size


@pytest.mark.parametrize("slice_size", [None, 4, 3])
def test_a_step_in_slices_is_a_step_of_the_batch(slice_size):
    torch.manual_seed(0)
    model = nn.Linear(6, 3)
    x, labels = torch.randn(10, 6), torch.randint(3, (10,))
    loss = F.cross_entropy(F.linear(x, model.weight, model.bias), labels)
    (gradient,) = torch.autograd.grad(loss, [model.weight])
    expected = model.weight.detach() - 0.5 * gradient
    losses = []
    step = step_of(model, slice_size)
    result = step.take(x, labels, before_backward=losses.append)
    torch.testing.assert_close(model.weight.detach(), expected)
    assert len(losses) == step.slice_count(10)
    assert result.loss == pytest.approx(loss.item(), rel=1e-6)
    assert 0 <= result.correct <= 10


def test_some_slices_alone():
    losses = []
    step = step_of(nn.Linear(6, 2), 3)
    step.take(torch.randn(12, 6), torch.zeros(12, dtype=torch.long), slices=2, before_backward=losses.append)
    assert len(losses) == 2


def test_states_are_the_optimizer_s():
    model = nn.Linear(6, 2, bias=False)
    step = TrainingStep(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    assert step.states() == []
    step.take(torch.randn(4, 6), torch.zeros(4, dtype=torch.long))
    assert [state.shape for state in step.states()] == [(2, 6)]


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_leaves_no_trace(where):
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))

    def loss(logits, labels):
        if where == "loss":
            return logits.sum() * float("nan")
        # 0 in forward; its gradient is infinite.
        return (logits - logits.detach()).abs().sqrt().sum()

    step = step_of(model, loss=loss)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    updates = []
    taken = step.take(torch.randn(10, 6), torch.zeros(10, dtype=torch.long), before_update=lambda: updates.append(1))
    assert taken is None
    assert updates == []
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("options", [{"slice_size": 0}, {"precision": "float16"}])
def test_values_out_of_range_are_refused(options):
    with pytest.raises(RecipeError):
        step_of(nn.Linear(6, 2), **options)
