import pytest
import torch

from bnn.cost.meters.accumulators import largest_sums
from bnn.models import mlp
from bnn.presets import prepare
from tests.contracts import randn, signs


@pytest.mark.parametrize("preset", ["standard", "edge"])
def test_largest_sums_are_those_of_the_layers_and_nothing_is_changed(preset):
    step = prepare(preset, lambda: mlp(input_shape=(1, 4, 4), hidden=(32, 24)), input_shape=(1, 4, 4))
    model, x = step.model, randn(9, 1, 4, 4)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = largest_sums(model, x)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert {name: terms for name, (_, terms) in found.items()} == {"2.product": 32, "3.product": 24}
    model.eval()
    hidden = model[:2](x).dense()
    weight = model[2].product.store.read().dense()
    assert torch.equal(hidden, signs(hidden))
    assert found["2.product"][0] == (hidden @ weight.t()).abs().max()
