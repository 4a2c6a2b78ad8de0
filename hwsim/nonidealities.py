"""Non-idealities: device-to-device variation, faults, temperature, write errors, read disturb, retention, endurance.

Everything that differs from junction to junction is a function of a seed and of the junction's index in the array, so
that nothing of it has to be stored.
"""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from bnn.random.hashing import random_integers
from hwsim.devices.base import DeviceModel

# The constant of the device that a spread multiplies. The n-th one takes the n-th stream of random numbers.
_SPREADS = {
    "resistance_spread": "parallel_resistance_ohm",
    "barrier_spread": "energy_barrier_J",
    "critical_current_spread": "critical_current_A",
    "tmr_spread": "tmr",
}
_FAULTS = ("stuck_parallel", "stuck_antiparallel", "shorted")
_STREAM_OF_FAULTS = len(_SPREADS)
# Of a short; a constant is above 0.
_NO_TMR = 1e-9


@dataclass(frozen=True, kw_only=True)
class NonIdealities:
    """Numbers that are 0 or None where the junctions are ideal, which is the default.

    Args:
        resistance_spread: variation of both resistances alike, from junction to junction; as every spread the standard
            deviation of the logarithm, which is a relative one where it is small.
        barrier_spread: of the energy barrier, and so of Δ.
        critical_current_spread: of Ic0.
        tmr_spread: of the magnetoresistance.
        temperature_K: of the array, where it is not that for which the pulses are made.
        stuck_parallel: fraction of junctions that stay parallel.
        stuck_antiparallel: fraction of junctions that stay antiparallel.
        shorted: fraction of junctions whose barrier has broken down: a small resistance, for good.
        short_resistance_ohm: of those; a tenth of the default junction's, chosen.
        write_error: probability that a pulse does not arrive.
        idle_s: time that passes without voltage before each write; junctions may fall out of their state.
        reads_per_write: read pulses that each cell sees before each write, half of them of each sign; they may
            disturb it.
        endurance_cycles: switches after which a junction is worn out and stays as it is. Their counts take 32 bits
            a junction.

    Raises:
        ValueError: a value is out of its range.
    """

    resistance_spread: float = 0.0
    barrier_spread: float = 0.0
    critical_current_spread: float = 0.0
    tmr_spread: float = 0.0
    temperature_K: float | None = None
    stuck_parallel: float = 0.0
    stuck_antiparallel: float = 0.0
    shorted: float = 0.0
    short_resistance_ohm: float = 400.0
    write_error: float = 0.0
    idle_s: float = 0.0
    reads_per_write: float = 0.0
    endurance_cycles: int | None = None

    def __post_init__(self) -> None:
        for number in fields(self):
            value = getattr(self, number.name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{number.name} is a finite number of 0 or more, got {value}")
        for name in ("short_resistance_ohm", "temperature_K", "endurance_cycles"):
            if getattr(self, name) == 0:
                raise ValueError(f"{name} is above 0, got 0")
        if not self.faults <= 1 or not self.write_error <= 1:
            raise ValueError(
                f"fractions are at most 1, got {self.faults:g} of faults together and a write error of"
                f" {self.write_error:g}"
            )

    @classmethod
    def uniform(cls, *, spread: float = 0.0, stuck: float = 0.0, temperature_K: float | None = None) -> "NonIdealities":
        """A few numbers in the place of many.

        Args:
            spread: of resistance, magnetoresistance, barrier and critical current each.
            stuck: fraction of junctions that never switch; half of them parallel, half antiparallel.
            temperature_K: of the array, where it is not that for which the pulses are made.

        Raises:
            ValueError: a value is out of its range.
        """
        return cls(
            resistance_spread=spread,
            barrier_spread=spread,
            critical_current_spread=spread,
            tmr_spread=spread,
            stuck_parallel=stuck / 2,
            stuck_antiparallel=stuck / 2,
            temperature_K=temperature_K,
        )

    @property
    def faults(self) -> float:
        """Fraction of junctions that never switch."""
        return self.stuck_parallel + self.stuck_antiparallel + self.shorted

    @property
    def varies(self) -> bool:
        """Whether junctions differ in their constants."""
        return self.shorted > 0 or any(getattr(self, name) for name in _SPREADS)

    @property
    def varies_in_conductance(self) -> bool:
        """Whether what is read differs between junctions in the same state."""
        return any((self.resistance_spread, self.tmr_spread, self.shorted))

    def junction(self, device: DeviceModel) -> DeviceModel:
        """The nominal junction, at the temperature of the array.

        Raises:
            ValueError: the device has no temperature; a table was measured at its own.
        """
        return device if self.temperature_K is None else device.with_constants(temperature_K=self.temperature_K)

    def array(self, device: DeviceModel, shape: tuple[int, ...], seed: int) -> DeviceModel:
        """A device with constants for each junction of an array.

        Args:
            device: the nominal junction.
            shape: of the array.
            seed: of the spread and the faults.

        Returns:
            The device, with float32 tensors of the shape for those constants that differ.

        Raises:
            ValueError: the device does not have a constant that varies.
        """
        junction = self.junction(device)
        constants: dict[str, Tensor] = {}
        for stream, (spread, name) in enumerate(_SPREADS.items()):
            if sigma := getattr(self, spread):
                factor = torch.exp(sigma * torch.special.ndtri(_uniform(shape, seed, stream)))
                constants[name] = (factor * junction.constant(name)).float()
        if self.shorted:
            shorted = self.stuck(shape, seed)[2]
            for name, value in (("parallel_resistance_ohm", self.short_resistance_ohm), ("tmr", _NO_TMR)):
                intact = constants.get(name, torch.full(shape, float(junction.constant(name))))
                constants[name] = torch.where(shorted, value, intact)
        return junction.with_constants(**constants)

    def stuck(self, shape: tuple[int, ...], seed: int) -> Tensor:
        """Which junctions are stuck parallel, stuck antiparallel and shorted, at most one of these each.

        Returns:
            bool [3, *shape].
        """
        bounds = torch.tensor([getattr(self, name) for name in _FAULTS], dtype=torch.float64).cumsum(dim=0)
        kind = torch.bucketize(_uniform(shape, seed, _STREAM_OF_FAULTS), bounds, right=True)
        return torch.stack([kind == k for k in range(len(_FAULTS))])


def _uniform(shape: tuple[int, ...], seed: int, stream: int) -> Tensor:
    """Numbers in (0, 1), float64, by the index in the array."""
    indices = torch.arange(math.prod(shape))
    return ((random_integers(indices, seed, stream) >> 10).double() + 0.5).div_(2**53).view(shape)
