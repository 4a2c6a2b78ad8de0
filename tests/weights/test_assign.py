"""Stores begin with the weights of another network."""

import math

import pytest
import torch

from bnn.errors import RecipeError
from bnn.weights import AccumulatorStore, FrozenStore, LatentStore
from tests.contracts import randn

SHAPE = (4, 3, 3, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_accumulators_take_the_signs_and_the_order_at_the_size_of_drawn_ones(dtype):
    store, values = AccumulatorStore(SHAPE, dtype=dtype, gain=0.5), 1e-3 * randn(*SHAPE)
    store.assign(values)
    assert torch.equal(store.read().dense(), values.sign())
    assert float(store.weight.detach().float().square().mean().sqrt()) == pytest.approx(0.5 / math.sqrt(27), rel=1e-2)
    assert torch.equal(store.trained_value().flatten().argsort()[-5:], values.flatten().argsort()[-5:])


def test_codes_are_taken_as_they_are():
    one, other = AccumulatorStore(SHAPE), AccumulatorStore(SHAPE)
    other.assign(one.weight.detach())
    assert torch.equal(one.weight, other.weight)


def test_latent_weights_are_taken_as_they_are_and_levels_at_the_size_of_drawn_ones():
    store, values = LatentStore(SHAPE), randn(*SHAPE)
    store.assign(values)
    assert torch.equal(store.weight, values)
    store.assign(values.sign())
    assert torch.allclose(store.weight, values.sign() / math.sqrt(27))


def test_a_frozen_weight_takes_none():
    with pytest.raises(RecipeError, match="a FrozenStore cannot begin with the weights of another network"):
        FrozenStore(torch.ones(2, 2), levels=2).assign(torch.ones(2, 2))
