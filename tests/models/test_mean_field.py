import math
from functools import partial

import pytest
import torch
from torch import nn

from bnn.layers import BinaryBlock, BinaryLinear
from bnn.models import mlp, resnet8, vgg_small
from bnn.models.mean_field import (
    best_thresholds,
    correlation_factor,
    depth_budget,
    depth_note,
    depth_scale,
    evenly_spaced,
    plain_depth,
)
from bnn.quantizers import Sign, Ternary
from tests.contracts import randn, signs

SPACINGS = {3: 1.224, 4: 0.996, 8: 0.586, 16: 0.335, 32: 0.188}
SCALES = {2: 2.21, 3: 4.74, 4: 7.90, 8: 26.2, 16: 86.1, 32: 286}


@pytest.mark.parametrize(("levels", "spacing"), list(SPACINGS.items()))
def test_best_spacing(levels, spacing):
    thresholds = best_thresholds(levels)
    assert len(thresholds) == levels - 1
    assert sum(thresholds) == pytest.approx(0, abs=1e-9)
    assert thresholds[1] - thresholds[0] == pytest.approx(spacing, abs=1e-3)


@pytest.mark.parametrize(("levels", "scale"), list(SCALES.items()))
def test_depth_scale(levels, scale):
    assert depth_scale(levels) == pytest.approx(scale, rel=3e-3)


@pytest.mark.parametrize(("levels", "budget"), [(2, 13), (3, 28), (4, 47), (8, 157)])
def test_depth_budget(levels, budget):
    assert depth_budget(levels) == budget


@pytest.mark.parametrize(("levels", "distortion"), [(2, 0.3634), (4, 0.1188), (8, 0.0374), (16, 0.0115)])
def test_what_is_lost_is_the_distortion_of_the_best_uniform_quantizer(levels, distortion):
    assert 1 - correlation_factor(best_thresholds(levels)) == pytest.approx(distortion, abs=2e-4)


def test_the_power_of_the_fit_depends_on_what_it_is_over():
    counts = torch.tensor([8.0, 16, 32, 64, 128])
    lost = torch.tensor([1 - correlation_factor(best_thresholds(int(n))) for n in counts]).log()

    def slope(x: torch.Tensor) -> float:
        x = x.log() - x.log().mean()
        return -float((x * (lost - lost.mean())).sum() / x.square().sum())

    assert slope(counts + 1) == pytest.approx(1.81, abs=0.03)
    assert slope(counts) == pytest.approx(1.74, abs=0.03)


def test_a_wide_network_of_signs_follows_the_theory(generator):
    """The correlation C of two inputs becomes (2 / pi) arcsin C in every layer."""
    width = 1500
    shared, one, other = randn(3, width, seed=3).unbind(0)
    x = torch.stack([signs(shared + 0.9 * one), signs(shared + 0.9 * other)])
    for _ in range(4):
        correlation = float((x[0] * x[1]).mean())
        x = signs(x @ signs(torch.randn((width, width), generator=generator)))
        assert float((x[0] * x[1]).mean()) == pytest.approx(2 / math.pi * math.asin(correlation), abs=0.08)


@pytest.mark.parametrize("levels", [1, 0, 1025])
def test_levels_are_checked(levels):
    for of_levels in (depth_budget, partial(evenly_spaced, spacing=0.5)):
        with pytest.raises(ValueError, match=f"^an activation has 2 to 1024 levels, got {levels}$"):
            of_levels(levels)


def test_an_activation_has_a_threshold():
    with pytest.raises(ValueError, match="at least 2 levels has at least 1 threshold, got none"):
        correlation_factor(())


def test_plain_depth_counts_products_that_take_levels():
    assert plain_depth(mlp(hidden=(8, 8, 8))) == (3, 2)
    assert plain_depth(vgg_small(input_shape=(3, 8, 8))) == (5, 2)
    ternary = nn.Sequential(*(BinaryLinear(4, 4, input_quantizer=Ternary()) for _ in range(3)))
    assert plain_depth(ternary) == (3, 3)
    bits_handed_on = nn.Sequential(
        BinaryBlock(BinaryLinear(4, 4, input_quantizer=None), nn.BatchNorm1d(4), activation=Sign()),
        nn.Flatten(),
        BinaryLinear(4, 4, input_quantizer=None),
    )
    assert plain_depth(bits_handed_on) == (1, 2)


def test_shortcuts_end_a_row():
    assert plain_depth(resnet8(input_shape=(3, 8, 8), width=4))[0] == 0


def test_a_deep_sequence_is_told():
    note = depth_note(mlp(hidden=(4,) * 14))
    assert note is not None
    assert note.startswith("14 layers in a row take 2 levels without a shortcut; by mean field theory about 13 train")
    assert depth_note(mlp(hidden=(4,) * 13)) is None
