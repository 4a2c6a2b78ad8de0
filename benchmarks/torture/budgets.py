"""Steps within the memory that `bnn budget` asks for, which the system enforces."""

from pathlib import Path
from random import Random

from benchmarks.memory_limit import task
from benchmarks.torture.trials import Kind, require

_NETWORKS = ("mlp", "cnv", "resnet8", "resnet20")
_MIB = 2**20


def trial(chance: Random, folder: Path) -> None:
    """Takes three steps of a network under a preset with no more memory than was asked for."""
    model, preset = chance.choice(_NETWORKS), chance.choice(["standard", "edge", "edge-min"])
    batch_size = chance.choice([2, 10, 32, 50])
    step = task(model, preset, batch_size)
    asked = step.predicted().process_bytes
    require(step.fits(asked), f"{model}, {preset}, batch {batch_size}: no step is taken in {asked / _MIB:.1f} MiB")


KINDS = (
    Kind(
        "budgets",
        f"three steps of {', '.join(_NETWORKS)} under a preset in the memory that `bnn budget --fit` asks for, as"
        " RLIMIT_DATA",
        trial,
        short=1,
        long=100,
    ),
)
