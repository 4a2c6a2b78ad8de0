"""Stores of junctions under each write scheme, and how to look at them."""

from functools import partial

import torch

from hwsim.devices import junctions
from hwsim.devices.butler import Butler
from hwsim.devices.measured import MeasuredDevice
from hwsim.devices.measured_table import MeasuredTable
from hwsim.nonidealities import NonIdealities
from hwsim.store import DeviceStore
from hwsim.write_schemes import AmplitudeCoded, LinearPulse, Pedestal, PreDistorted

JUNCTION = junctions.consistent(model=Butler())
SCHEMES = {
    "linear": LinearPulse(),
    "pedestal": Pedestal(),
    "gated-pedestal": Pedestal(gate=0.35),
    "paper": LinearPulse(one_voltage=True, gain=3.0, offset_probability=0.01),
    "amplitude": AmplitudeCoded(overdrive=8.0),
    "pre-distorted": PreDistorted(),
    "read-first": PreDistorted(read_first=True),
}
# P rises with the width to 1 at 1 ns: a switch, whose full pulse is certain.
_TABLE = MeasuredTable(torch.tensor([1.0]), torch.tensor([1e-9]), torch.tensor([[1.0]]))
SWITCH = MeasuredDevice(
    to_antiparallel=_TABLE, to_parallel=_TABLE, parallel_resistance_ohm=1e3, antiparallel_resistance_ohm=2e3
)
IDEAL = partial(
    DeviceStore, device=SWITCH, scheme=PreDistorted(voltage_V=(1.0, -1.0), full_pulse_probability=1.0, read_first=True)
)  # fmt: skip


def make(shape=(30, 50), *, scheme="read-first", seed: int = 0, **nonidealities) -> DeviceStore:
    store = DeviceStore(shape, device=JUNCTION, scheme=SCHEMES[scheme], nonidealities=NonIdealities(**nonidealities))
    store.initialize(torch.Generator().manual_seed(seed))
    return store


def codes(store: DeviceStore) -> torch.Tensor:
    first, second = store.antiparallel().long()
    return first + 2 * second


def at(store: DeviceStore, code: int) -> DeviceStore:
    """Puts every cell into a state."""
    shape = (2, store.shape[0], store._columns)
    store._set_states(slice(None), torch.tensor([code & 1, code >> 1]).bool()[:, None, None].expand(shape))
    return store


def program(store, delta: float | torch.Tensor, seed: int = 1):
    change = delta if isinstance(delta, torch.Tensor) else torch.full(store.shape, delta)
    store.program(change, torch.Generator().manual_seed(seed))
    return store
