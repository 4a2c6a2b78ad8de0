"""What one training step does to a model, by formulas, and that a step which is not finite does nothing."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bnn.errors import NonFiniteError, RecipeError
from bnn.layers import BinaryLinear
from bnn.quantizers import ReCU
from bnn.training import TrainingStep
from bnn.weights import LatentStore

LABELS = torch.arange(10) % 3


def batch(seed: int = 0) -> Tensor:
    return torch.randn(10, 6, generator=torch.Generator().manual_seed(seed))


def linear(outputs: int = 3) -> nn.Linear:
    model = nn.Linear(6, outputs)
    nn.init.normal_(model.weight, generator=torch.Generator().manual_seed(1))
    nn.init.zeros_(model.bias)
    return model


def sgd_step(model: nn.Module, **options) -> TrainingStep:
    return TrainingStep(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.5), **options)


def state_of(step: TrainingStep) -> list[Tensor]:
    return [tensor.clone() for tensor in (*step.model.state_dict().values(), *step.states())]


class Sizes(nn.Module):
    """Passes on what it gets, and notes of how many examples it was."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return x


@pytest.mark.parametrize("slice_size", [None, 10, 4, 3, 1])
def test_a_step_moves_against_the_gradient_of_the_batch_however_it_is_sliced(slice_size):
    model, x = linear(), batch()
    logits = F.linear(x, model.weight, model.bias)
    loss = F.cross_entropy(logits, LABELS)
    gradients = torch.autograd.grad(loss, [model.weight, model.bias])
    expected = [p.detach() - 0.5 * g for p, g in zip(model.parameters(), gradients, strict=True)]
    result = sgd_step(model, slice_size=slice_size).take(x, LABELS)
    for parameter, value in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value)
        assert parameter.grad is None
    assert result.loss == pytest.approx(loss.item(), rel=1e-6)
    assert result.correct == (logits.argmax(1) == LABELS).sum()


def test_the_input_is_made_of_a_slice_at_a_time():
    pixels, sizes = (10 * batch()).round().to(torch.int8), []

    def prepare(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return x / 10

    steps = [sgd_step(linear(), slice_size=4) for _ in range(2)]
    results = steps[0].take(pixels, LABELS, prepare=prepare), steps[1].take(pixels / 10, LABELS)
    assert sizes == [4, 3, 3]
    assert results[0] == results[1]
    for x, y in zip(*map(state_of, steps), strict=True):
        assert torch.equal(x, y)


@given(batch_size=st.integers(1, 60), slice_size=st.integers(1, 70))
def test_slices_are_as_few_as_may_be_and_nearly_equal(batch_size, slice_size):
    sizes = Sizes()
    step = sgd_step(nn.Sequential(sizes, nn.Linear(1, 2)), slice_size=slice_size)
    step.take(torch.ones(batch_size, 1), torch.zeros(batch_size, dtype=torch.long))
    assert len(sizes.seen) == step.slice_count(batch_size) == math.ceil(batch_size / slice_size)
    assert sum(sizes.seen) == batch_size
    assert max(sizes.seen) <= slice_size
    assert max(sizes.seen) - min(sizes.seen) <= 1


def test_without_a_slice_size_the_batch_is_one_slice():
    assert sgd_step(linear()).slice_count(100) == 1


def test_some_slices_alone_have_their_share_of_the_gradient():
    model, x = linear(), batch()
    loss = F.cross_entropy(F.linear(x[:5], model.weight, model.bias), LABELS[:5])
    (gradient,) = torch.autograd.grad(loss, [model.weight])
    expected = model.weight.detach() - 0.5 * gradient / 2
    result = sgd_step(model, slice_size=5).take(x, LABELS, slices=1)
    torch.testing.assert_close(model.weight.detach(), expected)
    assert result.loss == pytest.approx(loss.item() / 2)


def test_before_backward_is_called_with_the_loss_of_each_slice_and_its_graph():
    model, seen = linear(), []

    def note(loss: Tensor) -> None:
        assert loss.grad_fn is not None
        seen.append((loss.item(), None if model.weight.grad is None else model.weight.grad.clone()))

    result = sgd_step(model, slice_size=4).take(batch(), LABELS, before_backward=note)
    assert len(seen) == 3
    shares = [len(part) / len(LABELS) for part in LABELS.tensor_split(3)]
    assert sum(share * loss for share, (loss, _) in zip(shares, seen, strict=True)) == pytest.approx(result.loss)
    # The gradients of the slices before it are there, its own is not.
    assert seen[0][1] is None
    assert not torch.equal(seen[1][1], seen[2][1])


def test_before_update_is_called_once_when_gradients_are_complete_and_may_change_them():
    model, calls = linear(), []
    before = model.weight.detach().clone()

    def halve() -> None:
        assert torch.equal(model.weight.detach(), before)
        calls.append(model.weight.grad.clone())
        model.weight.grad.mul_(0.5)

    sgd_step(model, slice_size=4).take(batch(), LABELS, before_update=halve)
    (gradient,) = calls
    torch.testing.assert_close(model.weight.detach(), before - 0.25 * gradient)


class Poison(nn.Module):
    """Multiplies by a value in the forward or the backward pass, while it is armed."""

    def __init__(self, value: float, *, backward: bool) -> None:
        super().__init__()
        self.value, self.backward, self.armed = value, backward, False

    def forward(self, x: Tensor) -> Tensor:
        if not self.armed:
            return x
        if not self.backward:
            return x * self.value
        y = x * 1.0
        y.register_hook(lambda grad: grad * self.value)
        return y


@pytest.mark.parametrize("slice_size", [None, 5])
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_or_gradient_that_is_not_finite_leaves_no_trace(value, backward, slice_size):
    poison = Poison(value, backward=backward)
    model = nn.Sequential(nn.BatchNorm1d(6, momentum=None), linear(), poison)
    step = TrainingStep(model=model, optimizer=torch.optim.Adam(model.parameters()), slice_size=slice_size)
    assert step.take(batch(), LABELS) is not None
    before, updates = state_of(step), []
    assert len(before) > len(model.state_dict())
    poison.armed = True
    assert step.take(batch(1), LABELS, before_update=lambda: updates.append(None)) is None
    assert all(torch.equal(one, other) for one, other in zip(before, state_of(step), strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not updates
    poison.armed = False
    assert step.take(batch(1), LABELS) is not None
    assert not torch.equal(before[0], state_of(step)[0])


class Refuses(torch.optim.SGD):
    error: Exception = NonFiniteError("a gradient is not finite")

    def step(self, closure=None):
        raise self.error


def test_a_gradient_that_the_optimizer_refuses_leaves_no_trace():
    model = nn.Sequential(nn.BatchNorm1d(6), linear())
    step = TrainingStep(model=model, optimizer=Refuses(model.parameters(), lr=0.5))
    before = state_of(step)
    assert step.take(batch(), LABELS) is None
    assert all(torch.equal(one, other) for one, other in zip(before, state_of(step), strict=True))


@pytest.mark.parametrize("error", [RuntimeError("cannot be converted"), OverflowError("too large")])
def test_a_step_that_the_optimizer_cannot_take_is_an_error_that_says_how_to_go_on(error):
    model = linear()
    step = TrainingStep(model=model, optimizer=Refuses(model.parameters(), lr=0.5))
    step.optimizer.error = error
    with pytest.raises(RecipeError, match=f"the optimizer's step fails: {error}; lower the learning rate"):
        step.take(batch(), LABELS)


def stores_model(**store) -> nn.Sequential:
    """A layer whose latent weights go from -3 to 3, and a real one."""
    model = nn.Sequential(
        BinaryLinear(6, 40, input_quantizer=None, store=lambda shape: LatentStore(shape, **store)),
        nn.Linear(40, 3),
    )
    with torch.no_grad():
        model[0].store.weight.copy_(torch.linspace(-3, 3, 240).view(40, 6))
        model[1].weight.fill_(5.0)
    return model


@pytest.mark.parametrize("limit", [1.0, 0.25])
def test_after_the_update_latent_weights_are_clipped_to_their_limit_and_nothing_else_is(limit):
    model = stores_model(limit=limit)
    sgd_step(model).take(batch(), LABELS)
    weight = model[0].store.weight
    assert weight.abs().max() == limit
    assert (weight.abs() == limit).float().mean() > 0.5
    assert model[1].weight.min() > 3


def test_latent_weights_without_a_limit_go_free():
    model = stores_model()
    sgd_step(model).take(batch(), LABELS)
    assert model[0].store.weight.abs().max() > 2.9


@pytest.mark.parametrize(("tail", "moved"), [("project", True), ("pass", False)])
def test_the_update_is_followed_by_what_the_quantizer_does_to_its_weights(tail, moved):
    model = stores_model(quantizer=ReCU(tau=0.7, tail=tail, quantile="empirical", standardize=False))
    sgd_step(model).take(batch(), LABELS)
    weight = model[0].store.weight
    # At tau = 0.7 the weights beyond the 0.4-quantile of |w| come to lie on it.
    on_the_bound = weight.abs().isclose(weight.abs().max()).float().mean()
    assert (on_the_bound > 0.5) == moved
    assert (weight.abs().max() < 2) == moved


def test_a_skipped_step_does_not_move_the_weights_of_a_store():
    model = nn.Sequential(*stores_model(limit=0.25), Poison(math.nan, backward=False))
    model[-1].armed = True
    assert sgd_step(model).take(batch(), LABELS) is None
    assert model[0].store.weight.abs().max() == 3


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_products_are_of_the_precision_and_logits_and_loss_of_float32(precision, dtype):
    model, products = linear(), []
    model.register_forward_hook(lambda _, __, y: products.append(y.dtype))
    logits, loss = sgd_step(model, precision=precision).forward(batch(), LABELS)
    assert products == [dtype]
    assert (logits.dtype, loss.dtype) == (torch.float32, torch.float32)


def test_the_loss_can_be_another():
    model = linear()
    step = sgd_step(model, loss=lambda logits, labels: logits.square().mean())
    expected = model(batch()).square().mean().item()
    assert step.take(batch(), LABELS).loss == pytest.approx(expected)


def test_states_are_the_tensors_of_the_optimizer():
    model = nn.Linear(6, 3, bias=False)
    step = TrainingStep(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    assert step.states() == []
    step.take(batch(), LABELS)
    assert [state.shape for state in step.states()] == [(3, 6)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slice_size": 0}, "a slice has at least 1 example, got 0"),
        ({"precision": "float16"}, "the precision is one of float32, bfloat16, got 'float16'"),
    ],
)
def test_a_value_out_of_its_range_is_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        sgd_step(linear(), **options)


def test_finite_gradients_of_float16_whose_sum_is_not_are_taken():
    """1000 of 100 each: float16 ends at 65504."""
    model = nn.Linear(1000, 2, bias=False).half()
    nn.init.zeros_(model.weight)
    step = TrainingStep(
        model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.5), loss=lambda logits, _: logits.sum()
    )
    assert step.take(torch.full((1, 1000), 100.0).half(), torch.zeros(1, dtype=torch.int64)) is not None
    assert (model.weight == -50).all()
