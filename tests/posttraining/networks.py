"""Small networks that have been trained on the bundled digits, each once for all tests."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn.codec import Model
from bnn.data import digits
from bnn.models import mlp

CALIBRATION = 128


@cache
def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalised training images and labels, then those to test on."""
    found = digits()
    takes = found.preprocessing
    splits = [split[torch.arange(len(split))] for split in (found.train, found.test)]
    (x, y), (x_test, y_test) = ((takes.normalized(images), labels) for images, labels in splits)
    return x, y, x_test, y_test


def trained(network: nn.Module, *, epochs: int, learning_rate: float) -> Model:
    x, y, _, _ = data()
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True)
    generator = torch.Generator().manual_seed(0)
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1 - epoch / epochs)
        for rows in torch.randperm(len(x), generator=generator).split(64):
            optimizer.zero_grad()
            F.cross_entropy(network(x[rows]), y[rows]).backward()
            optimizer.step()
    network.zero_grad()
    found = digits()
    return Model(network, preprocessing=found.preprocessing, classes=found.classes)


@cache
def real() -> Model:
    """A perceptron of floats without norms."""
    torch.manual_seed(0)
    layers = (nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
    return trained(nn.Sequential(*layers), epochs=8, learning_rate=1e-2)


@cache
def binary() -> Model:
    """A perceptron of signs."""
    torch.manual_seed(0)
    return trained(mlp(input_shape=(1, 8, 8), hidden=(32, 32)), epochs=8, learning_rate=1e-2)


def accuracy(network: nn.Module) -> float:
    _, _, x, y = data()
    with torch.no_grad():
        return float((network(x).argmax(1) == y).float().mean())
