"""A weight that is kept as it was read from a file."""

import pytest
import torch

from bnn.bits import BitTensor
from bnn.weights.frozen import FrozenStore


@pytest.mark.parametrize(("levels", "bits"), [(2, 1), (3, 2), (4, 2), (5, 3), (16, 4)])
def test_bits_are_those_of_the_levels(levels, bits):
    store = FrozenStore(torch.zeros(5, 3), levels=levels)
    assert (store.storage_bits, store.training_bits) == (bits, bits)
    assert not store.has_latent_weight
    assert not store.is_binary


def test_signs_stay_bits_and_other_levels_dense(generator):
    dense = torch.randn(5, 9, generator=generator)
    bits = BitTensor.from_dense(dense)
    binary, other = FrozenStore(bits, levels=2), FrozenStore(dense, levels=3)
    assert binary.is_binary
    assert binary.shape == other.shape == (5, 9)
    assert isinstance(binary.read(), BitTensor)
    assert torch.equal(binary.read().dense(), bits.dense())
    assert other.read() is dense
    assert type(binary.state_dict()["elements"]) is torch.Tensor


def test_a_scale_is_kept_and_said():
    scale = torch.tensor([0.5, 2.0])
    with_scale, without = (FrozenStore(torch.zeros(2, 3), levels=3, scale=value) for value in (scale, None))
    assert (with_scale.scales, without.scales) == (True, False)
    assert torch.equal(with_scale.scale(), scale)
    assert without.scale() is None


def test_cannot_be_drawn_anew():
    with pytest.raises(TypeError, match="cannot be drawn anew"):
        FrozenStore(torch.zeros(2, 3), levels=3).initialize()
