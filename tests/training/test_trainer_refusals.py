"""What a `Trainer` cannot take: each is one line, and nothing is lost."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from bnn.errors import CheckpointError, RecipeError, RunError
from bnn.training import Run, Trainer
from tests.training.tiny_runs import (
    adam_run,
    assert_same_state,
    sgd_run,
    tiny_dataset,
    training_state,
)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("content", ["notes.txt", "checkpoints/step-00000001.json", ".hidden"])
def test_directory_that_holds_something_is_refused_and_untouched(content, tmp_path):
    out = tmp_path / "run"
    (out / content).parent.mkdir(parents=True)
    (out / content).write_text("mine")
    before = tree(out)
    run = adam_run()
    state = training_state(run)
    with pytest.raises(RunError, match=rf"{out} is not empty: .*--out.*--resume {out}"):
        Trainer(run, out).fit()
    assert tree(out) == before
    assert_same_state(training_state(run), state)


def test_finished_run_is_not_overwritten(tmp_path):
    Trainer(sgd_run(), tmp_path / "run").fit()
    before = tree(tmp_path / "run")
    with pytest.raises(RunError, match="is not empty"):
        Trainer(sgd_run(), tmp_path / "run").fit()
    assert tree(tmp_path / "run") == before


def test_directory_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunError, match=rf"^{out} cannot be written: [^\n]+$"):
            Trainer(sgd_run(), out).fit()


MISFITS = {
    "too few classes": (nn.Sequential(nn.Flatten(), nn.Linear(36, 2)), 12),
    "another input": (nn.Sequential(nn.Flatten(), nn.Linear(35, 4)), 12),
    "batch norm of a single example": (nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.BatchNorm1d(4)), 1),
}


@pytest.mark.parametrize(("model", "batch_size"), MISFITS.values(), ids=MISFITS)
def test_model_that_does_not_fit_the_data_is_one_line_with_the_shape(model, batch_size, tmp_path):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = Run(model=model, data=tiny_dataset(), optimizer=optimizer, epochs=1, batch_size=batch_size, seed=0)
    with pytest.raises(RecipeError, match=rf"fails on a batch of \[{batch_size}, 1, 6, 6\]: "):
        Trainer(run, tmp_path / "run").fit()


def test_checkpoint_of_another_run_of_the_same_network_is_refused(tmp_path):
    Trainer(adam_run(epochs=1), tmp_path / "one").fit()
    Trainer(adam_run(epochs=2), tmp_path / "two").fit()
    shutil.rmtree(tmp_path / "one" / "checkpoints")
    shutil.copytree(tmp_path / "two" / "checkpoints", tmp_path / "one" / "checkpoints")
    before = (tmp_path / "one" / "summary.json").read_bytes()
    with pytest.raises(CheckpointError, match="one has 2 epochs done, this run ends after 1: take more"):
        Trainer(adam_run(epochs=1), tmp_path / "one").resume()
    with pytest.raises(CheckpointError, match=r"belongs to another run: it is of .*'seed': 3.* this is .*'seed': 4"):
        Trainer(adam_run(epochs=2, seed=4), tmp_path / "one").resume()
    assert (tmp_path / "one" / "summary.json").read_bytes() == before


def test_a_step_that_the_optimizer_cannot_take_is_one_line_and_leaves_the_start(tmp_path):
    run = adam_run(epochs=1)
    run.optimizer.step = lambda: (_ for _ in ()).throw(RuntimeError("value cannot be converted"))
    with pytest.raises(RecipeError, match="the optimizer's step fails: value cannot be converted; lower the learning"):
        Trainer(run, tmp_path / "run").fit()
    again = Trainer(adam_run(epochs=1), tmp_path / "run")
    again.load()
    assert again.step == 0
