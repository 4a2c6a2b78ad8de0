"""A checkpoint with the right seal and a state that no trainer has written is refused before any of it is restored."""

import copy
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bnn.cost.meters import MemoryMeter, SpeedMeter, WeightMeter
from bnn.errors import BnnError, CheckpointError
from bnn.files import sealed, unsealed
from bnn.layers import BinaryLinear
from bnn.optim import Adam
from bnn.training import Run, Trainer
from bnn.training.snapshot import optimizer_tensors, restore_optimizer
from tests.training.tiny_runs import RUNS, training_state

MISSING = object()
WRONG = [MISSING, None, True, -1, 2.5, float("inf"), 10**30, "x", [], {}, [[]], {"a": [1]}]


def trainer(make: Callable[..., Run], out: Path) -> Trainer:
    return Trainer(make(epochs=1), out, callbacks=[MemoryMeter(), SpeedMeter(), WeightMeter()])


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything within a JSON value."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield (*at, name)
        yield from places(part, (*at, name))


def changed(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    value = copy.deepcopy(value)
    whole = value
    for name in at[:-1]:
        whole = whole[name]
    if new is MISSING:
        del whole[at[-1]]
    else:
        whole[at[-1]] = new
    return value


def everything(of: Trainer) -> list[Any]:
    tensors = {name: tensor.tolist() for name, tensor in training_state(of.run).items()}
    options = [
        {name: value for name, value in group.items() if name != "params"} for group in of.run.optimizer.param_groups
    ]
    mine = {name: copy.copy(value) for name, value in vars(of).items() if isinstance(value, (int, float, dict))}
    return [
        repr(tensors),
        options,
        mine,
        [callback.state() for callback in of.callbacks],
        torch.get_rng_state().tolist(),
    ]


def refusal(target: Trainer) -> str | None:
    """What the checkpoint is refused with, if it is."""
    try:
        target.load()
    except BnnError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", ["adam", "recu"])
def test_every_wrong_value_is_refused_before_anything_is_restored_or_taken(name, tmp_path):
    make, out = RUNS[name], tmp_path / "run"
    trainer(make, out).fit()
    manifest, *others = sorted((out / "checkpoints").glob("*.json"), reverse=True)
    for other in others:
        other.unlink()
    fields = unsealed(manifest.read_bytes())
    trials = [(at, new) for at in places(fields["state"]) for new in WRONG]
    refused = 0
    for at, new in random.Random(0).sample(trials, 80):
        manifest.write_bytes(sealed({**fields, "state": changed(fields["state"], at, new)}))
        target = trainer(make, out)
        before = everything(target)
        told = refusal(target)
        if told is not None:
            refused += 1
            assert "\n" not in told
            assert everything(target) == before, (at, new)
    assert refused > 40
    shutil.rmtree(out)


def test_figures_of_the_last_epoch_that_a_summary_needs_are_there(tmp_path):
    make, out = RUNS["adam"], tmp_path / "run"
    trainer(make, out).fit()
    manifest = max((out / "checkpoints").glob("*.json"))
    fields = unsealed(manifest.read_bytes())
    for name in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"):
        state = changed(fields["state"], ("run", "last_record", name), MISSING)
        manifest.write_bytes(sealed({**fields, "state": state}))
        assert f"last_record.{name}" in (refusal(trainer(make, out)) or "")
    state = changed(fields["state"], ("run", "last_record", "validation_loss"), 1e30)
    manifest.write_bytes(sealed({**fields, "state": state}))
    assert refusal(trainer(make, out)) is None, "a loss may be large"


def low_bit(dtype: torch.dtype) -> tuple[torch.nn.Module, Adam]:
    model = BinaryLinear(8, 4)
    optimizer = Adam(model.parameters(), state_dtype=dtype)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return model, optimizer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("0.exp_avg_exponent"), "exp_avg_exponent, which exp_avg needs, is missing"),
        (lambda tensors: tensors.update({"0.exp_avg_exponent": torch.zeros(3, dtype=torch.int8)}), "int8 for each row"),
        (lambda tensors: tensors.update({"0.exp_avg": torch.zeros(4, 7, dtype=torch.int8)}), "exp_avg is no moment"),
        (lambda tensors: tensors.update({"0.exp_avg_sq": torch.zeros(4, 8, dtype=torch.int8)}), "exp_avg_sq is no"),
        (lambda tensors: tensors.update({"0.step": torch.tensor(1.0)}), "steps are counted from 1"),
        (
            lambda tensors: tensors.update({"x.exp_avg": torch.zeros(4, 8)}),
            "an unexpected optimizer tensor 'x.exp_avg'",
        ),
    ],
)
def test_moments_that_do_not_fit_are_refused(change, message):
    _, optimizer = low_bit(torch.int8)
    tensors, state = optimizer_tensors(optimizer)
    _, fresh = low_bit(torch.int8)
    before = optimizer_tensors(fresh)[0]
    change(tensors)
    with pytest.raises(CheckpointError, match=message):
        restore_optimizer(fresh, tensors, state)
    assert optimizer_tensors(fresh)[0].keys() == before.keys()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int8])
def test_moments_of_every_width_are_restored(dtype):
    _, optimizer = low_bit(dtype)
    _, fresh = low_bit(torch.float32)
    restore_optimizer(fresh, *optimizer_tensors(optimizer))
    kept, restored = optimizer_tensors(optimizer)[0], optimizer_tensors(fresh)[0]
    assert all(torch.equal(kept[name], restored[name]) and kept[name].dtype == restored[name].dtype for name in kept)


def test_a_rate_that_a_schedule_has_moved_is_restored():
    _, optimizer = low_bit(torch.float32)
    optimizer.param_groups[0]["lr"] = 3.0
    _, fresh = low_bit(torch.float32)
    restore_optimizer(fresh, *optimizer_tensors(optimizer))
    assert fresh.param_groups[0]["lr"] == 3.0
    tensors, state = optimizer_tensors(optimizer)
    for wrong in ({"lr": -1.0}, {"lr": "x"}, {"betas": [0.9, 1.0]}, {"betas": 0.9}, {"seed": -1}):
        with pytest.raises(CheckpointError, match="the checkpoint's optimizer"):
            restore_optimizer(fresh, tensors, {**state, "groups": [{**state["groups"][0], **wrong}]})
