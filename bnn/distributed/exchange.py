"""`Exchange`: how ranks make one gradient of their own, and which exchange is in use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed
from torch import Tensor

from bnn.errors import DistributedError


class Exchange:
    """What becomes of an accumulator's gradient where several ranks have one each; as it stands, it stays a rank's own.

    Give the base class itself to a process of a group that trains a network of its own.
    """

    def of_accumulator(self, gradient: Tensor) -> Tensor:
        """The gradient that all ranks step by."""
        return gradient


_exchange: Exchange | None = None


def current_exchange() -> Exchange | None:
    """The exchange in use; None for none."""
    return _exchange


@contextmanager
def exchanging(exchange: Exchange | None) -> Iterator[None]:
    """While it is entered, `exchange` is in use, in all threads; None leaves the one that is."""
    global _exchange
    before = _exchange
    _exchange = before if exchange is None else exchange
    try:
        yield
    finally:
        _exchange = before


def exchanged(gradient: Tensor) -> Tensor:
    """An accumulator's gradient of all ranks, by the exchange in use.

    Raises:
        DistributedError: there are several ranks and no exchange.
    """
    if _exchange is not None:
        return _exchange.of_accumulator(gradient)
    group = torch.distributed
    if group.is_available() and group.is_initialized() and group.get_world_size() > 1:
        raise DistributedError(
            f"this is one of {group.get_world_size()} processes, and nothing exchanges the gradients of accumulators,"
            " which wrappers such as DistributedDataParallel do not see: every process would train another network;"
            " start `torchrun --nproc-per-node N -m bnn train RECIPE`, or give the TrainingStep an exchange of"
            " bnn.distributed"
        )
    return gradient
