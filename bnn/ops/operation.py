"""How an operation is declared, and how a backend adds its kernels."""

import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

Function = TypeVar("Function", bound=Callable[..., Any])

OPERATIONS: dict[str, Callable[..., Any]] = {}
"""The specification of each operation, by its name."""


class _Functions:
    """The operations as functions, by their names, whose arguments go by position.

    They are those of `torch.ops.bnn`, whose way through torch takes longer than many a kernel does. It is left out
    where nothing but the CPU's kernel would come of it: for plain tensors outside of autograd, and of torch's compiler,
    profiler and modes.
    """

    def __getattr__(self, name: str) -> Callable[..., Any]:
        operation = getattr(torch.ops.bnn, name).default
        written = [i for i, x in enumerate(operation._schema.arguments) if x.alias_info and x.alias_info.is_write]

        def function(*arguments: Any) -> Any:
            if not is_plain(arguments[0]) or (kernel := _cpu_kernel(name)) is None:
                return operation(*arguments)
            result = kernel(*arguments)
            for i in written:
                increment_version(arguments[i])
            return result

        setattr(self, name, function)  # where it is found from now on
        return function


_backends: dict[int, dict[str, Callable[..., Any]]] = {}
"""The kernels for the CPU of each backend that lives."""


def is_plain(x: Tensor) -> bool:
    """Whether nothing of torch, and no other backend, is between an operation on a tensor and a kernel of the CPU."""
    return (
        type(x) is Tensor
        and x.is_cpu
        and len(_backends) == 1
        and not torch.is_grad_enabled()
        and not torch._C._len_torch_dispatch_stack()
        and not torch._C._len_torch_function_stack()
        and torch._C._get_tracing_state() is None
        and torch._C._functorch.maybe_current_level() is None
        and not torch._C._autograd._profiler_enabled()
        and not torch.compiler.is_compiling()
    )


def _cpu_kernel(name: str) -> Callable[..., Any] | None:
    [kernels] = _backends.values()
    return kernels.get(name)


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
        self._kernels: dict[str, Callable[..., Any]] = {}
        self._is_of_cpu = dispatch_key == "CPU"
        _backends[id(self)] = self._kernels
        weakref.finalize(self, _backends.pop, id(self))

    def kernel(self, function: Function) -> Function:
        """Registers the decorated function for the operation of its name, in place of any kernel that is there."""
        if function.__name__ not in OPERATIONS:
            raise ValueError(f"there is no operation {function.__name__!r}; there are {', '.join(sorted(OPERATIONS))}")
        self._library.impl(function.__name__, function)  # type: ignore[no-untyped-call]
        if self._is_of_cpu:
            self._kernels[function.__name__] = function
        return function
