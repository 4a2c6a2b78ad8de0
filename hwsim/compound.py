"""Weights of more than three levels: cells of several filaments that form and break at random."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bnn.weights import ProgrammableStore
from hwsim.devices.filament import Filament, filament
from hwsim.pulses import ENERGY_UNIT_J


class CompoundStore(ProgrammableStore):
    """Weights of M + 1 levels from -1 to 1: of M filaments in parallel as many are formed, less a constant current.

    A change is one pulse on the whole cell, which any of its filaments in the other state may follow: so a weight may
    go through several levels at once, and near an end few filaments are left to go on. The cell is read before, and a
    step of s levels with d filaments left gets a pulse of s/d mean times: linear in s, no table, and right on average
    for small steps. The part of s that the law leaves out is 1 - d(1 - e^(-s/d))/s.

    Source: J. Bill and R. Legenstein, Front. Neurosci. 8, 412 (2014), for synapses of several stochastic memristors.

    Args:
        shape: [out, in] of a linear layer or [out, in / groups, kh, kw] of a convolution.
        filaments: M, from 1 to 16.
        device: one filament.
        voltage_V: size of a pulse.
    """

    planes: Tensor
    counts: Tensor

    def __init__(
        self, shape: Sequence[int], *, filaments: int = 4, device: Filament | None = None, voltage_V: float = 1.0
    ) -> None:
        super().__init__(shape)
        if not 1 <= filaments <= 16:
            raise ValueError(f"a cell has 1 to 16 filaments, got {filaments}")
        if not 0 < voltage_V < float("inf"):
            raise ValueError(f"the voltage of a pulse is a finite number above 0, got {voltage_V:g}")
        self.device = device or filament()
        self.voltage_V = voltage_V
        self.filaments = filaments
        self.spacing = 2 / filaments
        self.levels = tuple(-1 + self.spacing * k for k in range(filaments + 1))
        self.storage_bits = self.training_bits = filaments
        # Plane j tells which cells' filament j is formed: uint8 [M, out, ceil(columns / 8)].
        self.register_buffer("planes", self._empty_planes(filaments))
        self.register_buffer("counts", torch.zeros(4, dtype=torch.int64))
        self.initialize()

    def value(self) -> Tensor:
        """See `ProgrammableStore`; float even where the levels are -1 and +1."""
        return (self._formed().sum(dim=0) * self.spacing - 1).view(self.shape).to(self.weight.dtype)

    def program(self, delta: Tensor, generator: torch.Generator) -> None:
        """See `ProgrammableStore`; how near a change comes is told above."""
        changes = self._rows_of(delta)
        device, mean_s = self.device, float(self.device.mean_time_s(voltage_V=self.voltage_V))
        pulses = switches = units = 0
        for rows in self._chunks():
            formed = self._formed(rows) > 0
            steps = changes[rows] / self.spacing
            follows = formed == (steps < 0)  # what a pulse can switch
            width_s = mean_s * steps.abs() / follows.sum(dim=0).clamp_min(1)
            width_s = torch.where(follows.any(dim=0), width_s, 0.0)
            uniform = torch.empty(formed.shape, device=formed.device).uniform_(generator=generator)
            p = -torch.expm1(-width_s / mean_s)
            switched = follows & (uniform < p)
            self._keep(rows, formed ^ switched)
            pulses += int((width_s > 0).sum())
            switches += int(switched.sum())
            conductance_S = 1 / torch.as_tensor(device.resistance_ohm(~formed, voltage_V=self.voltage_V))
            joules = self.voltage_V**2 * (width_s * conductance_S).sum(dtype=torch.float64)
            units += int((joules / ENERGY_UNIT_J).round())
        self.counts += torch.tensor([1, pulses, switches, units], device=self.counts.device)

    @property
    def totals(self) -> dict[str, float]:
        """`writes`, `pulses` on cells, `switches` of filaments, and `write_energy_J` by the states before pulses."""
        writes, pulses, switches, units = self.counts.tolist()
        return {"writes": writes, "pulses": pulses, "switches": switches, "write_energy_J": units * ENERGY_UNIT_J}

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Forms each filament with probability a half."""
        for rows in self._chunks():
            like = torch.empty(
                (self.filaments, self.planes[0, rows].shape[0], self._columns), device=self.planes.device
            )
            self._keep(rows, like.uniform_(generator=generator) < 0.5)

    def extra_repr(self) -> str:  # noqa: D102
        return f"shape={self.shape}, filaments={self.filaments}"

    def _formed(self, rows: slice = slice(None)) -> Tensor:
        """1 for each filament that is formed, else 0: float32 [M, rows, columns]."""
        bits = [torch.ops.bnn.unpack(plane[rows], self._columns, torch.float32) for plane in self.planes]
        return torch.stack(bits).add_(1).mul_(0.5)

    def _keep(self, rows: slice, formed: Tensor) -> None:
        for plane, states in zip(self.planes, formed, strict=True):
            plane[rows] = torch.ops.bnn.pack(states)
