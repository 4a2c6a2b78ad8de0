import math

import pytest

from bnn.cost.meters.latent_motion import log_line, square_root_rate


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
