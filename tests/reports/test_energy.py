import pytest

from bnn.cost.energy import HOROWITZ_45NM, PRICE_TABLES, Ledger
from bnn.reports.energy import KINDS, energy_by_kind, energy_by_layer, operations


def ledger() -> Ledger:
    ledger = Ledger()
    ledger.multiply_accumulates("a", "forward", (1, 1), 10**9, terms=100)
    ledger.multiply_accumulates("a", "backward", (1, 32), 10**8, terms=100)
    ledger.multiply_accumulates("b", "backward", (8, 32), 10**3, terms=100)
    ledger.moves("read", "a", "forward", 1, 10**6)
    ledger.moves("write", "a", "forward", 32, 10**6)
    ledger.moves("write", "optimizer", "update", 16, 10**8)
    return ledger


@pytest.mark.parametrize("table", PRICE_TABLES, ids=lambda table: table.name)
def test_kinds_and_layers_and_operations_are_all_of_it(table):
    total = ledger().energy_J(table)
    assert sum(energy_by_kind(ledger(), table)) == pytest.approx(total)
    assert sum(map(sum, energy_by_layer(ledger(), table).values())) == pytest.approx(total)
    assert sum(row.energy_J[0] for row in operations(ledger(), [table])) == pytest.approx(total)


def test_kinds_are_by_phase():
    by_kind = dict(zip(KINDS, energy_by_kind(ledger(), HOROWITZ_45NM), strict=True))
    assert by_kind["products, forward"] == pytest.approx(1e9 * 8 * 0.1e-12 / 32)
    assert by_kind["products, backward"] == pytest.approx(1e8 * 0.9e-12 + 1e3 * 4.6e-12)
    assert by_kind["moves, forward"] == pytest.approx(33e6 * 1950e-12 / 64)
    assert by_kind["moves, backward"] == 0


def test_small_layers_are_summed_up():
    assert list(energy_by_layer(ledger(), HOROWITZ_45NM)) == ["a", "optimizer", "others"]
    assert list(energy_by_layer(Ledger(), HOROWITZ_45NM)) == []


def test_operations_in_the_order_of_a_step():
    rows = [(row.name, row.phase, row.count, row.unit) for row in operations(ledger(), [HOROWITZ_45NM])]
    assert rows == [
        ("±1 x ±1: XNOR, count", "forward", 10**9, ""),
        ("moved", "forward", 33e6 / 8, "B"),
        ("±1 x float32", "backward", 10**8, ""),
        ("int8 x float32", "backward", 10**3, ""),
        ("moved", "update", 2e8, "B"),
    ]
