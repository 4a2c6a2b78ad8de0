"""`DeviceStore`: simulated junctions in the place of a network's discrete weights; the one adapter to `bnn`."""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from bnn.errors import NonFiniteError
from bnn.weights import ProgrammableStore
from hwsim.devices import junctions
from hwsim.devices.base import DeviceModel
from hwsim.nonidealities import NonIdealities, mapped
from hwsim.pulses import ENERGY_UNIT_J, Array, VariedJunctions, alike, uniform_pairs
from hwsim.synapse import asked, out_of
from hwsim.write_schemes import PreDistorted, WriteScheme

READ_VOLTAGE_V = 0.05
"""Across a junction; chosen, a quarter of what makes the default junction's parallel state unstable."""
READ_WIDTH_S = 1e-9
"""Of a read pulse; chosen."""

# Cells that are worked on at a time: the transients fit into the cache.
_CHUNK_CELLS = 1 << 16
_TALLY = ("writes", "pulses", "switches", "energy_units")


class DeviceStore(ProgrammableStore):
    """Ternary weights as pairs of simulated junctions, see `hwsim.synapse`.

    It takes the place of `DiscreteStore`: same levels, same start, same optimizer. A change becomes a pulse on one or
    both junctions of a cell, which switch at random as the device says. The states take two bits a weight at every
    time, a bit plane for each junction. Random numbers have 31 bits and depend on the generator alone; the bits are the
    same for every number of threads.

    Args:
        shape: [out, in] of a linear layer or [out, in / groups, kh, kw] of a convolution.
        device: the nominal junction, for which the pulses are made; by default `junctions.consistent`.
        scheme: makes pulses; by default `PreDistorted` with the cell read first, which does just what is asked.
        nonidealities: what junctions do besides; by default nothing.
    """

    planes: Tensor
    tally: Tensor
    variation_seed: Tensor
    cycles: Tensor | None
    spacing = 1.0
    storage_bits = training_bits = 2

    def __init__(
        self,
        shape: Sequence[int],
        *,
        device: DeviceModel | None = None,
        scheme: WriteScheme | None = None,
        nonidealities: NonIdealities | None = None,
    ) -> None:
        super().__init__(shape)
        self.device = device or _default_device()
        self.scheme = scheme or PreDistorted(read_first=True)
        self.nonidealities = nonidealities or NonIdealities()
        # Where conductances vary, so do the weights that are read.
        self.levels = () if self.nonidealities.varies_in_conductance else (-1.0, 0.0, 1.0)
        self._columns = math.prod(self.shape[1:])
        packed = torch.ops.bnn.pack(torch.zeros((self.shape[0], self._columns), dtype=torch.bool))
        # Plane j tells which cells' junction j is antiparallel: uint8 [2, out, ceil(columns / 8)].
        self.register_buffer("planes", torch.stack([packed] * 2))
        # Since the start, see `totals`. Integers, so that neither the order of a sum nor a change of the module's
        # dtype touches them.
        self.register_buffer("tally", torch.zeros(len(_TALLY), dtype=torch.int64))
        self.register_buffer("variation_seed", torch.zeros((), dtype=torch.int64))
        counted = self.nonidealities.endurance_cycles is not None
        cycles = torch.zeros((2, self.shape[0], self._columns), dtype=torch.int32) if counted else None
        self.register_buffer("cycles", cycles)
        self._forget()
        self.initialize()

    def value(self) -> Tensor:
        """The weights as they are read: (G1 - G2) / (G_P - G_AP) of the conductances at the read voltage.

        Those of the nominal junction make -1, 0 and +1; where resistances vary, the weights vary, too.
        """
        dtype = self.weight.dtype
        if self.planes.is_meta or not self.nonidealities.varies_in_conductance:
            first, second = (torch.ops.bnn.unpack(plane, self._columns, torch.float32) for plane in self.planes)
            weights: Tensor = second.sub_(first).mul_(0.5).view(self.shape).to(dtype)
            return weights
        first, second = self.conductances_S()
        parallel_S, antiparallel_S = self.nominal_conductances_S
        analog: Tensor = ((first - second) / (parallel_S - antiparallel_S)).view(self.shape).to(dtype)
        return analog

    def conductances_S(self) -> Tensor:
        """Of every junction at the read voltage: float32 [2, out, columns]."""
        resistance_ohm = self._junctions().resistance_ohm(self.antiparallel(), voltage_V=READ_VOLTAGE_V)
        return torch.as_tensor(resistance_ohm).reciprocal()

    @property
    def nominal_conductances_S(self) -> tuple[float, float]:
        """G_P and G_AP of the nominal junction at the read voltage."""
        # In the arithmetic of `conductances_S`, so that a difference is the same to the last bit.
        states = torch.tensor([False, True], device=self.planes.device)
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
        # A sum is finite only if every element is.
        if not delta.sum(dtype=torch.float64).isfinite():
            raise NonFiniteError("cannot program a change that is not finite: lower the learning rate")
        self._wait(generator)
        changes = delta.reshape(self.shape[0], self._columns)
        array, error = self._pulsed(), self.nonidealities.write_error
        pulses = switches = energy_units = 0
        for rows in self._chunks():
            steps, before = changes[rows], self.antiparallel(rows)
            wanted = asked(before, steps, read_first=self.scheme.read_first)
            chances = self._chances(rows, steps, generator)
            if error:
                chances = torch.where(chances < 1 - error, chances / (1 - error), 1.0)
            outcome = array.pulse(before, out_of(steps), wanted, chances, rows)
            self._flip(rows, before, outcome.switched)
            pulses += int(wanted.sign().sum())
            switches += outcome.switches
            energy_units += outcome.energy_units
        self.tally += torch.tensor([1, pulses, switches, energy_units], device=self.tally.device)

    def expose(self, *, voltage_V: float, seconds: float, generator: torch.Generator) -> None:
        """Leaves every junction at a voltage for a time: 0 V is storage, the read voltage a number of reads.

        Args:
            voltage_V: positive drives from parallel to antiparallel.
            seconds: 0 or more.
            generator: of the randomness, on the weight's device.
        """
        for rows in self._chunks():
            before = self.antiparallel(rows)
            p = self._junctions(rows).switch_probability(before, voltage_V=voltage_V, pulse_width_s=seconds)
            self._flip(rows, before, self._chances(rows, before[0], generator) < p)

    @property
    def totals(self) -> dict[str, float]:
        """What has happened since the start.

        Returns:
            `writes`, calls of `program`; `pulses`, on single junctions; `switches`, of them by pulses; and
            `write_energy_J`, of the pulses, from the resistances before and after the moment of switching.
        """
        writes, pulses, switches, units = self.tally.tolist()
        return {"writes": writes, "pulses": pulses, "switches": switches, "write_energy_J": units * ENERGY_UNIT_J}

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Draws the weights that a ternary `DiscreteStore` draws, and the seed of what varies; 0 begins as 0_w."""
        for rows in self._chunks():
            shape = (self.planes[0, rows].shape[0], self._columns)
            numbers = torch.empty(shape, device=self.planes.device).uniform_(0, 2, generator=generator).round_()
            self._keep(rows, torch.stack([numbers < 2, numbers > 0]))
        if self.nonidealities.varies or self.nonidealities.faults:
            self.variation_seed.random_(generator=generator)
        self._forget()
        if self.nonidealities.faults and not self.planes.is_meta:
            parallel, antiparallel, shorted = self._faults()
            self._keep(slice(None), (self.antiparallel() | antiparallel) & ~(parallel | shorted))

    def extra_repr(self) -> str:  # noqa: D102
        return f"shape={self.shape}, scheme={self.scheme}"

    # --- the junctions, made from the seed when they are first needed -----------------------------------------------

    def _forget(self) -> None:
        self._made: dict[str, Any] = {}

    def _junctions(self, rows: slice = slice(None)) -> DeviceModel:
        """The device of some rows' junctions, with constants that vary as [2, rows, columns]."""
        if "junctions" not in self._made:
            flaws, shape = self.nonidealities, (2, self.shape[0], self._columns)
            device = flaws.array(self.device, shape, self._seed()) if flaws.varies else flaws.junction(self.device)
            self._made["junctions"] = mapped(device, lambda constant: constant.to(self.planes.device))
        return mapped(self._made["junctions"], lambda constant: constant[:, rows])

    def _pulsed(self) -> Array:
        if "pulsed" not in self._made:
            nominal, place = (self.device, self.scheme), self.planes.device
            self._made["pulsed"] = (
                VariedJunctions(*nominal, self._junctions(), place)
                if self.nonidealities.varies
                else alike(*nominal, self.nonidealities.temperature_K, place)
            )
        array: Array = self._made["pulsed"]
        return array

    def _stuck(self) -> Tensor | None:
        """Which junctions never switch, bool [2, out, columns]; None if there is no such fault."""
        if not self.nonidealities.faults:
            return None
        if "stuck" not in self._made:
            self._made["stuck"] = self._faults().any(dim=0)
        stuck: Tensor = self._made["stuck"]
        return stuck

    def _faults(self) -> Tensor:
        shape = (2, self.shape[0], self._columns)
        return self.nonidealities.stuck(shape, self._seed()).to(self.planes.device)

    def _seed(self) -> int:
        return int(self.variation_seed)

    # --- rows ------------------------------------------------------------------------------------------------------

    def _wait(self, generator: torch.Generator) -> None:
        """What happens to the junctions between two writes."""
        flaws = self.nonidealities
        if flaws.idle_s:
            self.expose(voltage_V=0.0, seconds=flaws.idle_s, generator=generator)
        if flaws.reads_per_write:
            for voltage_V in (READ_VOLTAGE_V, -READ_VOLTAGE_V):
                seconds = flaws.reads_per_write / 2 * READ_WIDTH_S
                self.expose(voltage_V=voltage_V, seconds=seconds, generator=generator)

    def _chances(self, rows: slice, like: Tensor, generator: torch.Generator) -> Tensor:
        """For each junction a number in (0, 1) that decides whether and when it switches; 1 where it cannot."""
        chances = uniform_pairs(like.shape, like.device, generator)
        stuck = self._stuck()
        if stuck is not None:
            chances.masked_fill_(stuck[:, rows], 1.0)
        most = self.nonidealities.endurance_cycles
        if self.cycles is not None and most is not None:
            chances.masked_fill_(self.cycles[:, rows] >= most, 1.0)
        return chances

    def _flip(self, rows: slice, before: Tensor, switched: Tensor) -> None:
        self._keep(rows, before ^ switched)
        if self.cycles is not None:
            self.cycles[:, rows] += switched

    def _keep(self, rows: slice, antiparallel: Tensor) -> None:
        """Writes states, bool [2, rows, columns]."""
        for plane, states in zip(self.planes, antiparallel, strict=True):
            plane[rows] = torch.ops.bnn.pack(states)

    def _chunks(self) -> Iterator[slice]:
        rows_each = max(1, _CHUNK_CELLS // max(1, self._columns))
        return (slice(start, start + rows_each) for start in range(0, self.shape[0], rows_each))

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._forget()

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._forget()
        return super()._apply(fn, recurse)


@cache
def _default_device() -> DeviceModel:
    with torch.device("cpu"):
        return junctions.consistent()
