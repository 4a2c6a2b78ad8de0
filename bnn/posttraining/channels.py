"""Which channels of a network belong together, through shortcuts, poolings and paddings, and what has them.

Every channel of every value gets a label. What adds two values joins their labels, what multiplies with a weight begins
new ones. Channels with one label can only be removed together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bnn.layers import AvgPool2d, BinaryBlock, Graph
from bnn.layers.graph import INPUT, Call, values_of
from bnn.posttraining.products import products_of_network, window_of
from bnn.quantizers import Quantizer

Labels = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
_SUMS = ("operator.add", "operator.sub", "operator.mul", "torch.add", "torch.sub", "torch.mul", "add", "sub", "mul")
_FLATTENS = ("torch.flatten", "flatten")
# Files of torch whose modules and functions treat each channel by itself.
_CHANNELWISE_FILES = ("activation", "dropout", "pooling", "batchnorm", "instancenorm")
_MIXING = (nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.MultiheadAttention, nn.Threshold)
_CHANNELWISE_CALLS = (
    *("torch.max_pool2d", "F.avg_pool2d", "F.adaptive_avg_pool2d", "F.interpolate", "F.leaky_relu", "F.silu", "F.gelu"),
    *("F.hardswish", "F.hardsigmoid", "F.hardtanh", "torch.sigmoid", "torch.tanh", "torch.clamp", "operator.neg"),
    *("operator.truediv", "torch.div", "sigmoid", "tanh", "clamp", "div", "contiguous", "torch.mean", "mean"),
)


@dataclass
class Channels:
    """The labels of a network's channels."""

    inputs: dict[str, Labels] = field(default_factory=dict)
    """Of each product by name, those of the channels that its weight has columns for."""
    outputs: dict[str, Labels] = field(default_factory=dict)
    """Of each module that has tensors by channels: a product, a norm, an activation."""
    paddings: dict[int, tuple[Labels, Labels]] = field(default_factory=dict)
    """Of each call that pads channels, by its place: those before and behind."""
    depthwise: set[str] = field(default_factory=set)
    """Products whose outputs are their inputs' channels, each by itself."""
    fixed: set[int] = field(default_factory=set)
    """Labels that cannot be removed."""
    _joined: list[int] = field(default_factory=list)

    def new(self, count: int, *, fixed: bool = False) -> Labels:
        """Labels that nothing else has."""
        first = len(self._joined)
        self._joined.extend(range(first, first + count))
        if fixed:
            self.fixed.update(range(first, first + count))
        return np.arange(first, first + count)

    def join(self, one: Labels, other: Labels) -> None:
        """Makes pairs of labels one."""
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            self._joined[self._root(b)] = self._root(a)

    def fix(self, labels: Labels) -> None:
        """Lets channels stay."""
        self.fixed.update(labels.tolist())

    def roots(self, labels: Labels) -> Labels:
        """The label that stands for all that are joined with each."""
        return np.array([self._root(label) for label in labels.tolist()], dtype=np.int64)

    def removable(self) -> dict[int, list[tuple[str, int]]]:
        """By label, the outputs of products that go together, as names and channels; those that may be removed."""
        fixed = {self._root(label) for label in self.fixed}
        found: dict[int, list[tuple[str, int]]] = {}
        for name in self.inputs:
            if name in self.depthwise:
                continue
            for place, label in enumerate(self.roots(self.outputs[name]).tolist()):
                if label not in fixed:
                    found.setdefault(label, []).append((name, place))
        return found

    def together(self) -> dict[frozenset[str], list[int]]:
        """The removable labels by the products that have them: those of a layer, or of layers that go together."""
        found: dict[frozenset[str], list[int]] = {}
        for label, members in self.removable().items():
            found.setdefault(frozenset(name for name, _ in members), []).append(label)
        return found

    def _root(self, label: int) -> int:
        while self._joined[label] != label:
            self._joined[label] = self._joined[self._joined[label]]
            label = self._joined[label]
        return label


def channels_of(graph: Graph, input_shape: tuple[int, ...]) -> Channels:
    """Follows the channels of a network from call to call.

    Channels that go through a call whose effect on them is not known stay, as do those of input and output.

    Args:
        graph: in evaluation mode.
        input_shape: of one example.
    """
    found = Channels()
    values: dict[str, Any] = {INPUT: torch.zeros(1, *input_shape)}
    labels: dict[str, Any] = {INPUT: found.new(input_shape[0], fixed=True)}
    with torch.no_grad():
        for place, call in enumerate(graph.calls):
            values[call.result] = graph.take(call, values)
            labels[call.result] = _followed(found, graph, place, call, values, labels)
    _fix(found, labels[graph.output])
    return found


def _followed(
    found: Channels, graph: Graph, place: int, call: Call, values: dict[str, Any], labels: dict[str, Any]
) -> Any:
    """Labels of what a call gives: an array, or a tuple of arrays."""
    made, taken = values[call.result], [labels[name] for name in values_of(call)]
    if call.kind == "part":
        given = _of_part(found, call.target, graph.get_submodule(call.target), values[values_of(call)[0]], made, taken)
    elif call.target == "operator.getitem" and isinstance(taken[0], tuple):
        given = taken[0][call.arguments[1]]
    else:
        given = _of_function(found, place, call, values, made, taken)
    if given is not None:
        return given
    for one in taken:
        _fix(found, one)
    return found.new(made.shape[1], fixed=True) if isinstance(made, Tensor) and made.dim() > 1 else None


def _fix(found: Channels, labels: Any) -> None:
    for one in labels if isinstance(labels, tuple) else (labels,):
        if one is not None:
            found.fix(one)


def _of_part(found: Channels, name: str, part: Any, x: Tensor, made: Any, taken: Sequence[Any]) -> Any:
    if isinstance(part, BinaryBlock):
        out = _of_product(found, f"{name}.product", part.product, taken[0])
        found.outputs[f"{name}.norm"] = out
        if part.activation is not None:
            found.outputs[f"{name}.activation"] = out
        if len(taken) > 1:
            found.join(out, taken[1])
        return (out, taken[0]) if isinstance(made, tuple) else out
    if products_of_network(part).keys() == {""}:
        return _of_product(found, name, part, taken[0])
    if isinstance(part, nn.Flatten) and part.start_dim == 1 and part.end_dim == -1:
        return np.repeat(taken[0], made.shape[1] // x.shape[1])
    with_input = isinstance(part, AvgPool2d) and isinstance(made, tuple)
    result = made[0] if with_input else made
    if (
        isinstance(result, Tensor)
        and _is_channelwise(part, len(taken[0]))
        and result.dim() == x.dim()
        and result.shape[1] == x.shape[1] == len(taken[0])
    ):
        found.outputs[name] = taken[0]
        return (taken[0], taken[0]) if with_input else taken[0]
    return None


def _is_channelwise(part: nn.Module, channels: int) -> bool:
    """Whether a part treats each channel by itself, and has a tensor for each at most."""
    if any(tensor.numel() not in (1, channels) or tensor.dim() > 1 for tensor in part.state_dict().values()):
        return False
    own, file = type(part).__module__.startswith("bnn.layers"), type(part).__module__.rpartition(".")[2]
    if own:
        return not products_of_network(part)
    if isinstance(part, Quantizer):
        return not any(True for _ in part.parameters())
    of_torch = type(part).__module__.startswith("torch.nn.modules") and file in _CHANNELWISE_FILES
    return isinstance(part, nn.Identity) or (of_torch and not isinstance(part, _MIXING))


def _of_product(found: Channels, name: str, product: Any, x: Labels) -> Labels:
    window = window_of(product)
    groups = 1 if window is None else window.groups
    outputs, inputs = (product.store if hasattr(product, "store") else product.weight).shape[:2]
    found.inputs[name] = x
    if groups == len(x) == outputs > 1 and inputs == 1:
        found.depthwise.add(name)
        found.outputs[name] = x
        return x
    out = found.new(outputs, fixed=groups > 1)
    if groups > 1 or len(x) != inputs:
        found.fix(x)
    found.outputs[name] = out
    return out


def _of_function(
    found: Channels, place: int, call: Call, values: dict[str, Any], made: Any, taken: Sequence[Any]
) -> Any:
    names = values_of(call)
    if not isinstance(made, Tensor) or any(not isinstance(values[name], Tensor) for name in names):
        return None
    x = values[names[0]]
    if call.target in _SUMS:
        if len(taken) == 2:
            if values[names[1]].shape[:2] != x.shape[:2] or made.shape[1] != len(taken[0]):
                return None
            found.join(taken[0], taken[1])
        return taken[0]
    if call.target in _FLATTENS:
        is_whole = made.dim() == 2 and len(made) == len(x)
        return np.repeat(taken[0], made.shape[1] // x.shape[1]) if is_whole else None
    if call.target == "torch.cat" and made.shape[1] == sum(map(len, taken)):
        return np.concatenate(taken)
    if call.target == "F.pad":
        return _padded(found, place, call, x, taken[0])
    keeps = call.target in _CHANNELWISE_CALLS and len(taken) == 1
    return taken[0] if keeps and made.dim() > 1 and made.shape[1] == len(taken[0]) == x.shape[1] else None


def _padded(found: Channels, place: int, call: Call, x: Tensor, labels: Labels) -> Any:
    widths = call.arguments[1]
    behind_channels = 2 * (x.dim() - 2)
    if len(widths) <= behind_channels:
        return labels
    is_plain = all(value in ("constant", None, 0) for _, value in call.options)
    if len(widths) != behind_channels + 2 or len(call.arguments) > 2 or not is_plain:
        return None
    before, behind = (found.new(width) for width in widths[-2:])
    found.paddings[place] = before, behind
    return np.concatenate([before, labels, behind])


def without(graph: Graph, found: Channels, removed: set[int], copied: Callable[[nn.Module], nn.Module]) -> Graph:
    """A network without some channels, whose layers are smaller.

    Args:
        graph: the network, which is not changed.
        found: its channels.
        removed: labels of `Channels.removable`.
        copied: makes the copy of a part that is then cut.

    Raises:
        ValueError: a layer would have no channel left.
    """

    def kept(labels: Labels) -> Tensor:
        return torch.from_numpy(np.flatnonzero(~np.isin(found.roots(labels), list(removed))))

    parts = {name: copied(part) for name, part in graph.parts.items()}
    for name, labels in found.outputs.items():
        module = _submodule(parts, name)
        if not len(kept(labels)):
            raise ValueError(f"no channel of {name} would be left")
        if name in found.inputs:
            cut_product(module, kept(labels), None if name in found.depthwise else kept(found.inputs[name]))
        else:
            cut_channels(module, len(labels), kept(labels))
    calls = list(graph.calls)
    for place, sides in found.paddings.items():
        call = calls[place]
        widths = (*call.arguments[1][:-2], *(len(kept(side)) for side in sides))
        calls[place] = call._replace(arguments=(call.arguments[0], widths))
    return Graph(parts, calls, graph.output, frozen=graph.frozen).eval()


def _submodule(parts: dict[str, nn.Module], name: str) -> nn.Module:
    for part in parts:
        if name == part:
            return parts[part]
        if name.startswith(f"{part}."):
            return parts[part].get_submodule(name.removeprefix(f"{part}."))
    raise KeyError(name)


def cut_product(layer: Any, rows: Tensor, columns: Tensor | None) -> None:
    """Leaves some outputs and inputs to a linear layer or convolution, in place.

    Args:
        layer: a binary one with a latent weight, or torch's.
        rows: int64, the outputs that stay.
        columns: int64, the inputs that stay; None of a depthwise convolution, whose inputs are its outputs.
    """
    owner = layer.store if hasattr(layer, "store") else layer
    weight = owner.weight.detach()[rows]
    weight = weight if columns is None else weight[:, columns]
    owner.weight = nn.Parameter(weight.contiguous(memory_format=_format(weight)), owner.weight.requires_grad)
    if owner is not layer:
        owner.shape = tuple(weight.shape)
    for name in ("bias", "learned_scale"):
        if getattr(layer, name, None) is not None:
            setattr(layer, name, nn.Parameter(getattr(layer, name).detach()[rows].clone()))
    inputs = len(rows) if columns is None else len(columns)
    names = ("out_features", "in_features") if weight.dim() == 2 else ("out_channels", "in_channels")
    for name, size in zip(names, (len(rows), inputs), strict=True):
        setattr(layer, name, size)
    if columns is None:
        layer.groups = len(rows)


def _format(weight: Tensor) -> torch.memory_format:
    return torch.channels_last if weight.dim() == 4 else torch.contiguous_format


def cut_channels(module: nn.Module, channels: int, kept: Tensor) -> None:
    """Leaves some channels to a norm or activation, in place: of every tensor that has one value a channel.

    Args:
        module: the norm or activation.
        channels: how many it has.
        kept: int64, those that stay.
    """
    for part in module.modules():
        owners: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
        for tensors in owners:
            for name, tensor in tensors.items():
                if tensor is not None and tensor.dim() == 1 and len(tensor) == channels:
                    cut = tensor.detach()[kept].clone()
                    is_parameter = isinstance(tensor, nn.Parameter)
                    tensors[name] = nn.Parameter(cut, tensor.requires_grad) if is_parameter else cut
        for name in ("num_features", "num_parameters", "channels"):
            if getattr(part, name, None) == channels:
                setattr(part, name, len(kept))
