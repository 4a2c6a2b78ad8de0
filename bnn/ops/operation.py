"""How an operation is declared, and how a backend adds its kernels."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

Function = TypeVar("Function", bound=Callable[..., Any])

OPERATIONS: dict[str, Callable[..., Any]] = {}
"""The specification of each operation, by its name."""


class _Functions:
    """The operations as functions, by their names.

    They are those of `torch.ops.bnn`, which looks at every call for the overload that is meant, although there is one
    only: that takes longer than many a kernel.
    """

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(torch.ops.bnn, name).default
        setattr(self, name, function)  # where it is found from now on
        return function


functions = _Functions()


def operation(schema: str, *, shape: Callable[..., Any]) -> Callable[[Function], Function]:
    """Declares `torch.ops.bnn.<name>`, where <name> is that of the decorated function.

    The function is the specification, in plain torch: what every kernel must give, and what runs on every device for
    which no backend has a kernel.

    Args:
        schema: arguments and results, in torch's language of schemas.
        shape: from the same arguments, empty tensors of the results' shapes, dtypes and strides, which also serve the
            meta device.
    """

    def declare(specification: Function) -> Function:
        name = f"bnn::{specification.__name__}"
        torch.library.define(name, schema)
        torch.library.register_fake(name, shape)
        torch.library.impl(name, "CompositeExplicitAutograd")(specification)
        OPERATIONS[specification.__name__] = specification
        return specification

    return declare


class Backend:
    """Kernels of some of the operations for one dispatch key of torch.

    They stay for as long as this object lives; then what they had replaced is back.

    Args:
        dispatch_key: such as "CPU" or "CUDA".
    """

    def __init__(self, dispatch_key: str) -> None:
        self._library = torch.library.Library("bnn", "IMPL", dispatch_key)  # type: ignore[no-untyped-call]

    def kernel(self, function: Function) -> Function:
        """Registers the decorated function for the operation of its name, in place of any kernel that is there."""
        if function.__name__ not in OPERATIONS:
            raise ValueError(f"there is no operation {function.__name__!r}; there are {', '.join(sorted(OPERATIONS))}")
        self._library.impl(function.__name__, function)  # type: ignore[no-untyped-call]
        return function
