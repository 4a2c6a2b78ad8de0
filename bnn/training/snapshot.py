"""A training state as a `Snapshot`, and back: what resumes training bit for bit.

`capture` gathers a model, its optimizer and the random generators; `restore` checks that a snapshot fits in every
part before it changes any. `bnn.training.checkpoint` takes snapshots to disk.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from bnn.errors import CheckpointError
from bnn.training.checks import check_optimizer


@dataclass
class Snapshot:
    """A training state: tensors, and everything else as JSON values.

    Attributes:
        step: training steps done, at least 0; names and orders the checkpoints.
        tensors: of any device, shape and strides; dtypes are the floating, signed, uint8 and bool ones up to 64 bits.
        state: JSON values; as always in JSON, keys are strings and tuples come back as lists.
    """

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def capture(
    step: int,
    model: torch.nn.Module,
    optimizer: Optimizer,
    generators: Mapping[str, torch.Generator],
    state: dict[str, Any],
    replay: torch.nn.Module | None = None,
) -> Snapshot:
    """Gathers what training needs to go on. The tensors are references: save before the next training step.

    Args:
        step: training steps done.
        model: its `state_dict()` is kept.
        optimizer: its state is kept in the dtypes that it has.
        generators: the random generators that training draws from, by name.
        state: further JSON values, such as the epoch or the schedule's state.
        replay: examples of earlier classes that training draws from, or None.
    """
    optimizer_part, optimizer_state = optimizer_tensors(optimizer)
    tensors = {f"model.{key}": tensor for key, tensor in module_tensors(model).items()}
    tensors |= {f"optimizer.{key}": tensor for key, tensor in optimizer_part.items()}
    tensors |= {f"generator.{name}": generator.get_state() for name, generator in generators.items()}
    tensors |= {f"replay.{key}": tensor for key, tensor in ({} if replay is None else module_tensors(replay)).items()}
    return Snapshot(step, tensors, {"optimizer": optimizer_state, "run": state})


def restore(
    snapshot: Snapshot,
    model: torch.nn.Module,
    optimizer: Optimizer,
    generators: Mapping[str, torch.Generator],
    replay: torch.nn.Module | None = None,
) -> dict[str, Any]:
    """Puts a captured training state back, all of it or nothing.

    Returns:
        The `state` that was given to `capture`.

    Raises:
        CheckpointError: the snapshot does not fit; nothing has been changed.
    """
    optimizer_state = snapshot.state.get("optimizer")
    if not isinstance(optimizer_state, dict) or "run" not in snapshot.state:
        raise CheckpointError(f"the checkpoint of step {snapshot.step} does not hold a training state")
    model_part, optimizer_part, generator_part, replay_part = (
        {key.removeprefix(kind): tensor for key, tensor in snapshot.tensors.items() if key.startswith(kind)}
        for kind in ("model.", "optimizer.", "generator.", "replay.")
    )
    _check_module(model, model_part)
    if replay is not None:
        _check_module(replay, replay_part)
    _check_optimizer(optimizer, optimizer_part, optimizer_state)
    _check_generators(generators, generator_part)
    restore_module(model, model_part)
    if replay is not None:
        restore_module(replay, replay_part)
    restore_optimizer(optimizer, optimizer_part, optimizer_state)
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

    Raises:
        CheckpointError: there is state that belongs to no parameter.
    """
    parameters = _parameters(optimizer)
    if optimizer.state.keys() - set(parameters):
        raise CheckpointError(f"{type(optimizer).__name__} has state of no parameter, which cannot be kept")
    states = [optimizer.state.get(parameter, {}) for parameter in parameters]
    tensors = {
        f"{index}.{key}": value
        for index, state in enumerate(states)
        for key, value in state.items()
        if isinstance(value, Tensor)
    }
    values = [{key: value for key, value in state.items() if not isinstance(value, Tensor)} for state in states]
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    return tensors, {"layout": _layout(optimizer), "groups": groups, "values": values}


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Puts `optimizer_tensors` back, every tensor in the dtype that it was saved in.

    `Optimizer.load_state_dict` is no substitute: it casts low-bit state to the dtype of the parameters.

    Raises:
        CheckpointError: the state is that of another optimizer or of other parameters; nothing has been changed.
    """
    _check_optimizer(optimizer, tensors, state)
    for group, saved in zip(optimizer.param_groups, state["groups"], strict=True):
        for key, value in saved.items():
            group[key] = tuple(value) if isinstance(group.get(key), tuple) else value
    parameters = _parameters(optimizer)
    optimizer.state.clear()
    for parameter, values in zip(parameters, state["values"], strict=True):
        if values:
            optimizer.state[parameter].update(values)
    groups = [group for group in optimizer.param_groups for _ in group["params"]]
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        parameter, group = parameters[int(index)], groups[int(index)]
        # torch's own optimizers count steps on the host, unless they run wholly on the device.
        on_host = key == "step" and not (group.get("capturable") or group.get("fused"))
        optimizer.state[parameter][key] = tensor.to("cpu" if on_host else parameter.device, copy=True)


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _layout(optimizer: Optimizer) -> dict[str, Any]:
    """What must be the same for a state to fit: the class and the shape of every parameter."""
    shapes = {
        f"parameter {index} of group {number}": list(parameter.shape)
        for number, group in enumerate(optimizer.param_groups)
        for index, parameter in enumerate(group["params"])
    }
    return {"class": type(optimizer).__name__, **shapes}


def _check_module(module: torch.nn.Module, tensors: Mapping[str, Tensor]) -> None:
    expected = module.state_dict()
    _check_names("model tensor", tensors, expected)
    for key, own in expected.items():
        saved = tensors[key]
        if (saved.shape, saved.dtype) != (own.shape, own.dtype):
            raise CheckpointError(
                f"the checkpoint belongs to another model: its {key!r} is {saved.dtype} {list(saved.shape)},"
                f" the model's is {own.dtype} {list(own.shape)}"
            )


def _check_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    saved, own = state.get("layout"), _layout(optimizer)
    saved = saved if isinstance(saved, dict) else {}
    for part in saved | own:
        if saved.get(part) != own.get(part):
            raise CheckpointError(
                f"the checkpoint belongs to another optimizer or model: its {part} is {saved.get(part)},"
                f" here it is {own.get(part)}"
            )
    check_optimizer(optimizer, tensors, state.get("groups"), state.get("values"))


def _check_generators(generators: Mapping[str, torch.Generator], tensors: Mapping[str, Tensor]) -> None:
    _check_names("random generator", tensors, generators)
    for name, generator in generators.items():
        try:
            torch.Generator(generator.device).set_state(tensors[name])
        except (RuntimeError, TypeError) as error:
            raise CheckpointError(
                f"the checkpoint's random generator {name!r} is not one of {generator.device}: {error}"
            ) from None


def _check_names(kind: str, saved: Collection[str], expected: Collection[str]) -> None:
    """Refuses names that differ, and says the first that does."""
    for key in expected:
        if key not in saved:
            raise CheckpointError(f"the checkpoint lacks the {kind} {key!r}: it belongs to another run")
    for key in saved:
        if key not in expected:
            raise CheckpointError(f"the checkpoint has an unexpected {kind} {key!r}: it belongs to another run")
