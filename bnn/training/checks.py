"""What a training state has to be like, which is asked before anything is restored from it.

A checkpoint's seal finds damage. It does not say that a trainer wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bnn.errors import BnnError, CheckpointError

if TYPE_CHECKING:
    from bnn.training.trainer import Trainer

# What torch's optimizers keep of a parameter, if anything: the tensors of its shape, and whether steps are counted.
_TORCH_STATES = {
    "Adam": (("exp_avg", "exp_avg_sq"), True),
    "AdamW": (("exp_avg", "exp_avg_sq"), True),
    "SGD": (("momentum_buffer",), False),
}
_MOST = 1 << 63
_COUNTS = ("epoch", "batch", "skipped")


def check_progress(state: Mapping[str, Any], trainer: Trainer) -> None:
    """Refuses the state of a snapshot whose part of the trainer and its callbacks no trainer has written.

    Args:
        state: of the snapshot; JSON values of any kind.
        trainer: that is to take it; it is not changed.

    Raises:
        CheckpointError: nothing has been changed.
    """
    run = _dict(state.get("run"), "run")
    for name in _COUNTS:
        _count(run.get(name), name)
    _number(run.get("wall_s"), "wall_s")
    sums, best, last = (_dict(run.get(name), name) for name in ("sums", "best", "last_record"))
    _figure(sums.get("loss"), "sums.loss")
    _number(best.get("validation_accuracy"), "best.validation_accuracy")
    for part in ("correct", "examples"):
        _count(sums.get(part), f"sums.{part}")
    _count(best.get("epoch"), "best.epoch")
    validated = () if trainer.validation_batches is None else ("validation_loss", "validation_accuracy")
    for name in ("train_loss", "train_accuracy", *validated) if run["epoch"] else ():
        _figure(last.get(name), f"last_record.{name}")
    kept = _dict(run.get("callbacks"), "callbacks")
    for callback in trainer.callbacks:
        name = type(callback).__name__
        own = _dict(kept.get(name, {}), name)
        try:
            callback.check(trainer, own)
        except (LookupError, TypeError, ValueError, AttributeError, BnnError) as error:
            raise CheckpointError(f"the checkpoint's state of {name} is not one that it has kept: {error!r}") from None


def check_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], groups: Any, values: Any) -> None:
    """Refuses options and state that an optimizer cannot have kept.

    Args:
        optimizer: is not changed.
        tensors: by `<index of the parameter>.<key>`.
        groups: the options of its groups.
        values: of each parameter, what are no tensors.

    Raises:
        CheckpointError: the message says what is wrong.
    """
    own_groups = optimizer.param_groups
    parameters = [(group, parameter) for group in own_groups for parameter in group["params"]]
    if not _is_list(groups, len(own_groups)) or not _is_list(values, len(parameters)):
        raise CheckpointError("the checkpoint's optimizer state is incomplete")
    states: list[dict[str, Any]] = [dict(_dict(state, "the optimizer")) for state in values]
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        if index not in map(str, range(len(states))):
            raise CheckpointError(f"the checkpoint has an unexpected optimizer tensor {name!r}")
        states[int(index)][key] = tensor
    restored = {
        id(own): {**own, **_group(saved, own, optimizer)} for saved, own in zip(groups, own_groups, strict=True)
    }
    try:
        for (group, parameter), state in zip(parameters, states, strict=True):
            if state:
                _check_state(optimizer, restored[id(group)], parameter, state)
    except ValueError as error:
        raise CheckpointError(f"the checkpoint's optimizer state does not fit: {error}") from None


def _group(saved: Any, own: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The options of a group as they are to be."""
    saved = _dict(saved, "the optimizer's options")
    for key, value in own.items():
        if key != "params" and (key not in saved or not _is_like(saved[key], value)):
            raise CheckpointError(f"the checkpoint's optimizer has {saved.get(key)!r} as {key}, and here {value!r}")
    group = {key: tuple(value) if isinstance(own.get(key), tuple) else value for key, value in saved.items()}
    try:
        getattr(optimizer, "check_group", lambda group: None)({**own, **group})
    except ValueError as error:
        raise CheckpointError(f"the checkpoint's optimizer options are out of their range: {error}") from None
    return group


def _check_state(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], parameter: Tensor, state: Mapping[str, Any]
) -> None:
    if hasattr(optimizer, "check_state"):
        optimizer.check_state(group, parameter, state)
    elif type(optimizer).__name__ in _TORCH_STATES:
        names, counts = _TORCH_STATES[type(optimizer).__name__]
        for name in names:
            moment = state.get(name)
            if not isinstance(moment, Tensor) or moment.shape != parameter.shape or not moment.is_floating_point():
                raise ValueError(f"{name} is no moment of a parameter of {list(parameter.shape)}")
        step = state.get("step")
        if counts and not (isinstance(step, Tensor) and step.numel() == 1 and step.is_floating_point()):
            raise ValueError("its count of steps is missing")


def _is_like(value: Any, own: Any) -> bool:
    """Whether a JSON value could be what becomes of an optimizer's option: numbers may move with a schedule."""
    if isinstance(own, (list, tuple)):
        return _is_list(value, len(own)) and all(map(_is_decay, value, own))
    if not isinstance(own, (int, float)) or isinstance(own, bool):
        return type(value) is type(own) and bool(value == own)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return abs(value) < _MOST and (value >= 0 or own < 0)


def _is_decay(value: Any, own: Any) -> bool:
    return _is_like(value, own) and (not isinstance(value, (int, float)) or value < 1 or own >= 1)


def _is_list(value: Any, length: int) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) == length


def _dict(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CheckpointError(f"the checkpoint does not hold a training state: {name} is {_short(value)}")
    return value


def _count(value: Any, name: str) -> None:
    if type(value) is not int or not 0 <= value < _MOST:
        raise CheckpointError(f"the checkpoint does not hold a training state: {name} is {_short(value)}")


def require_numbers(*values: Any) -> None:
    """Raises a TypeError where a JSON value is no finite number, or one of more than 64 bits."""
    for value in values:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not -_MOST < value < _MOST:
            raise TypeError(f"{_short(value)} is no number")


def _figure(value: Any, name: str) -> None:
    # A loss may be as large as it likes, and of an epoch whose steps were all skipped it is NaN.
    if not isinstance(value, float):
        _number(value, name)


def _number(value: Any, name: str) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or abs(value) >= _MOST:
        raise CheckpointError(f"the checkpoint does not hold a training state: {name} is {_short(value)}")


def _short(value: Any) -> str:
    return repr(value)[:40]
