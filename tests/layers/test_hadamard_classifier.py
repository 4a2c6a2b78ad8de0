from statistics import mean

import pytest
import torch
from torch import nn

from bnn.bits import BitTensor
from bnn.data.bundled_digits import digits
from bnn.layers import HadamardClassifier
from tests.contracts import bits_of, randn


def formula(layer, x):
    return layer.alpha * (x / x.norm(dim=1, keepdim=True)) @ layer.product.store.read().dense().t() + layer.bias


@pytest.mark.parametrize("bits", [True, False])
def test_equals_its_formula(bits):
    layer = HadamardClassifier(48, 10)
    with torch.no_grad():
        layer.alpha.fill_(3.0)
        layer.bias.copy_(randn(10, seed=2))
    x = bits_of(5, 48) if bits else randn(5, 48)
    torch.testing.assert_close(layer(x), formula(layer, x.dense() if isinstance(x, BitTensor) else x))


def test_gradient_reaches_input_factor_and_bias_alone():
    layer, x = HadamardClassifier(16, 3), randn(4, 16).requires_grad_()
    layer(x).square().sum().backward()
    assert {name for name, _ in layer.named_parameters()} == {"alpha", "bias"}
    assert all(tensor.grad.any() for tensor in (x, *layer.parameters()))


def test_a_row_of_zeros_gives_the_bias():
    layer = HadamardClassifier(16, 3)
    assert torch.equal(layer(torch.zeros(2, 16)), layer.bias.expand(2, 3))


def trained_bytes(layer: nn.Module) -> int:
    """Of what is trained: parameters, gradients and Adam's moments, each of float32."""
    optimizer = torch.optim.Adam(layer.parameters())
    layer(randn(4, 64)).sum().backward()
    optimizer.step()
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    gradients = [parameter.grad for parameter in layer.parameters()]
    return sum(x.nbytes for x in (*layer.parameters(), *gradients, *moments))


def test_saves_sixteen_bytes_a_weight():
    saved = trained_bytes(nn.Linear(64, 10)) - trained_bytes(HadamardClassifier(64, 10))
    assert saved == 16 * 10 * 64 - 16  # alpha is added


@pytest.mark.slow
def test_digits_are_told_apart_as_well_as_by_a_learned_head():
    """The references have 98.6 and 98.3 %, the means of three seeds."""
    accuracies = {head: [accuracy(head, seed) for seed in range(3)] for head in (nn.Linear, HadamardClassifier)}
    learned, fixed = (mean(values) for values in accuracies.values())
    assert learned > 0.95
    assert abs(fixed - learned) < 0.01


def accuracy(head: type[nn.Module], seed: int) -> float:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), head(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    data = digits()
    (x, labels), (test, test_labels) = (
        (torch.as_tensor(split.images[:]).flatten(1) / 16, torch.as_tensor(split.labels))
        for split in (data.train, data.test)
    )
    for _ in range(40):
        for rows in torch.randperm(len(x)).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), labels[rows]).backward()
            optimizer.step()
    return float((model(test).argmax(1) == test_labels).float().mean())
