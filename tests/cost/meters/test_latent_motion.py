import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bnn.cost.meters.latent_motion import LatentMotion, log_line, square_root_rate
from bnn.layers import BinaryLinear


def test_a_line_over_the_logarithm():
    points = [[float(t), 3 * math.log(t) + 2] for t in (1, 10, 100, 1000)]
    slope, fit = log_line(points)
    assert slope == pytest.approx(3)
    assert fit == pytest.approx(1)
    _, fit_of_root = log_line([[t, math.sqrt(t)] for t, _ in points])
    assert fit_of_root < 0.9


def test_a_line_of_equal_values():
    assert log_line([[1.0, 2.0], [2.0, 2.0]]) == (0.0, 1.0)


def test_rates_go_with_the_root():
    assert square_root_rate(0.1, batch_size=400, of_batch_size=100) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="at least 1 example, got 0 and 4"):
        square_root_rate(0.1, batch_size=0, of_batch_size=4)


def test_distance_and_effective_step_of_each_epoch():
    model = nn.Sequential(BinaryLinear(4, 2))
    weight = model[0].store.weight
    with torch.no_grad():
        weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 2.0, 0, 0]]))
    meter = LatentMotion(model)
    trainer = SimpleNamespace(step=7, run=SimpleNamespace(model=model, optimizer=torch.optim.SGD([weight], lr=0.5)))
    with torch.no_grad():
        weight[:, 3] += torch.tensor([3.0, 4.0])
    record = {}
    meter.on_epoch_end(trainer, record)
    assert record["distance_from_start"] == pytest.approx(5)
    assert record["effective_step"] == pytest.approx((0.5 / (1 + 9) + 0.5 / (4 + 16)) / 2)
    assert meter.state() == {"distances": [[7.0, pytest.approx(5)]]}


def test_distances_are_kept_and_checked():
    meter = LatentMotion(nn.Linear(2, 2))
    meter.restore(None, {"distances": [[1.0, 0.0], [math.e, 2.0]]})
    summary = {}
    meter.on_fit_end(None, summary)
    assert summary == {"distance_log_slope": pytest.approx(2), "distance_log_fit": pytest.approx(1)}
    with pytest.raises(ValueError, match="a distance belongs to a step"):
        meter.check(None, {"distances": [[0, 1.0]]})
