import copy
import math

import pytest
import torch

from bnn.bits import BitTensor
from bnn.quantizers import ReCU, ScaledSign, Sign, Ternary
from bnn.quantizers.gradients import SignGradient
from bnn.weights import LatentStore
from tests.contracts import signs


def test_reads_the_signs_of_its_latent_weight(generator):
    store = LatentStore((5, 7))
    store.initialize(generator)
    assert isinstance(store.read(), BitTensor)
    assert torch.equal(store.read().dense(), signs(store.weight.detach()))


def test_the_gradient_reaches_the_latent_weight():
    store = LatentStore((5, 7), quantizer=Sign(window=math.inf))
    grad = torch.arange(35.0).view(5, 7)
    store.read().backward(grad)
    assert torch.equal(store.weight.grad, grad)


def test_the_quantizer_is_copied():
    pattern = ReCU()
    one, other = LatentStore((5, 7), quantizer=pattern), LatentStore((5, 7), quantizer=pattern)
    one.quantizer.tau = 0.99
    assert pattern.tau == other.quantizer.tau == 0.85


@pytest.mark.parametrize(("quantizer", "bits"), [(Sign(), 1), (ReCU(), 1), (Ternary(), 2)])
def test_storage_bits_are_those_of_the_quantizer(quantizer, bits):
    assert LatentStore((5, 7), quantizer=quantizer).storage_bits == bits


def test_scale_is_that_of_the_quantizer():
    assert LatentStore((5, 7)).scale() is None
    store = LatentStore((5, 7), quantizer=ScaledSign())
    torch.testing.assert_close(store.scale(), store.weight.abs().mean(1))


def test_project_moves_the_latent_weight():
    store = LatentStore((5, 70), quantizer=ReCU(tau=0.6, tail="project"))
    before = store.weight.detach().clone()
    store.project_()
    changed = store.weight != before
    assert 0 < changed.sum() < changed.numel()
    assert isinstance(store.weight, torch.nn.Parameter)


@pytest.mark.parametrize("shape", [(64, 100), (64, 25, 2, 2)])
def test_initialization_has_the_deviation_of_the_fan_in(shape, generator):
    store = LatentStore(shape)
    store.initialize(generator)
    assert store.weight.std().item() == pytest.approx(0.1, rel=0.05)
    assert store.weight.mean().item() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("shape", [(5, 7), (5, 3, 3, 3)])
def test_a_generator_makes_initialization_reproducible(shape):
    one, other = LatentStore(shape), LatentStore(shape)
    state = torch.get_rng_state()
    for store in (one, other):
        store.initialize(torch.Generator().manual_seed(3))
    assert torch.equal(one.weight, other.weight)
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
    other.initialize(torch.Generator().manual_seed(4))
    assert not torch.equal(one.weight, other.weight)


def test_convolution_weights_lie_channels_last_so_that_packing_needs_no_copy():
    store = LatentStore((5, 4, 3, 3))
    assert store.weight.is_contiguous(memory_format=torch.channels_last)
    assert store.read().is_contiguous(memory_format=torch.channels_last)
    assert copy.deepcopy(store).weight.is_contiguous(memory_format=torch.channels_last)


def test_state_is_the_latent_weight_alone():
    assert list(LatentStore((5, 7), quantizer=ReCU()).state_dict()) == ["weight"]


def test_repr_tells_shape_and_quantizer():
    assert "shape=(5, 7)" in repr(LatentStore((5, 7), quantizer=Ternary()))
    assert "Ternary(" in repr(LatentStore((5, 7), quantizer=Ternary()))


def test_gradient_of_the_levels_is_quantized_before_the_straight_through_window(generator):
    store = LatentStore((4, 6), gradient_quantizer=SignGradient(scale="layer"))
    with torch.no_grad():
        store.weight.copy_(2 * torch.randn(4, 6, generator=generator))
    grad = torch.randn(4, 6, generator=generator)
    levels = store.read()
    assert isinstance(levels, BitTensor)
    levels.backward(grad)
    expected = grad.sign() / 24**0.5 * (store.weight.detach().abs() <= 1)
    torch.testing.assert_close(store.weight.grad, expected)
    assert 0 < store.weight.grad.count_nonzero() < 24
