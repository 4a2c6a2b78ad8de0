"""Gradients that agree or do not, and how they are distributed."""

import pytest
import torch
from torch import nn

from bnn.posttraining.gradients import gradient_coherence, output_gradients
from tests.posttraining.networks import binary, data


def test_equal_examples_agree_wholly():
    x, labels, _, _ = data()
    found = gradient_coherence(binary().network, x[:1].repeat(6, 1, 1, 1), labels[:1].repeat(6))
    assert found.total == pytest.approx(6, rel=1e-4)
    assert list(found.of_layers) == ["1.product", "2.product", "3.product"]
    assert found.of_layers["2.product"] == pytest.approx(6, rel=1e-4)


def test_orthogonal_examples_have_a_coherence_of_one():
    network = nn.Sequential(nn.Linear(4, 3, bias=False))
    found = gradient_coherence(network, torch.eye(4), torch.tensor([0, 1, 2, 0]))
    assert found.total == pytest.approx(1, rel=1e-5)
    assert gradient_coherence(network, torch.zeros(2, 4), torch.tensor([0, 1])).total == 0


def test_the_network_stays_as_it_is():
    network, (x, labels, _, _) = binary().network, data()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    gradients = output_gradients(network, x[:8], labels[:8])
    assert {name: tuple(g.shape) for name, g in gradients.items()} == {
        "1.product": (8, 32),
        "2.product": (8, 32),
        "3.product": (8, 10),
    }
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
