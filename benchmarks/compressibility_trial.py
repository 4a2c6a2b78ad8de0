"""The compressibility loss in its paper's way, beside DeepHoyer's penalty and the choice by magnitude alone.

    python -m benchmarks.compressibility_trial run --data-dir DATA --out runs/trial --network lenet5 --seed 0
    python -m benchmarks.compressibility_trial table --out runs/trial --network lenet5

A real network is trained; it is trained on under a penalty, and without one for as long; it becomes ternary at a
density, and its norms are estimated anew; its levels are tuned. Every result is a file in the folder, and what is there
is not done again. A tenth of the training images is held out: `table --split validation` shows what to choose strengths
by. Sources: Aytekin, Cricri and Aksu 2019, arXiv 1905.01044; Yang, Wen and Li 2020 (DeepHoyer), arXiv 1908.09979.
Strengths, epochs and what comes after the penalty are this project's: the paper's are not in its abstract.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn.data import Batches, Dataset, RandomCrop, RandomFlip, Split, hold_out, load_dataset
from bnn.layers import BinaryConv2d, BinaryLinear
from bnn.methods import Compressibility, HoyerSquare, PenalizedLoss
from bnn.methods.ternarize import keep_largest
from bnn.models import initialize, vgg7
from bnn.posttraining.tuning import reestimate_norms
from bnn.training import trapezoid, warmup_cosine
from bnn.training.directory import replace_file
from bnn.weights import SparseStore

BATCH = 100
METHODS = {
    "none": (None, "layer", (0.0,)),
    "compressibility, layer": (Compressibility, "layer", (1e-3, 3e-3, 3e-2, 1e-1)),
    "compressibility, network": (Compressibility, "network", (1e-3, 3e-3, 3e-2, 1e-1)),
    "hoyer, layer": (HoyerSquare, "layer", (1e-5, 1e-4, 3e-4)),
    "hoyer, network": (HoyerSquare, "network", (1e-5, 1e-4, 3e-4)),
}
DENSITIES = (0.1, 0.03)


def lenet5() -> nn.Sequential:
    """LeNet-5 of ReLU and max pooling for 28 x 28: 61,470 weights in five layers, each in a store."""
    store = SparseStore
    return nn.Sequential(
        *(BinaryConv2d(1, 6, 5, padding=2, store=store, input_quantizer=None, bias=True), nn.ReLU(), nn.MaxPool2d(2)),
        *(BinaryConv2d(6, 16, 5, store=store, input_quantizer=None, bias=True), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), BinaryLinear(400, 120, store=store, input_quantizer=None, bias=True), nn.ReLU()),
        *(BinaryLinear(120, 84, store=store, input_quantizer=None, bias=True), nn.ReLU()),
        BinaryLinear(84, 10, store=store, input_quantizer=None, bias=True),
    )


@dataclass(frozen=True)
class Setting:
    """A network with its data and the lengths of the three trainings."""

    build: Callable[[], nn.Module]
    data: str
    real_epochs: int
    penalty_epochs: int
    tuning_epochs: int


SETTINGS = {
    "lenet5": Setting(lenet5, "mnist", 4, 3, 2),
    "vgg7": Setting(lambda: vgg7(width=8, hidden=64, store=SparseStore), "cifar10", 8, 3, 2),
}


def stores_of(network: nn.Module) -> list[SparseStore]:
    """Of its layers, from the input."""
    return [module for module in network.modules() if isinstance(module, SparseStore)]


def trained(
    network: nn.Module,
    data: Dataset,
    *,
    epochs: int,
    rate: float,
    seed: int,
    loss: PenalizedLoss | None = None,
    strength: Callable[[float], float] = lambda epoch: 0.0,
) -> None:
    """Trains a network in place by SGD with momentum 0.9 and weight decay 5e-4, whose rate falls to 0 on a cosine."""
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
    augment = [RandomCrop(padding=4), RandomFlip()] if data.name == "cifar10" else []
    batches = Batches(
        data.train, batch_size=BATCH, mean=data.mean, std=data.std, seed=seed, shuffle=True, augment=augment
    )
    schedule, steps = warmup_cosine(epochs, warmup_epochs=min(1, epochs / 4)), len(batches)
    network.train()
    for epoch in range(epochs):
        for step, (x, y) in enumerate(batches.epoch(epoch)):
            now = epoch + step / steps
            optimizer.param_groups[0]["lr"] = rate * schedule(now)
            optimizer.zero_grad()
            if loss is None:
                F.cross_entropy(network(x), y).backward()
            else:
                loss.strength = strength(now)
                loss(network(x), y).backward()
            optimizer.step()
    network.eval()


@torch.no_grad()
def accuracies(network: nn.Module, data: Dataset, held: Split) -> dict[str, float]:
    """In percent, of the test images and of those held out for choices."""
    network.eval()
    found = {}
    for name, split in (("test", data.test), ("validation", held)):
        batches = Batches(split, batch_size=500, mean=data.mean, std=data.std)
        right = sum(int((network(x).argmax(1) == y).sum()) for x, y in batches.epoch(0))
        found[name] = 100 * right / len(split)
    return found


def ternarize(network: nn.Module, density: float) -> None:
    """By magnitude, with the shares of LAMP."""
    stores = stores_of(network)
    kept = keep_largest([store.weight.detach() for store in stores], density=density)
    for store, mask in zip(stores, kept, strict=True):
        store.ternarize_(mask)


def shape_of(weight: Tensor) -> dict[str, float]:
    """What theory speaks of: L over its largest value, |w|, |dL/dw| by autograd and by the formula, |w_i| over c."""
    w = weight.detach().flatten().double().requires_grad_()
    ratio = Compressibility().vector_penalty(w)
    (gradient,) = torch.autograd.grad(ratio, w)
    found, size, n = ratio.item(), w.detach().norm().item(), w.numel()
    relative = w.detach().abs() * found / size
    return {
        "of_largest": found / math.sqrt(n),
        "size": size,
        "gradient": gradient.norm().item(),
        "gradient_by_formula": math.sqrt(max(0.0, n - found**2)) / size,
        "grown": float((relative > 1).double().mean()),
        "largest_over_c": float(relative.max()),
    }


def alike(weight: Tensor, kept: Tensor) -> float:
    """The cosine between a weight and the ternary one that keeps these."""
    sizes = weight.detach().abs()[kept].double()
    return float(sizes.sum() / math.sqrt(max(1, len(sizes))) / weight.detach().double().norm())


def trial(
    setting: Setting,
    data: Dataset,
    held: Split,
    start: dict[str, Tensor],
    *,
    method: str,
    strength: float,
    seed: int,
) -> dict:
    """Under one penalty: accuracy and weights, then at each density at once and tuned."""
    penalty, scope, _ = METHODS[method]
    network = setting.build()
    network.load_state_dict(start)
    loss = None if penalty is None else PenalizedLoss(network, penalty(scope=scope))
    quarter = setting.penalty_epochs / 4
    rises = trapezoid(setting.penalty_epochs, peak=strength, rise_epochs=quarter, fall_epochs=quarter)
    trained(network, data, epochs=setting.penalty_epochs, rate=0.02, seed=seed + 100, loss=loss, strength=rises)
    found = {
        "real": accuracies(network, data, held),
        "layers": [shape_of(store.weight) for store in stores_of(network)],
    }
    after = {name: value.clone() for name, value in network.state_dict().items()}
    seen = data.preprocessing.normalized(data.train[torch.arange(min(len(data.train), 1000))][0])
    for density in DENSITIES:
        network = setting.build()
        network.load_state_dict(after)
        ternarize(network, density)
        reestimate_norms(network, seen)
        of_layers = [
            (alike(store.weight, store.kept), float(store.kept.double().mean())) for store in stores_of(network)
        ]
        at_once = accuracies(network, data, held)
        trained(network, data, epochs=setting.tuning_epochs, rate=0.02, seed=seed + 200)
        found[str(density)] = {"at_once": at_once, "tuned": accuracies(network, data, held), "layers": of_layers}
    return found


def run(options: argparse.Namespace) -> None:
    """What is missing, of one seed."""
    setting, folder = SETTINGS[options.network], options.out / options.network / f"seed-{options.seed}"
    data = load_dataset(setting.data, options.data_dir, train_images=options.train_images)
    train, held = hold_out(data.train, fraction=0.1, seed=0)
    data = replace(data, train=train)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    network = setting.build()
    initialize(network, generator=torch.Generator().manual_seed(options.seed))
    missing = [
        (method, strength, path)
        for method, (_, _, strengths) in METHODS.items()
        for strength in strengths
        if not (path := folder / f"{method.replace(', ', '-')}-{strength:g}.json").exists()
        and (not options.strengths or strength in options.strengths)
    ]
    if missing:
        trained(network, data, epochs=setting.real_epochs, rate=0.05, seed=options.seed)
        print(f"{options.network}, seed {options.seed}: {accuracies(network, data, held)} real", flush=True)
    start = {name: value.clone() for name, value in network.state_dict().items()}
    for method, strength, path in missing:
        found = trial(setting, data, held, start, method=method, strength=strength, seed=options.seed)
        replace_file(path, json.dumps(found))
        figures = ", ".join(f"{value:.2f}" for value in _columns(found, "validation"))
        print(f"{method} {strength:g}: {figures} % of validation", flush=True)


def table(options: argparse.Namespace) -> None:
    """Of what is there, means over the seeds and their spread."""
    names = [f"{what}, {density:g}" for density in DENSITIES for what in ("at once", "tuned")]
    print(f"| penalty | strength | seeds | real | {' | '.join(names)} |\n|{'---|' * (4 + len(names))}")
    for method, (_, _, strengths) in METHODS.items():
        for strength in strengths:
            name = f"{method.replace(', ', '-')}-{strength:g}.json"
            found = [json.loads(p.read_text()) for p in sorted((options.out / options.network).glob(f"seed-*/{name}"))]
            if found:
                cells = [
                    _spread(column) for column in zip(*(_columns(one, options.split) for one in found), strict=True)
                ]
                print(f"| {method} | {strength:g} | {len(found)} | {' | '.join(cells)} |")


def _columns(found: dict, split: str) -> list[float]:
    """Accuracies: real, then at once and tuned at each density."""
    return [found["real"][split], *(found[str(d)][what][split] for d in DENSITIES for what in ("at_once", "tuned"))]


def _spread(values: Sequence[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{deviation}"


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--network", choices=list(SETTINGS), default="lenet5")
    parser.add_argument("--train-images", type=int, help="take so many of the training images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=["test", "validation"], default="test", help="of the table's accuracies")
    parser.add_argument("--strengths", type=lambda text: [float(one) for one in text.split(",")], help="these alone")
    options = parser.parse_args()
    {"run": run, "table": table}[options.what](options)


if __name__ == "__main__":
    main()
