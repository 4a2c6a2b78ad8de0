import io

import pytest
from rich.console import Console

from bnn.errors import Interrupted
from bnn.reports.progress import ProgressBar
from bnn.training import Trainer
from tests.training.tiny_runs import EPOCHS, SignalAt, sgd_run


def run(tmp_path, *, terminal: bool, **options) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    Trainer(sgd_run(**options), tmp_path / "run", callbacks=[ProgressBar(console)]).fit()
    return console.file.getvalue()


def test_a_line_an_epoch_where_the_output_is_not_a_terminal(tmp_path):
    lines = run(tmp_path, terminal=False).splitlines()
    assert [line[: len("epoch 1/3")] for line in lines] == [f"epoch {epoch}/3" for epoch in range(1, EPOCHS + 1)]
    assert all("loss" in line and "training" in line and "validation" in line for line in lines)


def test_nothing_of_validation_where_there_is_none(tmp_path):
    assert "validation" not in run(tmp_path, terminal=False, validation=0.0)


def test_a_bar_over_all_steps_in_a_terminal(tmp_path):
    assert "12/12" in run(tmp_path, terminal=True)


def test_skipped_steps_are_told(tmp_path):
    def loss(logits, labels):
        return logits.sum() * (float("nan") if logits.requires_grad and next(steps) == 1 else 0.0)

    steps = iter(range(100))
    assert "skipped steps 1" in run(tmp_path, terminal=False, loss=loss)


@pytest.mark.parametrize("terminal", [True, False])
def test_bar_is_taken_away_when_training_is_interrupted(terminal, tmp_path):
    console = Console(file=io.StringIO(), force_terminal=terminal)
    bar = ProgressBar(console)
    with pytest.raises(Interrupted):
        Trainer(sgd_run(), tmp_path / "run", callbacks=[bar, SignalAt(("step ends", 1, 2))]).fit()
    assert not bar._progress.live.is_started
