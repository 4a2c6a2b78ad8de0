"""The energy, time and area of a training step on tiles: cells, lines, converters and pulses, and what stays in CMOS.

Counts follow from shapes; joules from the device and from constants that each say where they are from.
"""

from collections import Counter
from dataclasses import dataclass
from math import ceil

from torch import nn

from bnn.cost.count import count_layers
from bnn.cost.energy.ledger import Event, Ledger, PriceTable
from bnn.cost.layer_count import LayerCount
from bnn.layers import BinaryLayer
from hwsim.devices.base import DeviceModel
from hwsim.store import READ_VOLTAGE_V, READ_WIDTH_S, DeviceStore
from hwsim.tiles import Tiles

PARTS = (
    "CMOS: forward products",
    "CMOS: gradients of inputs",
    "CMOS: gradients of weights",
    "CMOS: moves",
    "cells: reads",
    "lines",
    "converters",
    "cells: writes",
)
"""Of a step's energy, in the order in which figures show them."""


_MAX_BITS = 12
"""Of a converter whose width is not limited."""


@dataclass(frozen=True, kw_only=True)
class Circuit:
    """What surrounds the cells.

    Args:
        supply_V: all currents flow from here: what the junctions do not take heats drivers and access transistors.
        adc_J: energy of a conversion of 8 bits; half of it for each bit less, as a figure of merit by steps has it.
        adc_s: time of a conversion.
        adc_area_m2: of a converter; each tile has one for each direction, which its lines share.
        cell_area_m2: of a synapse, two junctions with their transistors.
        cell_pitch_m: length of a line from cell to cell.
        wire_F_per_m: capacitance of a line.
        source: where the figures are from.
    """

    supply_V: float
    adc_J: float
    adc_s: float
    adc_area_m2: float
    cell_area_m2: float
    cell_pitch_m: float
    wire_F_per_m: float
    source: str

    def conversion_J(self, bits: int) -> float:
        """Energy of a conversion; from a number of that many bits likewise, as a converter by steps contains one."""
        return self.adc_J * 2.0 ** (bits - 8)


PUBLISHED_CIRCUIT = Circuit(
    supply_V=0.9,
    adc_J=3.1e-3 / 1.2e9,
    adc_s=1 / 1.2e9,
    adc_area_m2=0.0015e-6,
    cell_area_m2=2 * 216e-9 * 225e-9,
    cell_pitch_m=225e-9,
    wire_F_per_m=0.2e-9,
    source=(
        "converter: Kull et al. 2013, JSSC 48, 3049: 3.1 mW, 8 bits, 1.2 GS/s, 0.0015 mm² in 32 nm; cell: Wei et al."
        " 2019, ISSCC, 22 nm: 216 nm x 225 nm for one junction with its transistor, 0.9 V; capacitance of a wire:"
        " 0.2 fF/µm, chosen"
    ),
)


@dataclass(frozen=True, kw_only=True)
class ArrayUse:
    """What one product of a batch asks of the tiles of one layer."""

    cells: int
    """Reads of a cell by one input."""
    drives: int
    """Lines that are driven."""
    conversions: int
    vectors: int
    """Products one after the other."""
    lines_a_tile: int
    """Converted one after the other."""

    def energy_J(
        self, device: DeviceModel, tiles: Tiles, circuit: Circuit, *, active: float, input_bits: int
    ) -> dict[str, float]:
        """Joules by the parts of `PARTS` that they belong to.

        Args:
            device: the nominal junction.
            tiles: tell the width of the converters.
            circuit: what surrounds the cells.
            active: mean size of the inputs, 0..1.
            input_bits: of what drives the lines; -1, 0 and +1 are switches.
        """
        bits = tiles.adc_bits or _MAX_BITS
        line_J = tiles.size * circuit.cell_pitch_m * circuit.wire_F_per_m * circuit.supply_V**2
        driver_J = 0.0 if input_bits <= 2 else circuit.conversion_J(input_bits)
        return {
            "cells: reads": self.cells * active * read_J(device, circuit),
            "lines": self.drives * line_J,
            "converters": self.conversions * circuit.conversion_J(bits) + self.drives * driver_J,
        }

    def seconds(self, circuit: Circuit) -> float:
        """Time of all vectors, one after the other; the tiles of a layer work at the same time."""
        return self.vectors * (READ_WIDTH_S + self.lines_a_tile * circuit.adc_s)


@dataclass(frozen=True, kw_only=True)
class StepEnergy:
    """One training step.

    Attributes:
        energy_J: by `PARTS`.
        array_s: time of the products on tiles, layer by layer.
        area_m2: of all tiles, with their converters.
    """

    energy_J: dict[str, float]
    array_s: float
    area_m2: float


def read_J(device: DeviceModel, circuit: Circuit) -> float:
    """Energy of one cell with an input of 1, from the supply."""
    conductance_S = sum(1 / float(device.resistance_ohm(state, voltage_V=READ_VOLTAGE_V)) for state in (False, True))
    return READ_VOLTAGE_V * circuit.supply_V * conductance_S * READ_WIDTH_S


def array_uses(layer: BinaryLayer, count: LayerCount, tiles: Tiles) -> tuple[ArrayUse, ArrayUse]:
    """What the forward and the transposed product of a layer ask of its tiles."""
    outputs, inputs = layer.store.shape[0], layer.store.size // layer.store.shape[0]
    taps = inputs // layer.store.shape[1]
    input_tiles = ceil(layer.store.shape[1] / max(1, tiles.size // taps))
    output_tiles = ceil(outputs / tiles.size)
    vectors = count.multiply_accumulates // count.weights
    cells = count.multiply_accumulates
    forward = ArrayUse(
        cells=cells,
        drives=vectors * inputs * output_tiles,
        conversions=vectors * outputs * input_tiles,
        vectors=vectors,
        lines_a_tile=min(outputs, tiles.size),
    )
    transposed = ArrayUse(
        cells=cells,
        drives=vectors * outputs * input_tiles,
        conversions=vectors * inputs * output_tiles,
        vectors=vectors,
        lines_a_tile=min(inputs, tiles.size),
    )
    return forward, transposed


def step_energy(
    model: nn.Module,
    ledger: Ledger,
    input_shape: tuple[int, ...],
    *,
    batch_size: int,
    prices: PriceTable,
    tiles: Tiles | None,
    backward: bool = True,
    write_J: float = 0.0,
    write_V: float = 0.6,
    reads_first: bool = True,
    active: float = 1.0,
    gradient_active: float = 1.0,
    circuit: Circuit = PUBLISHED_CIRCUIT,
) -> StepEnergy:
    """The energy of a training step, part by part.

    Args:
        model: with layers on `DeviceStore`.
        ledger: its step's, as of `bnn.cost.energy.count_step`.
        input_shape: of one example.
        batch_size: examples, as in the ledger.
        prices: of everything in CMOS.
        tiles: that products are made on; None leaves everything to CMOS.
        backward: whether the gradients of inputs are transposed products on the tiles, or stay in CMOS.
        write_J: energy of the junctions in one update of one cell, as a `DeviceMeter` measures it.
        write_V: voltage of its pulses, from which the supply's part follows.
        reads_first: whether each cell is read before it is written: as a sum of one cell, converted with 2 bits.
        active: mean size of the inputs of forward products, 0..1.
        gradient_active: likewise of transposed ones, relative to the largest gradient of an example.
        circuit: what surrounds the cells.
    """
    counts = {count.name: count for count in count_layers(model, input_shape, batch_size=batch_size)}
    on_tiles = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, BinaryLayer) and isinstance(module.store, DeviceStore) and name in counts
    }
    energy_J = dict.fromkeys(PARTS, 0.0)
    seconds = area_m2 = 0.0
    cmos = Counter(ledger.counts)
    gradients_of_inputs: Counter[Event] = Counter()
    for name, layer in on_tiles.items():
        count = counts[name]
        to_inputs = _gradient_of_inputs(ledger, count)
        gradients_of_inputs += to_inputs
        if tiles is None:
            continue
        store = layer.store
        assert isinstance(store, DeviceStore)
        forward, transposed = array_uses(layer, count, tiles)
        uses = [(forward, active, min(count.input_bits, tiles.dac_bits or _MAX_BITS))]
        _remove(cmos, name, "multiply-accumulate", "forward")
        _remove(cmos, name, "read", "forward", bits=count.weight_bits, elements=count.weights)
        if backward and count.needs_input_gradient:
            uses.append((transposed, gradient_active, tiles.dac_bits or _MAX_BITS))
            cmos -= to_inputs
            gradients_of_inputs -= to_inputs
            _remove(cmos, name, "read", "backward", bits=count.weight_bits, elements=count.weights)
        for use, mean_size, bits in uses:
            parts = use.energy_J(store.device, tiles, circuit, active=mean_size, input_bits=bits)
            for part, joules in parts.items():
                energy_J[part] += joules
            seconds += use.seconds(circuit)
        if reads_first:
            energy_J["cells: reads"] += store.size * read_J(store.device, circuit)
            energy_J["converters"] += store.size * circuit.conversion_J(2)
        energy_J["cells: writes"] += store.size * write_J * circuit.supply_V / write_V
        taps = store.size // store.shape[0] // store.shape[1]
        number = ceil(store.shape[1] / max(1, tiles.size // taps)) * ceil(store.shape[0] / tiles.size)
        area_m2 += number * (tiles.size**2 * circuit.cell_area_m2 + 2 * circuit.adc_area_m2)
    if tiles is not None:
        # The states of the weights lie in the cells: they move no more.
        widths = {counts[name].weight_bits for name in on_tiles}
        for event in [event for event in cmos if event.phase == "update" and event.bits[0] in widths]:
            del cmos[event]
    for part, events in Ledger(cmos).split(_part).items():
        energy_J[part] += events.energy_J(prices)
    moved_J = Ledger(gradients_of_inputs).energy_J(prices)
    energy_J["CMOS: gradients of inputs"] += moved_J
    energy_J["CMOS: gradients of weights"] -= moved_J
    return StepEnergy(energy_J=energy_J, array_s=seconds, area_m2=area_m2)


def _part(event: Event) -> str:
    """Backward products count as those of weights first: the others are told apart by their number."""
    if event.op != "multiply-accumulate":
        return "CMOS: moves"
    return "CMOS: forward products" if event.phase == "forward" else "CMOS: gradients of weights"


def _gradient_of_inputs(ledger: Ledger, count: LayerCount) -> Counter[Event]:
    """The products of a layer's transposed weight; none of the first layer."""
    if not count.needs_input_gradient:
        return Counter()
    low, high = sorted((count.weight_bits, count.gradient_bits))
    return Counter(
        {
            event: count.multiply_accumulates
            for event in ledger.counts
            if event.op == "multiply-accumulate"
            and (event.where, event.phase, event.bits[:2]) == (count.name, "backward", (low, high))
        }
    )


def _remove(
    counts: Counter[Event], name: str, op: str, phase: str, *, bits: int | None = None, elements: int | None = None
) -> None:
    """Takes events of a layer away: all of them, or so many elements of a width."""
    for event in list(counts):
        if (event.where, event.op, event.phase) == (name, op, phase) and bits in (None, event.bits[0]):
            counts[event] -= counts[event] if elements is None else elements
