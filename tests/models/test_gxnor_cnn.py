import copy

import pytest
import torch
from torch import nn

from bnn.cost import count_layers, storage
from bnn.models import initialize
from bnn.models.gxnor_cnn import gxnor_cnn, gxnor_vgg
from bnn.optim import Adam
from bnn.optim.dst import DST
from bnn.quantizers import Ternary
from bnn.weights import DiscreteStore, LatentStore
from tests.contracts import parts_in_order

SMALL = {gxnor_cnn: {"input_shape": (2, 17, 20), "classes": 3}, gxnor_vgg: {"input_shape": (1, 8, 16), "classes": 3}}
networks = pytest.mark.parametrize("build", list(SMALL))


@pytest.mark.parametrize(
    ("build", "shape", "weights", "macs"),
    [
        # 25 x 32 on 24 x 24, 25 x 32 x 64 on 8 x 8, and two linear layers
        (gxnor_cnn, (1, 28, 28), 581_408, 460_800 + 3_276_800 + 524_288 + 5_120),
        (
            gxnor_vgg,
            (3, 32, 32),
            12_973_440,
            9 * 1024 * (3 * 128 + 128 * 128 + (128 * 256 + 256 * 256) // 4 + (256 * 512 + 512 * 512) // 16)
            + 8192 * 1024
            + 10_240,
        ),
    ],
)
def test_weights_and_products(build, shape, weights, macs):
    with torch.device("meta"):
        model = build()
    stored = storage(model)
    assert (stored.weights, stored.discrete_weights, stored.bits_per_weight) == (weights, weights, 2.0)
    assert f"{weights:,} weights" in build.__doc__
    layers = count_layers(model, shape)
    assert sum(layer.multiply_accumulates for layer in layers) == macs
    assert sum(layer.other_parameters for layer in layers) == stored.other_parameters
    assert [layer.input_bits for layer in layers if layer.weights] == [32] + [2] * (len(stored_layers(model)) - 1)


def stored_layers(model: nn.Module) -> list[nn.Module]:
    return [module for module in parts_in_order(model) if hasattr(module, "store")]


@networks
def test_order_of_layers(build):
    convolutions = {
        gxnor_cnn: 2 * "BinaryConv2d MaxPool2d BatchNorm2d ",
        gxnor_vgg: 3 * "BinaryConv2d BatchNorm2d BinaryConv2d MaxPool2d BatchNorm2d ",
    }[build]
    order = convolutions + "Flatten" + 2 * " BinaryLinear BatchNorm1d"
    assert [type(layer).__name__ for layer in parts_in_order(build(**SMALL[build]))] == order.split()


@networks
def test_a_step_moves_every_layer(build, generator):
    model = build(**SMALL[build])
    initialize(model, generator=generator)
    optimizer = DST(Adam(model.parameters(), lr=0.03))
    before = copy.deepcopy(model.state_dict())
    x = torch.randn((4, *SMALL[build]["input_shape"]), generator=generator)
    nn.functional.cross_entropy(model(x), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == set(before)
    for layer in stored_layers(model):
        assert set(layer.store.value().unique().tolist()) == {-1, 0, 1}


@networks
def test_initialize_depends_on_the_generator_alone(build):
    model = build(**SMALL[build])

    def drawn(seed: int) -> list[torch.Tensor]:
        initialize(model, generator=torch.Generator().manual_seed(seed))
        return [layer.store.planes.clone() for layer in stored_layers(model)]

    one, again, other = drawn(0), drawn(0), drawn(3)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@networks
def test_takes_other_stores_and_activations(build):
    pattern = Ternary(threshold=0.2)
    made = []

    def store(shape):
        made.append(shape)
        return LatentStore(shape, quantizer=Ternary())

    model = build(store=store, input_quantizer=pattern, **SMALL[build])
    layers = stored_layers(model)
    assert len(made) == len(layers)
    assert layers[0].input_quantizer is None
    assert all(layer.input_quantizer.threshold == 0.2 for layer in layers[1:])
    assert not any(isinstance(module, DiscreteStore) for module in model.modules())


@pytest.mark.parametrize("shape", [(1, 15, 28), (1, 28, 15)])
def test_refuses_images_that_leave_nothing_to_convolve(shape):
    with pytest.raises(ValueError, match="at least 16x16"):
        gxnor_cnn(input_shape=shape)
