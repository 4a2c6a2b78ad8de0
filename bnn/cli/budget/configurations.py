"""The choices of a training step (preset, optimizer, batch, slices), and the step that follows from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bnn.optim
from bnn.cli.arguments import require_choice
from bnn.cli.budget.networks import NetworkBuilder
from bnn.cost.memory.measured import random_batch
from bnn.errors import RunError, UsageError
from bnn.layers import AvgPool2d, BinaryBlock, BinaryConv2d, MaxPool2d
from bnn.ops.memory import RESULTS
from bnn.presets import edge, prepare
from bnn.training import TrainingStep
from bnn.weights import WeightStore

COMPARED = ("standard", "edge", "edge-min")
"""Presets that are looked at where none is named."""
PRESETS = (*COMPARED, "edge-fast", "edge-signs")
REFERENCE = "standard"
"""The preset that others are compared with."""
OPTIMIZERS = ("adam", "sgd", "bop")

_TINY_SHAPE = (3, 8, 8)
_RATE = 1e-3
_MOMENTUM = 0.9
# The optimizer's state is as wide as the preset's own.
_STATE_DTYPES = {"standard": torch.float32, "edge": torch.float16}

CONFIGURATIONS = [
    (preset, optimizer)
    for preset in PRESETS
    for optimizer in OPTIMIZERS
    if optimizer == "adam" or preset in _STATE_DTYPES
]
"""Every preset with every optimizer that it can have, the widest first."""


@dataclass(frozen=True)
class TrainingConfiguration:
    """The choices of a training step."""

    preset: str
    optimizer: str
    """adam is the preset's own; the others take its place with state of the same width, and step after backward, which
    `edge` does by signs."""
    batch_size: int
    slice_size: int | None = None
    """Most examples at once; None: the preset's own choice."""


def check_configuration(preset: str | None, optimizer: str | None) -> None:
    """Refuses what cannot be chosen.

    Raises:
        UsageError: there is no such preset or optimizer, or they do not go with each other.
    """
    require_choice("preset", preset, PRESETS)
    require_choice("optimizer", optimizer, OPTIMIZERS)
    if preset and optimizer and (preset, optimizer) not in CONFIGURATIONS:
        raise UsageError(f"{preset} steps in backward by an optimizer of its own: leave out --optimizer {optimizer}")


def step_on_meta(network: NetworkBuilder, configuration: TrainingConfiguration) -> TrainingStep:
    """The step without memory for its tensors."""
    return _step(network.build_on_meta, network.input_shape, configuration, torch.device("meta"))


def step_on_cpu(network: NetworkBuilder, configuration: TrainingConfiguration) -> TrainingStep:
    """The step as it is taken."""
    return _step(network.build, network.input_shape, configuration, torch.device("cpu"))


def load_libraries(configuration: TrainingConfiguration) -> None:
    """Makes the libraries load what they load on first use, so that it is not taken for memory of a network.

    A step of the same preset and optimizer on a tiny network of all kinds of layers brings some 20 MiB of code, and a
    product of real matrices some 10 MiB of buffers, which MKL keeps.
    """
    step = _step(_tiny_network, _TINY_SHAPE, configuration, torch.device("cpu"))
    step.take(*random_batch(_TINY_SHAPE, 2))
    weight = torch.zeros(256, 1024, requires_grad=True)
    F.linear(torch.zeros(64, 1024), weight).sum().backward()  # type: ignore[no-untyped-call]


def _tiny_network() -> nn.Module:
    """A network of the usual layers."""
    channels = _TINY_SHAPE[0]
    return nn.Sequential(
        nn.BatchNorm2d(channels),
        BinaryBlock(nn.Conv2d(channels, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), activation=nn.ReLU()),
        MaxPool2d(3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        BinaryBlock(nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8)),  # by torch's convolution
        BinaryBlock(BinaryConv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), activation=nn.Hardtanh()),
        AvgPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    )


def _step(
    build: Callable[[], nn.Module],
    input_shape: tuple[int, ...],
    configuration: TrainingConfiguration,
    device: torch.device,
) -> TrainingStep:
    RESULTS.is_kept = False  # unless the preset sets it
    own = configuration.optimizer == "adam"
    with device:
        if own or configuration.preset != "edge":
            step = prepare(configuration.preset, build, input_shape=input_shape)
        else:
            step = edge(build, input_shape, sign_gradients=True)
    return replace(
        step,
        optimizer=step.optimizer if own else _other_optimizer(step.model, configuration),
        loss=_cross_entropy,
        slice_size=configuration.slice_size or step.slice_size,
    )


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy, for a network that may return anything.

    Raises:
        RunError: it does not give logits.
    """
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(labels):
        shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise RunError(f"the network must give logits [N, classes] of {len(labels)} examples, not {shape}")
    return F.cross_entropy(logits, labels)


def _other_optimizer(model: nn.Module, configuration: TrainingConfiguration) -> torch.optim.Optimizer:
    """SGD with momentum over all parameters; or Bop over the stores' weights, and Adam over what is left."""
    dtype = _STATE_DTYPES[configuration.preset]
    parameters = list(model.parameters())
    if configuration.optimizer == "sgd":
        if dtype is torch.float32:
            return torch.optim.SGD(parameters, lr=_RATE, momentum=_MOMENTUM)
        return bnn.optim.SGD(parameters, lr=_RATE, momentum=_MOMENTUM, state_dtype=dtype)
    stores = [module for module in model.modules() if isinstance(module, WeightStore)]
    binary = {id(weight): weight for store in stores for weight in store.parameters()}
    others = [parameter for parameter in parameters if id(parameter) not in binary]
    if not binary:
        raise UsageError("bop steps binary weights, and the network has none: choose adam or sgd")
    options: dict[str, Any] = {"state_dtype": dtype}
    bop = bnn.optim.Bop(binary.values(), **options)
    return _BopAndAdam(bop, bnn.optim.Adam(others, **options)) if others else bop


class _BopAndAdam(torch.optim.Optimizer):
    """Bop for the weights and Adam for what is left, as Bop's paper has it."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self._parts = parts
        self.param_groups = [group for part in parts for group in part.param_groups]

    @property
    def state(self) -> dict[Tensor, Any]:  # type: ignore[override]
        return {parameter: state for part in self._parts for parameter, state in part.state.items()}

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self._parts:
            part.zero_grad(set_to_none)

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for part in self._parts:
            part.step()
