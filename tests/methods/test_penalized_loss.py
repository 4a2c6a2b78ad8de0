"""Penalties within a training: what is penalized, when, and how strongly."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from bnn.layers import BinaryLinear
from bnn.methods import Compressibility, PenalizedLoss, PenaltySchedule, weights_of
from bnn.training import Callback, Run, Trainer, trapezoid
from bnn.weights import AccumulatorStore
from tests.contracts import randn
from tests.training.tiny_runs import tiny_dataset


def network() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), BinaryLinear(36, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))


def test_weights_are_latent_ones_and_those_of_real_layers():
    model = network()
    model.append(BinaryLinear(4, 4, store=AccumulatorStore))  # it has no gradient of its own
    model.append(nn.Conv2d(1, 1, 1))
    expected = [model[1].store.weight, model[3].weight, model[5].weight]
    assert [id(weight) for weight in weights_of(model)] == [id(weight) for weight in expected]


def test_the_penalty_counts_in_training_alone():
    model = network()
    x, labels = randn(6, 1, 6, 6), torch.arange(6) % 4
    loss = PenalizedLoss(model, Compressibility(), strength=0.3, loss=partial(F.cross_entropy, label_smoothing=0.1))
    logits = model(x).detach()
    plain = F.cross_entropy(logits, labels, label_smoothing=0.1)
    assert torch.isclose(loss(logits, labels), plain + 0.3 * Compressibility()(weights_of(model)))
    model.eval()
    assert torch.equal(loss(logits, labels), plain)
    model.train()
    loss.strength = 0.0
    assert torch.equal(loss(logits, labels), plain)


class Strengths(Callback):
    def __init__(self, loss: PenalizedLoss) -> None:
        self.loss = loss
        self.seen: list[float] = []

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        self.seen.append(self.loss.strength)


def trained(out, *, peak: float) -> tuple[nn.Module, list[float]]:
    torch.manual_seed(0)
    model = network()
    loss = PenalizedLoss(model, Compressibility())
    watch = Strengths(loss)
    run = Run(
        model=model,
        data=tiny_dataset(),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        epochs=4,
        batch_size=27,
        slice_size=10,
        seed=0,
        loss=loss,
        callbacks=[PenaltySchedule(loss, trapezoid(4, peak=peak, rise_epochs=2, fall_epochs=2)), watch],
    )
    Trainer(run, out).fit()
    return model, watch.seen


def test_a_schedule_sets_the_strength_of_each_epoch_and_weights_become_sparser(tmp_path):
    plain, _ = trained(tmp_path / "plain", peak=0.0)
    penalized, strengths = trained(tmp_path / "penalized", peak=0.2)
    assert strengths == [0.0, 0.0, 0.1, 0.1, 0.2, 0.2, 0.1, 0.1]
    plain_loss, penalized_loss = (Compressibility()(weights_of(model)).item() for model in (plain, penalized))
    assert penalized_loss < 0.95 * plain_loss
