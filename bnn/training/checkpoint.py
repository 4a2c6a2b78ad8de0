"""Checkpoints that outlive a kill, a full disk and a flipped bit, and that resume training bit for bit.

A checkpoint is a manifest and the file of tensors that it names:

    step-00001200.json                            step, JSON state and the SHA-256 of everything
    step-00001200-4f0c2a9be1d03375.safetensors    the tensors; the name carries the start of their SHA-256

A checkpoint exists once its manifest does. Both files are written under a temporary name, forced to disk, read back
and compared by hash before the first of them is renamed, the manifest last. The two newest checkpoints are kept.
Saving the same step again writes new files beside the old ones, so there is no moment without a whole checkpoint.

`capture` and `restore` turn a training state into a `Snapshot` and back; `save` and `load` take it to disk and back.
Nothing is ever unpickled, and hashes are checked before any tensor is looked at. A folder has one writer at a time.
"""

import errno
import hashlib
import json
import os
import re
import struct
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.optim import Optimizer

from bnn.errors import CheckpointError

_FORMAT, _VERSION = "bnn-checkpoint", 1
_READ_BYTES = 1 << 20

# Names of the safetensors format.
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass
class Snapshot:
    """Everything that a checkpoint keeps.

    Attributes:
        step: training steps done, at least 0; names and orders the checkpoints.
        tensors: of any device, shape and strides; dtypes are the floating, signed, uint8 and bool ones up to 64 bits.
        state: JSON values; as always in JSON, keys are strings and tuples come back as lists.
    """

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


# --- a training state as a snapshot ---------------------------------------------------------------------------------


def capture(
    step: int,
    model: torch.nn.Module,
    optimizer: Optimizer,
    generators: Mapping[str, torch.Generator],
    state: dict[str, Any],
) -> Snapshot:
    """Gathers what training needs to go on. The tensors are references: save before the next training step.

    Args:
        step: training steps done.
        model: its `state_dict()` is kept.
        optimizer: its state is kept in the dtypes that it has.
        generators: the random generators that training draws from, by name.
        state: further JSON values, such as the epoch or the schedule's state.
    """
    optimizer_part, optimizer_state = optimizer_tensors(optimizer)
    tensors = {f"model.{key}": tensor for key, tensor in module_tensors(model).items()}
    tensors |= {f"optimizer.{key}": tensor for key, tensor in optimizer_part.items()}
    tensors |= {f"generator.{name}": generator.get_state() for name, generator in generators.items()}
    return Snapshot(step, tensors, {"optimizer": optimizer_state, "run": state})


def restore(
    snapshot: Snapshot,
    model: torch.nn.Module,
    optimizer: Optimizer,
    generators: Mapping[str, torch.Generator],
) -> dict[str, Any]:
    """Puts a captured training state back, all of it or nothing.

    Returns:
        The `state` that was given to `capture`.

    Raises:
        CheckpointError: the snapshot does not fit; nothing has been changed.
    """
    if not snapshot.state.keys() >= {"optimizer", "run"}:
        raise CheckpointError(f"the checkpoint of step {snapshot.step} does not hold a training state")
    model_part, optimizer_part, generator_part = (
        {key.removeprefix(kind): tensor for key, tensor in snapshot.tensors.items() if key.startswith(kind)}
        for kind in ("model.", "optimizer.", "generator.")
    )
    _check_module(model, model_part)
    _check_optimizer(optimizer, optimizer_part, snapshot.state["optimizer"])
    _check_generators(generators, generator_part)
    restore_module(model, model_part)
    restore_optimizer(optimizer, optimizer_part, snapshot.state["optimizer"])
    for name, generator in generators.items():
        generator.set_state(generator_part[name])
    run: dict[str, Any] = snapshot.state["run"]
    return run


def module_tensors(module: torch.nn.Module) -> dict[str, Tensor]:
    """The module's parameters and persistent buffers by name, as references."""
    return module.state_dict()


def restore_module(module: torch.nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copies `module_tensors` back.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of another shape or dtype; nothing has been changed.
    """
    _check_module(module, tensors)
    module.load_state_dict(tensors)


def optimizer_tensors(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimizer's state.

    Returns:
        The state tensors, named `<index of the parameter>.<key>`, as references; and, as JSON values, the rest of
        the state, the hyper-parameters and the shapes of the parameters.
    """
    states = [optimizer.state.get(parameter, {}) for parameter in _parameters(optimizer)]
    tensors = {
        f"{index}.{key}": value
        for index, state in enumerate(states)
        for key, value in state.items()
        if isinstance(value, Tensor)
    }
    values = [
        {key: value for key, value in state.items() if not isinstance(value, Tensor)} for state in states
    ]
    groups = [
        {key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups
    ]
    return tensors, {**_layout(optimizer), "groups": groups, "values": values}


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Puts `optimizer_tensors` back, every tensor in the dtype that it was saved in.

    `Optimizer.load_state_dict` is no substitute: it casts low-bit state to the dtype of the parameters.

    Raises:
        CheckpointError: the state is that of another optimizer or of other parameters; nothing has been changed.
    """
    _check_optimizer(optimizer, tensors, state)
    optimizer.state.clear()
    groups = [group for group in optimizer.param_groups for _ in group["params"]]
    for parameter, values in zip(_parameters(optimizer), state["values"], strict=True):
        if values:
            optimizer.state[parameter].update(values)
    parameters = _parameters(optimizer)
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        parameter, group = parameters[int(index)], groups[int(index)]
        # torch's own optimizers want the count of steps on the host, unless they run wholly on the device.
        on_host = key == "step" and not (group.get("capturable") or group.get("fused"))
        device = torch.device("cpu") if on_host else parameter.device
        optimizer.state[parameter][key] = tensor.to(device, copy=True)
    for group, saved in zip(optimizer.param_groups, state["groups"], strict=True):
        for key, value in saved.items():
            group[key] = tuple(value) if isinstance(group.get(key), tuple) else value


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _layout(optimizer: Optimizer) -> dict[str, Any]:
    shapes = [[list(parameter.shape) for parameter in group["params"]] for group in optimizer.param_groups]
    return {"class": type(optimizer).__name__, "shapes": shapes}
