"""Steps within the memory that `bnn budget` asks for, which the system enforces."""

import os
from pathlib import Path
from random import Random

from benchmarks.memory_limit import task
from benchmarks.torture.trials import Kind, forked, require, status_of
from bnn.cli.budget.measure import measure_needed

_ROOT = Path(__file__).parents[2]
_NETWORKS = ("mlp", "cnv", "resnet8", "resnet20")
_BROKEN = {
    3: "no steps are taken in what was predicted",
    4: "no steps are taken in what was measured",
    5: "steps are taken in 5 % and 3 MiB less than was measured",
}


def trial(chance: Random, folder: Path) -> None:
    """Takes steps of a network under a preset with no more memory than is predicted, or another process measures."""
    model, preset = chance.choice(_NETWORKS), chance.choice(["standard", "edge", "edge-min"])
    batch_size = chance.choice([2, 10, 32, 50])

    os.environ["PYTHONPATH"] = str(_ROOT)

    def fits() -> int:
        step = task(model, preset, batch_size)
        measured = measure_needed(step.network, step.configuration)
        assert measured is not None
        if not step.fits(step.predicted().process_bytes):
            return 3
        if not step.fits(measured):
            return 4
        return 5 if step.fits(measured - max(0.05 * measured, 3 * 2**20)) else 0

    # A preset tells the whole process how to hold memory.
    status = status_of(forked(fits))
    require(status == 0, f"{model}, {preset}, batch {batch_size}: {_BROKEN.get(status, status)}")


KINDS = (
    Kind(
        "budgets",
        f"steps of {', '.join(_NETWORKS)} under a preset in the memory that `bnn budget --fit` predicts and measures,"
        " as RLIMIT_DATA; and none in 5 % and 3 MiB less than is measured",
        trial,
        short=0,
        long=24,
        limit_s=300,
    ),
)
