import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bnn.cost.meters.latent_motion import LatentMotion, log_line, square_root_rate
from bnn.data.bundled_digits import digits
from bnn.layers import BinaryLinear
from bnn.models import mlp
from bnn.presets import prepare
from bnn.training import TrainingStep


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("binary", "of_logarithm", "of_power"),
    [(False, (0.95, 1.0), (0.8, 0.97)), (True, (0.6, 0.93), (0.97, 1.0))],
    ids=["real, SGD", "binary, Adam"],
)
def test_how_distances_grow_in_a_training(binary, of_logarithm, of_power):
    """As ln t by SGD, from the eighth step on (Hoffer et al. 2017); latent weights by Adam rather as a power of t."""
    torch.manual_seed(0)
    if binary:
        step = prepare("standard", partial(mlp, input_shape=(1, 8, 8), hidden=(64, 64)), input_shape=(1, 8, 8))
    else:
        hidden = (nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        model = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(64, 10))
        step = TrainingStep(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    split = digits().train
    x, labels = torch.as_tensor(split.images[:]).float(), torch.as_tensor(split.labels).long()
    x = (x - x.mean()) / x.std()
    weights = [parameter for parameter in step.model.parameters() if parameter.dim() > 1]
    start, points, count = [weight.detach().clone() for weight in weights], [], 0
    for _ in range(20):
        for rows in torch.randperm(len(x)).split(50):
            step.take(x[rows], labels[rows])
            count += 1
            if count in (8, 16, 29, 58, 116, 232, 400, 580):
                squares = (float((w.detach() - s).square().sum()) for w, s in zip(weights, start, strict=True))
                points.append([count, math.sqrt(sum(squares))])
    assert of_logarithm[0] < log_line(points)[1] < of_logarithm[1]
    assert of_power[0] < log_line([[t, math.log(distance)] for t, distance in points])[1] < of_power[1]
