import pytest
import torch
from torch import nn

from bnn.optim import Bop
from bnn.weights import Accumulator
from bnn.weights.accumulator import decode


def test_bop_flips_as_in_the_paper():
    # By hand: gamma = 0.5, tau = 0.3.
    weight = nn.Parameter(torch.tensor([0.2, 0.2, -5.0, -5.0, 1.0]))
    optimizer = Bop([weight], lr=0.5, threshold=0.3)
    weight.grad = torch.tensor([1.0, -1.0, -1.0, 0.4, 0.4])
    optimizer.step()  # m = .5, -.5, -.5, .2, .2
    assert weight.tolist() == [-1, 1, 1, -1, 1]
    weight.grad = torch.tensor([1.0, 2.0, 2.0, -2.0, 0.6])
    optimizer.step()  # m = .75, .75, .75, -.9, .4
    assert weight.tolist() == [-1, -1, -1, 1, -1]


@pytest.mark.parametrize("threshold", [0.0, 0.25])
def test_a_mean_at_the_threshold_flips_nothing(threshold):
    weight = nn.Parameter(torch.tensor([1.0, -1.0, 1.0, -1.0]))
    optimizer = Bop([weight], lr=1.0, threshold=threshold)
    weight.grad = torch.tensor([threshold, threshold, -threshold, -threshold])
    optimizer.step()
    assert weight.tolist() == [1, -1, 1, -1]
    # A little more, and the two whose sign the mean has go over.
    weight.grad *= 1.01
    weight.grad += torch.tensor([0.01, 0.01, -0.01, -0.01])
    optimizer.step()
    assert weight.tolist() == [-1, -1, 1, 1]


def test_a_weight_of_zero_counts_as_positive():
    weight = nn.Parameter(torch.zeros(3))
    optimizer = Bop([weight], lr=1.0, threshold=0.0)
    weight.grad = torch.tensor([0.0, 1.0, -1.0])
    optimizer.step()
    assert weight.tolist() == [1, -1, 1]


def test_codes_are_kept_at_their_largest(generator):
    start = torch.randint(-128, 128, (6, 20), generator=generator).to(torch.int8)
    parameter = Accumulator(start.clone())
    optimizer = Bop([parameter], lr=1.0, threshold=0.5)
    parameter.grad = torch.zeros(6, 20)
    optimizer.step()
    assert torch.equal(decode(parameter.detach()).sign(), decode(start).sign())
    assert parameter.detach().unique().tolist() == [-128, 127]


def test_defaults_are_those_of_the_paper_for_cifar10():
    assert Bop([nn.Parameter(torch.ones(2))]).defaults == {"lr": 1e-4, "threshold": 1e-8, "seed": 0}


@pytest.mark.parametrize("lr", [0.0, -0.1, 1.1])
def test_a_rate_that_is_no_part_of_a_mean_is_refused(lr):
    with pytest.raises(ValueError, match=r"Bop's lr lies in \(0, 1\]|lr is finite and at least 0"):
        Bop([nn.Parameter(torch.ones(2))], lr=lr)
