"""Blocks of a network: product, pooling, norm, sum with a shortcut and activation as one `BinaryBlock`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from bnn.layers import BinaryBlock, BinaryLayer, MaxPool2d
from bnn.layers.graph import FUNCTIONS
from bnn.models.conversion.chains import Network
from bnn.models.conversion.layers import is_product
from bnn.quantizers.gradients import Int8Gradient

_SUMS = (FUNCTIONS["operator.add"], torch.add)
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardtanh)


def projections(network: Network) -> list[str]:
    """Names of the products that are nothing but the shortcut around others: they get what the others begin with.

    Of two products whose norms are added it is the one whose input is there first.
    """
    order = {node: place for place, node in enumerate(network.graph.nodes)}
    found = []
    for node in network.graph.nodes:
        operands = [_product_before(network, operand) for operand in _operands(node) if len(operand.users) == 1]
        if len(operands) == 2 and all(operands):
            first = min(operands, key=lambda product: order[product.all_input_nodes[0]])  # type: ignore[union-attr]
            found.append(str(first.target))  # type: ignore[union-attr]
    return found


def _product_before(network: Network, node: fx.Node) -> fx.Node | None:
    """The product that a value is, or is the norm of."""
    if isinstance(network.part(node), nn.modules.batchnorm._BatchNorm):
        (node,) = node.all_input_nodes
    return node if is_product(network.part(node)) else None


def _operands(node: fx.Node) -> list[fx.Node]:
    """The two values of one shape that a node adds, if it does."""
    adds = node.target in _SUMS if node.op == "call_function" else node.op == "call_method" and node.target == "add"
    operands = [value for value in node.args if isinstance(value, fx.Node)]
    same = len({operand.meta.get("shape") for operand in operands}) == 1
    return (
        operands if adds and len(operands) == 2 and not node.kwargs and same and operands[0] is not operands[1] else []
    )


@dataclass
class _Chain:
    """The calls that become one block."""

    product: fx.Node
    norm: fx.Node
    pool: fx.Node | None = None
    shortcut: fx.Node | None = None
    add: fx.Node | None = None
    activation: fx.Node | None = None

    @property
    def nodes(self) -> list[fx.Node]:
        """From the first to the last."""
        nodes = (self.product, self.pool, self.norm, self.add, self.activation)
        return [node for node in nodes if node is not None]


def make_blocks(network: Network) -> None:
    """Makes blocks of all that can be one; a block has the name of its product."""
    for product in network.nodes(lambda part: is_product(part) or isinstance(part, BinaryLayer)):
        chain = _chain(network, product)
        if chain is not None:
            _make_block(network, chain)
    for block in network.nodes(lambda part: isinstance(part, BinaryBlock)):
        _share_input(network, block)


def has_norm_of_its_own(network: Network, product: fx.Node) -> bool:
    """Whether nothing but a batch norm, maybe behind a pooling, takes a product, so that it needs no bias."""
    return _chain(network, product) is not None


def _chain(network: Network, product: fx.Node) -> _Chain | None:
    pool, norm = None, _only_user(product)
    if isinstance(network.part(norm), MaxPool2d) and len(product.meta["shape"]) == 4:
        pool, norm = norm, _only_user(norm)
    if norm is None or type(network.part(norm)) not in (nn.BatchNorm1d, nn.BatchNorm2d):
        return None
    if not all(network.is_called_once(str(node.target)) for node in (product, norm)):
        return None
    chain = _Chain(product, norm, pool)
    add, last = _only_user(norm), norm
    if add is not None and norm in (operands := _operands(add)) and not _is_shortcut(network, norm, operands):
        chain.add, last = add, add
        (chain.shortcut,) = (operand for operand in operands if operand is not norm)
    activation = _only_user(last)
    if activation is not None and type(network.part(activation)) in _ACTIVATIONS:
        chain.activation = activation
    return chain


def _is_shortcut(network: Network, norm: fx.Node, operands: list[fx.Node]) -> bool:
    """Whether the other operand is the way around which this one is the shortcut."""
    (other,) = (operand for operand in operands if operand is not norm)
    order = {node: place for place, node in enumerate(network.graph.nodes)}
    if not isinstance(network.part(other), nn.modules.batchnorm._BatchNorm) or len(other.users) != 1:
        return False
    return order[_first_input(network, other)] > order[_first_input(network, norm)]


def _first_input(network: Network, norm: fx.Node) -> fx.Node:
    """The input of the product in front of a norm, or else of the norm."""
    (node,) = norm.all_input_nodes
    part = network.part(node)
    return node.all_input_nodes[0] if is_product(part) or isinstance(part, (BinaryLayer, MaxPool2d)) else node


def _only_user(node: fx.Node | None) -> fx.Node | None:
    users = [] if node is None else list(node.users)
    return users[0] if len(users) == 1 else None


def _make_block(network: Network, chain: _Chain) -> None:
    name = str(chain.product.target)
    product: Any = network.parts[name]
    norm: Any = network.parts[str(chain.norm.target)]
    if product.bias is not None:  # which the norm takes away
        if norm.running_mean is not None:
            norm.running_mean -= product.bias.detach()
        product.bias = None
    pool: Any = network.part(chain.pool)
    block = BinaryBlock(product, norm, pool=pool, activation=network.part(chain.activation))
    last = chain.nodes[-1]
    (x,) = chain.product.all_input_nodes
    with network.graph.inserting_after(last):
        call = network.graph.call_module(name, (x,) if chain.shortcut is None else (x, chain.shortcut))
    call.meta = dict(last.meta)
    last.replace_all_uses_with(call)
    for node in reversed(chain.nodes):
        network.graph.erase_node(node)
    network.parts[name] = block
    kind = "binary" if isinstance(product, BinaryLayer) else "real"
    if isinstance(product, BinaryLayer) and norm.running_mean is not None:
        norm.reset_running_stats()  # those of another product
    inside = [network.describe(node) if node.op == "call_module" else "the sum" for node in chain.nodes[1:]]
    network.report.note(name, kind, f"one block with {' and '.join(inside)}")
    if (reason := _obstacle(block)) is not None:
        network.report.note(name, kind, f"keeps floats: {reason}")


def _obstacle(block: BinaryBlock) -> str | None:
    """Why the block would keep floats under a preset that keeps bits."""
    product = block.product
    if not isinstance(product, BinaryLayer) or product.grad_quantizer is not None:
        return block.obstacle
    product.grad_quantizer = Int8Gradient(generator=torch.Generator())
    try:
        return block.obstacle
    finally:
        product.grad_quantizer = None


def _share_input(network: Network, block: fx.Node) -> None:
    """Lets a block hand its input on to later uses, whose gradients are then added in one pass."""
    x = block.args[0]
    order = {node: place for place, node in enumerate(network.graph.nodes)}
    assert isinstance(x, fx.Node)
    later = [user for user in x.users if user is not block and order[user] > order[block]]
    if not later or len(block.args) > 1 or x.op == "placeholder" or block.kwargs:
        return
    result, same = FUNCTIONS["operator.getitem"], dict(x.meta)
    with network.graph.inserting_after(block):
        out = network.graph.call_function(result, (block, 0))
        x_again = network.graph.call_function(result, (block, 1))
    out.meta, x_again.meta = dict(block.meta), same
    block.replace_all_uses_with(out, delete_user_cb=lambda user: user not in (out, x_again))
    for user in later:
        user.replace_input_with(x, x_again)
    block.kwargs = {"with_input": True}
