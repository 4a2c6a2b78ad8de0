import pytest
import torch
from bnn.training.step_hook import StepHook

from bnn.errors import RecipeError
from bnn.layers import BinaryLinear
from bnn.models import mlp
from bnn.optim import SGD
from bnn.quantizers.gradients import SignGradient
from bnn.training import Run, Trainer
from bnn.weights import AccumulatorStore
from tests.training.tiny_runs import EPOCHS, STEPS_AN_EPOCH, adam_run, sgd_run, tiny_dataset


class Note(StepHook):
    def __init__(self, log, name="") -> None:
        super().__init__()
        self.log, self.name = log, name

    def before_step(self, store, gradient, state):
        assert gradient.shape == store.shape
        self.log.append((self.name, "before", store.shape, bool(state)))

    def after_step(self, store, state):
        self.log.append((self.name, "after", store.shape, bool(state)))


def test_is_called_around_each_step_of_each_store(tmp_path):
    log = []
    run = adam_run(callbacks=[Note(log)])
    Trainer(run, tmp_path / "run").fit()
    shapes = [(16, 36), (4, 16)]
    assert log[:4] == [("", when, shape, when == "after") for when in ("before", "after") for shape in shapes]
    assert log[4:8] == [("", when, shape, True) for when in ("before", "after") for shape in shapes]
    assert len(log) == 4 * EPOCHS * STEPS_AN_EPOCH


def test_several_act_in_the_order_of_the_callbacks_and_let_go_at_the_end(tmp_path):
    log = []
    run = sgd_run(callbacks=[Note(log, "first"), Note(log, "second")], epochs=1)
    Trainer(run, tmp_path / "run").fit()
    assert [name for name, when, *_ in log if when == "before"][:4] == ["first", "first", "second", "second"]
    seen = len(log)
    run.optimizer.step()
    assert len(log) == seen


def packed_signs_run(**options) -> Run:
    def store(shape):
        return AccumulatorStore(shape, gradient_quantizer=SignGradient(packed=True, scale="none"))

    model = mlp(input_shape=(1, 6, 6), classes=4, hidden=(8,), store=store)
    return Run(
        model=model,
        data=tiny_dataset(),
        optimizer=SGD(model.parameters(), lr=0.1),
        epochs=1,
        batch_size=12,
        seed=0,
        **options,
    )


def test_packed_signs_are_refused_with_a_way_on(tmp_path):
    with pytest.raises(RecipeError, match=r"Note needs a dense gradient of layer 1 .* it has BitTensor: use stores"):
        Trainer(packed_signs_run(callbacks=[Note([])]), tmp_path / "run").fit()


def test_a_weight_that_is_not_trained_is_refused(tmp_path):
    run = sgd_run(callbacks=[Note([])])
    unused = BinaryLinear(3, 3)
    run.model.add_module("unused", torch.nn.Identity())
    run.model.unused.layer = unused
    with pytest.raises(RecipeError, match=r"layer unused.layer .* it has none"):
        Trainer(run, tmp_path / "run").fit()
