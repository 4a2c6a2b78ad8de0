"""`FloatComparison`: what a training takes beside the same training in float32."""

from typing import Any

import torch
from torch import nn

from bnn.cost.energy.ledger import PriceTable
from bnn.cost.energy.prices import HOROWITZ_45NM
from bnn.cost.energy.step import count_step
from bnn.cost.float_twin import float_step
from bnn.cost.memory.of_run import predict_run
from bnn.cost.memory.predicted import predict_step
from bnn.cost.storage import storage
from bnn.training import Callback, Trainer


class FloatComparison(Callback):
    """Adds `beside_float`: each figure of this run and of the same network in float32 (`bnn.cost.float_twin`).

    - `step_bytes`: peak of the live tensors of a step, predicted.
    - `energy_j`: of the training steps, estimated; the run's own as `EnergyMeter`, which comes before, has added it.
    - `network_bytes`: of the trained network, each weight at the bits of its levels, counted.

    A figure is left out where the network or its float counterpart cannot run on shapes alone.

    Args:
        prices: the first table of the `EnergyMeter`.
    """

    def __init__(self, *, prices: PriceTable = HOROWITZ_45NM) -> None:
        self.prices = prices

    def on_fit_end(self, trainer: Trainer, summary: dict[str, Any]) -> None:
        """Compares."""
        run, figures = trainer.run, {"network_bytes": _network_bytes(trainer.run.model)}
        steps = trainer.step - trainer.skipped
        try:
            # The energy of a float step, whose optimizer has its state only then, comes after its memory.
            step = float_step(run)
            shape, batch_size = run.data.image_shape, trainer.batches.batch_size
            float_bytes = predict_step(step, input_shape=shape, batch_size=batch_size).table.total_bytes
            ledger = count_step(step.model, step.optimizer, shape, batch_size=batch_size)
            if summary.get("energy_j") is not None:
                figures["energy_j"] = _pair(summary["energy_j"], steps * ledger.energy_J(self.prices))
            figures["step_bytes"] = _pair(predict_run(run).table.total_bytes, float_bytes)
        except Exception:  # a user's module may raise anything; a comparison must not cost a run its result
            pass
        summary["beside_float"] = figures


def _network_bytes(model: nn.Module) -> dict[str, float]:
    stored = storage(model)
    floats = stored.other_parameters + sum(buffer.numel() for buffer in _statistics(model))
    return _pair(stored.weight_bits / 8 + 4 * floats, 4 * (stored.weights + floats))


def _statistics(model: nn.Module) -> list[torch.Tensor]:
    """Running statistics, and no counters."""
    return [buffer for buffer in model.buffers() if buffer.is_floating_point()]


def _pair(of_this: float, of_float: float) -> dict[str, float]:
    return {"this": of_this, "float": of_float}
