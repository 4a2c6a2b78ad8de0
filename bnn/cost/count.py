"""Counts the layers and operations of a network from shapes alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from bnn.cost.block_count import count_block
from bnn.cost.layer_count import LayerCount, count_layer, count_operation
from bnn.layers import BinaryBlock, BinaryLayer
from bnn.ops.without_compiler import without_compiler
from bnn.quantizers import Quantizer

# Modules of torch that move numbers and do next to no arithmetic, by the file that defines them.
_MOVING_MODULES = (
    "activation",
    "batchnorm",
    "dropout",
    "flatten",
    "instancenorm",
    "normalization",
    "padding",
    "pooling",
)
# Operations outside modules that move numbers; whether backward needs their inputs again.
_MOVING_OPERATIONS = {
    **dict.fromkeys(("_to_copy", "add", "avg_pool2d", "cat", "clone", "constant_pad_nd", "mean", "sub", "sum"), False),
    **dict.fromkeys(
        ("clamp", "clamp_min", "div", "hardtanh", "linalg_vector_norm", "mul", "relu", "sigmoid", "tanh"), True
    ),
}
# Operations that move nothing, besides views.
_FREE_OPERATIONS = ("_unsafe_view", "empty_like", "new_empty")


@dataclass(frozen=True)
class NetworkCount:
    """The layers and operations of a forward pass."""

    layers: tuple[LayerCount, ...]
    """Modules, in the order of their use."""
    operations: tuple[LayerCount, ...]
    """Operations that are done outside modules, such as the sum with a shortcut."""
    uncounted: tuple[str, ...]
    """Modules and operations whose arithmetic is not known, each with the place that it has in the network."""


def count_layers(model: nn.Module, input_shape: tuple[int, ...], *, batch_size: int = 1) -> list[LayerCount]:
    """The layers of `count_network`."""
    return list(count_network(model, input_shape, batch_size=batch_size).layers)


def count_network(model: nn.Module, input_shape: tuple[int, ...], *, batch_size: int = 1) -> NetworkCount:
    """Runs a forward pass on shapes, without memory or data.

    Args:
        model: any module whose layers can run on meta tensors.
        input_shape: of one example, such as (C, H, W).
        batch_size: examples.
    """
    pass_ = _Pass(model)
    hooks = [
        hook
        for module in model.modules()
        for hook in (module.register_forward_pre_hook(pass_.enter), module.register_forward_hook(pass_.leave))
    ]
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    training = [module for module in model.modules() if module.training]
    model.eval()  # a batch of one has no batch statistics
    try:
        with torch.no_grad(), without_compiler(), pass_:
            functional_call(
                model,
                {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()},
                torch.empty((batch_size, *input_shape), device="meta"),
            )
    finally:
        for hook in hooks:
            hook.remove()
        for module in training:
            module.training = True
    return NetworkCount(tuple(pass_.layers), tuple(pass_.operations), tuple(dict.fromkeys(pass_.uncounted)))


class _Pass(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A forward pass: the layers, told by hooks, and the operations outside them, told by torch."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers: list[LayerCount] = []
        self.operations: list[LayerCount] = []
        self.uncounted: list[str] = []
        self._names = {module: name for name, module in model.named_modules()}
        self._leaves = set(_leaves(model))
        self._entered: list[nn.Module] = []

    def enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._entered.append(module)

    def leave(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._entered.pop()
        if module not in self._leaves:
            return
        name, trained_before = self._names[module], self._trained()
        result = output[0] if isinstance(output, tuple) else output  # without the input, where that is returned, too
        if isinstance(module, BinaryBlock):
            shortcut = inputs[1] if len(inputs) > 1 else None
            parts, sums = count_block(name, module, inputs[0], shortcut, result, trained_before=trained_before)
            self.layers += parts
            self.operations += sums
            return
        self.layers.append(count_layer(name, module, inputs[0], result, trained_before=trained_before))
        if not _is_known(module):
            self.uncounted.append(f"{self._names[module] or 'the network'} ({type(module).__name__})")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        place = self._entered[-1] if self._entered else None
        outside = place is not None and not any(module in self._leaves for module in self._entered)
        if outside and isinstance(output, Tensor) and not func.is_view:
            self._note(func._schema.name.split("::")[-1].rstrip("_"), place, list(_tensors(args)), output)
        return output

    def _note(self, operation: str, place: Any, inputs: list[Tensor], output: Tensor) -> None:
        if not inputs or operation in _FREE_OPERATIONS:
            return
        name = f"{self._names[place]}.{operation}".lstrip(".")
        if operation not in _MOVING_OPERATIONS:
            self.uncounted.append(f"{name} (operation)")
            return
        saves_inputs = _MOVING_OPERATIONS[operation]
        self.operations.append(
            count_operation(name, operation, inputs, output, saves_inputs=saves_inputs, trained_before=self._trained())
        )

    def _trained(self) -> bool:
        """Whether something before this is trained, so that gradients have a way to go."""
        return any(layer.weights or layer.other_parameters for layer in self.layers)


def _leaves(module: nn.Module) -> Iterator[nn.Module]:
    """Binary layers and fused blocks as a whole, and of all else the modules that have no modules inside."""
    children = list(module.children())
    is_fused = isinstance(module, BinaryBlock) and module.is_fused
    if isinstance(module, BinaryLayer) or is_fused or not children:
        yield module
    else:
        for child in children:
            yield from _leaves(child)


def _is_known(module: nn.Module) -> bool:
    package, _, file = type(module).__module__.rpartition(".")
    return (
        isinstance(module, (BinaryLayer, nn.Linear, nn.Conv2d, nn.Identity, Quantizer))
        or package == "bnn.layers"
        or (package == "torch.nn.modules" and file in _MOVING_MODULES)
    )


def _tensors(values: Any) -> Iterator[Tensor]:
    """The tensors among an operation's arguments, also in lists."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
