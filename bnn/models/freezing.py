"""Networks whose first layers are not trained any more."""

from __future__ import annotations

import torch
from torch import nn

from bnn.bits import BitTensor
from bnn.errors import RecipeError, near_match
from bnn.layers import BinaryLayer, Graph
from bnn.layers.graph import INPUT, Call
from bnn.models.conversion.tracing import NotTraceableError, to_graph, traced, unused_name
from bnn.quantizers import Sign
from bnn.weights import FrozenStore


def freeze(model: nn.Module, upto: str, *, input_shape: tuple[int, ...], hands_on_bits: bool = False) -> Graph:
    """A network of the same parts that trains what follows a layer only.

    What comes before keeps nothing for backward and computes as in evaluation; its binary weights are kept as their
    bits (`FrozenStore`), and presets make no optimizer state for the others. The names of the layers stay as they are.

    Args:
        model: its parts become those of the result. Its calls can be listed, see `bnn.binarize`.
        upto: the last layer, or module with layers, that is frozen, by its name; or, where none has such a name, how
            many layers with weights are.
        input_shape: of one example.
        hands_on_bits: whether what follows sees one value, of bits, so that examples can be replayed from there
            (`bnn.training.replay`). Where the value is real, as between the units of a residual network, its signs
            take its place, in training and afterwards.

    Raises:
        RecipeError: there is no such layer, nothing would be left to train, or more than one value goes on from there.
    """
    graph = _as_graph(model, input_shape)
    layers = [place for place, call in enumerate(graph.calls) if _has_parameters(graph, call)]
    last = _place(graph, upto, layers)
    if not [place for place in layers if place > last]:
        raise RecipeError(f"nothing is left to train where all up to {upto} is frozen: freeze less")
    graph.frozen = last + 1
    trained = {call.target for call in graph.calls[last + 1 :]}
    for call in graph.calls[: last + 1]:
        if call.kind == "part" and call.target not in trained:
            _freeze_part(graph.get_submodule(call.target))
    return (_handing_on_bits(graph, upto, input_shape) if hands_on_bits else graph).train()


def places_to_freeze(model: nn.Module, *, input_shape: tuple[int, ...]) -> list[str]:
    """Up to where the first layers can be frozen so that one value goes on, one name for each number of layers that
    are left to train, most of these first; poolings and the like before the next layer are frozen, too.

    Raises:
        RecipeError: the network's calls cannot be listed.
    """
    graph = _as_graph(model, input_shape)
    layers = [place for place, call in enumerate(graph.calls) if _has_parameters(graph, call)]
    names, before = [], graph.frozen
    for following in layers[1:]:
        last = max(place for place in range(following) if graph.calls[place].kind == "part")
        graph.frozen = last + 1
        if len(graph.handed_on) == 1:
            names.append(graph.calls[last].target)
    graph.frozen = before
    return names


def _handing_on_bits(graph: Graph, upto: str, input_shape: tuple[int, ...]) -> Graph:
    """The network, with a sign behind the frozen part unless that gives bits."""
    name, *others = graph.handed_on
    if others:
        raise RecipeError(f"what follows {upto} takes several values, of which none can be kept alone: freeze more")
    device = next((tensor.device for tensor in (*graph.parameters(), *graph.buffers())), None)
    with torch.no_grad():
        value = graph.eval().run({INPUT: torch.zeros(2, *input_shape, device=device)}, 0, graph.frozen)[name]
    if isinstance(value, BitTensor):
        return graph
    parts = graph.parts
    sign = unused_name("replayed", parts)
    before, after = graph.calls[: graph.frozen], graph.calls[graph.frozen :]
    renamed = [call.taking({name: f"%{sign}"}) for call in after]
    calls = [*before, Call(f"%{sign}", "part", sign, (name,)), *renamed]
    return Graph({**parts, sign: Sign()}, calls, graph.output, frozen=graph.frozen + 1)


def _as_graph(model: nn.Module, input_shape: tuple[int, ...]) -> Graph:
    if isinstance(model, Graph):
        return model
    if type(model) is nn.Sequential:
        values = [INPUT, *(f"%{name}" for name in model._modules)]
        calls = [Call(values[k + 1], "part", name, (values[k],)) for k, name in enumerate(model._modules)]
        return Graph(dict(model.named_children()), calls, values[-1])
    try:
        return to_graph(*traced(model, input_shape))
    except NotTraceableError as reason:
        raise RecipeError(f"the network's first layers cannot be told, and so not be frozen: {reason}") from None


def _has_parameters(graph: Graph, call: Call) -> bool:
    return call.kind == "part" and any(True for _ in graph.get_submodule(call.target).parameters())


def _place(graph: Graph, upto: str, layers: list[int]) -> int:
    """Of the last call that is frozen."""
    names = [call.target if call.kind == "part" else "" for call in graph.calls]
    found = [place for place, name in enumerate(names) if name == upto or name.startswith(f"{upto}.")]
    if not found and upto.isdecimal():
        found = layers[: int(upto)]
    if not found:
        own = [names[place] for place in layers]
        raise RecipeError(
            f"there is no layer {upto!r} to freeze up to{near_match(upto, own)}; there are {len(own)}: {', '.join(own)}"
        )
    return found[-1]


@torch.no_grad()
def _freeze_part(part: nn.Module) -> None:
    for module in part.modules():
        if isinstance(module, BinaryLayer):
            store, weight = module.store, module.store.read().detach()
            kept = weight if isinstance(weight, BitTensor) else weight.clone()
            module.store = FrozenStore(kept, levels=max(2, len(store.levels)), scale=store.scale())
    for parameter in part.parameters():
        parameter.requires_grad_(False)
