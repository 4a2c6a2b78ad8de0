"""Spatial contrasting: its loss in closed form, patches, and a probe that finds what features hold."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnn.data import Split
from bnn.errors import RecipeError
from bnn.methods import LinearProbe, SpatialContrast
from bnn.methods.spatial_contrast import unlabelled
from tests.contracts import randn
from tests.training.tiny_runs import tiny_dataset


class Corner(nn.Module):
    """The first pixel of a patch."""

    def forward(self, x):
        return x[:, :, 0, 0]


def contrast(*parts, patch=2):
    return SpatialContrast(nn.Sequential(*parts), patch=patch, generator=torch.Generator().manual_seed(0))


def test_the_loss_of_two_pictures_by_hand():
    """In evaluation the patches begin at (0, 0) and (2, 2)."""
    x = torch.zeros(2, 1, 4, 4)
    x[0, 0, 0, 0], x[0, 0, 2, 2], x[1, 0, 0, 0], x[1, 0, 2, 2] = 1.0, 3.0, 7.0, 7.5
    logits = contrast(Corner()).eval()(x)
    torch.testing.assert_close(logits, torch.tensor([[-2.0, -6.0], [-0.5, -6.0]]), atol=1e-3, rtol=0)
    by_hand = [-math.log(math.exp(-a) / (math.exp(-a) + math.exp(-6))) for a in (2.0, 0.5)]
    loss = F.cross_entropy(logits, torch.zeros(2, dtype=torch.int64))
    assert loss.item() == pytest.approx(sum(by_hand) / 2, abs=1e-3)


def test_patches_are_random_in_training_and_of_the_picture():
    x = torch.arange(64.0).view(1, 1, 8, 8).expand(50, -1, -1, -1) + 1000 * torch.arange(50.0).view(-1, 1, 1, 1)
    network = contrast(nn.Flatten(), patch=3).train()
    patches = network._patches(x, (5, 5), 0)
    corners = patches[:, 0, 0, 0] % 1000
    assert torch.equal(patches[:, 0, 0, 0] // 1000, torch.arange(50.0))
    assert torch.equal(patches[:, 0, 2, 2] - patches[:, 0, 0, 0], torch.full((50,), 18.0))
    assert {int(c) // 8 for c in corners} == {int(c) % 8 for c in corners} == set(range(6))


def test_equal_patches_have_a_gradient_and_a_small_picture_is_refused():
    network = contrast(nn.Conv2d(1, 3, 1), nn.Flatten(), patch=4)
    network(torch.ones(3, 1, 4, 4)).sum().backward()
    assert network[0].weight.grad.isfinite().all()
    with pytest.raises(RecipeError, match="a patch of 4 pixels does not fit into a picture of 3 x 5"):
        network(torch.ones(1, 1, 3, 5))


def test_weights_have_the_names_of_the_encoder():
    encoder = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten())
    assert contrast(*encoder).state_dict().keys() == encoder.state_dict().keys()


def test_a_probe_finds_classes_that_the_features_hold(monkeypatch):
    """The classes of the tiny data set are its brightness; they come sorted, and a norm sees a few at a time."""
    monkeypatch.setattr("bnn.methods.spatial_contrast._BATCH", 10)
    data = sorted_by_class(tiny_dataset())
    assert (unlabelled(data).train.labels == 0).all()
    assert torch.equal(unlabelled(data).train.images, data.train.images)
    levels = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(1), nn.Linear(1, 32), nn.Tanh())
    with torch.no_grad():
        levels[3].weight.fill_(4.0)
        levels[3].bias.copy_(torch.linspace(-8, 8, 32))
    probe = LinearProbe(data, images=60)
    assert probe._accuracy(contrast(*levels)) > 0.7
    assert probe._accuracy(contrast(nn.Flatten(), Blank())) < 0.4


def sorted_by_class(data):
    order = data.test.labels.argsort()
    return replace(data, test=Split(data.test.images, data.test.labels[order], order))


class Blank(nn.Module):
    def forward(self, x):
        return 0 * x + randn(1)
