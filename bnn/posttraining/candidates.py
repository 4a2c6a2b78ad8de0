"""The parts of a network that get a width each, and what each width makes of them: layers, bytes and loss."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnn.codec.coding import Entry, encode_discrete, encode_values
from bnn.layers import BinaryLayer
from bnn.posttraining.calibration import Calibrated, Moments, adaquant, nearest
from bnn.posttraining.grids import GRIDS, Grid
from bnn.posttraining.products import (
    divergence,
    levels_of,
    logits_of,
    moments_of,
    products_of_network,
    weight_of,
    with_levels,
)

AS_IT_IS = "as it is"
_HALF_LIMIT = 65504.0
_REAL = 1 << 16  # more levels than any grid has

Install = Callable[[nn.Module], None]
"""Changes a network in place."""


@dataclass(frozen=True)
class Option:
    """A width of a part."""

    width: str
    """A number of bits, `ternary`, or `as it is`."""
    install: Install
    entries: tuple[Entry, ...]
    """The part in the file."""
    loss: float
    """Divergence of the network where nothing but this part has the width, in nats."""

    @property
    def size_bytes(self) -> int:
        """Of the part in the file, its place in the table aside."""
        return sum(len(entry.payload) for entry in self.entries)


@dataclass(frozen=True)
class Candidates:
    """A part of a network with the widths that it may have."""

    name: str
    values: int
    options: tuple[Option, ...]


def candidates(network: nn.Module, x: Tensor, held: Tensor, *, calibrate: bool) -> list[Candidates]:
    """The weights of linear layers and convolutions, then what else has floats, module by module.

    Args:
        network: in evaluation mode.
        x: examples to calibrate on, as the network takes them.
        held: other ones, on which losses are measured.
        calibrate: whether levels may be those of AdaQuant, where they lose less than the nearest.
    """
    reference = logits_of(network, held)

    def measured(width: str, install: Install, entries: Callable[[nn.Module], Sequence[Entry]]) -> Option:
        changed = copy.deepcopy(network)
        install(changed)
        loss = max(0.0, float(divergence(reference, logits_of(changed, held))))
        return Option(width, install, tuple(entries(changed)), loss)

    layers = {
        name: (layer, grids) for name, layer in products_of_network(network).items() if (grids := _narrower(layer))
    }
    seen = moments_of(network, list(layers), x) if calibrate else {}
    found = []
    for name, (layer, grids) in layers.items():
        options = []
        for grid in grids:
            ways = [_installer(name, grid, made) for made in _levels(layer, grid, seen.get(name))]
            tried = [measured(grid.width, way, _weight_entries(name)) for way in ways]
            options.append(min(tried, key=lambda option: option.loss))
        if levels_of(layer):
            options.append(Option(AS_IT_IS, _nothing, tuple(_weight_entries(name)(network)), 0.0))
        else:
            options.append(measured(*_half(network, [f"{name}.weight"])))
        found.append(Candidates(name, weight_of(layer).numel(), tuple(options)))
    for module, names in _others(network, [f"{name}.weight" for name in layers]).items():
        exact = Option("32", _nothing, tuple(_values_as(names, torch.float32)(network)), 0.0)
        options = [measured(*_half(network, names)), exact]
        values = sum(network.state_dict()[name].numel() for name in names)
        found.append(Candidates(f"{module}: others" if module else "others", values, tuple(options)))
    return found


def _narrower(layer: nn.Module) -> list[Grid]:
    """The grids with fewer levels than the weight of a layer has."""
    number = levels_of(layer) or _REAL
    return [grid for grid in GRIDS if grid.levels < number]


def _levels(layer: nn.Module, grid: Grid, moments: Moments | None) -> list[Calibrated]:
    """The nearest levels, and those of AdaQuant, which few examples of many inputs can mislead."""
    weight, bias = weight_of(layer), getattr(layer, "bias", None)
    bias = None if bias is None else bias.detach()
    found = [nearest(weight, bias, grid)]
    return found if moments is None else [*found, adaquant(weight, bias, grid, moments)]


def _installer(name: str, grid: Grid, made: Calibrated) -> Install:
    def install(network: nn.Module) -> None:
        layer = network.get_submodule(name)
        network.set_submodule(name, with_levels(layer, grid, made.levels, made.scale, made.bias))

    return install


def _nothing(network: nn.Module) -> None:
    pass


def _weight_entries(name: str) -> Callable[[nn.Module], list[Entry]]:
    """The entries of a layer's store."""

    def entries(network: nn.Module) -> list[Entry]:
        layer = network.get_submodule(name)
        assert isinstance(layer, BinaryLayer)
        with torch.no_grad():
            weight, scale = layer.store.read(), layer.store.scale()
        of_weight = encode_discrete(f"{name}.store.weight", weight, levels=layer.store.levels)
        return [of_weight, *([] if scale is None else [encode_values(f"{name}.store.scale", scale)])]

    return entries


def _values_as(names: Sequence[str], dtype: torch.dtype) -> Callable[[nn.Module], list[Entry]]:
    def entries(network: nn.Module) -> list[Entry]:
        state = network.state_dict()
        return [encode_values(name, state[name].to(dtype)) for name in names if name in state]

    return entries


def _half(network: nn.Module, names: Sequence[str]) -> tuple[str, Install, Callable[[nn.Module], list[Entry]]]:
    """Tensors in 16 bits: float16, or bfloat16 where they are too large for it."""
    state = network.state_dict()
    largest = max((float(state[name].abs().max()) for name in names if state[name].numel()), default=0.0)
    dtype = torch.float16 if largest <= _HALF_LIMIT else torch.bfloat16

    def install(changed: nn.Module) -> None:
        round_to(changed, dict.fromkeys(names, dtype))

    return "16", install, _values_as(names, dtype)


def outside_stores(network: nn.Module) -> dict[str, Tensor]:
    """The tensors of a network that a file has as they are, by name: all but what stores hold."""
    return {name: value for name, value in network.state_dict().items() if ".store." not in f".{name}"}


def round_to(network: nn.Module, dtypes: dict[str, torch.dtype]) -> None:
    """Gives tensors of a network, by name, values that their dtypes have; those that it has not are left out."""
    state = outside_stores(network)
    with torch.no_grad():
        for name, dtype in dtypes.items():
            if name in state:
                state[name].copy_(state[name].to(dtype))


def _others(network: nn.Module, weights: Sequence[str]) -> dict[str, list[str]]:
    """Names of the tensors of float32 outside of stores and of `weights`, by module."""
    of_modules: dict[str, list[str]] = {}
    for name, value in outside_stores(network).items():
        if value.dtype is torch.float32 and name not in weights:
            of_modules.setdefault(name.rpartition(".")[0], []).append(name)
    return of_modules
