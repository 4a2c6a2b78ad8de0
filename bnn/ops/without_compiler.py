"""Torch's compiler, which nothing here asks for, stays unloaded: some 40 MiB of a process."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo"


@contextmanager
def without_compiler() -> Iterator[None]:
    """Meanwhile torch's functions run without the decorator that loads its compiler when they are first called.

    The decorator keeps the compiler from looking into a function; it is gone for good from one whose first call is in
    here. What asks for more of the compiler loads it, as ever. Where it is loaded already, this does nothing.
    """
    if _COMPILER in sys.modules:
        yield
        return
    stand_in = sys.modules[_COMPILER] = _Decorator(_COMPILER)
    try:
        yield
    finally:
        if sys.modules[_COMPILER] is stand_in:
            del sys.modules[_COMPILER]


class _Decorator(ModuleType):
    @staticmethod
    def disable(function: Callable[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
        return function

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(_COMPILER) is self:
            del sys.modules[_COMPILER]
        return getattr(importlib.import_module(_COMPILER), name)
