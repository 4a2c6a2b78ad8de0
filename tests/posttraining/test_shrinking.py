"""A network with fewer channels, and the run that tunes it."""

import pytest
import torch
from torch import nn

from bnn.bits import BitTensor
from bnn.errors import RunError
from bnn.layers import BinaryLinear
from bnn.posttraining.shrinking import require_latent, shrink, with_latent_weights
from bnn.weights import FrozenStore
from tests.posttraining.networks import accuracy, binary, data


def test_each_layer_keeps_its_share_and_the_network_most_of_what_it_knows():
    x, labels, _, _ = data()
    network = binary().network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = shrink(network, x[:256], labels[:256], keep=0.75)
    assert found.channels == {"1.product": (32, 24), "2.product": (32, 24), "3.product": (10, 10)}
    assert found.network.get_submodule("2.product").store.weight.shape == (24, 24)
    assert found.network.get_submodule("1.norm").num_features == 24
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    worst = shrink(network, x[:256], labels[:256], keep=0.1)
    assert accuracy(network) > accuracy(found.network) > max(0.5, accuracy(worst.network))


def test_across_the_network_layers_keep_what_they_need():
    x, labels, _, _ = data()
    found = shrink(binary().network, x[:256], labels[:256], keep=0.5, across=True, rounds=1)
    kept = [after for before, after in found.channels.values() if before == 32]
    assert sum(kept) == 32
    assert kept != [16, 16]
    fewest = shrink(binary().network, x[:64], labels[:64], keep=0.01, across=True, rounds=1)
    assert [after for before, after in fewest.channels.values() if before == 32] == [1, 1]


def test_latent_weights_read_the_levels_that_there_are():
    layer = BinaryLinear(6, 2, store=lambda shape: FrozenStore(BitTensor.from_dense(torch.randn(shape)), levels=2))
    network, latent = nn.Sequential(layer), torch.rand(2, 6) + 0.1
    levels = layer.store.read().dense()
    taken = with_latent_weights(network, {"0.store.weight": latent * levels})[0].store
    assert torch.equal(taken.weight, latent * levels)
    other = with_latent_weights(network, {"0.store.weight": -latent * levels})[0].store
    assert torch.equal(other.read().dense(), levels)


def test_what_cannot_be_tuned_is_refused():
    of_floats = BinaryLinear(6, 2, store=lambda shape: FrozenStore(torch.randn(shape), levels=2))
    with pytest.raises(RunError, match="the weight of 0 is neither binary nor ternary"):
        with_latent_weights(nn.Sequential(of_floats), {})
    with pytest.raises(RunError, match=r"runs/mtj trains 0 without latent weights \(FrozenStore\)"):
        require_latent(nn.Sequential(of_floats), "runs/mtj")
    x, labels, _, _ = data()
    with pytest.raises(RunError, match="no channel of the network can be removed"):
        shrink(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), x[:8], labels[:8], keep=0.5)
