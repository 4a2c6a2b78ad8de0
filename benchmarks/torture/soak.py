"""A long training: the memory stays flat, and every figure is finite."""

import gc
import math
from pathlib import Path
from random import Random

from benchmarks.torture.runs import PRESETS, RUNS, not_finite
from benchmarks.torture.trials import Kind, require
from bnn.training import Callback, Trainer

STEPS = 10_000
_AFTER = 2_000
"""Steps after which nothing more should be kept."""
_BATCH = 4
_MOST_BYTES = 4 << 20


class _Watch(Callback):
    """Resident memory, and whether all losses are finite."""

    def __init__(self) -> None:
        self.resident: list[int] = []

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        """Looks at every loss, and now and then at the memory."""
        require(math.isfinite(loss), f"the loss of step {trainer.step} is {loss}")
        if trainer.step >= _AFTER and trainer.step % 1000 == 0:
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.resident.append(pages * 4096)


def trial(chance: Random, folder: Path) -> None:
    """Trains a preset for `STEPS` steps, with a checkpoint and a validation an epoch."""
    name = chance.choice(list(PRESETS))
    run = RUNS[name](epochs=1)
    run.batch_size = _BATCH
    run.epochs = math.ceil(STEPS / (48 // _BATCH))
    watch = _Watch()
    summary = Trainer(run, folder / "run", callbacks=[watch]).fit()
    require(summary["steps"] >= STEPS, f"{name}: it took {summary['steps']} steps")
    require(summary["skipped_steps"] == 0, f"{name}: {summary['skipped_steps']} steps were skipped")
    bad = not_finite(run.model.state_dict())
    require(not bad, f"{name}: {bad} are not finite")
    grown = watch.resident[-1] - watch.resident[0]
    require(grown < _MOST_BYTES, f"{name}: {grown >> 10} KiB more are resident after {STEPS} steps")


KINDS = (
    Kind("soak", f"{STEPS:,} steps of a preset: memory within 4 MiB, all finite", trial, short=0, long=6, limit_s=600),
)
