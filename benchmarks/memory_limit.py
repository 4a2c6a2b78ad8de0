"""The least memory under which steps are taken, beside what `bnn budget` predicts.

python -m benchmarks.memory_limit resnet20 --preset edge-min --batch 100

The system enforces the limit: RLIMIT_DATA, on all private memory of the process that can be written to. Each try is a
process of its own, which takes 3 to 20 steps. Linux; one thread.
"""

import argparse
from dataclasses import dataclass
from typing import Any

import torch

from bnn.cli.budget.configurations import TrainingConfiguration, load_libraries, step_on_cpu, step_on_meta
from bnn.cli.budget.networks import NetworkBuilder, find_network
from bnn.cost.memory.limited import in_a_copy, least_private_bytes, takes_steps_within
from bnn.cost.memory.predicted import StepMemory, predict_step
from bnn.training import TrainingStep
from bnn.training.allocator import give_back_freed_memory

_MIB = 2**20


@dataclass(frozen=True)
class Task:
    """A step to be taken."""

    network: NetworkBuilder
    configuration: TrainingConfiguration

    def predicted(self) -> StepMemory:
        """What `bnn budget` says of it; this process is as it was afterwards."""
        memory = in_a_copy(self._predict)
        assert isinstance(memory, StepMemory)
        return memory

    def fits(self, limit_bytes: float) -> bool:
        """Whether steps are taken by a process that may get so much memory after it has loaded what it needs."""
        return takes_steps_within(limit_bytes, self._make, **self._shape())

    def least_bytes(self) -> float:
        """What `bnn budget --fit --measure` says of it, measured in copies of this process."""
        least = least_private_bytes(self._make, **self._shape())
        assert least is not None, "the limit is one of Linux"
        return least

    def _predict(self) -> StepMemory:
        return predict_step(step_on_meta(self.network, self.configuration), **self._shape())

    def _make(self) -> TrainingStep:
        return step_on_cpu(self.network, self.configuration)

    def _shape(self) -> dict[str, Any]:
        return {"input_shape": self.network.input_shape, "batch_size": self.configuration.batch_size}


def task(model: str, preset: str, batch_size: int, slice_size: int | None = None) -> Task:
    """A step of a network of `bnn.models`, after one of a tiny network, which loads what the libraries need."""
    torch.set_num_threads(1)
    give_back_freed_memory()
    configuration = TrainingConfiguration(preset, "adam", batch_size, slice_size)
    load_libraries(configuration)
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
    least = measured.least_bytes()
    figures = {"tensors": memory.table.total_bytes, "predicted": memory.process_bytes, "least": least}
    print(
        options.model, options.preset, *(f"{name} {value / _MIB:.2f} MiB" for name, value in figures.items()), sep=", "
    )


if __name__ == "__main__":
    main()
