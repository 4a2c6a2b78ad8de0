import pytest
import torch

from bnn.cost.meters.gradients import product_gradients
from bnn.models import mlp
from bnn.presets import prepare
from tests.contracts import randn


@pytest.mark.parametrize("preset", ["standard", "edge", "edge-min"])
def test_gradients_are_those_of_the_products_and_nothing_is_changed(preset):
    step = prepare(preset, lambda: mlp(input_shape=(1, 4, 4), hidden=(32, 24)), input_shape=(1, 4, 4))
    model, x, labels = step.model, randn(9, 1, 4, 4), torch.arange(9)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = product_gradients(step, x, labels)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert {name: tuple(gradient.shape) for name, gradient in found.items()} == {
        "1.product": (9, 32),
        "2.product": (9, 24),
        "3.product": (9, 10),
    }
    # That of a product in front of a batch norm sums up to 0 over the batch.
    torch.testing.assert_close(found["3.product"].sum(0), torch.zeros(10), atol=1e-5, rtol=0)
    assert found["3.product"].any()
