"""The terms of a memory model: what a training step keeps, and the shapes of the network that it follows from."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import nn

from bnn.cost.count import count_layers
from bnn.cost.layer_count import LayerCount
from bnn.errors import RunError

# Ternary weights take 2.
_LEVEL_BITS = 2

Lifetime = Literal["always", "to backward", "to update", "one layer"]


@dataclass(frozen=True)
class Variable:
    """Something that a training step holds in memory."""

    name: str
    lifetime: Lifetime
    """How long: also between steps; from forward to backward; from backward to the update; or while one layer is
    worked on, so that the layers share it."""
    elements: int
    bits: int
    """Width of an element; 0 where the model takes it to be free."""

    @property
    def bytes(self) -> float:
        """Elements times width; bits are not rounded up to bytes."""
        return self.elements * self.bits / 8


@dataclass(frozen=True)
class MemoryTable:
    """The variables of one training step."""

    variables: tuple[Variable, ...]

    @property
    def total_bytes(self) -> float:
        """Bytes of all variables."""
        return sum(variable.bytes for variable in self.variables)

    def as_json(self) -> dict[str, Any]:
        """JSON values: the total and every variable."""
        return {
            "total_mib": self.total_bytes / 2**20,
            "variables": [{**asdict(variable), "bytes": variable.bytes} for variable in self.variables],
        }


@dataclass(frozen=True)
class LayerShape:
    """A layer with weights, as one example sees it."""

    input_elements: int
    weights: int
    binary: bool
    """Whether its weights are binary or ternary."""


@dataclass(frozen=True)
class PoolShape:
    """A max-pooling, as one example sees it."""

    input_elements: int
    layer_input_elements: int
    """Input elements of the layer with weights before it; 0 if there is none."""


@dataclass(frozen=True)
class NetworkShape:
    """The shapes that a memory model needs. Elements are those of one example."""

    layers: tuple[LayerShape, ...]
    pools: tuple[PoolShape, ...]
    outputs: int
    norm_channels: int
    """Summed over all norms."""

    @property
    def weights(self) -> int:
        """Weights of all layers."""
        return sum(layer.weights for layer in self.layers)


def network_shape(model: nn.Module, input_shape: tuple[int, ...]) -> NetworkShape:
    """Describes a network by a forward pass on shapes, without memory or data.

    An average pooling right before a real convolution or linear layer, as in the shortcuts of a residual network,
    makes one layer with it.

    Args:
        model: any module whose layers can run on meta tensors.
        input_shape: of one example, such as (C, H, W).

    Raises:
        RunError: the network cannot run on such an input, or not on shapes alone, or has no weights.
    """
    with name_failing_module(model, input_shape):
        counts = count_layers(model, input_shape)
    layers: list[LayerShape] = []
    pools: list[PoolShape] = []
    averaged: LayerCount | None = None
    for count in counts:
        if count.weights:
            source = averaged if averaged and count.weight_bits > _LEVEL_BITS else count
            layers.append(LayerShape(source.input_elements, count.weights, count.weight_bits <= _LEVEL_BITS))
        elif count.kind == "MaxPool2d":
            pools.append(PoolShape(count.input_elements, layers[-1].input_elements if layers else 0))
        averaged = count if count.kind == "AvgPool2d" else None
    if not layers:
        raise RunError("the network has no binary, linear or convolutional layer: there is nothing to train in bits")
    means = (buffer.numel() for name, buffer in model.named_buffers() if name.split(".")[-1] == "running_mean")
    return NetworkShape(tuple(layers), tuple(pools), counts[-1].output_elements, sum(means))


@contextmanager
def name_failing_module(model: nn.Module, input_shape: tuple[int, ...]) -> Iterator[None]:
    """Turns whatever a model raises on the meta device into an error that says which module it was.

    Args:
        model: every call of its modules is watched.
        input_shape: of one example.

    Raises:
        RunError: a module, or backward or update, failed.
    """
    entered: list[str] = []

    def enter(name: str) -> Any:
        return lambda module, inputs: entered.append(f"{name or 'the network'} ({type(module).__name__})")

    def leave(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        entered.pop()

    hooks = [module.register_forward_pre_hook(enter(name)) for name, module in model.named_modules()]
    hooks += [module.register_forward_hook(leave) for module in model.modules()]
    try:
        yield
    except RunError:
        raise
    except Exception as error:  # a user's module may raise anything
        shape = "x".join(map(str, input_shape))
        reason = _reason(error.__cause__ or error)
        if entered:
            raise RunError(
                f"{entered[-1]} cannot run on the shape of one {shape} example: {reason}; check the input's shape, and"
                " let forward use shapes alone, not values"
            ) from None
        raise RunError(
            f"backward or update cannot run on shapes alone: {reason}; where they need values, as simulated devices do,"
            " memory is only measured: see peak_rss_mib in the summary of a run"
        ) from None
    finally:
        for hook in hooks:
            hook.remove()


def _reason(error: BaseException) -> str:
    """The first sentence of an error; of an operation without a shape of its own, its name."""
    needs_values = re.search(r"register_meta function for (\S+) raises", str(error))
    if needs_values:
        return f"{needs_values[1]} needs values"
    return (str(error).splitlines() or [type(error).__name__])[0].partition(". ")[0]
