"""What lies between the products of a network that is to be binary: norms, poolings, dropouts and activations.

A binary product is a whole number of the size of sqrt(fan-in), and a network of such products trains with batch norms
only (Sari et al. 2019, arXiv 1909.09139). Its inputs are signs: behind a ReLU all of them would be +1. So every way
from one product to the next has a norm and an activation of both signs, in the order of Courbariaux et al. 2016
(arXiv 1602.02830): product, pooling, norm, `Hardtanh`, sign.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn

from bnn.layers import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from bnn.models.conversion.layers import NORMS, is_product
from bnn.models.conversion.report import Report
from bnn.models.conversion.tracing import unused_name

_RELUS = (nn.ReLU, nn.ReLU6)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout)


@dataclass
class Network:
    """A network while it is changed."""

    graph: fx.Graph
    parts: dict[str, nn.Module]
    """By the names that the graph has."""
    real: dict[str, str]
    """The layers that stay real, with the reason."""
    report: Report
    texts: dict[str, str] = field(default_factory=dict)
    """What is said of changed parts, by their new names, wherever they end."""

    def describe(self, node: fx.Node) -> str:
        """The name of a part, or what became of it; it is not said again."""
        return self.texts.pop(str(node.target), str(node.target))

    def part(self, node: Any) -> nn.Module | None:
        """What a node calls, if it is a part."""
        is_part = isinstance(node, fx.Node) and node.op == "call_module"
        return self.parts[str(node.target)] if is_part else None

    def nodes(self, accept: Callable[[nn.Module], bool]) -> list[fx.Node]:
        """The calls of such parts."""
        return [node for node in self.graph.nodes if (part := self.part(node)) is not None and accept(part)]

    def is_called_once(self, name: str) -> bool:
        """Whether there is one call of a part."""
        return [str(node.target) for node in self.graph.nodes if node.op == "call_module"].count(name) == 1

    def is_binary(self, node: Any) -> bool:
        """Whether a node calls a layer that is to be binary."""
        return is_product(self.part(node)) and str(node.target) not in self.real

    def insert(self, node: fx.Node, name: str, part: nn.Module) -> fx.Node:
        """Calls a new part on a value, which all that took the value then take."""
        name = unused_name(name, self.parts)
        self.parts[name] = part
        with self.graph.inserting_after(node):
            new = self.graph.call_module(name, (node,))
        new.meta = dict(node.meta)
        node.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
        return new

    def put(self, node: fx.Node, part: nn.Module) -> None:
        """Lets one call be of another part, and other calls of the old part be as they were."""
        name = unused_name(str(node.target), self.parts) if not self.is_called_once(str(node.target)) else node.target
        self.parts[str(name)] = part
        node.target = name

    def reaches(self, value: fx.Node, accept: Callable[[Any], bool]) -> bool:
        """Whether a value comes to what is accepted without going through a norm or a product."""
        seen, left = set(), list(value.users)
        while left:
            user = left.pop()
            if accept(user):
                return True
            if user not in seen and not isinstance(self.part(user), NORMS) and not is_product(self.part(user)):
                left += user.users
            seen.add(user)
        return False

    def feeds_binary(self, value: fx.Node) -> bool:
        """Whether the sign of a value, or of what is made of it without a norm, is taken."""
        return self.reaches(value, self.is_binary)


def remove_dropouts(network: Network) -> None:
    """Removes dropouts in front of signs: what they drop would not be 0, but +1."""
    for node in network.nodes(lambda part: isinstance(part, _DROPOUTS)):
        if network.feeds_binary(node):
            network.report.note(str(node.target), "removed", "the sign of what it drops would be +1")
            (x,) = node.all_input_nodes
            node.replace_all_uses_with(x)
            network.graph.erase_node(node)


def add_norms(network: Network) -> None:
    """Puts a batch norm behind each product of which some way to a next one, or out of the network, has none."""
    for node in network.nodes(is_product):
        binary = network.is_binary(node)
        ends = (lambda user: user.op == "output" or is_product(network.part(user))) if binary else network.is_binary
        if not network.reaches(node, ends):
            continue
        shape = node.meta["shape"]
        if len(shape) == 2 or isinstance(network.part(node), nn.Conv2d):
            norm = nn.BatchNorm1d(shape[1]) if len(shape) == 2 else nn.BatchNorm2d(shape[1])
            new = network.insert(node, f"{node.target}_norm", norm)
            network.texts[str(new.target)] = "a new batch norm"


def order_poolings(network: Network) -> None:
    """Moves max-poolings in front of norms; behind others, of which most signs would be +1, comes a norm.

    The first is the order of Courbariaux et al. 2016; the second is done by Bethge et al. 2019, arXiv 1906.08637.
    """
    for node in network.nodes(lambda part: type(part) is nn.MaxPool2d):
        feeds_binary, chain = network.feeds_binary(node), _chain_before(network, node)
        pool = _small_pool(network.part(node), node)
        if pool is not None:
            network.put(node, pool)
        if not feeds_binary:
            continue
        if chain and pool is not None and pool.is_disjoint:
            _move(node, chain)
            network.texts[str(node.target)] = f"{node.target} in front of the norm"
        else:
            network.insert(node, f"{node.target}_norm", nn.BatchNorm2d(node.meta["shape"][1]))
            network.texts[str(node.target)] = "with a new batch norm, since most signs of largest values are +1"


def _move(pool: fx.Node, chain: list[fx.Node]) -> None:
    """From behind product, norm and activation to behind the product."""
    product, norm, *_ = chain
    last = chain[-1]
    pool.replace_all_uses_with(last)
    pool.replace_input_with(last, product)
    norm.replace_input_with(product, pool)
    norm.prepend(pool)
    for node in chain[1:]:
        node.meta["shape"] = pool.meta["shape"]


def _small_pool(pool: Any, node: fx.Node) -> MaxPool2d | None:
    """The same pooling, of which few bits are kept; None where there is none."""
    sizes = []
    for size in (pool.kernel_size, pool.stride, pool.padding, pool.dilation):
        height, width = size if isinstance(size, tuple) else (size, size)
        if height != width:
            return None
        sizes.append(height)
    kernel, stride, padding, dilation = sizes
    (x,) = node.all_input_nodes
    cut_off = tuple((edge + 2 * padding - kernel) // stride + 1 for edge in x.meta["shape"][2:])
    if dilation != 1 or pool.return_indices or node.meta["shape"][2:] != cut_off or len(node.meta["shape"]) != 4:
        return None
    return MaxPool2d(kernel, stride=stride, padding=padding)


def _chain_before(network: Network, node: fx.Node) -> list[fx.Node] | None:
    """The binary product, the batch norm and maybe the activation whose value nothing but this node takes."""
    chain: list[fx.Node] = []
    (before,) = node.all_input_nodes
    if isinstance(network.part(before), (*_RELUS, nn.Hardtanh)) and len(before.users) == 1:
        chain.append(before)
        (before,) = before.all_input_nodes
    if not isinstance(network.part(before), nn.BatchNorm2d) or len(before.users) != 1:
        return None
    (product,) = before.all_input_nodes
    if not network.is_binary(product) or len(product.users) != 1:
        return None
    return [product, before, *chain]


def replace_activations(network: Network) -> None:
    """Puts `Hardtanh` in place of each ReLU whose sign would be taken, and average poolings that keep nothing."""
    for node in network.nodes(lambda part: isinstance(part, _RELUS)):
        if network.feeds_binary(node):
            old = f"{type(network.part(node)).__name__} {node.target}"
            network.put(node, nn.Hardtanh())
            network.texts[str(node.target)] = f"Hardtanh in place of the {old}"
    for node in network.nodes(lambda part: type(part) is nn.AvgPool2d):
        pool: Any = network.part(node)
        options = (pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode, pool.count_include_pad)
        network.put(node, AvgPool2d(*options, pool.divisor_override))
    for node in network.nodes(lambda part: type(part) is nn.AdaptiveAvgPool2d and part.output_size in (1, (1, 1))):
        network.put(node, GlobalAvgPool2d())
