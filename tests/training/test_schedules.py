import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnn.errors import RecipeError
from bnn.training import sequential, trapezoid, warmup_cosine


@pytest.mark.parametrize(
    ("epoch", "factor"),
    [(0, 0.0), (1, 0.2), (2.5, 0.5), (5, 1.0), (52.5, 0.5), (28.75, 0.5 + math.sqrt(0.125)), (100, 0.0)],
)
def test_warmup_is_linear_and_then_comes_half_a_cosine(epoch, factor):
    assert warmup_cosine(100, warmup_epochs=5)(epoch) == pytest.approx(factor, abs=1e-12)


def test_without_warmup_it_starts_at_one():
    assert [warmup_cosine(4)(epoch) for epoch in (0, 2, 4)] == pytest.approx([1, 0.5, 0], abs=1e-12)


def test_one_schedule_after_another_begins_at_its_own_start():
    factor = sequential(warmup_cosine(4), 4, warmup_cosine(2))
    assert [factor(epoch) for epoch in (0, 2, 3.999, 4, 5, 6)] == pytest.approx([1, 0.5, 0, 1, 0.5, 0], abs=1e-6)
    lower = sequential(warmup_cosine(4), 4, warmup_cosine(2), scale=0.1)
    assert [lower(epoch) for epoch in (0, 2, 4, 5)] == pytest.approx([1, 0.5, 0.1, 0.05], abs=1e-6)


@given(
    epochs=st.integers(1, 600),
    part=st.floats(0, 0.99),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_factor_lies_in_0_to_1_and_falls_after_the_warmup(epochs, part, place):
    factor = warmup_cosine(epochs, warmup_epochs=part * epochs)
    low, high = sorted(place)
    assert 0 <= factor(low * epochs) <= 1
    if low >= part:
        assert factor(low * epochs) >= factor(high * epochs) - 1e-12


@pytest.mark.parametrize(
    ("epochs", "warmup", "message"),
    [
        (0, 0, "a run has at least 1 epoch, got 0"),
        (5, 5, "a warm-up of 5 epochs does not fit a training of 5"),
        (5, -1, "a warm-up of -1"),
        (5, math.nan, "a warm-up of nan"),
    ],
)
def test_schedule_that_does_not_fit_is_refused(epochs, warmup, message):
    with pytest.raises(RecipeError, match=message):
        warmup_cosine(epochs, warmup_epochs=warmup)


def test_corners_and_slopes_of_a_trapezoid():
    strength = trapezoid(100, peak=0.4, rise_epochs=20, fall_epochs=40)
    assert [strength(epoch) for epoch in (0, 10, 20, 60)] == [0, 0.2, 0.4, 0.4]
    assert [strength(epoch) for epoch in (80, 90, 100)] == pytest.approx([0.2, 0.1, 0])
    assert strength(101) == 0


def test_a_trapezoid_without_slopes_is_constant():
    assert [trapezoid(5, peak=0.4)(epoch) for epoch in (0, 2.5, 5)] == [0.4] * 3


@given(st.floats(0, 10), st.floats(0, 5), st.floats(0, 5), st.floats(0, 10))
def test_a_trapezoid_stays_between_zero_and_its_peak(peak, rise, fall, epoch):
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
