"""The stores that binary layers make."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch

from bnn.weights.base import StoreFactory, WeightStore
from bnn.weights.latent import LatentStore

Replacement = Callable[[WeightStore], StoreFactory | None]
"""What makes a store in place of one that a layer was given, which has no memory; None where that stays."""


class _Stores(NamedTuple):
    by_default: StoreFactory = LatentStore
    replacement: Replacement | None = None


_stores: ContextVar[_Stores | None] = ContextVar("stores", default=None)


def make_store(shape: Sequence[int], factory: StoreFactory | None = None) -> WeightStore:
    """The store of a layer.

    Args:
        shape: of the weight.
        factory: what the layer was given; None for the default in force, which is `LatentStore` unless `default_store`
            says otherwise.
    """
    by_default, replacement = _stores.get() or _Stores()
    if factory is None:
        return by_default(shape)
    if replacement is not None:
        with torch.device("meta"):
            given = factory(shape)
        factory = replacement(given) or factory
    return factory(shape)


@contextmanager
def default_store(factory: StoreFactory, *, replacement: Replacement | None = None) -> Iterator[None]:
    """Within it, layers that are not given a store make one by `factory`.

    So a network of any class can be built with stores that take little memory from the start.

    Args:
        factory: makes a store.
        replacement: is asked for each store that a layer was given, so that no float exists of a weight that is to be
            replaced.
    """
    token = _stores.set(_Stores(factory, replacement))
    try:
        yield
    finally:
        _stores.reset(token)
