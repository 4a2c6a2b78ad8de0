"""How much a network needs each channel: by Taylor's first term, or by leaving it out.

Source: Molchanov et al. 2019, arXiv 1906.10771: the derivative of the loss by a gate of 1 on the channel; of channels
that go together the derivatives add up. Three things are as binary networks want them. The gate stands behind a sign
where a block ends with one: that it becomes 0 there is what removing the channel does. Signs have the slope of a narrow
ramp, since one channel moves what enters the next sign by little: the window of training is about ten times as wide,
and sees other signs than those that change. And the derivative keeps its sign in place of being squared, so that a
channel whose absence helps is the least important.
"""

import copy
from collections.abc import Callable, Collection
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn.bits import BitTensor
from bnn.layers import BinaryBlock, BinaryLayer, Graph
from bnn.posttraining.channels import Channels, without
from bnn.posttraining.products import EXAMPLES_AT_ONCE, logits_of, part_by_part
from bnn.quantizers import Quantizer

_RAMP = 0.12  # half its width, in deviations of what a norm gives
_LEFT_OUT = 8  # channels of each layer


def taylor_importance(graph: Graph, found: Channels, x: Tensor, labels: Tensor) -> dict[int, float]:
    """By how much the loss would rise without the channels of each removable label; below 0 where it would fall.

    Those of one layer compare. Across layers they do not: what a change does to later signs also costs, whichever
    channel it comes from. See `importance_across`.

    Args:
        graph: in evaluation mode; it is not changed.
        found: its channels.
        x: examples, as the network takes them.
        labels: int64 [n].
    """
    probe = _with_ramps(graph)
    gates = {name: torch.ones(len(found.outputs[name]), requires_grad=True) for name in found.inputs}
    for name, gate in gates.items():
        _gated(probe, name).register_forward_hook(_gating(gate))
    with torch.enable_grad(), part_by_part(probe):
        for part, wanted in zip(torch.split(x, EXAMPLES_AT_ONCE), torch.split(labels, EXAMPLES_AT_ONCE), strict=True):
            (F.cross_entropy(probe(part).float(), wanted, reduction="sum") / len(x)).backward()  # type: ignore[no-untyped-call]
    slopes = {name: torch.zeros(len(gate)) if gate.grad is None else gate.grad for name, gate in gates.items()}
    return {label: -sum(float(slopes[name][k]) for name, k in members) for label, members in found.removable().items()}


def importance_across(graph: Graph, found: Channels, x: Tensor, labels: Tensor) -> dict[int, float]:
    """Importance that compares across the layers of a network: Taylor's, plus what any channel of the layer costs.

    That is the mean difference to the loss where eight of its channels, evenly spaced by their rank, are left out. With
    it the ranks of a binary network's channels agree with those of leaving each out, see benchmarks/records. It
    takes a pass through the network for each of the eight. Arguments are those of `taylor_importance`.
    """
    taylor = taylor_importance(graph, found, x, labels)
    made: dict[int, float] = {}
    for together in found.together().values():
        ranked = sorted(together, key=taylor.__getitem__)
        few = {ranked[place * (len(ranked) - 1) // (_LEFT_OUT - 1)] for place in range(_LEFT_OUT)}
        change = left_out(graph, found, x, labels, few)
        shift = fmean(change[label] - taylor[label] for label in few)
        made |= {label: taylor[label] + shift for label in together}
    return made


def left_out(
    graph: Graph, found: Channels, x: Tensor, labels: Tensor, of: Collection[int] | None = None
) -> dict[int, float]:
    """The change of the loss where a label's channels are taken out of the network, for some or all removable ones.

    It takes a pass through the network for each label.

    Args:
        graph: as of `taylor_importance`, like those that follow.
        found: its channels.
        x: examples.
        labels: theirs.
        of: the removable labels to leave out; None for all.
    """
    before = _loss(graph, x, labels)
    chosen = found.removable() if of is None else of
    return {label: _loss(without(graph, found, {label}, copy.deepcopy), x, labels) - before for label in chosen}


def _loss(graph: nn.Module, x: Tensor, labels: Tensor) -> float:
    return float(F.cross_entropy(logits_of(graph, x), labels))


def _with_ramps(graph: Graph) -> Graph:
    probe = copy.deepcopy(graph).eval().requires_grad_(False)
    for name, module in list(probe.named_modules()):
        if isinstance(module, BinaryLayer):
            module.grad_quantizer = None
        if isinstance(module, Quantizer) and module.is_sign and not name.endswith("store.quantizer"):
            probe.set_submodule(name, _Ramp())
    return probe


class _Ramp(Quantizer):
    """Signs with the slope of a steep ramp."""

    levels = (-1.0, 1.0)
    storage_bits = 1

    def forward(self, x: Tensor) -> Tensor:
        """Floats of -1 and +1; what are signs already stays as it is, with the gates on it."""
        if isinstance(x, BitTensor) or bool((x.detach().abs() == 1).all()):
            return x
        ramp = (x / _RAMP).clamp(-1, 1)
        return torch.where(x >= 0, 1.0, -1.0) + (ramp - ramp.detach())


def _gating(gate: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output * gate.view(-1, *[1] * (output.dim() - 2))

    return hook


def _gated(probe: Graph, product: str) -> nn.Module:
    """What gives the channels of a product to the network: the sign or the norm of its block, or else itself."""
    block = probe.get_submodule(product.rpartition(".")[0])
    if not isinstance(block, BinaryBlock) or not product.endswith(".product"):
        return probe.get_submodule(product)
    return block.activation if isinstance(block.activation, Quantizer) else block.norm
