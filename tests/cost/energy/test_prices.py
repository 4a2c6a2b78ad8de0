"""Prices against the figures that their sources print."""

import pytest

from bnn.cost.energy import HOROWITZ_45NM, PRICE_TABLES, Event
from bnn.cost.energy.prices import JOUPPI_7NM, JOUPPI_7NM_ON_CHIP

PRODUCTS = [
    # operands and accumulator, picojoules at 45 nm and at 7 nm
    ((32, 32, 32), 0.9 + 3.7, 0.38 + 1.31),
    ((16, 32, 32), 0.9 + 3.7, 0.38 + 1.31),
    ((8, 32, 32), 0.9 + 3.7, 0.38 + 1.31),
    ((1, 17, 32), 0.9, 0.38),
    ((16, 16, 16), 0.4 + 1.1, 0.16 + 0.34),
    ((8, 16, 16), 0.4 + 1.1, 0.16 + 0.34),
    ((1, 32, 32), 0.9, 0.38),
    ((2, 32, 32), 0.9, 0.38),
    ((1, 16, 16), 0.4, 0.16),
    ((8, 8, 32), 0.2 + 0.1, 0.07 + 0.03),
    ((1, 8, 32), 0.1, 0.03),
    ((1, 1, 16), 0.05, 0.015),
    ((2, 2, 8), 0.025, 0.0075),
]


@pytest.mark.parametrize(("bits", "at_45nm", "at_7nm"), PRODUCTS)
def test_products(bits, at_45nm, at_7nm):
    event = Event("multiply-accumulate", bits, "a", "forward")
    assert 1e12 * HOROWITZ_45NM.price_J(event) == pytest.approx(at_45nm)
    for table in (JOUPPI_7NM, JOUPPI_7NM_ON_CHIP):
        assert 1e12 * table.price_J(event) == pytest.approx(at_7nm)


@pytest.mark.parametrize("op", ["read", "write"])
@pytest.mark.parametrize("bits", [1, 8, 32, 64])
@pytest.mark.parametrize(
    ("table", "access_of_64_bits"), [(HOROWITZ_45NM, 1950), (JOUPPI_7NM, 1300), (JOUPPI_7NM_ON_CHIP, 14)]
)
def test_moves(op, bits, table, access_of_64_bits):
    assert 1e12 * table.price_J(Event(op, (bits,), "a", "update")) == pytest.approx(access_of_64_bits * bits / 64)


def test_tables_name_their_source_and_what_they_assumed():
    assert len({table.name for table in PRICE_TABLES}) == len(PRICE_TABLES)
    for table, source in zip(PRICE_TABLES, ("ISSCC 2014", "ISCA 2021", "ISCA 2021"), strict=True):
        assert source in table.source
        assert source[-4:] in table.name
        assert " nm" in table.name
        assert "once" in table.caveat
