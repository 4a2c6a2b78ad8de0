"""When a junction pays: the energy of a training step in CMOS, and with its products on tiles, under price tables."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F

from bnn.cost.energy import PRICE_TABLES, PriceTable, count_step
from bnn.models import gxnor_cnn, gxnor_vgg
from bnn.optim import Adam
from bnn.optim.dst import DST
from hwsim.array_energy import PARTS, PUBLISHED_CIRCUIT, Circuit, step_energy
from hwsim.devices.base import DeviceModel
from hwsim.store import DeviceStore
from hwsim.studies.tables import Table
from hwsim.tiles import Tiles

NetworkName = Literal["mnist", "cifar10"]
VARIANTS = ("all in CMOS", "forward on tiles", "forward and backward on tiles")
"""Where products are made; gradients of weights are CMOS's everywhere."""

_SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32)}


def energy(
    network: NetworkName,
    device: DeviceModel,
    tiles: Tiles,
    *,
    batch_size: int = 100,
    write_J: float,
    write_V: float = 0.6,
    reads_first: bool = True,
    tables: Sequence[PriceTable] = PRICE_TABLES,
    circuit: Circuit = PUBLISHED_CIRCUIT,
) -> Table:
    """Joules of one step of GXNOR's network for a data set, by part, for each price table and each of `VARIANTS`.

    Args:
        network: the data set.
        device: the nominal junction.
        tiles: what products are made on.
        batch_size: examples of a step.
        write_J: of the junctions of a cell in one update, on average.
        write_V: voltage of its pulses.
        reads_first: whether cells are read before they are written.
        tables: prices of what stays in CMOS.
        circuit: what surrounds the cells.

    Returns:
        `prices`, `products`, a column in joules for each of `PARTS`, `total_J`, `array_s` and `array_m2`.
    """
    shape = _SHAPES[network]
    build = gxnor_cnn if network == "mnist" else gxnor_vgg
    # The ideal twin moves as many bits, and is stepped sooner; a step gives the optimizer its state.
    twin = build(input_shape=shape)
    optimizer = DST(Adam(twin.parameters(), lr=1e-2))
    x = torch.randn((2, *shape), generator=torch.Generator().manual_seed(0))
    F.cross_entropy(twin(x), torch.tensor([0, 1])).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    ledger = count_step(twin, optimizer, shape, batch_size=batch_size)
    model = build(input_shape=shape, store=partial(DeviceStore, device=device))
    table: dict[str, list[object]] = {
        name: [] for name in ("prices", "products", *(f"{part}, J" for part in PARTS), "total_J", "array_s", "array_m2")
    }
    for prices in tables:
        for variant in VARIANTS:
            step = step_energy(
                model,
                ledger,
                shape,
                batch_size=batch_size,
                prices=prices,
                tiles=None if variant == VARIANTS[0] else tiles,
                backward=variant == VARIANTS[2],
                write_J=write_J,
                write_V=write_V,
                reads_first=reads_first,
                circuit=circuit,
            )
            row = [
                prices.name,
                variant,
                *step.energy_J.values(),
                sum(step.energy_J.values()),
                step.array_s,
                step.area_m2,
            ]
            for column, value in zip(table.values(), row, strict=True):
                column.append(value)
    return table
