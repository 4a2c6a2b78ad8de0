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
