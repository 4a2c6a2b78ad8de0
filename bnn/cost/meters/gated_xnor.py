"""Gated XNOR: how many products of a ternary network rest because one of their operands is zero."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn.cost.energy.ledger import Ledger
from bnn.layers import BinaryConv2d, BinaryLayer
from bnn.training import Callback, Trainer

_DISCRETE_BITS = 2


@dataclass(frozen=True)
class GatedXnorCount:
    """The products of a layer's forward pass over some examples."""

    name: str
    operations: int
    """All of them; padded taps count."""
    active: int
    """Products of two operands that are not zero: an XNOR and its part of a bit count each. The others rest."""

    @property
    def resting_probability(self) -> float:
        """That of a product, as the paper calls it: 5/9 if both operands take -1, 0 and +1 equally often."""
        return 1 - self.active / self.operations


def count_gated_xnor(model: nn.Module, x: Tensor) -> list[GatedXnorCount]:
    """Runs examples through a model in evaluation mode and counts what their values let rest.

    Counted are the layers with discrete weights whose inputs are quantized to levels of at most two bits. Source:
    Deng et al. 2018 (GXNOR-Net), arXiv 1705.09283, sec. 3.

    Args:
        model: any module.
        x: float [B, ...], its input.
    """
    counts: list[GatedXnorCount] = []

    def note(name: str, layer: BinaryLayer, inputs: tuple[Any, ...], output: Tensor) -> None:
        product = _active_products(layer, inputs[0])
        operations = product.numel() * layer.store.size // layer.store.shape[0]
        counts.append(GatedXnorCount(name, operations, int(product.sum(dtype=torch.float64))))

    hooks = [
        module.register_forward_hook(partial(note, name)) for name, module in model.named_modules() if _is_gated(module)
    ]
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
        for module in training:
            module.training = True
    return counts


def gated(ledger: Ledger, counts: Sequence[GatedXnorCount]) -> Ledger:
    """The ledger without the products that rest, which is what hardware with gates does.

    Args:
        ledger: as of `bnn.cost.energy.count_step`.
        counts: measured; the parts that rest hold for the ledger's number of examples too.
    """
    active = {count.name: 1 - count.resting_probability for count in counts}
    return Ledger(
        Counter(
            {
                event: round(count * active.get(event.where, 1.0))
                if (event.op, event.phase) == ("multiply-accumulate", "forward")
                else count
                for event, count in ledger.counts.items()
            }
        )
    )


class GatedXnorMeter(Callback):
    """Adds `resting_probability`, that of a ternary product of the trained network, over a training batch."""

    def on_fit_end(self, trainer: Trainer, summary: dict[str, Any]) -> None:
        """Counts."""
        x, _ = next(iter(trainer.batches.epoch(0)))
        counts = count_gated_xnor(trainer.run.model, x)
        operations, active = sum(count.operations for count in counts), sum(count.active for count in counts)
        summary["resting_probability"] = 1 - active / operations if operations else None


def _is_gated(module: nn.Module) -> bool:
    return (
        isinstance(module, BinaryLayer)
        and module.input_quantizer is not None
        and max(module.input_quantizer.storage_bits, module.store.storage_bits) <= _DISCRETE_BITS
    )


def _active_products(layer: BinaryLayer, x: Tensor) -> Tensor:
    """The number of active products of every output, float32; exact below 2^24."""
    inputs, weight = ((operand != 0).float() for operand in (layer.quantized(x), layer.store.read()))
    if isinstance(layer, BinaryConv2d):
        return F.conv2d(inputs, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    return F.linear(inputs, weight)
