"""Steps whose loss, gradient or activations are not finite are skipped, counted and leave no trace."""

import math
import signal

import pytest
import torch
from torch import Tensor, nn

from bnn.errors import Interrupted, TrainingStopped
from bnn.layers import BinaryLinear
from bnn.training import Callback, Run, Trainer, checkpoint
from bnn.training.directory import read_json, read_metrics
from tests.training.tiny_runs import (
    EPOCHS,
    STEPS_AN_EPOCH,
    Losses,
    assert_same_state,
    tiny_dataset,
    training_state,
)

STEPS = EPOCHS * STEPS_AN_EPOCH


class Poison(nn.Module):
    """Multiplies by NaN or infinity in the forward or backward pass of given steps."""

    def __init__(self, steps: set[int], *, value: float = math.nan, backward: bool = False) -> None:
        super().__init__()
        self.steps = steps
        self.value = value
        self.backward = backward
        self.step = -1
        self.states: list[dict[str, Tensor]] = []
        """What each step found."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        self.step += 1
        if self.step not in self.steps:
            return x
        if not self.backward:
            return x * self.value
        y = x * 1.0
        if y.requires_grad:
            y.register_hook(lambda grad: grad * self.value)
        return y


PLACES = {
    "input, before the batch norm": ("input", {}),
    "activation, before the sign": ("hidden", {}),
    "logits, so the loss is NaN": ("logits", {}),
    "logits, so the loss is infinite": ("logits", {"value": math.inf}),
    "gradient of the hidden layer": ("hidden", {"backward": True}),
    "infinite gradient of the hidden layer": ("hidden", {"backward": True, "value": math.inf}),
}


def poisoned(place: str, steps: set[int], *, run: dict | None = None, **options) -> tuple[Run, Poison]:
    poison = Poison(steps, **options)
    at = {name: poison if name == place else nn.Identity() for name in ("input", "hidden", "logits")}
    model = nn.Sequential(
        nn.Flatten(),
        at["input"],
        nn.BatchNorm1d(36, momentum=None),  # so that the count of batches matters
        BinaryLinear(36, 16, input_quantizer=None),
        nn.BatchNorm1d(16),
        at["hidden"],
        BinaryLinear(16, 4),
        nn.BatchNorm1d(4),
        at["logits"],
    )
    for module in model.modules():
        if isinstance(module, BinaryLinear):
            module.store.initialize(torch.Generator().manual_seed(4))
    made = Run(
        model=model,
        data=tiny_dataset(),
        optimizer=torch.optim.Adam(model.parameters(), lr=0.01),
        **{"batch_size": 12, "validation": 0.2, "epochs": EPOCHS, "seed": 3, **(run or {})},
    )
    model.register_forward_pre_hook(lambda *_: poison.states.append(training_state(made)) if model.training else None)
    return made, poison


@pytest.mark.parametrize(("place", "options"), PLACES.values(), ids=PLACES)
def test_step_is_skipped_counted_and_leaves_no_trace(place, options, tmp_path):
    run, poison = poisoned(place, {2, 5, 6}, **options)
    losses = Losses()
    summary = Trainer(run, tmp_path / "run", callbacks=[losses]).fit()
    assert len(poison.states) == STEPS
    for step in range(1, STEPS - 1):
        before, after = poison.states[step], poison.states[step + 1]
        if step in poison.steps:
            assert_same_state(before, after)
        else:
            assert any(not torch.equal(before[name], after[name]) for name in before)
    assert all(tensor.isfinite().all() for tensor in training_state(run).values())
    assert summary["skipped_steps"] == 3
    assert summary["steps"] == STEPS
    assert [record["skipped"] for record in read_metrics(tmp_path / "run")] == [1, 3, 3]
    assert set(losses.by_step) == {step + 1 for step in range(STEPS)} - {3, 6, 7}
    assert all(math.isfinite(loss) for loss in losses.by_step.values())


def test_one_slice_that_is_not_finite_undoes_the_whole_step(tmp_path):
    run, poison = poisoned("hidden", {5}, run={"slice_size": 6})
    summary = Trainer(run, tmp_path / "run").fit()
    # Two slices a step; the second of the third step is bad.
    assert not torch.equal(poison.states[4]["2.running_mean"], poison.states[5]["2.running_mean"])
    assert_same_state(poison.states[4], poison.states[6])
    assert summary["skipped_steps"] == 1


def test_figures_of_an_epoch_leave_skipped_steps_out(tmp_path):
    run, _ = poisoned("logits", {1})
    losses = Losses()
    Trainer(run, tmp_path / "run", callbacks=[losses]).fit()
    first = read_metrics(tmp_path / "run")[0]
    assert first["train_loss"] == pytest.approx(sum(losses.by_step[step] for step in (1, 3, 4)) / 3)


def test_epoch_whose_steps_are_all_skipped_has_no_figures(tmp_path):
    run, _ = poisoned("logits", {0, 1}, run={"batch_size": 24, "epochs": 1})
    Trainer(run, tmp_path / "run").fit()
    summary = read_json(tmp_path / "run" / "summary.json")
    assert (summary["train_loss"], summary["train_accuracy"], summary["skipped_steps"]) == (None, None, 2)


@pytest.mark.parametrize("place", ["input", "hidden", "logits"])
def test_three_in_a_row_stop_the_training_with_its_last_good_state_kept(place, tmp_path):
    run, poison = poisoned(place, {5, 6, 7, 8})
    with pytest.raises(TrainingStopped, match="3 steps in a row, up to step 8: lower the learning rate") as stopped:
        Trainer(run, tmp_path / "run").fit()
    assert f"the last good state, of step {STEPS_AN_EPOCH}, is kept in {tmp_path / 'run'}" in str(stopped.value)
    assert "\n" not in str(stopped.value)
    resumed, later = poisoned(place, set())
    losses = Losses()
    summary = Trainer(resumed, tmp_path / "run", callbacks=[losses]).resume()
    assert_same_state(later.states[0], poison.states[STEPS_AN_EPOCH])
    assert list(losses.by_step) == list(range(STEPS_AN_EPOCH + 1, STEPS + 1))
    assert (summary["steps"], summary["skipped_steps"]) == (STEPS, 0)


def test_a_run_that_stops_again_and_again_keeps_its_checkpoints(tmp_path):
    run, _ = poisoned("logits", {9, 10, 11})
    with pytest.raises(TrainingStopped):
        Trainer(run, tmp_path / "run").fit()
    before = {path: path.read_bytes() for path in (tmp_path / "run" / "checkpoints").iterdir()}
    for _ in range(2):
        run, _ = poisoned("logits", {0, 1, 2})
        with pytest.raises(TrainingStopped, match=f"of step {2 * STEPS_AN_EPOCH}, is kept"):
            Trainer(run, tmp_path / "run").resume()
    assert {path: path.read_bytes() for path in (tmp_path / "run" / "checkpoints").iterdir()} == before


def test_an_epoch_that_ends_in_skips_is_not_kept_before_a_finite_step(tmp_path):
    run, _ = poisoned("logits", {2, 3, 4})
    with pytest.raises(TrainingStopped, match=r"3 steps in a row, up to step 5.* of step 0, is kept"):
        Trainer(run, tmp_path / "run").fit()
    assert not (tmp_path / "run" / "model.bnnz").exists()
    run, _ = poisoned("logits", set())
    Trainer(run, tmp_path / "run").resume()
    assert [record["epoch"] for record in read_metrics(tmp_path / "run")] == [0, 1, 2]


def test_no_checkpoint_is_made_behind_a_skipped_step(tmp_path):
    run, _ = poisoned("logits", {1, 2, 5})
    trainer = Trainer(run, tmp_path / "run", checkpoint_every_s=0.0)
    saved = []
    trainer.save = lambda: (saved.append((trainer.epoch, trainer.batch)), Trainer.save(trainer))
    trainer.fit()
    # At the start, behind steps and at the ends of epochs.
    assert saved[:8] == [(0, 0), (0, 1), (0, 4), (1, 0), (1, 1), (1, 3), (1, 4), (2, 0)]


def test_a_signal_behind_a_skipped_step_keeps_the_checkpoint_before_it(tmp_path):
    run, _ = poisoned("logits", {5})

    class Signal(Callback):
        def on_gradients(self, trainer: Trainer) -> None:
            if trainer.step == 4:
                trainer.checkpoint_every_s = 0.0  # one behind this step
            elif trainer.step == 6:
                raise AssertionError("the signal came at step 6")

    class AtTheSkip(Poison):
        def forward(self, x: Tensor) -> Tensor:
            if self.training and self.step == 4:
                signal.raise_signal(signal.SIGTERM)
            return super().forward(x)

    run.model[-1].__class__ = AtTheSkip
    with pytest.raises(Interrupted, match=r"after step 6; the last good state, of step 5, is kept") as interrupted:
        Trainer(run, tmp_path / "run", callbacks=[Signal()]).fit()
    assert interrupted.value.exit_code == 143
    assert checkpoint.load(tmp_path / "run" / "checkpoints").step == 5


class Diverged(nn.Module):
    """A linear layer whose output is not finite in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(36, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x.flatten(1))
        return y if self.training else y * math.nan


def test_figures_that_are_not_finite_are_null_in_the_files(tmp_path):
    model = Diverged()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = Run(model=model, data=tiny_dataset(), optimizer=optimizer, epochs=1, batch_size=12, seed=0)
    Trainer(run, tmp_path / "run").fit()
    assert read_metrics(tmp_path / "run")[0]["validation_loss"] is None
    assert read_json(tmp_path / "run" / "summary.json")["test_loss"] is None
