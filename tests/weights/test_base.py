import pytest
import torch
from torch import nn

from bnn.bits import BitTensor
from bnn.cost.meters.weights import count_ones
from bnn.layers import BinaryConv2d, BinaryLinear
from bnn.quantizers import ReCU, ScaledSign, Sign, Ternary
from bnn.weights import AccumulatorStore, DiscreteStore, LatentStore, named_stores
from tests.contracts import dense

STORES = {
    "latent": LatentStore,
    "scaled latent": lambda shape: LatentStore(shape, quantizer=ScaledSign()),
    "half": lambda shape: LatentStore(shape, dtype=torch.float16),
    "ternary latent": lambda shape: LatentStore(shape, quantizer=Ternary()),
    "int8": AccumulatorStore,
    "float16": lambda shape: AccumulatorStore(shape, dtype=torch.float16),
    "binary states": lambda shape: DiscreteStore(shape, space=0),
    "ternary states": DiscreteStore,
    "nine states": lambda shape: DiscreteStore(shape, space=3),
}


@pytest.fixture(params=STORES, ids=lambda name: name)
def store(request, generator):
    store = STORES[request.param]((5, 3, 3, 3))
    store.initialize(generator)
    return store


def test_names_are_those_of_the_layers():
    model = nn.Sequential(BinaryLinear(3, 4), nn.Sequential(nn.ReLU(), BinaryConv2d(1, 2, 3)), nn.Linear(4, 2))
    assert [name for name, _ in named_stores(model)] == ["0", "1.1"]
    assert [name for name, _ in named_stores(model[1][1].store)] == [""]


def test_planes_count_the_signs_of_what_is_read(store):
    levels = dense(store.read().detach())
    expected = [(levels > 0).sum().item(), (levels < 0).sum().item()]
    planes = store.sign_planes()
    assert len(planes) == (1 if store.storage_bits == 1 else 2)
    assert [int(count_ones(plane)) for plane in planes] == expected[: len(planes)]
    assert all(plane.dtype == torch.uint8 and not plane.requires_grad for plane in planes)


def test_says_whether_it_scales(store):
    assert store.scales == (store.scale() is not None)


@pytest.mark.parametrize("base", [LatentStore, AccumulatorStore])
def test_a_store_that_reads_something_else_is_asked_for_its_signs(base, generator):
    class Negative(base):
        def read(self):
            return -super().read().dense()

    store = Negative((4, 9))
    store.initialize(generator)
    above, below = store.sign_planes()
    assert torch.equal(above, BitTensor.from_dense(store.read() > 0).packed)
    assert torch.equal(below, BitTensor.from_dense(store.read() < 0).packed)
    assert 0 < int(count_ones(above)) < 36


def test_the_trained_value_is_real_and_has_the_signs_of_the_weight(store):
    value = store.trained_value()
    assert value.is_floating_point()
    assert not value.requires_grad
    assert value.shape == store.shape
    levels = dense(store.read().detach())
    assert torch.equal(value.sign()[levels != 0].float(), levels.sign()[levels != 0])
    assert store.trained is store.weight


class Flipped(Sign):
    def forward(self, x):
        return super().forward(-x)


@pytest.mark.parametrize("quantizer", [Flipped(), ReCU()])
def test_a_quantizer_that_moves_the_weight_is_asked(quantizer, generator):
    store = LatentStore((5, 3, 3, 3), quantizer=quantizer)
    store.initialize(generator)
    with torch.no_grad():
        store.weight.add_(0.1)
        (plane,) = store.sign_planes()
        assert torch.equal(plane, store.read().packed)
        assert not torch.equal(plane, BitTensor.from_dense(store.weight).packed)


@pytest.mark.parametrize("n", [1, 7, 256, 1000])
def test_ones_are_counted(n, generator):
    packed = torch.randint(0, 256, (n,), generator=generator).to(torch.uint8)
    assert int(count_ones(packed)) == sum(value.bit_count() for value in packed.tolist())
    assert int(count_ones(torch.full((n,), 255, dtype=torch.uint8))) == 8 * n


@pytest.mark.parametrize(
    ("name", "levels", "storage_bits", "training_bits"),
    [
        ("latent", 2, 1, 32),
        ("half", 2, 1, 16),
        ("ternary latent", 3, 2, 32),
        ("int8", 2, 1, 8),
        ("float16", 2, 1, 16),
        ("binary states", 2, 1, 1),
        ("ternary states", 3, 2, 2),
        ("nine states", 9, 4, 4),
    ],
)
def test_levels_and_bits_of_each_store(name, levels, storage_bits, training_bits):
    store = STORES[name]((5, 3, 3, 3))
    assert len(store.levels) == levels
    assert (store.storage_bits, store.training_bits) == (storage_bits, training_bits)
    assert store.is_binary == (levels == 2) == isinstance(store.read(), BitTensor)
    assert store.has_latent_weight == (training_bits > storage_bits)
