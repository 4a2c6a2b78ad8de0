"""Prices of a network on junctions: reads and writes of the cells, and what surrounds them, beside CMOS.

The physics gives the energies of the junctions. What drives and senses them is priced by a published figure or a number
of one's own; everything that is not done on junctions, such as the first layer's real inputs, keeps a CMOS table's
price.
"""

from dataclasses import dataclass

from bnn.cost.energy.ledger import Event, PriceTable
from hwsim.devices.base import DeviceModel
from hwsim.store import READ_VOLTAGE_V, READ_WIDTH_S

_CELL_BITS = 2


@dataclass(frozen=True, kw_only=True)
class Periphery:
    """Joules that drivers, converters and control take.

    Args:
        read_J: for one cell in one product.
        write_J: for one cell in one update.
        source: where the figures are from.
    """

    read_J: float
    write_J: float
    source: str


PUBLISHED = Periphery(
    read_J=1 / 18.3e12,
    write_J=1 / 3e12,
    source="abstract of arXiv 1912.12636: 18.3 TOPs/W in the forward pass and 3 TOPs/W in the update, whole circuit",
)


def read_energy_J(device: DeviceModel) -> float:
    """Energy of the junctions of a cell of -1 or +1 that is read with an input that is not 0: V² t (G_P + G_AP)."""
    conductance_S = sum(1 / float(device.resistance_ohm(state, voltage_V=READ_VOLTAGE_V)) for state in (False, True))
    return READ_VOLTAGE_V**2 * READ_WIDTH_S * conductance_S


def junction_prices(
    device: DeviceModel, *, write_J: float, reads_first: bool, cmos: PriceTable, periphery: Periphery = PUBLISHED
) -> PriceTable:
    """A table for networks whose ternary weights are cells.

    A forward product of two operands of at most two bits is a read of a cell, and a weight that is written is a pulsed
    cell, which takes no move to or from memory; a read before it is one more. Everything else keeps its price, backward
    products with it, whose gradients are floats: `array_energy` prices a step whose gradients go through the cells.

    Args:
        device: the nominal junction.
        write_J: mean energy of the junctions in one update of one cell, as a `DeviceMeter` measures it.
        reads_first: whether a cell is read before it is written.
        cmos: prices of everything else.
        periphery: of the cells.
    """
    read_J = read_energy_J(device) + periphery.read_J

    def price_J(event: Event) -> float:
        if event.op == "multiply-accumulate":
            is_read = event.phase == "forward" and event.bits[1] <= _CELL_BITS
            return read_J if is_read else cmos.price_J(event)
        if event.phase == "update" and event.bits == (_CELL_BITS,):
            before_J = read_J if reads_first else 0.0
            return write_J + periphery.write_J if event.op == "write" else before_J
        return cmos.price_J(event)

    return PriceTable(
        name=f"junctions beside {cmos.name}",
        source=f"{cmos.source}; junctions: {type(device).__name__} of hwsim; periphery: {periphery.source}",
        caveat=(
            f"reads of {READ_VOLTAGE_V:g} V and {READ_WIDTH_S:g} s are chosen; the periphery's figure is that of the"
            f" source's whole circuit, junctions included, so these are counted twice; else {cmos.caveat}"
        ),
        price_J=price_J,
    )
