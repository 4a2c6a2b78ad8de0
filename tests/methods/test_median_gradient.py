"""The median of three gradients, step by step."""

import pytest
import torch

from bnn.errors import Interrupted, RecipeError
from bnn.methods import MedianGradient
from bnn.training import Callback, Trainer
from tests.methods.test_dense_gradients import packed_signs_run
from tests.training.tiny_runs import SignalAt, adam_run, assert_same_state, sgd_run, training_state

M3_AND_RM3 = pytest.mark.parametrize("rolling", [True, False])


class Watched(Callback):
    """Of one weight the gradients, before the methods or after."""

    def __init__(self):
        self.seen = []

    def on_gradients(self, trainer):
        gradient = next(trainer.run.model.parameters()).grad
        self.seen.append(None if gradient is None else gradient.clone())


def watched(tmp_path, *, rolling):
    before, after = Watched(), Watched()
    run = sgd_run(callbacks=[before, MedianGradient(rolling=rolling), after])
    Trainer(run, tmp_path / "run").fit()
    return before.seen, after.seen


def test_a_rolling_median_is_that_of_the_last_three(tmp_path):
    before, after = watched(tmp_path, rolling=True)
    assert len(before) > 4
    assert torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[1])
    for k in range(2, len(before)):
        assert torch.equal(after[k], torch.stack(before[k - 2 : k + 1]).median(0).values)


def test_otherwise_every_third_batch_makes_a_step(tmp_path):
    before, after = watched(tmp_path, rolling=False)
    assert len(before) > 4
    for k in range(len(before)):
        if k % 3 < 2:
            assert (after[k] is None) == (k > 0)
        else:
            assert torch.equal(after[k], torch.stack(before[k - 2 : k + 1]).median(0).values)


@M3_AND_RM3
@pytest.mark.parametrize("made", [sgd_run, adam_run])
def test_an_interrupted_run_goes_on_bit_for_bit(made, rolling, tmp_path):
    def run():
        return made(callbacks=[MedianGradient(rolling=rolling)])

    whole, resumed = run(), run()
    Trainer(whole, tmp_path / "whole").fit()
    with pytest.raises(Interrupted):
        Trainer(run(), tmp_path / "parts", callbacks=[SignalAt(("step ends", 1, 1))]).fit()
    Trainer(resumed, tmp_path / "parts").resume()
    assert_same_state(training_state(whole), training_state(resumed))


def test_packed_gradients_are_refused_with_a_way_on(tmp_path):
    with pytest.raises(RecipeError, match=r"needs dense ones .* preset standard"):
        Trainer(packed_signs_run(callbacks=[MedianGradient()]), tmp_path / "run").fit()
