"""A run that was interrupted, wherever, ends bit for bit as one that was not."""

import signal

import pytest
import torch

from bnn.errors import CheckpointError, Interrupted, RunError
from bnn.quantizers import ReCU
from bnn.training import Callback, Trainer
from bnn.training.directory import read_json, read_metrics
from bnn.training.kept import KeptStates
from tests.training.tiny_runs import (
    EPOCHS,
    RUNS,
    STEPS_AN_EPOCH,
    Losses,
    SignalAt,
    adam_run,
    assert_same_state,
    recu_run,
    training_state,
    without_clock,
)

LAST = STEPS_AN_EPOCH
INTERRUPTIONS = {
    "before the first step": [("fit begins", 0, 0)],
    "in the middle of the first step": [("in training", 0, 0)],
    "in the middle of an epoch": [("step ends", 1, 2)],
    "at the end of an epoch": [("step ends", 1, LAST)],
    "between epochs": [("epoch begins", 2, 0)],
    "in validation": [("in evaluation", 1, LAST)],
    "after validation": [("epoch ends", 1, LAST)],
    "twice in one epoch": [("step ends", 1, 1), ("step ends", 1, 2)],
    "at every step of an epoch": [("step ends", 1, batch) for batch in range(1, LAST + 1)],
    "in the test": [("in evaluation", EPOCHS, 0)],
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The results of a whole run of each kind."""
    results = {}
    for kind, make in RUNS.items():
        out = tmp_path_factory.mktemp(kind) / "run"
        losses = Losses()
        run = make()
        summary = Trainer(run, out, callbacks=[losses]).fit()
        results[kind] = {
            "losses": losses.by_step,
            "state": training_state(run),
            "noise": torch.get_rng_state(),
            "metrics": [without_clock(record) for record in read_metrics(out)],
            "summary": without_clock(summary),
        }
    return results


# Every moment with one kind of state, and every kind at the moments that ask most of it; the rest are slow.
SOME = ("in the middle of the first step", "at every step of an epoch", "between epochs", "in the test")
CASES = [
    pytest.param(kind, moments, id=f"{kind}-{name}", marks=[] if kind == "adam" or name in SOME else pytest.mark.slow)
    for kind in RUNS
    for name, moments in INTERRUPTIONS.items()
]


@pytest.mark.parametrize(("kind", "moments"), CASES)
def test_resumed_run_equals_the_uninterrupted_one(kind, moments, uninterrupted, tmp_path):
    expected, out, losses = uninterrupted[kind], tmp_path / "run", Losses()
    for number, moment in enumerate(moments):
        trainer = Trainer(RUNS[kind](), out, callbacks=[losses, SignalAt(moment)])
        with pytest.raises(Interrupted, match="--resume"):
            trainer.resume() if number else trainer.fit()
        # A process that goes on starts with whatever its global generator holds.
        torch.manual_seed(100 + number)
    run = RUNS[kind]()
    summary = Trainer(run, out, callbacks=[losses]).resume()
    assert losses.by_step == expected["losses"]
    assert_same_state(training_state(run), expected["state"])
    assert torch.equal(torch.get_rng_state(), expected["noise"])
    assert [without_clock(record) for record in read_metrics(out)] == expected["metrics"]
    assert without_clock(summary) == expected["summary"]
    assert read_json(out / "summary.json") == summary


def test_the_runs_depend_on_their_randomness(uninterrupted, tmp_path):
    """Without this, the equality above could hold for runs in which nothing is random."""
    for kind, options in (("adam", {"generators": {}}), ("sgd", {"augment": ()}), ("recu", {"seed": 4})):
        losses = Losses()
        run = RUNS[kind](**options)
        for module in run.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        Trainer(run, tmp_path / kind, callbacks=[losses]).fit()
        assert losses.by_step != uninterrupted[kind]["losses"]


def test_same_seed_trains_to_the_same_bits(uninterrupted, tmp_path):
    run, losses = adam_run(), Losses()
    torch.manual_seed(77)
    Trainer(run, tmp_path / "again", callbacks=[losses]).fit()
    assert losses.by_step == uninterrupted["adam"]["losses"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signal_leaves_a_checkpoint_and_gives_the_handlers_back(number, code, tmp_path):
    before = signal.getsignal(number)
    trainer = Trainer(adam_run(), tmp_path / "run", callbacks=[SignalAt(("step ends", 1, 3), number)])
    with pytest.raises(Interrupted, match=f"after step {STEPS_AN_EPOCH + 3};") as caught:
        trainer.fit()
    assert caught.value.exit_code == code
    assert signal.getsignal(number) is before
    resumed = Trainer(adam_run(), tmp_path / "run")
    resumed.load()
    assert (resumed.epoch, resumed.batch, resumed.step) == (1, 3, STEPS_AN_EPOCH + 3)


def test_signal_on_a_full_disk_keeps_its_status_and_says_what_is_lost(tmp_path, monkeypatch):
    trainer = Trainer(adam_run(), tmp_path / "run", callbacks=[SignalAt(("step ends", 1, 3))])

    def full(self, snapshot):
        if snapshot.step > STEPS_AN_EPOCH:
            raise CheckpointError("cannot save the checkpoint: no space left")
        save(self, snapshot)

    save = KeptStates.save
    monkeypatch.setattr(KeptStates, "save", full)
    with pytest.raises(Interrupted, match=r"its state could not be kept \(cannot save .* left\), go on with") as caught:
        trainer.fit()
    assert caught.value.exit_code == 143
    monkeypatch.undo()
    assert Trainer(adam_run(), tmp_path / "run").resume()["epochs"] == EPOCHS


def test_a_run_whose_first_checkpoint_failed_begins_when_it_is_resumed(uninterrupted, tmp_path, monkeypatch):
    def full(self, snapshot):
        raise CheckpointError("cannot save the checkpoint: no space left")

    monkeypatch.setattr(KeptStates, "save", full)
    trainer = Trainer(adam_run(), tmp_path / "run")
    trainer.configuration, trainer.recipe = {"recipe": "mine"}, b"# mine"
    with pytest.raises(CheckpointError):
        trainer.fit()
    monkeypatch.undo()
    (tmp_path / "run" / "checkpoints").mkdir(exist_ok=True)
    for name in (".saving.json", "step-00000000-0123456789abcdef.safetensors"):
        (tmp_path / "run" / "checkpoints" / name).touch()  # of a save that was killed
    assert without_clock(Trainer(adam_run(), tmp_path / "run").resume()) == uninterrupted["adam"]["summary"]
    assert read_json(tmp_path / "run" / "config.json")["recipe"] == "mine"


def test_a_run_without_its_checkpoints_is_not_begun_again(tmp_path):
    Trainer(adam_run(epochs=1), tmp_path / "run").fit()
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(CheckpointError, match=r"there is no checkpoint in .*; start the run anew in another folder"):
        Trainer(adam_run(epochs=2), tmp_path / "run").resume()


def test_the_same_trainer_can_go_on(uninterrupted, tmp_path):
    losses = Losses()
    trainer = Trainer(adam_run(), tmp_path / "run", callbacks=[losses, SignalAt(("step ends", 0, 2))])
    with pytest.raises(Interrupted):
        trainer.fit()
    assert without_clock(trainer.resume()) == uninterrupted["adam"]["summary"]
    assert losses.by_step == uninterrupted["adam"]["losses"]


@pytest.mark.parametrize("every_s", [0.0, 3600.0])
def test_checkpoints_within_an_epoch_come_at_their_interval(every_s, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(Trainer, "save", lambda self: saved.append((self.epoch, self.batch)))
    Trainer(adam_run(epochs=1), tmp_path / "run", checkpoint_every_s=every_s).fit()
    within = [(0, batch + 1) for batch in range(STEPS_AN_EPOCH)] if every_s == 0 else []
    # A save that writes nothing leaves its interval unfinished, so that each step is due.
    assert saved == [(0, 0), *within, (1, 0)]


def test_wall_clock_goes_on_from_the_interruption(tmp_path):
    with pytest.raises(Interrupted):
        Trainer(adam_run(), tmp_path / "run", callbacks=[SignalAt(("step ends", 1, 3))]).fit()
    first = read_metrics(tmp_path / "run")[0]["wall_s"]
    summary = Trainer(adam_run(), tmp_path / "run").resume()
    walls = [record["wall_s"] for record in read_metrics(tmp_path / "run")]
    assert 0 < first == walls[0] < walls[1] < walls[2] <= summary["wall_s"]


class Counter(Callback):
    """Counts steps, and keeps the count."""

    def __init__(self) -> None:
        self.steps = 0

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        self.steps += 1

    def state(self):
        return {"steps": self.steps}

    def restore(self, trainer: Trainer, state) -> None:
        self.steps = state.get("steps", -1)


def test_state_of_callbacks_is_restored(tmp_path):
    with pytest.raises(Interrupted):
        Trainer(adam_run(), tmp_path / "run", callbacks=[Counter(), SignalAt(("step ends", 1, 3))]).fit()
    counter = Counter()
    Trainer(adam_run(), tmp_path / "run", callbacks=[counter]).resume()
    assert counter.steps == EPOCHS * STEPS_AN_EPOCH


def test_callback_that_the_checkpoint_does_not_know_gets_an_empty_state(tmp_path):
    with pytest.raises(Interrupted):
        Trainer(adam_run(), tmp_path / "run", callbacks=[SignalAt(("step ends", 1, 3))]).fit()
    counter = Counter()
    Trainer(adam_run(), tmp_path / "run", callbacks=[counter]).load()
    assert counter.steps == -1


def test_loaded_recu_has_the_tau_that_it_was_trained_with(tmp_path):
    trained, loaded = recu_run(), recu_run()
    summary = Trainer(trained, tmp_path / "run").fit()
    trainer = Trainer(loaded, tmp_path / "run")
    trainer.load()
    taus = [[m.tau for m in run.model.modules() if isinstance(m, ReCU)] for run in (trained, loaded)]
    assert taus[0] == taus[1]
    assert trainer.test() == (summary["test_loss"], summary["test_accuracy"])


def test_complete_run_is_not_resumed(tmp_path):
    Trainer(adam_run(), tmp_path / "run").fit()
    summary = (tmp_path / "run" / "summary.json").read_bytes()
    with pytest.raises(RunError, match="is complete: all of its 3 epochs"):
        Trainer(adam_run(), tmp_path / "run").resume()
    assert (tmp_path / "run" / "summary.json").read_bytes() == summary


def test_another_run_s_checkpoint_is_refused(tmp_path):
    Trainer(adam_run(), tmp_path / "run").fit()
    run = recu_run()
    before = training_state(run)
    with pytest.raises(CheckpointError):
        Trainer(run, tmp_path / "run").resume()
    assert_same_state(training_state(run), before)


def test_nothing_to_resume(tmp_path):
    with pytest.raises(RunError, match=r"config.json is missing: .* is not the directory of a run"):
        Trainer(adam_run(), tmp_path / "run").resume()
    assert not (tmp_path / "run").exists()
