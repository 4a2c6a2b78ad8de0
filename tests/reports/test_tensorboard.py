import sys

import pytest

from bnn.errors import RecipeError
from bnn.reports.tensorboard import TensorBoard
from bnn.training import Trainer
from tests.training.tiny_runs import EPOCHS, STEPS_AN_EPOCH, Losses, sgd_run


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(RecipeError, match=r"^TensorBoard is not installed: pip install 'bnn-edge\[tensorboard\]'$"):
        TensorBoard()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_losses_and_metrics_are_written(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    losses = Losses()
    Trainer(sgd_run(), tmp_path / "run", callbacks=[losses, TensorBoard()]).fit()
    log = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    log.Reload()
    assert {event.step: event.value for event in log.Scalars("step/loss")} == pytest.approx(losses.by_step)
    accuracies = log.Scalars("epoch/validation_accuracy")
    assert [event.step for event in accuracies] == [STEPS_AN_EPOCH * (epoch + 1) for epoch in range(EPOCHS)]
