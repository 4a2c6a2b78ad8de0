"""`DeviceStore`: simulated junctions in the place of a network's discrete weights; the one adapter to `bnn`."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from bnn.ops.cpu import instruction_set
from bnn.ops.geometry import Window
from bnn.weights import ProgrammableStore
from hwsim.array_product import CellArray, array_product
from hwsim.devices import junctions
from hwsim.devices.base import DeviceModel
from hwsim.nonidealities import NonIdealities
from hwsim.pulses import ENERGY_UNIT_J, random_integers, uniform_pairs
from hwsim.sampled import SampledJunctions
from hwsim.synapse import requested_probabilities, source_states
from hwsim.tiles import Tiles
from hwsim.write_scheme import WriteScheme
from hwsim.write_schemes import PreDistorted

READ_VOLTAGE_V = 0.05
"""Across a junction; chosen, a quarter of what makes the default junction's parallel state unstable."""
READ_WIDTH_S = 1e-9
"""Of a read pulse; chosen."""

_BITS_OF_STATES = 2
_BITS_OF_CYCLES = 2 * 32


class DeviceStore(ProgrammableStore):
    """Ternary weights as pairs of simulated junctions, see `hwsim.synapse`.

    It takes the place of `DiscreteStore`: same levels, same start, same optimizer. A change becomes a pulse on one or
    both junctions of a cell, which switch at random as the device says. The states take two bits a weight at every
    time, a bit plane for each junction. Random numbers have 31 bits and depend on the generator alone; the bits are the
    same for every number of threads.

    Where resistances vary from junction to junction, what is read is real and `levels` is empty.

    Args:
        shape: [out, in] of a linear layer or [out, in / groups, kh, kw] of a convolution.
        device: the nominal junction, for which the pulses are made; by default `junctions.consistent`.
        scheme: makes pulses; by default `PreDistorted` with the cell read first, which does just what is requested.
        nonidealities: of the junctions; by default none.
        tiles: arrays that the products are made on, forward and transposed; None multiplies by the weights as numbers.
    """

    planes: Tensor
    counts: Tensor
    variation_seed: Tensor
    cycles: Tensor | None
    spacing = 1.0
    storage_bits = _BITS_OF_STATES
    chunk_elements = 1 << 16

    def __init__(
        self,
        shape: Sequence[int],
        *,
        device: DeviceModel | None = None,
        scheme: WriteScheme | None = None,
        nonidealities: NonIdealities | None = None,
        tiles: Tiles | None = None,
    ) -> None:
        super().__init__(shape)
        self.device = device or _default_device()
        self.scheme = scheme or PreDistorted(read_first=True)
        self.nonidealities = nonidealities or NonIdealities()
        self.tiles = tiles
        if tiles is not None:
            tiles.require_drivable(READ_VOLTAGE_V * sum(self.nominal_conductances_S))
        if not self.nonidealities.varies_in_conductance:
            self.levels = (-1.0, 0.0, 1.0)
        # Plane j tells which cells' junction j is antiparallel: uint8 [2, out, ceil(columns / 8)].
        self.register_buffer("planes", self._empty_planes(2))
        # Since the start, see `totals`. Integers, so that neither the order of a sum nor a change of the module's
        # dtype touches them.
        self.register_buffer("counts", torch.zeros(4, dtype=torch.int64))
        self.register_buffer("variation_seed", torch.zeros((), dtype=torch.int64))
        counted = self.nonidealities.endurance_cycles is not None
        cycles = torch.zeros((2, self.shape[0], self._columns), dtype=torch.int32) if counted else None
        self.register_buffer("cycles", cycles)
        self.training_bits = _BITS_OF_STATES + (_BITS_OF_CYCLES if counted else 0)
        self._sampled: SampledJunctions | None = None
        self.initialize()

    def value(self) -> Tensor:
        """The weights as they are read: (G1 - G2) / (G_P - G_AP) of the conductances at the read voltage.

        Those of the nominal junction make -1, 0 and +1; where resistances vary, the weights vary, too.
        """
        dtype = self.weight.dtype
        if self.planes.is_meta or self.levels:
            first, second = (torch.ops.bnn.unpack(plane, self._columns, torch.float32) for plane in self.planes)
            weights: Tensor = second.sub_(first).mul_(0.5).view(self.shape).to(dtype)
            return weights
        first, second = self.conductances_S()
        parallel_S, antiparallel_S = self.nominal_conductances_S
        analog: Tensor = ((first - second) / (parallel_S - antiparallel_S)).view(self.shape).to(dtype)
        return analog

    def sign_planes(self) -> tuple[Tensor, ...]:
        """See `WeightStore`."""
        if not self.levels:
            return super().sign_planes()
        first, second = self.planes
        return second & ~first, first & ~second

    def conductances_S(self) -> Tensor:
        """Of every junction at the read voltage: float32 [2, out, columns]."""
        resistance_ohm = self._junctions().device.resistance_ohm(self.antiparallel(), voltage_V=READ_VOLTAGE_V)
        return torch.as_tensor(resistance_ohm).reciprocal()

    def product(self, x: Tensor, window: Window | None) -> Tensor | None:
        """The product on `tiles`, see `WeightStore`; the noise is another one after each write."""
        if self.tiles is None or self.planes.is_meta:
            return None
        parallel_S, antiparallel_S = self.nominal_conductances_S
        array = CellArray(
            conductances_S=self.conductances_S().view(2, *self.shape, *[1] * (4 - len(self.shape))),
            unit_S=parallel_S - antiparallel_S,
            tiles=self.tiles,
            read_V=READ_VOLTAGE_V,
            read_s=READ_WIDTH_S,
            seed=int(self.variation_seed),
            time=int(self.counts[0]),
        )
        return array_product(x, self.weight, array, window)

    @property
    def nominal_conductances_S(self) -> tuple[float, float]:
        """G_P and G_AP of the nominal junction at the read voltage."""
        # In the arithmetic of `conductances_S`, so that a difference is the same to the last bit.
        states = torch.tensor([False, True])
        resistance_ohm = torch.as_tensor(self.device.resistance_ohm(states, voltage_V=READ_VOLTAGE_V))
        parallel_S, antiparallel_S = resistance_ohm.reciprocal().tolist()
        return parallel_S, antiparallel_S

    def antiparallel(self, rows: slice = slice(None)) -> Tensor:
        """Which junctions are antiparallel: bool [2, rows, columns]."""
        return torch.stack(
            [torch.ops.bnn.unpack(plane[rows], self._columns, torch.float32) > 0 for plane in self.planes]
        )

    def program(self, delta: Tensor, generator: torch.Generator) -> None:
        """Pulses the cells' junctions so as to move every weight by `delta`, see `ProgrammableStore`.

        How well that does depends on the scheme, the device and the non-idealities.
        """
        changes = self._rows_of(delta)
        self._wait(generator)
        if self._writes_natively:
            self._write(changes, generator)
            return
        array, error = self._junctions().pulsed, self.nonidealities.write_error
        pulses = switches = energy_units = 0
        for rows in self._chunks():
            steps, before = changes[rows], self.antiparallel(rows)
            requested = self.scheme.gated(requested_probabilities(before, steps, read_first=self.scheme.read_first))
            uniform = self._uniform_numbers(rows, steps, generator)
            if error:
                uniform = torch.where(uniform < 1 - error, uniform / (1 - error), 1.0)
            outcome = array.pulse(before, source_states(steps), requested, uniform, rows, generator=generator)
            self._switch(rows, before, outcome.switched)
            pulses += int(requested.sign().sum())
            switches += outcome.switches
            energy_units += outcome.energy_units
        self.counts += torch.tensor([1, pulses, switches, energy_units], device=self.counts.device)

    @property
    def _writes_natively(self) -> bool:
        """Whether the kernel has all of what happens in a write."""
        fails = self.nonidealities.faults or self.nonidealities.write_error or self.cycles is not None
        native = instruction_set() != "reference" and self.planes.device.type == "cpu"
        return native and not fails and self._junctions().identical is not None

    def _write(self, changes: Tensor, generator: torch.Generator) -> None:
        """Pulses by the kernel."""
        array = self._junctions().identical
        assert array is not None
        changes = changes.float().contiguous()
        for rows in self._chunks():
            integers = random_integers(changes[rows].shape, changes.device, generator)
            self.counts[1:] += torch.tensor(array.write(self.planes[:, rows], changes[rows], integers))
        self.counts[0] += 1

    def expose(self, *, voltage_V: float, seconds: float, generator: torch.Generator) -> None:
        """Leaves every junction at a voltage for a time: 0 V is storage, the read voltage a number of reads.

        Args:
            voltage_V: positive drives from parallel to antiparallel.
            seconds: 0 or more.
            generator: of the randomness, on the weight's device.
        """
        for rows in self._chunks():
            before = self.antiparallel(rows)
            device = self._junctions().rows(rows)
            p = device.switch_probability(before, voltage_V=voltage_V, pulse_width_s=seconds)
            self._switch(rows, before, self._uniform_numbers(rows, before[0], generator) < p)

    @property
    def totals(self) -> dict[str, float]:
        """What has happened since the start.

        Returns:
            `writes`, calls of `program`; `pulses`, on single junctions; `switches`, of them by pulses; and
            `write_energy_J`, of the pulses, from the resistances before and after the moment of switching.
        """
        writes, pulses, switches, units = self.counts.tolist()
        return {"writes": writes, "pulses": pulses, "switches": switches, "write_energy_J": units * ENERGY_UNIT_J}

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Draws the weights that a ternary `DiscreteStore` draws, and the seed of what varies; 0 begins as 0_w."""
        for rows in self._chunks():
            shape = (self.planes[0, rows].shape[0], self._columns)
            numbers = torch.empty(shape, device=self.planes.device).uniform_(0, 2, generator=generator).round_()
            self._set_states(rows, torch.stack([numbers < 2, numbers > 0]))
        if self.nonidealities.varies or self.nonidealities.faults or (self.tiles is not None and self.tiles.is_random):
            self.variation_seed.random_(generator=generator)
        self._sampled = None
        if self.nonidealities.faults and not self.planes.is_meta:
            parallel, antiparallel, shorted = self._junctions().faults()
            self._set_states(slice(None), (self.antiparallel() | antiparallel) & ~(parallel | shorted))

    def extra_repr(self) -> str:  # noqa: D102
        return f"shape={self.shape}, scheme={self.scheme}"

    def _junctions(self) -> SampledJunctions:
        if self._sampled is None:
            self._sampled = SampledJunctions(
                self.device,
                self.scheme,
                self.nonidealities,
                shape=(self.shape[0], self._columns),
                seed=int(self.variation_seed),
                place=self.planes.device,
            )
        return self._sampled

    def _wait(self, generator: torch.Generator) -> None:
        """What happens to the junctions between two writes: storage, and reads of both signs."""
        nonidealities = self.nonidealities
        if nonidealities.idle_s:
            self.expose(voltage_V=0.0, seconds=nonidealities.idle_s, generator=generator)
        if nonidealities.reads_per_write:
            for voltage_V in (READ_VOLTAGE_V, -READ_VOLTAGE_V):
                seconds = nonidealities.reads_per_write / 2 * READ_WIDTH_S
                self.expose(voltage_V=voltage_V, seconds=seconds, generator=generator)

    def _uniform_numbers(self, rows: slice, like: Tensor, generator: torch.Generator) -> Tensor:
        """For each junction a number in (0, 1) that decides whether and when it switches; 1 where it cannot."""
        uniform = uniform_pairs(like.shape, like.device, generator)
        faulty, most = self._junctions().faulty, self.nonidealities.endurance_cycles
        if faulty is not None:
            uniform.masked_fill_(faulty[:, rows], 1.0)
        if self.cycles is not None and most is not None:
            uniform.masked_fill_(self.cycles[:, rows] >= most, 1.0)
        return uniform

    def _switch(self, rows: slice, before: Tensor, switched: Tensor) -> None:
        self._set_states(rows, before ^ switched)
        if self.cycles is not None:
            self.cycles[:, rows] += switched

    def _set_states(self, rows: slice, antiparallel: Tensor) -> None:
        """Writes states, bool [2, rows, columns]."""
        for plane, states in zip(self.planes, antiparallel, strict=True):
            plane[rows] = torch.ops.bnn.pack(states)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._sampled = None

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._sampled = None
        return super()._apply(fn, recurse)


@cache
def _default_device() -> DeviceModel:
    with torch.device("cpu"):
        return junctions.consistent()
