"""How many products a signal has to pass on its way through a network."""

from __future__ import annotations

from typing import Any

from torch import nn

from bnn.errors import RecipeError
from bnn.layers import BinaryBlock, Graph
from bnn.layers.graph import INPUT, Call, values_of
from bnn.models.conversion.tracing import NotTraceableError, to_graph, traced
from bnn.posttraining.products import products_of_network

_SUMS = ("operator.add", "torch.add", "add")


def graph_of(network: nn.Module, input_shape: tuple[int, ...]) -> Graph:
    """The calls of a network.

    Args:
        network: its parts become those of the graph.
        input_shape: of one example.

    Raises:
        NotTraceableError: they cannot be listed.
        RecipeError: it does not take such examples.
    """
    return network if isinstance(network, Graph) else to_graph(*traced(network, input_shape))


def products_in_series(network: nn.Module, input_shape: tuple[int, ...]) -> int:
    """The products on the way that has fewest: one that a shortcut goes around does not count.

    Where the calls of a network cannot be listed it is the number of all products.

    Args:
        network: any.
        input_shape: of one example.
    """
    products = products_of_network(network)
    try:
        graph = graph_of(network, input_shape)
    except (NotTraceableError, RecipeError):
        return len(products)
    depths = {INPUT: 0}
    for call in graph.calls:
        depths[call.result] = _depth(graph, call, depths)
    return depths[graph.output]


def _depth(graph: Graph, call: Call, depths: dict[str, int]) -> int:
    taken = [depths[value] for value in values_of(call)]
    if call.kind != "part":
        return (min if call.target in _SUMS else max)(taken, default=0)
    part: Any = graph.get_submodule(call.target)
    own = len(products_of_network(part))
    if isinstance(part, BinaryBlock) and len(taken) > 1:
        return min(taken[0] + own, taken[1])
    return max(taken, default=0) + own
