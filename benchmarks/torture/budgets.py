"""Steps within the memory that `bnn budget` asks for, which the system enforces.

`python -m benchmarks.torture.budgets MODEL PRESET BATCH` is such a trial: a new process, for what other kinds leave
free in this one would serve the steps.
"""

import os
import subprocess
import sys
from pathlib import Path
from random import Random

from benchmarks.memory_limit import task
from benchmarks.torture.trials import Kind, require
from bnn.cli.budget.measure import measure_needed

_ROOT = Path(__file__).parents[2]
_NETWORKS = ("mlp", "cnv", "resnet8", "resnet20")
_BROKEN = {
    3: "no steps are taken in what was predicted",
    4: "no steps are taken in what was measured",
    5: "steps are taken in 5 % and 4 MiB less than was measured",
}


def trial(chance: Random, folder: Path) -> None:
    """Takes steps of a network under a preset with no more memory than is predicted, or another process measures."""
    model, preset = chance.choice(_NETWORKS), chance.choice(["standard", "edge", "edge-min"])
    batch_size = chance.choice([2, 10, 32, 50])

    command = [sys.executable, "-m", "benchmarks.torture.budgets", model, preset, str(batch_size)]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    status = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL).returncode
    require(status == 0, f"{model}, {preset}, batch {batch_size}: {_BROKEN.get(status, status)}")


def main(model: str, preset: str, batch_size: int) -> int:
    """Says by its status what is broken, or 0."""
    step = task(model, preset, batch_size)
    measured = measure_needed(step.network, step.configuration)
    assert measured is not None
    if not step.fits(step.predicted().process_bytes):
        return 3
    if not step.fits(measured):
        return 4
    return 5 if step.fits(measured - max(0.05 * measured, 4 * 2**20)) else 0


KINDS = (
    Kind(
        "budgets",
        f"steps of {', '.join(_NETWORKS)} under a preset in the memory that `bnn budget --fit` predicts and measures,"
        " as RLIMIT_DATA; and none in 5 % and 4 MiB less than is measured",
        trial,
        short=0,
        long=24,
        limit_s=300,
    ),
)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
