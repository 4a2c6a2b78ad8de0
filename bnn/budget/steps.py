"""The training step of a network with a preset, an optimizer, a batch and slices of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

import bnn.models
import bnn.optim
from bnn.accounting.training_step import TrainingStep
from bnn.budget.networks import Network
from bnn.budget.words import REFERENCE, require_known
from bnn.errors import UsageError
from bnn.presets import Prepared, prepare
from bnn.stores import WeightStore

PRESETS = ("standard", "edge", "edge-min")
OPTIMIZERS = ("adam", "sgd", "bop")

_RATE = 1e-3
_MOMENTUM = 0.9
# The optimizer's state is as wide as the preset's own.
_STATE_DTYPES = {"standard": torch.float32, "edge": torch.float16}


@dataclass(frozen=True)
class Way:
    """A way to train."""

    preset: str
    optimizer: str
    """adam is the preset's own; the others take its place with state of the same width."""
    batch_size: int
    slice_size: int | None = None
    """Most examples at once; None: the preset's own choice."""


def check_way(network: Network, preset: str | None, optimizer: str | None) -> None:
    """Refuses what cannot be chosen.

    Raises:
        UsageError: there is no such preset or optimizer, or they do not go with each other or with the network.
    """
    require_known("preset", preset, PRESETS)
    require_known("optimizer", optimizer, OPTIMIZERS)
    if preset not in (None, REFERENCE) and not network.takes_presets:
        raise UsageError(
            f"{network.name} does not let store and norm be chosen, as preset {preset!r} does: say --preset"
            f" {REFERENCE}, or give the function of a network of your own the keywords store and norm"
        )
    if preset and optimizer and (preset, optimizer) not in ways(network):
        raise UsageError(f"{preset} steps in backward by an optimizer of its own: leave out --optimizer {optimizer}")


def ways(network: Network) -> list[tuple[str, str]]:
    """Every preset with every optimizer that it can have, the widest first."""
    presets = PRESETS if network.takes_presets else [REFERENCE]
    return [
        (preset, optimizer)
        for preset in presets
        for optimizer in OPTIMIZERS
        if optimizer == "adam" or preset in _STATE_DTYPES
    ]


def step_on_meta(network: Network, way: Way) -> TrainingStep:
    """The step without memory for its tensors."""
    return _step(network.build_on_meta, network.input_shape, way, torch.device("meta"))


def step_on_cpu(network: Network, way: Way) -> TrainingStep:
    """The step as it is taken."""
    return _step(network.build, network.input_shape, way, torch.device("cpu"))


def tiny_step(way: Way) -> TrainingStep:
    """A step of the same way that takes no memory to speak of, but what its libraries load on first use."""
    build = partial(bnn.models.mlp, classes=2)
    return _step(build, (1, 2, 2), Way(way.preset, way.optimizer, 2), torch.device("cpu"))


def _step(
    build: Callable[..., nn.Module], input_shape: tuple[int, ...], way: Way, device: torch.device
) -> TrainingStep:
    with device:
        prepared = prepare(way.preset, build, input_shape=input_shape)
    optimizers = [prepared.optimizer] if way.optimizer == "adam" else _replaced(prepared, way)
    slice_size = way.slice_size or prepared.slice_size
    return TrainingStep(prepared.model, optimizers, input_shape, way.batch_size, slice_size)


def _replaced(prepared: Prepared, way: Way) -> list[torch.optim.Optimizer]:
    """SGD with momentum over all parameters; or Bop over the stores' weights, and Adam over what is left."""
    dtype = _STATE_DTYPES[way.preset]
    parameters = list(prepared.model.parameters())
    if way.optimizer == "sgd":
        if dtype is torch.float32:
            return [torch.optim.SGD(parameters, lr=_RATE, momentum=_MOMENTUM)]
        return [bnn.optim.SGD(parameters, lr=_RATE, momentum=_MOMENTUM, state_dtype=dtype)]
    stores = [module for module in prepared.model.modules() if isinstance(module, WeightStore)]
    binary = {id(weight): weight for store in stores for weight in store.parameters()}
    others = [parameter for parameter in parameters if id(parameter) not in binary]
    if not binary:
        raise UsageError("bop steps binary weights, and the network has none: choose adam or sgd")
    options: dict[str, Any] = {"state_dtype": dtype}
    optimizers: list[torch.optim.Optimizer] = [bnn.optim.Bop(binary.values(), **options)]
    return optimizers + ([bnn.optim.Adam(others, **options)] if others else [])
