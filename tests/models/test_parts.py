import pytest
import torch
from torch import nn

from bnn.cost.memory.predicted import predict_step
from bnn.errors import RecipeError
from bnn.layers import BinaryLayer, HadamardClassifier, TopKBatchNorm
from bnn.models import mlp, resnet8
from bnn.models.parts import quantize_gradients, replace_classifier, replace_norms
from bnn.presets import prepare
from bnn.quantizers.gradients import Int8Gradient
from tests.contracts import randn

NETWORKS = {
    "mlp": lambda: mlp(input_shape=(1, 6, 6), hidden=(16, 16)),
    "resnet8": lambda: resnet8(input_shape=(3, 16, 16), width=4),
}
INPUTS = {"mlp": (4, 1, 6, 6), "resnet8": (4, 3, 16, 16)}


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param](), randn(*INPUTS[request.param])


def test_norms_are_replaced_in_place(network):
    model, x = network
    before = {name: norm.num_features for name, norm in model.named_modules() if isinstance(norm, nn.BatchNorm2d)}
    count = replace_norms(model, TopKBatchNorm)
    found = {name: norm for name, norm in model.named_modules() if isinstance(norm, TopKBatchNorm)}
    assert len(found) == count > 2
    assert {name: found[name].num_features for name in before} == before
    assert not [module for module in model.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]
    model(x).sum().backward()


def test_every_layer_gets_a_copy_of_a_quantizer_that_may_depend_on_it(network):
    model, _ = network
    pattern, seen = Int8Gradient(), []
    quantize_gradients(model, lambda layer: seen.append(layer) or (pattern if len(seen) > 1 else None))
    layers = [module for module in model.modules() if isinstance(module, BinaryLayer)]
    assert seen == layers
    assert layers[0].grad_quantizer is None
    assert len({id(layer.grad_quantizer) for layer in layers[1:]}) == len(layers) - 1
    assert pattern not in [layer.grad_quantizer for layer in layers]


def test_the_classifier_is_replaced_with_the_norm_of_its_block(network):
    model, x = network
    width = model(x).shape[1]
    replace_classifier(model)
    assert isinstance(model[-1], HadamardClassifier)
    assert model(x).shape == (4, width)


def test_what_is_no_linear_layer_is_refused():
    with pytest.raises(RecipeError, match="takes the place of a linear layer, and the last is a ReLU"):
        replace_classifier(nn.Sequential(nn.Linear(3, 4), nn.ReLU()))


def test_a_replaced_network_trains_a_step(network):
    model, x = network
    replace_norms(model, TopKBatchNorm)
    replace_classifier(model)
    quantize_gradients(model, lambda layer: Int8Gradient())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    model(x).square().sum().backward()
    optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_predicted_step_has_no_weight_gradient_or_moments_of_the_classifier():
    """4 bytes of the weight, 8 of its moments, and 4 of the gradient, of 256 x 10 weights."""

    def weights_bytes(*, hadamard: bool) -> float:
        def build() -> nn.Module:
            model = mlp(input_shape=(1, 4, 4), hidden=(256,))
            if hadamard:
                replace_classifier(model)
            return model

        with torch.device("meta"):
            step = prepare("standard", build, input_shape=(1, 4, 4))
        return predict_step(step, input_shape=(1, 4, 4), batch_size=2).table.total_bytes

    assert weights_bytes(hadamard=False) - weights_bytes(hadamard=True) == pytest.approx(16 * 256 * 10, rel=0.1)
