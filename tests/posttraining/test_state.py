"""What weights and sums are like."""

import pytest
import torch
from torch import nn

from bnn.layers import BinaryLinear
from bnn.posttraining.state import Entropy, level_entropies, levels_by_layer, seen, unchanged_signs
from tests.posttraining.networks import binary, data


def test_sums_of_signs_have_the_width_of_their_terms():
    x, labels, _, _ = data()
    found = seen(binary().network, x[:64], labels[:64])
    assert set(found.sums) == {"2.product", "3.product"}
    assert found.sums["3.product"].terms == 32
    assert found.sums["3.product"].exact_bits == 7
    assert 4 <= found.sums["3.product"].seen_bits <= 7
    assert found.input_levels == {"1.product": 17, "2.product": 2, "3.product": 2}
    assert len(found.alignment) == 10


def test_weights_that_are_class_means_are_aligned():
    layer = nn.Linear(3, 2, bias=False)
    layer.weight.data = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0]])
    x = torch.tensor([[1.0, 4.0, 0.0], [3.0, 4.0, 0.0], [0.0, -2.0, 2.0]])
    assert seen(nn.Sequential(layer), x, torch.tensor([0, 0, 1])).alignment == pytest.approx([1, -1])


def test_entropy_and_signs_that_stayed():
    layer = BinaryLinear(4, 2)
    network = nn.Sequential(layer)
    layer.store.weight.data = torch.tensor([[1.0, 1, 1, -1], [1, 1, 1, -1]])
    assert level_entropies(network)["0"] == Entropy(pytest.approx(0.8113, abs=1e-4), 1.0)
    start = levels_by_layer(network)
    layer.store.weight.data[0, 0] = -1
    assert unchanged_signs(network, start) == {"0": 7 / 8}
    assert unchanged_signs(network, {}) == {}
