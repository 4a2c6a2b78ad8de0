import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnn.cost.energy import HOROWITZ_45NM, Event, Ledger, PriceTable
from bnn.cost.energy.ledger import accumulator_bits


def test_same_events_add_up_and_different_ones_stay_apart():
    ledger = Ledger()
    ledger.multiply_accumulates("a", "forward", (32, 1), 5, terms=9)
    ledger.multiply_accumulates("a", "forward", (1, 32), 2, terms=9)
    ledger.multiply_accumulates("a", "backward", (1, 32), 1, terms=9)
    ledger.multiply_accumulates("b", "forward", (1, 1), 1, terms=9)
    ledger.moves("read", "a", "forward", 8, 3)
    ledger.moves("write", "a", "forward", 8, 4)
    assert ledger.counts == {
        Event("multiply-accumulate", (1, 32, 32), "a", "forward"): 7,
        Event("multiply-accumulate", (1, 32, 32), "a", "backward"): 1,
        Event("multiply-accumulate", (1, 1, 5), "b", "forward"): 1,
        Event("read", (8,), "a", "forward"): 3,
        Event("write", (8,), "a", "forward"): 4,
    }


def test_scaled_is_a_new_ledger():
    ledger = Ledger()
    ledger.moves("read", "a", "forward", 8, 3)
    scaled = ledger.scaled(4)
    scaled.moves("read", "a", "forward", 8, 1)
    assert (list(ledger.counts.values()), list(scaled.counts.values())) == ([3], [13])


def test_energy_is_the_table_s_opinion_of_the_counts():
    ledger = Ledger()
    ledger.moves("read", "a", "forward", 8, 3)
    ledger.multiply_accumulates("a", "forward", (1, 32), 5, terms=9)
    table = PriceTable(name="n", source="s", caveat="c", price_J=lambda event: float(sum(event.bits)))
    assert ledger.energy_J(table) == 3 * 8 + 5 * 65
    assert Ledger().energy_J(table) == 0


@given(low=st.sampled_from([1, 2, 3, 8]), high=st.sampled_from([1, 2, 3, 8]), terms=st.integers(1, 6000))
def test_accumulators_hold_every_sum_exactly_and_one_bit_less_does_not(low, high, terms):
    largest = {1: 1, 2: 1, 3: 3, 8: 127}
    values = 2 * terms * largest[low] * largest[high] + 1
    bits = accumulator_bits((low, high), terms)
    assert 2 ** (bits - 1) < values <= 2**bits


def test_accumulators_of_published_sizes():
    assert accumulator_bits((1, 1), 4608) == 14
    assert accumulator_bits((1, 1), 1) == 2
    assert accumulator_bits((1, 32), 4608) == 32
    assert accumulator_bits((8, 16), 10) == 16


def some_events() -> Ledger:
    ledger = Ledger()
    ledger.multiply_accumulates("a", "forward", (1, 1), 700, terms=9)
    ledger.multiply_accumulates("b", "backward", (1, 8), 30, terms=9)
    ledger.moves("read", "a", "forward", 1, 12)
    ledger.moves("write", "optimizer", "update", 16, 3)
    return ledger


def test_parts_are_all_of_it():
    ledger = some_events()
    assert (ledger.products, ledger.moved_bytes) == (730, 1.5 + 6)
    parts = ledger.split(lambda event: event.where)
    assert list(parts) == ["a", "b", "optimizer"]
    assert sum((part.counts for part in parts.values()), Counter()) == ledger.counts
    assert sum(part.energy_J(HOROWITZ_45NM) for part in parts.values()) == pytest.approx(ledger.energy_J(HOROWITZ_45NM))


def test_rows_are_json_and_give_the_ledger_again():
    ledger = some_events()
    assert Ledger.from_rows(json.loads(json.dumps(ledger.to_rows()))) == ledger


@pytest.mark.parametrize(
    "row",
    [
        ["read", [8, 8], "a", "forward", 1],
        ["multiply-accumulate", [1, 1], "a", "forward", 1],
        ["read", [8], "a", "sideways", 1],
        ["eat", [8], "a", "forward", 1],
        ["read", [8], "a", "forward", -1],
        ["read", [8], "a", "forward", 1.5],
        ["read", [8], "a", "forward"],
        ["read", 8, "a", "forward", 1],
        7,
    ],
)
def test_rows_that_are_none_are_refused(row):
    with pytest.raises((TypeError, ValueError)):
        Ledger.from_rows([row])
