"""A batch cut into slices trains as the whole one, but for the statistics that batch norms see."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bnn.errors import RecipeError
from bnn.training import Run, Trainer, TrainingStep
from tests.contracts import randn
from tests.training.tiny_runs import tiny_dataset


class Watch(nn.Module):
    """Notes how many examples come together in training; multiplies the call of number `nan_at` by NaN."""

    def __init__(self, *, nan_at=None):
        super().__init__()
        self.seen = []
        self.nan_at = nan_at

    def forward(self, x):
        if self.training:
            self.seen.append(len(x))
            if len(self.seen) == self.nan_at:
                return x * float("nan")
        return x


def train(out, *, slice_size, nan_at=None, batch_size=12):
    """Trains a linear classifier for an epoch; its weights and statistics, its sizes of slices, and the summary."""
    watch = Watch(nan_at=nan_at)
    linear = nn.Linear(36, 4)
    nn.init.normal_(linear.weight, generator=torch.Generator().manual_seed(0))
    nn.init.zeros_(linear.bias)
    norm = nn.BatchNorm1d(36, affine=False, momentum=0.0 if nan_at is None else 0.1)
    model = nn.Sequential(nn.Flatten(), watch, *([norm] if nan_at else []), linear)
    run = Run(
        model=model,
        data=tiny_dataset(),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        epochs=1,
        batch_size=batch_size,
        seed=3,
        validation=0.2,
        slice_size=slice_size,
    )
    summary = Trainer(run, out).fit()
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, watch.seen, summary


def test_gradients_of_slices_add_up_to_that_of_the_batch(tmp_path):
    whole, _, of_whole = train(tmp_path / "whole", slice_size=None)
    sliced, _, of_sliced = train(tmp_path / "sliced", slice_size=5)
    for name, tensor in whole.items():
        torch.testing.assert_close(sliced[name], tensor)
    assert of_sliced["train_loss"] == pytest.approx(of_whole["train_loss"], rel=1e-5)
    assert of_sliced["train_accuracy"] == of_whole["train_accuracy"]


@pytest.mark.parametrize(
    ("slice_size", "sizes"),
    [(None, [12]), (12, [12]), (100, [12]), (11, [6, 6]), (5, [4, 4, 4]), (1, [1] * 12)],
)
def test_slices_are_no_larger_than_asked_and_nearly_equal(slice_size, sizes, tmp_path):
    _, seen, _ = train(tmp_path / "run", slice_size=slice_size)
    assert seen == sizes * 4


def test_batch_that_no_slice_divides(tmp_path):
    _, seen, _ = train(tmp_path / "run", slice_size=4, batch_size=10)
    assert seen == [4, 3, 3] * 4


def test_one_slice_that_is_not_finite_skips_the_whole_step(tmp_path):
    clean, _, _ = train(tmp_path / "clean", slice_size=6, nan_at=10**6)
    broken, seen, summary = train(tmp_path / "broken", slice_size=6, nan_at=8)
    assert summary["skipped_steps"] == 1
    assert len(seen) == 8  # the last of four steps fails in its second slice, having changed the statistics
    assert all(tensor.isfinite().all() for tensor in broken.values())
    assert not torch.equal(broken["3.weight"], clean["3.weight"])


def test_slice_without_an_example_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="a slice has at least 1 example, got 0"):
        train(tmp_path / "run", slice_size=0)


@pytest.mark.parametrize("ghost", [12, 6])
def test_a_ghost_batch_is_normalized_by_itself(ghost):
    """As large as the batch it is batch norm (Hoffer et al. 2017)."""
    linear, x, labels = nn.Linear(5, 3), randn(12, 5), torch.arange(12) % 3
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.0)
    step = TrainingStep(
        model=nn.Sequential(nn.BatchNorm1d(5, affine=False), linear), optimizer=optimizer, slice_size=ghost
    )
    found = []
    step.take(x, labels, before_update=lambda: found.extend(p.grad.clone() for p in linear.parameters()))
    normalized = torch.cat([F.batch_norm(part, None, None, training=True) for part in x.split(ghost)])
    expected = torch.autograd.grad(F.cross_entropy(linear(normalized), labels), list(linear.parameters()))
    torch.testing.assert_close(tuple(found), expected)
