import pytest
import torch

from bnn.quantizers.gradients import Int8Gradient


def test_nearest_by_hand():
    gradient = torch.tensor([127.0, -63.4, 0.49, 0.51, -1.5001])
    assert Int8Gradient()(gradient).tolist() == [127, -63, 0, 1, -2]
    torch.testing.assert_close(Int8Gradient()(gradient * 1e-12) * 1e12, Int8Gradient()(gradient))


@pytest.mark.parametrize("stochastic", [False, True])
def test_has_at_most_255_values_within_a_step(stochastic, generator):
    gradient = torch.randn((50, 200), generator=generator)
    q = Int8Gradient(generator=generator if stochastic else None)(gradient)
    step = gradient.abs().max() / 127
    assert 100 < len(q.unique()) <= 255
    assert (q - gradient).abs().max() <= step * (1.0001 if stochastic else 0.5001)
    torch.testing.assert_close((q / step).round() * step, q)


def test_quantile_clamps_what_lies_beyond():
    gradient = torch.arange(1.0, 101.0)
    q = Int8Gradient(quantile=0.9)(gradient)
    assert q.max() == 90
    assert (q[90:] == 90).all()
    assert (q[:90] - gradient[:90]).abs().max() <= 0.5001 * 90 / 127


def test_quantile_of_zeros_falls_back_to_the_largest():
    gradient = torch.zeros(100)
    gradient[3] = -5.0
    assert torch.equal(Int8Gradient(quantile=0.9)(gradient), gradient)


@pytest.mark.parametrize("quantile", [0.0, 1.1, float("nan")])
def test_options_are_checked(quantile):
    with pytest.raises(ValueError, match=r"quantile of \|g\| lies in \(0, 1\]"):
        Int8Gradient(quantile=quantile)


def test_ternary_gradients_of_weights_need_a_generator(generator):
    assert Int8Gradient(generator=generator, ternary_weights=True).ternary_seed() is not None
    assert Int8Gradient(generator=generator).ternary_seed() is None
    with pytest.raises(ValueError, match="needs a generator"):
        Int8Gradient(ternary_weights=True)


class Int4Gradient(Int8Gradient):
    largest = 7
    storage_bits = 4


@pytest.mark.parametrize("stochastic", [False, True])
def test_another_width_has_other_steps(generator, stochastic):
    gradient = torch.randn(1000, generator=generator)
    q = Int4Gradient(generator=generator if stochastic else None)(gradient)
    steps = q / (gradient.abs().max() / 7)
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-4)
    assert steps.abs().max().round() == 7
    assert (q - gradient).abs().max() <= gradient.abs().max() / 7 * (1 if stochastic else 0.5001)


def test_gives_integers_with_a_generator_and_without_a_quantile(generator):
    assert Int8Gradient(generator=generator).gives_integers
    assert not Int8Gradient().gives_integers
    assert not Int8Gradient(quantile=0.9, generator=generator).gives_integers


@pytest.mark.parametrize("make", [Int8Gradient, Int4Gradient])
def test_integers_are_the_gradient_on_average(generator, make):
    gradient = torch.randn(50, generator=generator).repeat(20_000, 1)
    q, scale = make(generator=generator).integers(gradient)
    assert q.dtype is torch.int8
    assert q.abs().max() == make.largest
    assert ((q.double().mean(0) * scale - gradient[0]).abs() < 0.02 * scale).all()
