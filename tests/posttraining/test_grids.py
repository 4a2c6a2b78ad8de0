"""Levels and their scales."""

import pytest
import torch

from bnn.posttraining.grids import GRIDS


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: grid.width)
def test_levels_are_whole_symmetric_and_nearest(grid, generator):
    x = 3 * grid.largest * (torch.rand(2000, generator=generator) - 0.5)
    levels = grid.nearest(x)
    every = torch.arange(-grid.largest, grid.largest + 1, grid.gap).float()
    assert len(every) == grid.levels
    assert set(levels.tolist()) <= set(every.tolist())
    torch.testing.assert_close((levels - x).abs(), (every[:, None] - x).abs().amin(0))


def test_one_bit_has_the_mean_magnitude_and_not_the_scale_of_aciq(generator):
    weight = torch.randn(4, 5000, generator=generator)
    torch.testing.assert_close(GRIDS[0].scale(weight), weight.abs().mean(1))


@pytest.mark.parametrize(
    ("grid", "best"), [(GRIDS[2], 0.1188), (GRIDS[3], 0.0374), (GRIDS[4], 0.0115)], ids=["2", "3", "4"]
)
def test_a_clip_is_near_the_best_of_all(grid, best, generator):
    """The best are Max's classic distortions of normal values by uniform levels, recomputed."""
    weight = torch.randn(1, 20000, generator=generator)
    scale = grid.scale(weight)
    assert (grid.nearest(weight / scale) * scale - weight).square().mean() < 1.1 * best


def test_a_channel_of_zeros_has_a_scale():
    for grid in GRIDS:
        assert (grid.scale(torch.zeros(2, 3)) > 0).all()
