"""The strength of a penalty over a training."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnn.errors import RecipeError
from bnn.methods import trapezoid


def test_corners_and_slopes():
    strength = trapezoid(100, peak=0.4, rise_epochs=20, fall_epochs=40)
    assert [strength(epoch) for epoch in (0, 10, 20, 60)] == [0, 0.2, 0.4, 0.4]
    assert [strength(epoch) for epoch in (80, 90, 100)] == pytest.approx([0.2, 0.1, 0])
    assert strength(101) == 0


def test_without_slopes_it_is_constant():
    assert [trapezoid(5, peak=0.4)(epoch) for epoch in (0, 2.5, 5)] == [0.4] * 3


@given(st.floats(0, 10), st.floats(0, 5), st.floats(0, 5), st.floats(0, 10))
def test_stays_between_zero_and_its_peak(peak, rise, fall, epoch):
    assert 0 <= trapezoid(10, peak=peak, rise_epochs=rise, fall_epochs=fall)(epoch) <= peak


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"peak": -1.0}, "at least 0, got -1.0"),
        ({"peak": float("nan")}, "at least 0, got nan"),
        ({"peak": 1.0, "rise_epochs": 6, "fall_epochs": 5}, "do not fit into 10"),
        ({"peak": 1.0, "rise_epochs": -1}, "do not fit into 10"),
    ],
)
def test_what_makes_no_trapezoid_is_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        trapezoid(10, **options)
