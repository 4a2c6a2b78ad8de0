from functools import partial

import pytest
import torch

from bnn.errors import RecipeError
from bnn.layers import BinaryLinear
from bnn.methods import MarginLoss, bep_step
from bnn.models import mlp
from bnn.weights import named_stores
from tests.contracts import dense, randn, signs


def test_a_margin_that_holds_has_no_gradient():
    logits = torch.tensor([[3.0, 1.0, 0.0], [0.5, 0.0, -1.0], [0.0, 2.0, 0.0]], requires_grad=True)
    loss = MarginLoss(margin=1.0)(logits, torch.tensor([0, 0, 0]))
    assert loss.item() == pytest.approx((0 + 0.5 + 3.0) / 3)
    loss.backward()
    expected = torch.tensor([[0.0, 0, 0], [-1, 1, 0], [-1, 1, 0]]) / 3
    torch.testing.assert_close(logits.grad, expected)


def test_errors_are_signs_and_weights_get_sums_of_them():
    """a = sign(g); the layer before gets W^T a, and the weight the sum of a x over the batch."""
    step = bep_step(lambda: torch.nn.Sequential(BinaryLinear(6, 4, input_quantizer=None)), least=0.5)
    (layer,) = step.model
    x, grad = signs(randn(5, 6)).requires_grad_(), randn(5, 4, seed=1)
    grad[0] = 0
    layer(x).backward(grad)
    a = grad.sign() * (grad.abs() >= 0.5 * grad.abs().mean())
    torch.testing.assert_close(x.grad, a @ dense(layer.store.read()).detach())
    torch.testing.assert_close(layer.store.trained.grad, a.t() @ x.detach())


def test_integers_add_up_until_a_weight_flips_and_saturate():
    step = bep_step(
        lambda: torch.nn.Sequential(BinaryLinear(1, 1, input_quantizer=None)), rate=0.25, dtype=torch.float32
    )
    (layer,) = step.model
    parameter = layer.store.trained
    with torch.no_grad():
        parameter.fill_(0.6)
    found = []
    for _ in range(6):
        parameter.grad = torch.ones(1, 1)
        step.optimizer.step()
        found.append(round(parameter.item(), 4))
    assert found == [0.35, 0.1, -0.25, -0.5, -0.75, -1.0]


def test_learns():
    step = bep_step(partial(mlp, input_shape=(1, 4, 4), hidden=(64,)), rate=2.0**-9, learning_rate=1e-2)
    x, labels = randn(60, 1, 4, 4), torch.arange(60) % 3
    results = [step.take(x, labels) for _ in range(60)]
    assert results[-1].correct > results[0].correct + 10
    assert all(store.is_binary for _, store in named_stores(step.model))


@pytest.mark.parametrize("rate", [0, 1.5])
def test_rates_are_checked(rate):
    with pytest.raises(RecipeError, match=rf"^the rate of sums of signs lies in \(0, 1\], got {rate}$"):
        bep_step(partial(mlp, input_shape=(1, 4, 4)), rate=rate)


def test_margins_are_checked():
    with pytest.raises(RecipeError, match="the margin is above 0 and finite, got 0"):
        MarginLoss(margin=0)
