"""The least memory under which a step is taken, beside what `bnn budget --fit` asks for.

python -m benchmarks.memory_limit resnet20 --preset edge-min --batch 100

The system enforces the limit: RLIMIT_DATA, on all private memory of the process that can be written to. Each try is a
process of its own, which takes three steps. Linux; one thread.
"""

import argparse
import os
import resource
from dataclasses import dataclass
from pathlib import Path

import torch

from bnn.cli.budget.configurations import (
    TINY_BATCH,
    TINY_SHAPE,
    TrainingConfiguration,
    step_on_cpu,
    step_on_meta,
    tiny_step,
)
from bnn.cli.budget.networks import NetworkBuilder, find_network
from bnn.cost.memory.measured import random_batch
from bnn.cost.memory.predicted import StepMemory, predict_step

_MIB = 2**20
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Task:
    """A step to be taken."""

    network: NetworkBuilder
    configuration: TrainingConfiguration

    def predicted(self) -> StepMemory:
        """What `bnn budget` says of it."""
        step = step_on_meta(self.network, self.configuration)
        return predict_step(step, input_shape=self.network.input_shape, batch_size=self.configuration.batch_size)

    def fits(self, limit_bytes: float) -> bool:
        """Whether three steps are taken by a process that may get so much memory after it has loaded what it needs."""
        child = os.fork()
        if child == 0:
            status = 1
            try:
                self._take_within(limit_bytes)
                status = 0
            except (MemoryError, RuntimeError):
                pass
            finally:
                os._exit(status)
        return os.waitpid(child, 0)[1] == 0

    def _take_within(self, limit_bytes: float) -> None:
        (held,) = (line for line in _STATUS.read_text().splitlines() if line.startswith("VmData:"))
        most = int(1024 * int(held.split()[1]) + limit_bytes)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        step = step_on_cpu(self.network, self.configuration)
        x, labels = random_batch(self.network.input_shape, self.configuration.batch_size)
        for _ in range(3):
            step.take(x, labels)


def task(model: str, preset: str, batch_size: int, slice_size: int | None = None) -> Task:
    """A step of a network of `bnn.models`, after one of a tiny network, which loads what the libraries need."""
    torch.set_num_threads(1)
    configuration = TrainingConfiguration(preset, "adam", batch_size, slice_size)
    tiny_step(configuration).take(*random_batch(TINY_SHAPE, TINY_BATCH))
    return Task(find_network(model, None), configuration)


def main() -> None:
    """Runs the measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--preset", default="edge-min")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--slice", type=int)
    options = parser.parse_args()
    measured = task(options.model, options.preset, options.batch, options.slice)
    memory = measured.predicted()
    enough, too_little = memory.process_bytes, 0.8 * memory.table.total_bytes
    while not measured.fits(enough):
        too_little, enough = enough, 1.2 * enough
    while enough - too_little > 0.01 * enough:
        middle = (enough + too_little) / 2
        enough, too_little = (middle, too_little) if measured.fits(middle) else (enough, middle)
    figures = {"tensors": memory.table.total_bytes, "asked for": memory.process_bytes, "least": enough}
    print(
        options.model, options.preset, *(f"{name} {value / _MIB:.2f} MiB" for name, value in figures.items()), sep=", "
    )


if __name__ == "__main__":
    main()
