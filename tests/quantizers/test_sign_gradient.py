import math

import pytest
import torch

from bnn.bits import BitTensor
from bnn.quantizers.gradients import SignGradient

GRADIENT = torch.tensor([3.0, -2.0, 0.0, 1e-30, -0.0, 5.0, -1e-30, 1.0]).view(2, 2, 2, 1)
SIGNS = torch.tensor([1.0, -1.0, 0.0, 1.0, 0.0, 1.0, -1.0, 1.0]).view(2, 2, 2, 1)


@pytest.mark.parametrize(("scale", "n"), [("layer", 8), ("fan_in", 4), ("none", 1)])
def test_is_the_sign_over_the_root_of_n_and_zero_stays(scale, n):
    torch.testing.assert_close(SignGradient(scale=scale)(GRADIENT), SIGNS / math.sqrt(n))


def test_small_elements_count_zero_where_it_is_asked_for():
    """The mean magnitude is 11 / 8."""
    for least, signs in (
        (0.5, [1, -1, 0, 0, 0, 1, 0, 1]),
        (1.0, [1, -1, 0, 0, 0, 1, 0, 0]),
        (2.0, [1, 0, 0, 0, 0, 1, 0, 0]),
    ):
        q = SignGradient(scale="none", least=least)(GRADIENT)
        assert q.flatten().tolist() == signs


def test_default_is_that_of_the_public_code():
    assert SignGradient().scale == "layer"
    assert SignGradient().storage_bits == 2


def test_packed_takes_one_bit():
    q = SignGradient(scale="none", packed=True)(GRADIENT)
    assert isinstance(q, BitTensor)
    assert q.storage_bytes == 2
    assert SignGradient(scale="none", packed=True).storage_bits == 1
    assert torch.equal(q.dense(), torch.where(GRADIENT == 0, 1.0, SIGNS)), "without generator a 0 is +1"


def test_packed_zeros_are_zero_on_average(generator):
    gradient = torch.zeros(100, 100)
    gradient[0] = -1e-30
    q = SignGradient(scale="none", packed=True, generator=generator)(gradient).dense()
    assert (q[0] == -1).all()
    assert q[1:].mean().abs() < 0.05
    assert q[1:].mean(1).abs().max() < 0.5


def test_options_are_checked():
    with pytest.raises(ValueError, match="one of layer, fan_in, none, got 'tensor'"):
        SignGradient(scale="tensor")
    with pytest.raises(ValueError, match="takes scale='none', got 'layer'"):
        SignGradient(packed=True)
    with pytest.raises(ValueError, match=r"0 of a packed gradient, got 0\.5"):
        SignGradient(scale="none", packed=True, least=0.5)
    with pytest.raises(ValueError, match=r"^the least magnitude is finite, at least 0, .* got -1"):
        SignGradient(least=-1)


def test_packed_signs_of_a_generator_are_all_that_is_wanted_of_a_product(generator):
    packed = SignGradient(scale="none", packed=True, generator=generator)
    assert packed.sign_seed() != packed.sign_seed()
    assert SignGradient(scale="none", packed=True).sign_seed() is None
    assert SignGradient(generator=generator).sign_seed() is None
    assert not packed.gives_integers


@pytest.mark.parametrize("scale", ["layer", "fan_in", "none"])
def test_a_gradient_without_elements_stays(scale):
    assert SignGradient(scale=scale)(torch.zeros(0, 0)).shape == (0, 0)
