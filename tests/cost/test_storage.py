import pytest
import torch
from torch import nn

from bnn.cost import Storage, storage
from bnn.layers import BinaryConv2d, BinaryLinear
from bnn.quantizers import Ternary
from bnn.weights import LatentStore


def ternary_store(shape) -> LatentStore:
    return LatentStore(shape, quantizer=Ternary())


def test_mixed_network_by_hand():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),  # 108 weights, 4 biases
        nn.BatchNorm2d(4),  # 8
        BinaryConv2d(4, 5, 3, learned_scale=True),  # 180 weights, 5 scales
        nn.PReLU(5),  # 5
        nn.Flatten(),
        BinaryLinear(20, 6, store=ternary_store, bias=True),  # 120 weights, 6 biases
        nn.Linear(6, 2, bias=False),  # 12 weights
    )
    stored = storage(model)
    assert stored == Storage(
        weights=108 + 180 + 120 + 12,
        discrete_weights=180 + 120,
        weight_bits=32 * 108 + 180 + 2 * 120 + 32 * 12,
        other_parameters=4 + 8 + 5 + 5 + 6,
    )
    assert stored.bits_per_weight == pytest.approx((32 * 120 + 180 + 240) / 420)


@pytest.mark.parametrize(("store", "bits"), [(LatentStore, 1.0), (ternary_store, 2.0)])
def test_bits_of_a_discrete_weight(store, bits):
    assert storage(BinaryLinear(7, 3, store=store)).bits_per_weight == bits


def test_latent_width_does_not_matter_once_training_has_ended():
    model = nn.Sequential(BinaryLinear(8, 8))
    assert storage(model) == storage(model.half()) == storage(model.to(torch.float64))


def test_network_without_weights():
    stored = storage(nn.BatchNorm1d(3))
    assert (stored.weights, stored.bits_per_weight, stored.other_parameters) == (0, 0.0, 6)
