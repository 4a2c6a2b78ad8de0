"""The tensors that autograd's graph keeps for backward."""

from collections.abc import Iterator

from torch import Tensor

from bnn.bits import BitTensor


def saved_tensors(loss: Tensor) -> Iterator[Tensor]:
    """The tensors that the graph of a loss keeps for backward, those included that `saved_tensors_hooks` do not see.

    Beside what has been saved properly, these are tensors that an `autograd.Function` has put on its `ctx`.
    """
    nodes, seen = [loss.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes += [following for following, _ in node.next_functions]
        if hasattr(node, "saved_tensors"):  # of an autograd.Function
            yield from _tensors([node.saved_tensors, list(vars(node).values())])
        else:
            yield from _tensors([getattr(node, name) for name in dir(node) if name.startswith("_saved_")])


def _tensors(values: list[object] | tuple[object, ...]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _tensors(value)
        elif isinstance(value, BitTensor):
            yield value.packed
        elif isinstance(value, Tensor):
            yield value
