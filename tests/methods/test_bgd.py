"""Bayesian gradient descent: closed forms on a quadratic loss, and refusals."""

import math

import pytest
import torch

from bnn.methods import BGD


def trained(*, curvature: float, steps: int, deviation: float = 0.5, eta: float = 1.0, samples: int = 400):
    """A weight of one hundred, under the loss curvature / 2 (w - 1)², and its deviation."""
    weight = torch.nn.Parameter(torch.zeros(100))
    generator = torch.Generator().manual_seed(0)
    optimizer = BGD([weight], deviation=deviation, eta=eta, samples=samples, generator=generator)

    def closure():
        optimizer.zero_grad()
        loss = curvature / 2 * (weight - 1).square().sum()
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
    return weight.detach(), optimizer.state[weight]["deviation"]


def test_deviation_follows_the_closed_form():
    # g e = c (m + s e - 1) e has the mean c s.
    _, deviation = trained(curvature=2.0, steps=1)
    half = 0.5 * (2.0 * 0.5) / 2
    assert float(deviation.mean()) == pytest.approx(0.5 * (math.sqrt(1 + half**2) - half), rel=0.01)


def test_mean_moves_by_the_variance_times_the_gradient():
    weight, _ = trained(curvature=2.0, steps=1, eta=0.5)
    assert float(weight.mean()) == pytest.approx(0.5 * 0.5**2 * 2.0, rel=0.02)


def test_posterior_of_many_observations_is_narrow_and_right():
    weight, deviation = trained(curvature=4.0, steps=60, samples=40)
    # Observations add their curvatures: 1 / s² grows by about 4 a step, from the 1 / 0.5² of the prior.
    assert float(deviation.mean()) == pytest.approx(1 / math.sqrt(4 + 60 * 4.0), rel=0.1)
    assert float(weight.mean()) == pytest.approx(1, abs=0.05)


def test_a_weight_without_gradient_keeps_its_posterior():
    weight, unused = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.full((3,), 2.0))
    optimizer = BGD([weight, unused], samples=2, generator=torch.Generator().manual_seed(0))

    def closure():
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(unused.detach(), torch.full((3,), 2.0))
    torch.testing.assert_close(optimizer.state[unused]["deviation"], torch.full((3,), 0.06))


def test_the_seed_gives_the_bits():
    first, second = (trained(curvature=1.0, steps=3, samples=2) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"deviation": 0.0}, "deviation is above 0, got 0.0"),
        ({"eta": -1.0}, "eta is above 0"),
        ({"samples": 0}, "at least 1"),
    ],
)
def test_options_out_of_range(options, words):
    with pytest.raises(ValueError, match=words):
        BGD([torch.nn.Parameter(torch.zeros(1))], **options)
