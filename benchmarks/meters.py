"""What the meters cost a training step.

    python -m benchmarks.meters [--epochs 20] [--steps 20] [--threads 2] [--json FILE]

The same training without meters, with those of `bnn train`, and with `WeightMeter` besides, in turns of an epoch each;
batches of 100 images of noise. A step goes from the end of the one before to its own; the figures are medians.
"""

import argparse
import json
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import torch

from bnn.cost.meters import EnergyMeter, MemoryMeter, StorageMeter, WeightMeter
from bnn.data.arrays import Dataset, Split
from bnn.models import cnv, mlp
from bnn.presets import prepare
from bnn.training import Callback, Run, Trainer

BATCH_SIZE = 100
NETWORKS = {"mlp": (mlp, (1, 28, 28)), "cnv": (cnv, (3, 32, 32))}
METERS: dict[str, tuple[type[Callback], ...]] = {
    "none": (),
    "of bnn train": (StorageMeter, MemoryMeter, EnergyMeter),
    "and WeightMeter": (StorageMeter, MemoryMeter, EnergyMeter, WeightMeter),
}


class Clock(Callback):
    """Times each step but the first; it stands behind the meters, whose time is in it."""

    def __init__(self) -> None:
        self.step_s: list[float] = []
        self._last: float | None = None

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        """Notes the time."""
        now = time.perf_counter()
        if self._last is not None:
            self.step_s.append(now - self._last)
        self._last = now


def noise(shape: tuple[int, ...], steps: int) -> Dataset:
    """Images of noise: as many as the steps take, and a batch to test with."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        images = torch.randint(256, (count, *shape), dtype=torch.uint8, generator=generator)
        return Split(images, torch.randint(10, (count,), generator=generator))

    channels, classes = shape[0], tuple(str(label) for label in range(10))
    return Dataset(
        "noise", split(steps * BATCH_SIZE), split(BATCH_SIZE), classes, (0.5,) * channels, (0.3,) * channels, "noise"
    )


def epoch_s(network: str, preset: str, meters: str, *, steps: int) -> list[float]:
    """Seconds of the steps of one epoch."""
    build, shape = NETWORKS[network]
    step = prepare(preset, partial(build, input_shape=shape, classes=10), input_shape=shape)
    run = Run(**vars(step), data=noise(shape, steps), epochs=1, batch_size=BATCH_SIZE, seed=0)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        callbacks = [*(meter() for meter in METERS[meters]), clock]
        Trainer(run, Path(folder) / "run", callbacks=callbacks).fit()
    return clock.step_s


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for network in NETWORKS:
        for preset in ("standard", "edge-min"):
            steps: dict[str, list[float]] = {meters: [] for meters in METERS}
            for _ in range(options.epochs):
                for meters in METERS:
                    steps[meters] += epoch_s(network, preset, meters, steps=options.steps)
            without_s = statistics.median(steps["none"])
            for meters, times in steps.items():
                step_s = statistics.median(times)
                rows.append({"network": network, "preset": preset, "meters": meters, "step_s": step_s})
                print(f"{network:5} {preset:9} {meters:16} {1000 * step_s:8.2f} ms  {step_s / without_s - 1:+.1%}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
