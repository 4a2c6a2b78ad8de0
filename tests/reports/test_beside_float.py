import pytest

from bnn.reports.beside_float import comparisons


def one(this: float, other: float):
    (found,) = comparisons({"beside_float": {"step_bytes": {"this": this, "float": other}}})
    return found


@pytest.mark.parametrize(
    ("this", "other", "ratio"),
    [(100, 1234, "12 times less"), (100, 150, "1.5 times less"), (100, 101, "as much"), (300, 100, "3 times more")],
)
def test_ratios_in_words(this, other, ratio):
    assert one(this, other).ratio == ratio


def test_names_units_and_how_it_is_known():
    found = one(2048, 4096)
    assert (found.name, found.how, found.text(found.this)) == ("memory of a step", "predicted", "2.00 KiB")


@pytest.mark.parametrize(
    "damaged", [None, 3, {}, {"step_bytes": 3}, {"step_bytes": {"this": 1}}, {"step_bytes": {"this": 0, "float": 1}}]
)
def test_what_is_damaged_is_left_out(damaged):
    assert list(comparisons({"beside_float": damaged})) == []
