import pytest

from bnn.accounting import HOROWITZ_45NM, Event, Ledger, PriceTable


def test_same_events_add_up_and_different_ones_stay_apart():
    ledger = Ledger()
    ledger.multiply_accumulates("a", "forward", (32, 1), 5)
    ledger.multiply_accumulates("a", "forward", (1, 32), 2)
    ledger.multiply_accumulates("a", "backward", (1, 32), 1)
    ledger.multiply_accumulates("b", "forward", (1, 32), 1)
    ledger.moves("read", "a", "forward", 8, 3)
    ledger.moves("write", "a", "forward", 8, 4)
    assert ledger.counts == {
        Event("multiply-accumulate", (1, 32), "a", "forward"): 7,
        Event("multiply-accumulate", (1, 32), "a", "backward"): 1,
        Event("multiply-accumulate", (1, 32), "b", "forward"): 1,
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
    ledger.multiply_accumulates("a", "forward", (1, 32), 5)
    table = PriceTable(name="n", source="s", caveat="c", price_J=lambda event: float(sum(event.bits)))
    assert ledger.energy_J(table) == 3 * 8 + 5 * 33
    assert Ledger().energy_J(table) == 0


@pytest.mark.parametrize(
    ("op", "bits", "picojoule"),
    [
        ("multiply-accumulate", (32, 32), 4.6),
        ("multiply-accumulate", (16, 32), 4.6),
        ("multiply-accumulate", (8, 16), 1.5),
        ("multiply-accumulate", (16, 16), 1.5),
        ("multiply-accumulate", (1, 32), 0.9),
        ("multiply-accumulate", (2, 32), 0.9),
        ("multiply-accumulate", (1, 16), 0.4),
        ("multiply-accumulate", (1, 1), 0.05),
        ("multiply-accumulate", (1, 2), 0.05),
        ("read", (64,), 1950),
        ("write", (1,), 30.46875),
        ("read", (32,), 975),
    ],
)
def test_prices_of_horowitz(op, bits, picojoule):
    assert HOROWITZ_45NM.price_J(Event(op, bits, "a", "forward")) == pytest.approx(picojoule * 1e-12, rel=1e-12)


def test_table_names_its_source_and_what_it_assumed():
    assert "Horowitz" in HOROWITZ_45NM.name
    assert "ISSCC 2014" in HOROWITZ_45NM.source
    assert "DRAM" in HOROWITZ_45NM.caveat
