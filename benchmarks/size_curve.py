"""Accuracy against the size of the file, of trained networks that are quantized or shrunk.

    python -m benchmarks.size_curve measure RUN RUN-shrunk ... --data-dir DATA --sizes 42kB,44kB --out runs/curve
    python -m benchmarks.size_curve draw --out runs/curve --figure curve.svg

measures runs on CIFAR-10: as they are, quantized with calibration on real images, and rounded to the nearest levels;
with `--data-free` calibrated on inputs made of the norms' statistics, too. What is in the folder is not measured
again. `draw` prints means over runs whose names differ in their last number, and draws them.
"""

import argparse
import json
import re
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bnn.cli.arguments import parse_size
from bnn.codec import Model, load
from bnn.data import Dataset, load_dataset
from bnn.posttraining.products import divergence, logits_of
from bnn.posttraining.quantization import Measured
from bnn.posttraining.synthesis import synthesize
from bnn.training.directory import MODEL, replace_file

AS_IT_IS = "as it is"


def figures_of(model: Model, x: Tensor, labels: Tensor, reference: Tensor, size_bytes: int) -> dict[str, Any]:
    """Accuracy in percent, divergence from what the network said in nats, and bytes."""
    logits = logits_of(model.network, x)
    return {
        "accuracy": 100 * float((logits.argmax(1) == labels).double().mean()),
        "divergence": float(divergence(reference, logits)),
        "bytes": size_bytes,
    }


def examples(data: Dataset, model: Model, *, test: int, calibration: int) -> tuple[Tensor, Tensor, Tensor]:
    """Test images and their labels, and training images to calibrate on, the same for every run."""
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randperm(len(s), generator=generator)[:n] for s, n in ((data.test, test), (data.train, calibration))]
    assert model.preprocessing is not None
    images, labels = data.test[rows[0]]
    return model.preprocessing.normalized(images), labels, model.preprocessing.normalized(data.train[rows[1]][0])


def measure(options: argparse.Namespace) -> None:
    """What is missing of each run."""
    data = load_dataset("cifar10", options.data_dir)
    options.out.mkdir(parents=True, exist_ok=True)
    for run in options.runs:
        path = options.out / f"{run.name}.json"
        found = json.loads(path.read_text()) if path.exists() else {}
        model = load(run / MODEL)
        x, labels, calibration = examples(data, model, test=options.test_images, calibration=options.examples)
        reference = logits_of(model.network, x)
        found[AS_IT_IS] = figures_of(model, x, labels, reference, (run / MODEL).stat().st_size)
        replace_file(path, json.dumps(found, indent=1))
        for way in ("calibrated", "nearest", *(["data-free"] if options.data_free else [])):
            missing = [size for size in options.sizes if f"{way}, {size}" not in found]
            if not missing:
                continue
            if way == "data-free":
                shape = tuple(x.shape[1:])
                calibration = synthesize(model.network, shape, count=options.synthesized, steps=options.steps)
            measured = Measured(model, calibration, calibrate=way != "nearest")
            for size in missing:
                made = measured.fit(parse_size(size))
                found[f"{way}, {size}"] = figures_of(made.model, x, labels, reference, made.size_bytes)
                replace_file(path, json.dumps(found, indent=1))
                print(f"{run.name}, {way}, {size}: {found[f'{way}, {size}']}", flush=True)


def draw(options: argparse.Namespace) -> None:
    """The table, and the figure if it is asked for."""
    together: dict[str, dict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(options.out.glob("*.json")):
        for what, figures in json.loads(path.read_text()).items():
            together[re.sub(r"-?\d+$", "", path.stem)][what].append(figures)
    curves: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    print("| network | what | runs | bytes | accuracy, % | divergence, nats |\n|---|---|---|---|---|---|")
    for network, of_network in together.items():
        for what, figures in of_network.items():
            columns = [[one[name] for one in figures] for name in ("bytes", "accuracy", "divergence")]
            size, accuracy, apart = (statistics.fmean(column) for column in columns)
            listed = ", ".join(f"{value:.2f}" for value in columns[1])
            print(f"| {network} | {what} | {len(figures)} | {size:,.0f} | {accuracy:.2f} ({listed}) | {apart:.4f} |")
            spread = statistics.stdev(columns[1]) if len(figures) > 1 else 0.0
            label = "as trained or shrunk" if what == AS_IT_IS else f"{network}, {what.partition(',')[0]}"
            curves[label].append((size, accuracy, spread))
    if options.figure:
        _drawn(curves, options.figure)


def _drawn(curves: dict[str, list[tuple[float, float, float]]], path: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for label, points in curves.items():
        sizes, accuracies, spreads = zip(*sorted(points), strict=True)
        axes.errorbar([size / 1000 for size in sizes], accuracies, spreads, fmt="o-", capsize=2, label=label)
    axes.set(xlabel="bytes of the file, thousands", ylabel="test accuracy, %")
    axes.legend(frameon=False, fontsize="small")
    with matplotlib.rc_context({"svg.hashsalt": "size_curve"}):
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["measure", "draw"])
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", type=lambda text: [size for size in text.split(",") if size], default=[])
    parser.add_argument("--examples", type=int, default=512, help="training images that calibrate (default: 512)")
    parser.add_argument("--test-images", type=int, default=10_000, help="at random (default: all)")
    parser.add_argument("--data-free", action="store_true")
    parser.add_argument("--synthesized", type=int, default=256, help="inputs of --data-free (default: 256)")
    parser.add_argument("--steps", type=int, default=100, help="of making them (default: 100)")
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    {"measure": measure, "draw": draw}[options.what](options)


if __name__ == "__main__":
    main()
