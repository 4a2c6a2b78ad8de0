"""Accuracy against the size of a file: `bnn.posttraining.quantize` beside rounding to the nearest levels.

    python -m benchmarks.after_training DATA --epochs 2 --sizes 20kB,28kB

trains a real convolutional network on MNIST and prints a line of a table for each size.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from bnn.cli.arguments import parse_size
from bnn.codec import Model
from bnn.data import Batches, Dataset, mnist
from bnn.posttraining.quantization import quantize
from bnn.training.evaluation import evaluate


def network() -> nn.Sequential:
    """Two convolutions and two linear layers with batch norms and ReLU, 105,744 weights."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(1568, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10)),
    )


def trained(data: Dataset, *, epochs: int, seed: int) -> Model:
    """The network after some epochs of Adam, whose rate falls to 0."""
    torch.manual_seed(seed)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, fused=True)
    batches = Batches(data.train, batch_size=100, mean=data.mean, std=data.std, seed=seed, shuffle=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(batches))
    for epoch in range(epochs):
        for x, y in batches.epoch(epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()
    return Model(model.eval(), preprocessing=data.preprocessing, classes=data.classes)


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--examples", type=int, default=1024)
    parser.add_argument("--sizes", default="16kB,20kB,28kB,56kB")
    options = parser.parse_args()
    data = mnist(options.data_dir)
    model = trained(data, epochs=options.epochs, seed=options.seed)
    rows = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[: options.examples]
    x = data.preprocessing.normalized(data.train[rows][0])
    print(f"as trained: {100 * evaluate(model, data.test).accuracy:.2f} %", flush=True)
    print("| size | bytes | calibrated | widths | bytes, nearest | nearest | widths |\n|---|---|---|---|---|---|---|")
    for size in options.sizes.split(","):
        cells = [size]
        for calibrate in (True, False):
            found = quantize(model, x, fit_bytes=parse_size(size), calibrate=calibrate)
            accuracy = evaluate(found.model, data.test).accuracy
            widths = " ".join(part.width for part in found.parts if part.width != "32" and ":" not in part.name)
            cells += [f"{found.size_bytes:,}", f"{100 * accuracy:.2f} %", widths]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
