"""`FloatComparison`: what a training takes beside the same training in float32."""

import sys
from typing import Any

import torch
from torch import nn

from bnn.cost.energy.ledger import PriceTable
from bnn.cost.energy.prices import HOROWITZ_45NM
from bnn.cost.energy.step import count_step
from bnn.cost.float_twin import float_step
from bnn.cost.memory.limited import in_a_copy, limit_growth
from bnn.cost.memory.measured import measure_live
from bnn.cost.memory.of_run import predict_run
from bnn.cost.memory.predicted import predict_step
from bnn.cost.memory.resident import available_bytes
from bnn.cost.storage import storage
from bnn.ops.memory import RESULTS
from bnn.ops.without_compiler import without_compiler
from bnn.training import Callback, Run, Trainer

_LIMIT_S = 30.0
# Of what is available: the machine does other things, too.
_PART_OF_MEMORY = 0.5


class FloatComparison(Callback):
    """Adds `beside_float`: each figure of this run and of the same network in float32 (`bnn.cost.float_twin`).

    - `step_bytes`: peak of the live tensors of a step. Its `how` is `measured` where both steps could be taken in a
      copy of the process, within half of the memory that is available and 30 s; on Linux, on the CPU and in one
      process. Else it is `predicted`.
    - `energy_j`: of the training steps, estimated; the run's own as `EnergyMeter`, which comes before, has added it.
    - `network_bytes`: of the trained network, each weight at the bits of its levels, counted.

    A figure is left out where the network or its float counterpart cannot run on shapes alone, and is not measured.

    Args:
        prices: the first table of the `EnergyMeter`.
    """

    def __init__(self, *, prices: PriceTable = HOROWITZ_45NM) -> None:
        self.prices = prices

    @without_compiler()
    def on_fit_end(self, trainer: Trainer, summary: dict[str, Any]) -> None:
        """Compares."""
        run, figures = trainer.run, {"network_bytes": _network_bytes(trainer.run.model)}
        steps = trainer.step - trainer.skipped
        measured = _measured(run)
        try:
            # The energy of a float step, whose optimizer has its state only then, comes after its memory.
            step = float_step(run)
            shape, batch_size = run.data.image_shape, run.batch_size
            if measured is None:
                float_bytes = predict_step(step, input_shape=shape, batch_size=batch_size).table.total_bytes
            ledger = count_step(step.model, step.optimizer, shape, batch_size=batch_size)
            if summary.get("energy_j") is not None:
                figures["energy_j"] = _pair(summary["energy_j"], steps * ledger.energy_J(self.prices))
            if measured is None:
                figures["step_bytes"] = _known("predicted", predict_run(run).table.total_bytes, float_bytes)
        except Exception:  # a user's module may raise anything; a comparison must not cost a run its result
            pass
        if measured is not None:
            figures["step_bytes"] = _known("measured", *measured)
        summary["beside_float"] = figures


def _measured(run: Run) -> tuple[int, int] | None:
    """Peaks of the live tensors of a step of the run and of its twin; in a copy of this process, on one thread."""
    free_bytes = available_bytes()
    if sys.platform != "linux" or free_bytes is None or run.exchange is not None or not _on_cpu(run.model):
        return None

    def work() -> tuple[int, int]:
        torch.set_num_threads(1)
        limit_growth(_PART_OF_MEMORY * free_bytes)
        run.model.train()
        peaks = []
        for step in (run, float_step(run, device="cpu")):
            RESULTS.give_back()
            peaks.append(measure_live(step, input_shape=run.data.image_shape, batch_size=run.batch_size))
        return peaks[0], peaks[1]

    found = in_a_copy(work, limit_s=_LIMIT_S)
    return found if isinstance(found, tuple) else None


def _network_bytes(model: nn.Module) -> dict[str, float]:
    stored = storage(model)
    floats = stored.other_parameters + sum(buffer.numel() for buffer in _statistics(model))
    return _pair(stored.weight_bits / 8 + 4 * floats, 4 * (stored.weights + floats))


def _statistics(model: nn.Module) -> list[torch.Tensor]:
    """Running statistics, and no counters."""
    return [buffer for buffer in model.buffers() if buffer.is_floating_point()]


def _on_cpu(model: nn.Module) -> bool:
    return {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} <= {"cpu"}


def _known(how: str, of_this: float, of_float: float) -> dict[str, Any]:
    return {**_pair(of_this, of_float), "how": how}


def _pair(of_this: float, of_float: float) -> dict[str, float]:
    return {"this": of_this, "float": of_float}
