"""`AccumulatorMeter`: how large the sums of a trained network's products really are."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from bnn.bits import BitTensor
from bnn.cost.energy.accumulators import bits_of_sums, narrowed
from bnn.cost.energy.prices import HOROWITZ_45NM
from bnn.cost.meters.summary import count_run, steps_taken
from bnn.layers import BinaryBlock, BinaryLayer, products
from bnn.ops.geometry import Window
from bnn.training import Callback, Trainer


class AccumulatorMeter(Callback):
    """Adds `accumulators` to the summary: {layer: {figure: value}}, of the layers that multiply ±1 with ±1.

    - `largest_sum`: largest magnitude of a sum over a training batch, by the trained network in evaluation.
    - `measured_bits`: width that holds the sums up to that one.
    - `exact_bits`: width that holds every sum of so many products.

    And `energy_narrow_j`, an estimate for the training steps under the first price table with the measured widths in
    the forward pass; null where the model cannot run on shapes alone.
    """

    def on_fit_end(self, trainer: Trainer, summary: dict[str, Any]) -> None:
        """Measures."""
        x, _ = next(iter(trainer.batches.epoch(0)))
        found = largest_sums(trainer.run.model, x)
        figures = {
            name: {"largest_sum": largest, "measured_bits": bits_of_sums(largest), "exact_bits": bits_of_sums(terms)}
            for name, (largest, terms) in found.items()
        }
        summary["accumulators"] = figures
        bits = {name: of_layer["measured_bits"] for name, of_layer in figures.items()}
        summary["energy_narrow_j"] = None
        try:
            step, _ = count_run(trainer)
        except Exception:  # a user's module may raise anything; an estimate must not cost a run its result
            return
        summary["energy_narrow_j"] = narrowed(step.scaled(steps_taken(trainer)), bits).energy_J(HOROWITZ_45NM)


@torch.no_grad()
def largest_sums(model: nn.Module, x: Tensor) -> dict[str, tuple[int, int]]:
    """Of each layer that multiplies ±1 with ±1, by its name: the largest magnitude of a sum, and its products.

    Args:
        model: is left as it was.
        x: its input.
    """
    found: dict[str, tuple[int, int]] = {}

    def note(name: str, layer: BinaryLayer, given: Tensor) -> None:
        quantized, weight = layer.quantized(given), layer.store.read()
        if isinstance(quantized, BitTensor) and isinstance(weight, BitTensor):
            window = cast(Window | None, layer.window)
            sums = products.multiply(quantized, weight, window)
            found[name] = int(sums.abs().max()), layer.store.size // layer.store.shape[0]

    with _parts_called(model):
        hooks = [
            module.register_forward_pre_hook(lambda module, given, name=name: note(name, module, given[0]))
            for name, module in model.named_modules()
            if isinstance(module, BinaryLayer)
        ]
        try:
            model(x)
        finally:
            for hook in hooks:
                hook.remove()
    return found


@contextmanager
def _parts_called(model: nn.Module) -> Iterator[None]:
    """While it is entered the model is in evaluation, and blocks call their parts, and so their hooks."""
    fused = [module for module in model.modules() if isinstance(module, BinaryBlock) and module.recompute]
    training = [module for module in model.modules() if module.training]
    model.eval()
    for block in fused:
        block.recompute = False
    try:
        yield
    finally:
        for block in fused:
            block.recompute = True
        for module in training:
            module.training = True
