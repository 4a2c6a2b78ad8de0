"""Steps within the memory that `bnn budget` asks for, which the system enforces."""

from pathlib import Path
from random import Random

from benchmarks.memory_limit import task
from benchmarks.torture.trials import Kind, forked, require, status_of

_NETWORKS = ("mlp", "cnv", "resnet8", "resnet20")


def trial(chance: Random, folder: Path) -> None:
    """Takes three steps of a network under a preset with no more memory than was asked for."""
    model, preset = chance.choice(_NETWORKS), chance.choice(["standard", "edge", "edge-min"])
    batch_size = chance.choice([2, 10, 32, 50])

    def fits() -> int:
        step = task(model, preset, batch_size)
        return 0 if step.fits(step.predicted().process_bytes) else 3

    # A preset tells the whole process how to hold memory.
    status = status_of(forked(fits))
    require(status == 0, f"{model}, {preset}, batch {batch_size}: no step is taken in what was asked for ({status})")


KINDS = (
    Kind(
        "budgets",
        f"three steps of {', '.join(_NETWORKS)} under a preset in the memory that `bnn budget --fit` asks for, as"
        " RLIMIT_DATA",
        trial,
        short=0,
        long=100,
    ),
)
