"""A training step's memory in a report: predicted on shapes alone, and measured in a real step."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from bnn.cost.float_twin import float_step
from bnn.cost.memory.measured import MeasuredMemory, measure_step
from bnn.cost.memory.of_run import predict_run
from bnn.cost.memory.predicted import StepMemory, predict_step
from bnn.cost.meters.card import loss_name
from bnn.errors import RunError
from bnn.training import Precision, Run

IN_FLOAT = "in float32"
"""The name of the same network in float32."""
LARGEST_MEASURED_BYTES = 2**30
"""Steps that are predicted to take more are not taken for a report."""


@dataclass(frozen=True)
class MemoryFigures:
    """One training step's memory on the CPU."""

    predicted: Mapping[str, StepMemory]
    """By name: the run's step first, then what it is compared with, the same in float last where it has a counterpart;
    products are of float32 whatever the precision."""
    measured: MeasuredMemory | None
    """Memory of the run's step, with its loss, precision, slices and optimizer; None where it is too large or fails."""
    loss: str
    """Name of the run's loss."""
    precision: Precision
    """Precision of the run's products."""


def memory_figures(runs: Mapping[str, Run]) -> MemoryFigures:
    """The memory of a step: this function alone decides how it is predicted and measured.

    Args:
        runs: by name, new from their recipe and on the CPU; the run itself first, then what it is compared with.
            Steps are taken with the first, which changes its weights.

    Raises:
        RunError: a model cannot run on shapes alone.
    """
    predicted = {name: predict_run(run) for name, run in runs.items()}
    name, run = next(iter(runs.items()))
    try:
        twin = float_step(run)
        shape, batch_size = run.data.image_shape, run.batch_size
        predicted[IN_FLOAT] = predict_step(twin, input_shape=shape, batch_size=batch_size)
    except (TypeError, RunError):  # none of its own
        pass
    is_small = predicted[name].table.total_bytes <= LARGEST_MEASURED_BYTES
    return MemoryFigures(predicted, _measured(run) if is_small else None, loss_name(run.loss), run.precision)


def _measured(run: Run) -> MeasuredMemory | None:
    try:
        with _silent_errors():
            return measure_step(run, input_shape=run.data.image_shape, batch_size=run.batch_size)
    except Exception:  # a user's module may raise anything
        return None


@contextmanager
def _silent_errors() -> Iterator[None]:
    """Meanwhile the process's standard error goes nowhere: torch's profiler writes there when it starts and stops."""
    stderr = os.dup(2)
    try:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
