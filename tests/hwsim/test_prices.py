"""What the table of junctions charges, and what it leaves to CMOS."""

import pytest

from bnn.cost.energy.ledger import Event, Ledger
from bnn.cost.energy.prices import HOROWITZ_45NM
from hwsim.devices import junctions
from hwsim.prices import PUBLISHED, Periphery, junction_prices, read_energy_J

JUNCTION = junctions.consistent()
FREE = Periphery(read_J=0.0, write_J=0.0, source="none")


def test_energy_of_a_read():
    # 0.05 V, 1 ns, 3.98 and 7.88 kΩ (TMR 100 % less 1 % at this voltage)
    assert read_energy_J(JUNCTION) == pytest.approx(2.5e-3 * 1e-9 * (1 / 3978.9 + 1 / 7918.4), rel=1e-3)


def test_what_is_done_on_junctions():
    table = junction_prices(JUNCTION, write_J=1e-13, reads_first=True, cmos=HOROWITZ_45NM, periphery=FREE)
    assert table.price_J(Event("multiply-accumulate", (2, 2, 8), "fc", "forward")) == read_energy_J(JUNCTION)
    assert table.price_J(Event("write", (2,), "fc", "update")) == 1e-13
    assert table.price_J(Event("read", (2,), "fc", "update")) == read_energy_J(JUNCTION)
    blind = junction_prices(JUNCTION, write_J=1e-13, reads_first=False, cmos=HOROWITZ_45NM, periphery=FREE)
    assert blind.price_J(Event("read", (2,), "fc", "update")) == 0


@pytest.mark.parametrize(
    "event",
    [
        Event("multiply-accumulate", (2, 32, 32), "conv", "forward"),
        Event("multiply-accumulate", (2, 32, 32), "fc", "backward"),
        Event("read", (2,), "fc", "forward"),
        Event("write", (32,), "norm", "update"),
    ],
)
def test_everything_else_keeps_its_price(event):
    table = junction_prices(JUNCTION, write_J=1e-13, reads_first=True, cmos=HOROWITZ_45NM)
    assert table.price_J(event) == HOROWITZ_45NM.price_J(event)


def test_the_published_periphery_is_added():
    bare, whole = (
        junction_prices(JUNCTION, write_J=1e-13, reads_first=True, cmos=HOROWITZ_45NM, periphery=periphery)
        for periphery in (FREE, PUBLISHED)
    )
    ledger = Ledger()
    ledger.counts[Event("multiply-accumulate", (2, 2, 8), "fc", "forward")] = 1000
    assert ledger.energy_J(whole) - ledger.energy_J(bare) == pytest.approx(54.6e-12, rel=1e-3, abs=0)
    assert whole.price_J(Event("write", (2,), "fc", "update")) == pytest.approx(1e-13 + 333e-15, rel=1e-3, abs=0)


def test_the_table_says_what_it_is():
    table = junction_prices(JUNCTION, write_J=1e-13, reads_first=True, cmos=HOROWITZ_45NM)
    assert HOROWITZ_45NM.name in table.name
    assert "1912.12636" in table.source
    assert HOROWITZ_45NM.source in table.source
    assert "chosen" in table.caveat
