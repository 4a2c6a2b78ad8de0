"""The store that binary layers make where they are not given one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from bnn.weights.base import StoreFactory, WeightStore
from bnn.weights.latent import LatentStore

_factory: ContextVar[StoreFactory] = ContextVar("default_store", default=LatentStore)


def make_default_store(shape: Sequence[int]) -> WeightStore:
    """A store for a weight of `shape`: of the factory in force, by default a `LatentStore`."""
    return _factory.get()(shape)


@contextmanager
def default_store(factory: StoreFactory) -> Iterator[None]:
    """Within it, layers that are not given a store make one by `factory`.

    So a network of any class can be built with stores that take little memory from the start.
    """
    token = _factory.set(factory)
    try:
        yield
    finally:
        _factory.reset(token)
