"""Tables over the odds: the nearest point, and between points."""

import torch

from hwsim.probability_tables import POINTS, interpolated, nearest, probabilities


def test_points_are_probabilities_from_0_to_1():
    p = probabilities()
    assert p.shape == (POINTS,)
    assert (float(p[0]), float(p[-1])) == (0, 1)
    assert bool((p.diff() > 0).all())


def test_interpolation_is_linear_in_the_odds_and_of_the_right_table():
    odds = probabilities().clamp(2.0**-33, 1 - 2.0**-25)
    odds = odds / (1 - odds)
    tables = torch.cat([odds, -odds]).float()
    p = torch.rand(10_000, generator=torch.Generator().manual_seed(0)).clamp(1e-6, 1 - 1e-6)
    exact = p.double() / (1 - p.double())
    for number, sign in ((0, 1), (1, -1)):
        found = interpolated(tables, p, torch.full((10_000,), number, dtype=torch.int32)) * sign
        assert (found.double() / exact - 1).abs().max() < 1e-5


def test_the_nearest_point_of_the_right_table_is_taken():
    """A table of its own points' odds, and one of their negatives."""
    points = (24 + 32) * 128 + 1
    k = torch.arange(points, dtype=torch.float64)
    odds = torch.exp2((k / 128).floor() - 32) * (1 + k.remainder(128) / 128)
    table = torch.cat([odds, -odds]).float()
    p = torch.rand(10_000, generator=torch.Generator().manual_seed(0)).clamp_min(1e-6)
    exact = (p.double() / (1 - p.double())).clamp(2.0**-32, 2.0**24)
    for which, sign in ((0, 1), (1, -1)):
        found = nearest(table, p, torch.full((10_000,), which, dtype=torch.int32)) * sign
        error = found.double() / exact - 1
        assert error.abs().max() < 1 / 256 + 1e-4
        assert abs(error.mean()) < 1e-4
    ends = nearest(table, torch.tensor([0.0, 1.0]), torch.zeros(2, dtype=torch.int32))
    assert ends.tolist() == [2.0**-32, 2.0**24]
