"""No state that has gone bad takes the place of a good one, whatever has gone bad in it."""

import math
from collections.abc import Callable
from functools import cache, partial

import pytest
import torch
from torch import Tensor, nn

from bnn.errors import CheckpointError, TrainingStopped
from bnn.models import mlp
from bnn.presets import prepare
from bnn.training import Callback, Run, Trainer, checkpoint, start_from
from bnn.training.finite import first_not_finite
from bnn.training.snapshot import Snapshot
from tests.training.tiny_runs import EPOCHS, STEPS_AN_EPOCH, adam_run, tiny_dataset, training_state

BAD_STEP = STEPS_AN_EPOCH + 2


def preset_run(preset: str) -> Run:
    step = prepare(preset, partial(mlp, input_shape=(1, 6, 6), classes=4, hidden=(16, 16)), input_shape=(1, 6, 6))
    return Run(**vars(step), data=tiny_dataset(), epochs=EPOCHS, batch_size=12, validation=0.2, seed=3)


class AtStep(Callback):
    """Does something to a run behind a step."""

    def __init__(self, change: Callable[[Run], None], *, step: int = BAD_STEP) -> None:
        self.change = change
        self.step = step

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        if trainer.step == self.step:
            with torch.no_grad():
                self.change(trainer.run)


def parameter(run: Run, *, name: str, value: float) -> None:
    run.model.get_parameter(name).fill_(value)


def moments(run: Run, *, value: float) -> None:
    for tensor in run.states():
        if tensor.is_floating_point() and tensor.dim():
            tensor.view(-1)[0] = value


def statistics(run: Run, *, value: float) -> None:
    next(buffer for name, buffer in run.model.named_buffers() if name.endswith("running_var")).fill_(value)


NORM, WEIGHT = "1.norm.weight", "1.product.store.weight"
CASES = [
    *((preset, parameter, {"name": NORM}) for preset in ("standard", "edge", "edge-min")),
    ("edge", parameter, {"name": WEIGHT}),
    *((preset, moments, {}) for preset in ("standard", "edge", "edge-min")),
    ("standard", statistics, {}),
]
# An infinite latent weight is no such case: it is clipped to 1, as every large one.
ALL = [*((*case, value) for case in CASES for value in (math.nan, math.inf))]
ALL += [("standard", parameter, {"name": WEIGHT}, math.nan)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Callable[[str], dict[str, Tensor]]:
    """Gives the training state of a whole training under a preset."""

    @cache
    def train(preset: str) -> dict[str, Tensor]:
        run = preset_run(preset)
        Trainer(run, tmp_path_factory.mktemp("whole") / preset).fit()
        return training_state(run)

    return train


@pytest.mark.parametrize(("preset", "change", "options", "value"), ALL)
def test_a_value_that_is_not_finite_ends_the_training_with_its_last_good_state(
    preset, change, options, value, trained, tmp_path
):
    spoil = partial(change, **options, value=value)
    with pytest.raises(TrainingStopped, match=f"lower the learning rate; .* of step {STEPS_AN_EPOCH}, is kept") as told:
        Trainer(preset_run(preset), tmp_path / "run", callbacks=[AtStep(spoil)]).fit()
    assert "\n" not in str(told.value)
    kept = checkpoint.load(tmp_path / "run" / "checkpoints")
    assert (kept.step, first_not_finite(kept.tensors)) == (STEPS_AN_EPOCH, None)
    resumed = preset_run(preset)
    Trainer(resumed, tmp_path / "run").resume()
    state = training_state(resumed)
    assert all(torch.equal(x, state[name]) for name, x in trained(preset).items())


@pytest.mark.parametrize("save_each_step", [False, True])
def test_finite_weights_from_which_no_step_is_finite_are_not_the_newest_state(save_each_step, tmp_path):
    spoil = partial(parameter, name="6.weight", value=1e37)
    trainer = Trainer(adam_run(), tmp_path / "run", callbacks=[AtStep(spoil)])
    trainer.checkpoint_every_s = 0.0 if save_each_step else math.inf
    good = BAD_STEP - 1 if save_each_step else STEPS_AN_EPOCH
    trainer.run.loss = lambda logits, labels: nn.functional.cross_entropy(logits * 1e3, labels)
    with pytest.raises(TrainingStopped, match=f"of step {good}, is kept"):
        trainer.fit()
    assert checkpoint.load(tmp_path / "run" / "checkpoints").step == good


def bad_snapshot(step: int) -> Snapshot:
    return Snapshot(step, {"model.x": torch.tensor([1.0, math.nan])}, {"optimizer": {}, "run": {}})


def test_a_checkpoint_that_is_not_finite_is_passed_over(tmp_path):
    Trainer(adam_run(epochs=1), tmp_path / "run").fit()
    (tmp_path / "run" / "summary.json").unlink()
    checkpoint.save(tmp_path / "run" / "checkpoints", bad_snapshot(9))
    run = adam_run(epochs=2)
    with pytest.warns(RuntimeWarning, match=rf"its model.x is not finite; going on from step {STEPS_AN_EPOCH} instead"):
        Trainer(run, tmp_path / "run").resume()
    checkpoint.save(tmp_path / "bad" / "checkpoints", bad_snapshot(9))
    for read in (Trainer(adam_run(), tmp_path / "bad").load, lambda: start_from(tmp_path / "bad", run.model)):
        before = training_state(run)
        with pytest.raises(CheckpointError, match=r"its model.x is not finite; no checkpoint is left"):
            read()
        assert all(torch.equal(x, before[name]) for name, x in training_state(run).items())


def test_a_network_may_have_infinite_constants(tmp_path):
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.full((36,), -math.inf))

        def forward(self, x: Tensor) -> Tensor:
            return torch.maximum(x, self.mask)

    def run() -> Run:
        made = adam_run()
        made.model.insert(1, Masked())
        return made

    Trainer(run(), tmp_path / "run").fit()
    assert list((tmp_path / "run" / "checkpoints").glob("*.json"))
    Trainer(run(), tmp_path / "run").load()


def test_only_a_checkpoint_with_another_one_is_withdrawn(tmp_path):
    good = Snapshot(1, {"x": torch.ones(2)}, {})
    checkpoint.save(tmp_path, good)
    assert checkpoint.withdraw(tmp_path, 1) is None
    checkpoint.save(tmp_path, Snapshot(2, {"x": torch.zeros(2)}, {}))
    assert checkpoint.withdraw(tmp_path, 2) == 1
    assert checkpoint.load(tmp_path).step == 1
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("shape", [(5,), (0,), (3, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_not_finite_is_found_and_what_is_large_is_not(shape, dtype):
    large = torch.full(shape, torch.finfo(dtype).max, dtype=dtype)
    assert first_not_finite({"x": large, "codes": torch.ones(3, dtype=torch.int8)}) is None
    for value in (math.nan, math.inf, -math.inf):
        bad = large.clone()
        bad.view(-1)[-1:] = value
        assert first_not_finite({"x": large, "y": bad}) == ("y" if bad.numel() else None)
