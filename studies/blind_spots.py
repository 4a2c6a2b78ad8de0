"""Convolutional networks are blind to a pattern that tells the class at fixed places, and binary ones are, too.

Prediction: noisy digits, to which a faint fixed pattern of their class is added, are told apart by a linear
classifier, which weighs each place on its own; a convolutional network with an average over all places gains little by
the pattern. A binary network is put to the same test. Source: Hoffer, Fine and Soudry 2018, arXiv 1802.05187 (signals
that reveal the class where a network cannot see them); the signal and the networks here are our own.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bnn.data import digits
from bnn.layers import BinaryConv2d, BinaryLinear
from bnn.models import initialize
from bnn.quantizers import Sign
from studies.study import Curve, Finding, Measured

NOISE, SIGNAL, EPOCHS, BATCH, CHANNELS = 2.0, 0.6, 12, 60, 16


def measure(*, seed: int = 0) -> Measured:
    """Test accuracy of four networks without the signal and with it."""
    networks: dict[str, Callable[[], nn.Module]] = {
        "linear": linear,
        "binary MLP": binary_mlp,
        "convolutions": lambda: convolutions(binary=False),
        "binary convolutions": lambda: convolutions(binary=True),
    }
    accuracies = {
        name: [accuracy(build, strength, seed) for strength in (0.0, SIGNAL)] for name, build in networks.items()
    }
    gains = {name: 100 * (with_signal - without) for name, (without, with_signal) in accuracies.items()}
    return Measured(
        title="A class told at fixed places: who sees it?",
        x_label="strength of the signal, in deviations of the noise",
        y_label="test accuracy",
        findings=[
            Finding("points that the signal gives the linear classifier", gains["linear"], low=15),
            Finding("points for the binary MLP", gains["binary MLP"], low=15),
            Finding(
                "the convolutional network, over the linear one's", gains["convolutions"] / gains["linear"], high=0.6
            ),
            Finding(
                "the binary convolutional network, over the linear one's",
                gains["binary convolutions"] / gains["linear"],
                high=0.6,
            ),
        ],
        curves=[Curve(name, (0.0, SIGNAL), values) for name, values in accuracies.items()],
    )


def linear() -> nn.Module:
    """Of pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def binary_mlp() -> nn.Module:
    """Binary weights and activations; the input is real."""
    first, second = BinaryLinear(64, 256), BinaryLinear(256, 10)
    first.input_quantizer = None
    return nn.Sequential(nn.Flatten(), first, nn.BatchNorm1d(256), Sign(), second, nn.BatchNorm1d(10))


def convolutions(*, binary: bool) -> nn.Module:
    """Three convolutions and an average over all places."""
    layers: list[nn.Module] = [nn.Conv2d(1, CHANNELS, 3, padding=1), nn.BatchNorm2d(CHANNELS)]
    for _ in range(2):
        layers.append(Sign() if binary else nn.ReLU())
        layers.append(
            BinaryConv2d(CHANNELS, CHANNELS, 3, padding=1) if binary else nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        )
        layers.append(nn.BatchNorm2d(CHANNELS))
    return nn.Sequential(*layers, nn.Hardtanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 10))


def accuracy(build: Callable[[], nn.Module], strength: float, seed: int) -> float:
    """On test images with noise of their own, after a training in which every epoch has new noise."""
    data = digits()
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randint(2, (10, 1, 8, 8), generator=generator).float() * 2 - 1
    model = build()
    initialize(model, generator=generator)

    def noisy(images: Tensor, labels: Tensor) -> Tensor:
        x = images.float() / 64 - 2
        return x + NOISE * torch.randn(x.shape, generator=generator) + strength * patterns[labels]

    images, labels = data.train.images, data.train.labels.long()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images), generator=generator).split(BATCH):
            loss = nn.functional.cross_entropy(model(noisy(images[batch], labels[batch])), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    images, labels = data.test.images, data.test.labels.long()
    with torch.no_grad():
        return float((model(noisy(images, labels)).argmax(1) == labels).float().mean())
