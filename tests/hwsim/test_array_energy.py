"""Energy of a step on tiles: counts by hand, and nothing lost between CMOS and tiles."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnn.cost.count import count_layers
from bnn.cost.energy import JOUPPI_7NM_ON_CHIP, Ledger, count_step
from bnn.layers import BinaryConv2d, BinaryLinear
from bnn.optim import Adam
from bnn.optim.dst import DST
from bnn.quantizers import Ternary
from hwsim.array_energy import PARTS, PUBLISHED_CIRCUIT, array_uses, read_J, step_energy
from hwsim.devices import junctions
from hwsim.devices.butler import Butler
from hwsim.store import DeviceStore
from hwsim.tiles import Tiles

JUNCTION = junctions.consistent(model=Butler())
SHAPE = (3, 6, 6)
TILES = Tiles(size=20, adc_bits=6, dac_bits=8)


@pytest.fixture(scope="module")
def counted() -> tuple[nn.Module, Ledger]:
    store, ternary = partial(DeviceStore, device=JUNCTION), Ternary(threshold=0.5)
    model = nn.Sequential(
        BinaryConv2d(3, 5, 3, store=store, input_quantizer=None),
        nn.BatchNorm2d(5),
        nn.Flatten(),
        BinaryLinear(80, 30, store=store, input_quantizer=ternary),
    )
    optimizer = DST(Adam(model.parameters(), lr=1e-2))
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    F.cross_entropy(model(x), torch.tensor([0, 1])).backward()
    optimizer.step()
    return model, count_step(model, optimizer, SHAPE, batch_size=4)


def test_uses_are_counted_by_hand(counted):
    model, _ = counted
    conv, linear = (count for count in count_layers(model, SHAPE, batch_size=4) if count.weights)
    # Convolution: 9 taps, 2 channels on a tile, so 2 tiles for 3; 4 images of 4 x 4 places.
    forward, transposed = array_uses(model[0], conv, TILES)
    assert (forward.vectors, forward.cells) == (64, 64 * 27 * 5)
    assert (forward.drives, forward.conversions, forward.lines_a_tile) == (64 * 27, 64 * 5 * 2, 5)
    assert (transposed.drives, transposed.conversions, transposed.lines_a_tile) == (64 * 5 * 2, 64 * 27, 20)
    # 80 inputs on 4 tiles, 30 outputs on 2.
    forward, transposed = array_uses(model[3], linear, TILES)
    assert (forward.drives, forward.conversions) == (4 * 80 * 2, 4 * 30 * 4)
    assert (transposed.drives, transposed.conversions) == (4 * 30 * 4, 4 * 80 * 2)


def test_without_tiles_it_is_the_ledger_s_energy(counted):
    model, ledger = counted
    step = step_energy(model, ledger, SHAPE, batch_size=4, prices=JOUPPI_7NM_ON_CHIP, tiles=None)
    assert tuple(step.energy_J) == PARTS
    assert sum(step.energy_J.values()) == pytest.approx(ledger.energy_J(JOUPPI_7NM_ON_CHIP), rel=1e-12)
    # The gradient of the linear layer's input: 4 x 80 x 30 additions of floats.
    assert step.energy_J["CMOS: gradients of inputs"] == pytest.approx(9600 * 0.38e-12)
    assert step.array_s == step.area_m2 == 0


def test_tiles_take_over_what_they_do_and_nothing_else(counted):
    model, ledger = counted
    price = partial(step_energy, model, ledger, SHAPE, batch_size=4, prices=JOUPPI_7NM_ON_CHIP, write_J=1e-13)
    cmos, forward, both = price(tiles=None), price(tiles=TILES, backward=False), price(tiles=TILES)
    assert forward.energy_J["CMOS: forward products"] == both.energy_J["CMOS: forward products"] == 0
    assert forward.energy_J["CMOS: gradients of inputs"] == cmos.energy_J["CMOS: gradients of inputs"]
    assert both.energy_J["CMOS: gradients of inputs"] == pytest.approx(0, abs=1e-20)
    for step in (forward, both):
        assert step.energy_J["CMOS: gradients of weights"] == pytest.approx(cmos.energy_J["CMOS: gradients of weights"])
    cells = 135 + 2400
    assert both.energy_J["cells: writes"] == pytest.approx(cells * 1e-13 * 1.5)
    reads = 64 * 135 + 2 * 4 * 2400 + cells  # forward, forward and transposed, before writes
    assert both.energy_J["cells: reads"] == pytest.approx(reads * read_J(JUNCTION, PUBLISHED_CIRCUIT))
    blind = price(tiles=TILES, reads_first=False)
    assert blind.energy_J["cells: reads"] < both.energy_J["cells: reads"]
    assert blind.energy_J["converters"] < both.energy_J["converters"]
    assert both.energy_J["CMOS: moves"] < forward.energy_J["CMOS: moves"] < cmos.energy_J["CMOS: moves"]


def test_time_and_area(counted):
    model, ledger = counted
    step = step_energy(model, ledger, SHAPE, batch_size=4, prices=JOUPPI_7NM_ON_CHIP, tiles=TILES)
    conversion_s = 1 / 1.2e9
    # 64 vectors of the convolution forward, 4 of the linear layer both ways.
    assert step.array_s == pytest.approx(64 * (1e-9 + 5 * conversion_s) + 8 * (1e-9 + 20 * conversion_s))
    # 2 tiles of the convolution and 8 of the linear layer.
    assert step.area_m2 == pytest.approx(10 * (400 * 2 * 216e-9 * 225e-9 + 2 * 0.0015e-6))


def test_a_bit_less_halves_a_conversion():
    assert PUBLISHED_CIRCUIT.conversion_J(8) == pytest.approx(2.58e-12, rel=0.01)
    assert PUBLISHED_CIRCUIT.conversion_J(5) == pytest.approx(PUBLISHED_CIRCUIT.conversion_J(8) / 8)
