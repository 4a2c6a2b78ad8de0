"""What the loop does in a run that nothing disturbs, and what it does not touch."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from bnn.data import Batches, Split
from bnn.errors import NonFiniteError
from bnn.training import Callback, Run, Trainer
from bnn.training.checkpoint import load
from bnn.training.directory import read_json, read_metrics
from tests.training.tiny_runs import (
    EPOCHS,
    STEPS_AN_EPOCH,
    Losses,
    adam_run,
    assert_same_state,
    sgd_run,
    tiny_dataset,
    training_state,
)


def linear_run(**options) -> Run:
    """Softmax regression, simple enough to be trained again by hand."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4))
    nn.init.constant_(model[1].weight, 0.01)
    nn.init.zeros_(model[1].bias)
    return Run(
        model=model,
        data=tiny_dataset(),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        **{"epochs": 2, "batch_size": 12, "seed": 3, "validation": 0.0, **options},
    )


def test_trains_as_plain_torch_would(tmp_path):
    run, losses = linear_run(schedule=lambda epoch: 1 / (1 + epoch)), Losses()
    Trainer(run, tmp_path / "run", callbacks=[losses]).fit()

    data = run.data
    weight, bias = torch.full((4, 36), 0.01), torch.zeros(4)
    batches = Batches(data.train, batch_size=12, mean=data.mean, std=data.std, seed=3, shuffle=True)
    expected = []
    for epoch in range(2):
        for batch, (x, y) in enumerate(batches.epoch(epoch)):
            x, weight, bias = x.flatten(1), weight.requires_grad_(), bias.requires_grad_()
            loss = nn.functional.cross_entropy(x @ weight.t() + bias, y)
            rate = 0.1 / (1 + epoch + batch / len(batches))
            grads = torch.autograd.grad(loss, (weight, bias))
            weight, bias = ((p - rate * g).detach() for p, g in zip((weight, bias), grads, strict=True))
            expected.append(loss.item())
    assert list(losses.by_step.values()) == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(run.model[1].weight, weight)

    x, y = next(Batches(data.test, batch_size=100, mean=data.mean, std=data.std).epoch(0))
    logits = x.flatten(1) @ weight.t() + bias
    summary = read_json(tmp_path / "run" / "summary.json")
    assert summary["test_accuracy"] == (logits.argmax(1) == y).float().mean().item()
    assert summary["test_loss"] == pytest.approx(nn.functional.cross_entropy(logits, y).item(), rel=1e-5)


def test_metrics_have_a_line_an_epoch(tmp_path):
    losses = Losses()
    Trainer(sgd_run(), tmp_path / "run", callbacks=[losses]).fit()
    records = read_metrics(tmp_path / "run")
    assert [record["epoch"] for record in records] == list(range(EPOCHS))
    assert [record["step"] for record in records] == [STEPS_AN_EPOCH * (epoch + 1) for epoch in range(EPOCHS)]
    for epoch, record in enumerate(records):
        steps = range(STEPS_AN_EPOCH * epoch + 1, STEPS_AN_EPOCH * (epoch + 1) + 1)
        assert record["train_loss"] == pytest.approx(sum(losses.by_step[step] for step in steps) / STEPS_AN_EPOCH)
        assert set(record) == {
            "epoch",
            "step",
            "learning_rate",
            "train_loss",
            "train_accuracy",
            "validation_loss",
            "validation_accuracy",
            "skipped",
            "wall_s",
        }
        assert all(0 <= record[name] <= 1 for name in ("train_accuracy", "validation_accuracy"))


def test_summary_reports_the_final_epoch_and_the_best_beside_it(tmp_path, monkeypatch):
    accuracies = iter([0.5, 0.75, 0.25, 0.4])
    monkeypatch.setattr(Trainer, "_evaluate", lambda self, batches: (1.0, next(accuracies)))
    summary = Trainer(sgd_run(), tmp_path / "run").fit()
    assert summary["validation_accuracy"] == 0.25
    assert (summary["best_validation_accuracy"], summary["best_validation_epoch"]) == (0.75, 2)
    assert summary["test_accuracy"] == 0.4
    last = read_metrics(tmp_path / "run")[-1]
    assert (summary["train_loss"], summary["train_accuracy"]) == (last["train_loss"], last["train_accuracy"])
    assert (summary["epochs"], summary["steps"], summary["seed"]) == (EPOCHS, EPOCHS * STEPS_AN_EPOCH, 3)
    assert (summary["skipped_steps"], summary["dataset"], summary["device"]) == (0, "drawn", "cpu")
    assert read_json(tmp_path / "run" / "summary.json") == summary


def test_test_split_is_touched_once_after_the_last_epoch(tmp_path, monkeypatch):
    run, touched = adam_run(), []
    trainer = Trainer(run, tmp_path / "run")
    plain = Split.__getitem__

    def watched(split, positions):
        if split.images is run.data.test.images:
            touched.append((trainer.epoch, *positions.tolist()))
        return plain(split, positions)

    monkeypatch.setattr(Split, "__getitem__", watched)
    trainer.fit()
    assert touched == [(EPOCHS, *range(20))]


def test_validation_images_are_never_trained_on_and_are_the_same_every_epoch(tmp_path, monkeypatch):
    run = adam_run()
    numbered = torch.arange(60, dtype=torch.uint8).view(60, 1, 1, 1).expand(60, 1, 6, 6).contiguous()
    run.data = dataclasses.replace(run.data, train=dataclasses.replace(run.data.train, images=numbered))
    run.generators = {}
    seen: dict[bool, list[list[int]]] = {True: [], False: []}
    plain = Split.__getitem__

    def watched(split, positions):
        images, labels = plain(split, positions)
        if split.images is numbered:
            seen[run.model.training].append(images[:, 0, 0, 0].tolist())
        return images, labels

    monkeypatch.setattr(Split, "__getitem__", watched)
    Trainer(run, tmp_path / "run").fit()
    trained = {number for batch in seen[True] for number in batch}
    assert len(seen[False]) == EPOCHS
    held = set(seen[False][0])
    assert all(set(batch) == held for batch in seen[False])
    assert (len(held), len(trained)) == (12, 48)
    assert not held & trained


def test_validation_split_depends_on_the_seed_alone(tmp_path):
    def held(seed: int, name: str) -> list[int]:
        trainer = Trainer(adam_run(seed=seed), tmp_path / name)
        return trainer.validation_batches._split.rows.tolist()

    assert held(3, "a") == held(3, "b")
    assert held(3, "c") != held(4, "d")


def test_without_validation_every_image_is_trained_on_and_nothing_is_said_of_it(tmp_path):
    summary = Trainer(linear_run(batch_size=60), tmp_path / "run").fit()
    assert summary["steps"] == 2
    for record in (summary, *read_metrics(tmp_path / "run")):
        assert not any("validation" in name for name in record)


def test_learning_rate_follows_the_schedule_at_fractions_of_an_epoch(tmp_path):
    asked, rates = [], []

    class Rates(Callback):
        def on_step_end(self, trainer, loss):
            rates.append([group["lr"] for group in trainer.run.optimizer.param_groups])

    def schedule(epoch: float) -> float:
        asked.append(epoch)
        return 1 / (1 + epoch)

    run = linear_run(schedule=schedule)
    layer = run.model[1]
    run.optimizer = torch.optim.SGD([{"params": [layer.weight]}, {"params": [layer.bias], "lr": 0.02}], lr=0.1)
    Trainer(run, tmp_path / "run", callbacks=[Rates()]).fit()
    assert asked == [step / 5 for step in range(10)]
    assert rates == [[pytest.approx(0.1 / (1 + epoch)), pytest.approx(0.02 / (1 + epoch))] for epoch in asked]


def test_evaluation_changes_no_state_and_keeps_no_graph(tmp_path):
    run = adam_run()
    trainer = Trainer(run, tmp_path / "run")
    trainer.fit()
    before, noise = training_state(run), torch.get_rng_state()
    plain, graphs = run.loss, []

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        graphs.append(logits.requires_grad)
        return plain(logits, labels)

    run.loss = loss
    assert trainer.test() == trainer.test()
    assert graphs == [False, False]
    assert_same_state(training_state(run), before)
    assert torch.equal(torch.get_rng_state(), noise)


class Events(Callback):
    def __init__(self, log: list, name: str) -> None:
        self.log = log
        self.name = name

    def __getattribute__(self, name: str):
        if name.startswith("on_"):
            return lambda *_: self.log.append((self.name, name))
        return super().__getattribute__(name)


def test_callbacks_are_called_in_order_those_of_the_run_first(tmp_path):
    log: list = []
    run = linear_run(epochs=1, batch_size=30, callbacks=[Events(log, "run")])
    Trainer(run, tmp_path / "run", callbacks=[Events(log, "trainer")]).fit()
    steps = ["gradients", "step_end"] * 2
    events = ["fit_begin", "epoch_begin", *steps, "epoch_end", "fit_end", "exit"]
    assert log == [(name, f"on_{event}") for event in events for name in ("run", "trainer")]


def test_callbacks_add_to_records_and_summary(tmp_path):
    class Adds(Callback):
        def on_epoch_end(self, trainer, record):
            record["extra"] = 7

        def on_fit_end(self, trainer, summary):
            summary["extra"] = 8

    Trainer(linear_run(), tmp_path / "run", callbacks=[Adds()]).fit()
    assert [record["extra"] for record in read_metrics(tmp_path / "run")] == [7, 7]
    assert read_json(tmp_path / "run" / "summary.json")["extra"] == 8


class Scales(Callback):
    """Multiplies the gradients, and notes the norm that it finds."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.found: list[float] = []

    def on_gradients(self, trainer: Trainer) -> None:
        gradient = trainer.run.model[1].weight.grad
        self.found.append(gradient.norm().item())
        gradient.mul_(self.factor)


def test_gradients_are_whole_and_are_changed_in_the_order_of_the_callbacks(tmp_path):
    first, second = Scales(3.0), Scales(0.0)
    run = linear_run(epochs=1, slice_size=5, callbacks=[first])
    before = run.model[1].weight.detach().clone()
    whole = Scales(1.0)
    Trainer(linear_run(epochs=1, callbacks=[whole]), tmp_path / "whole").fit()
    Trainer(run, tmp_path / "run", callbacks=[second]).fit()
    assert len(first.found) == len(second.found) == 5
    assert first.found[0] == pytest.approx(whole.found[0], rel=1e-5), "the slices' gradients have been added up"
    assert second.found == pytest.approx([3 * norm for norm in first.found])
    assert torch.equal(run.model[1].weight, before), "the optimizer steps with what the last callback left"


@pytest.mark.parametrize("place", ["forward", "backward"])
def test_a_step_that_is_skipped_has_no_gradients_to_see(place, tmp_path):
    run, log = linear_run(epochs=1), []
    plain, losses = run.loss, []

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        losses.append(None)
        mean = plain(logits, labels)
        if len(losses) != 2:
            return mean
        if place == "forward":
            return mean * math.nan
        logits.register_hook(lambda grad: grad * math.nan)
        return mean

    run.loss = loss
    Trainer(run, tmp_path / "run", callbacks=[Events(log, "one")]).fit()
    names = [name for _, name in log if name in ("on_gradients", "on_step_end")]
    assert names == ["on_gradients", "on_step_end"] * 4


class Raises(Callback):
    """Raises an error at a step."""

    def __init__(self, error: BaseException, *, step: int) -> None:
        self.error = error
        self.step = step

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        if trainer.step == self.step:
            raise self.error


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt(), ZeroDivisionError()])
def test_whatever_stops_the_loop_leaves_whole_checkpoints_and_releases_callbacks(error, tmp_path):
    log: list = []
    step = STEPS_AN_EPOCH + 2
    with pytest.raises(type(error)):
        Trainer(sgd_run(), tmp_path / "run", callbacks=[Raises(error, step=step), Events(log, "after")]).fit()
    assert log[-1] == ("after", "on_exit")
    assert load(tmp_path / "run" / "checkpoints").step == STEPS_AN_EPOCH
    losses = Losses()
    Trainer(sgd_run(), tmp_path / "run", callbacks=[losses]).resume()
    assert list(losses.by_step) == list(range(STEPS_AN_EPOCH + 1, EPOCHS * STEPS_AN_EPOCH + 1))


@pytest.mark.parametrize("crash_in", ["append_metrics", "save"])
def test_crash_between_metrics_and_checkpoint_repeats_the_epoch_without_a_second_line(crash_in, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        trainer = Trainer(sgd_run(), tmp_path / "run")

        def crash(*_):
            if trainer.step == 2 * STEPS_AN_EPOCH:
                raise MemoryError
            plain(trainer)

        if crash_in == "save":
            plain = Trainer.save
            patch.setattr(trainer, "save", crash)
        else:
            patch.setattr(trainer, "_each", lambda event, *_: crash() if event == "on_epoch_end" else None)
            plain = lambda _: None  # noqa: E731
        with pytest.raises(MemoryError):
            trainer.fit()
    assert len(read_metrics(tmp_path / "run")) == (2 if crash_in == "save" else 1)
    Trainer(sgd_run(), tmp_path / "run").resume()
    assert [record["epoch"] for record in read_metrics(tmp_path / "run")] == [0, 1, 2]


def test_configuration_is_kept_with_the_versions(tmp_path):
    trainer = Trainer(linear_run(), tmp_path / "run")
    trainer.configuration = {"arguments": {"epochs": 2}}
    trainer.fit()
    configuration = read_json(tmp_path / "run" / "config.json")
    assert configuration["arguments"] == {"epochs": 2}
    assert configuration["versions"]["torch"] == torch.__version__


def test_checkpoints_are_the_two_newest(tmp_path):
    Trainer(adam_run(), tmp_path / "run").fit()
    manifests = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("*.json"))
    assert manifests == [f"step-{step:08d}.json" for step in (2 * STEPS_AN_EPOCH, 3 * STEPS_AN_EPOCH)]


def test_training_improves_the_accuracy(tmp_path):
    summary = Trainer(linear_run(epochs=10), tmp_path / "run").fit()
    assert summary["test_accuracy"] > 0.8
    assert summary["train_loss"] < 0.5 * math.log(4)


def test_a_gradient_that_the_optimizer_refuses_skips_the_step(tmp_path):
    run = adam_run(epochs=1)
    step, calls = run.optimizer.step, []

    def refuse_the_second():
        calls.append(None)
        if len(calls) == 2:
            raise NonFiniteError("a gradient is not finite")
        step()

    run.optimizer.step = refuse_the_second
    run.schedule = None
    assert Trainer(run, tmp_path / "run").fit()["skipped_steps"] == 1
