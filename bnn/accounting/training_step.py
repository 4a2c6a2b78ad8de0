"""One training step of a model, as the trainer takes it, on tensors of any device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn.bits import BitTensor
from bnn.errors import RunError


@dataclass(frozen=True)
class TrainingStep:
    """A model with what steps it, and the batch that it is given."""

    model: nn.Module
    """Takes float [B, *input_shape] and gives logits [B, classes]."""
    optimizers: Sequence[torch.optim.Optimizer]
    """Each over parameters of its own."""
    input_shape: tuple[int, ...]
    """Of one example."""
    batch_size: int
    slice_size: int | None = None
    """Most examples that go through the network at once; None: the whole batch."""

    @property
    def slice_sizes(self) -> list[int]:
        """Examples of each slice, of nearly equal size, as the trainer cuts a batch; the largest come first."""
        count = math.ceil(self.batch_size / (self.slice_size or self.batch_size))
        each, rest = divmod(self.batch_size, count)
        return [each + 1] * rest + [each] * (count - rest)

    def take(
        self,
        x: Tensor,
        labels: Tensor,
        *,
        slices: int | None = None,
        before_backward: Callable[[Tensor], None] = lambda loss: None,
        before_update: Callable[[], None] = lambda: None,
    ) -> None:
        """Forward, loss and backward of each slice, then the update.

        Args:
            x: the batch.
            labels: int64 [B].
            slices: how many of them, from the first; by default all.
            before_backward: called with the loss of each slice, whose graph is then at its largest.
            before_update: called when all gradients are there.
        """
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        start = 0
        for size in self.slice_sizes[:slices]:
            rows = slice(start, start + size)
            start = rows.stop
            loss = self.loss(x[rows], labels[rows])
            before_backward(loss)
            part = torch.full_like(loss, size / self.batch_size)
            loss.backward(part)  # type: ignore[no-untyped-call]
        # Or else it would live as long as the optimizer works.
        del loss
        before_update()
        for optimizer in self.optimizers:
            optimizer.step()

    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """The cross-entropy of a slice.

        Raises:
            RunError: the model does not give logits.
        """
        logits = self.model(x)
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(x):
            shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise RunError(f"the network must give logits [N, classes] of {len(x)} examples, not {shape}")
        return F.cross_entropy(logits, labels)

    def states(self) -> list[Tensor]:
        """The tensors that the optimizers keep between steps."""
        kept = (
            value for optimizer in self.optimizers for state in optimizer.state.values() for value in state.values()
        )
        return [value for value in kept if isinstance(value, Tensor)]


def kept_tensors(loss: Tensor) -> Iterator[Tensor]:
    """The tensors that the graph of a loss keeps for backward, those included that hooks do not see.

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


def _tensors(values: Sequence[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _tensors(value)
        elif isinstance(value, BitTensor):
            yield value.packed
        elif isinstance(value, Tensor):
            yield value
