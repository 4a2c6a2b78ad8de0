"""How much noise a network needs whose units begin alike: python -m benchmarks.symmetry [--seeds 0,1,2] [--epochs 10].

Perceptrons of two hidden layers of 64 units on the bundled digits, binary ones by the preset `standard` and real ones
by Adam at 1e-3, batches of 50. Nothing but the noise at the start and the order of the images is random, and sums are
the same every time. Prints test accuracy and the share of units that differ in the end, by layer.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from bnn.data import Dataset
from bnn.data.arrays import Split
from bnn.data.bundled_digits import digits
from bnn.models import mlp
from bnn.models.symmetry import distinct_shares, distinct_units, initialize_symmetric
from bnn.presets import prepare
from bnn.training import TrainingStep

NOISE = {"binary": (0.0, 1e-4, 1e-3, 1e-2, 1e-1), "real": (0.0, 1e-2, 1e-1, 0.64)}
_SHAPE, _WIDTH, _BATCH = (1, 8, 8), 64, 50


def binary(noise: float, seed: int) -> TrainingStep:
    """A binary network that begins alike."""
    build = partial(mlp, input_shape=_SHAPE, hidden=(_WIDTH, _WIDTH))
    step = prepare("standard", build, input_shape=_SHAPE, seed=seed)
    initialize_symmetric(step.model, noise=noise, generator=torch.Generator().manual_seed(seed))
    return step


def real(noise: float, seed: int) -> TrainingStep:
    """A real one."""
    layers = (nn.Linear(64, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, 10))
    model = nn.Sequential(nn.Flatten(), *layers)
    initialize_symmetric(model, noise=noise, generator=torch.Generator().manual_seed(seed))
    return TrainingStep(model=model, optimizer=torch.optim.Adam(model.parameters(), lr=1e-3))


MAKE: dict[str, Callable[[float, int], TrainingStep]] = {"binary": binary, "real": real}


def accuracy_of(step: TrainingStep, data: Dataset, *, epochs: int, seed: int) -> float:
    """On the test images, after some epochs."""
    (x, labels), (test, test_labels) = (_normalized(split, data.train) for split in (data.train, data.test))
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=order).split(_BATCH)[:-1]:
            step.take(x[rows], labels[rows])
    step.model.eval()
    with torch.no_grad():
        return float((step.model(test).argmax(1) == test_labels).float().mean())


def shares(model: nn.Module) -> list[float]:
    """Of units that differ, by layer."""
    found = list(distinct_shares(model).values())
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    return found or [distinct_units(layer.weight) / layer.out_features for layer in layers]


def _normalized(split: Split, train: Split) -> tuple[Tensor, Tensor]:
    of_train = torch.as_tensor(train.images[:]).float()
    images = (torch.as_tensor(split.images[:]).float() - of_train.mean()) / of_train.std()
    return images, torch.as_tensor(split.labels).long()


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    seeds, data = [int(seed) for seed in options.seeds.split(",")], digits()
    print("| network | noise | test accuracy, % | units that differ, % |\n|---|---|---|---|")
    for kind, levels in NOISE.items():
        for noise in levels:
            accuracies, differing = [], []
            for seed in seeds:
                step = MAKE[kind](noise, seed)
                accuracies.append(f"{100 * accuracy_of(step, data, epochs=options.epochs, seed=seed):.1f}")
                differing.append(" ".join(f"{100 * share:.0f}" for share in shares(step.model)))
            print(f"| {kind} | {noise:g} | {', '.join(accuracies)} | {'; '.join(differing)} |", flush=True)


if __name__ == "__main__":
    main()
