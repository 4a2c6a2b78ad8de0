"""Non-idealities: device-to-device variation, faults, temperature, noise and errors of writing, disturb, endurance.

Everything that differs from junction to junction is a function of a seed and of the junction's index in the array, so
that nothing of it has to be stored.
"""

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from bnn.random.hashing import random_integers
from hwsim.devices.base import DeviceModel
from hwsim.devices.values import Real

# The stream of random numbers of each spread, and the constants that it multiplies, with their powers.
_SPREADS: dict[str, tuple[int, dict[str, int]]] = {
    "resistance_spread": (0, {"parallel_resistance_ohm": 1}),
    "barrier_spread": (1, {"energy_barrier_J": 1}),
    "critical_current_spread": (2, {"critical_current_A": 1}),
    "tmr_spread": (3, {"tmr": 1}),
    "area_spread": (5, {"parallel_resistance_ohm": -1, "energy_barrier_J": 1, "critical_current_A": 1}),
    "anisotropy_spread": (6, {"energy_barrier_J": 1, "critical_current_A": 1, "anisotropy_field_T": 1}),
    "critical_current_ratio_spread": (7, {"critical_current_ratio": 1}),
}
_FAULTS = ("stuck_parallel", "stuck_antiparallel", "shorted")
_STREAM_OF_FAULTS = 4
_STREAM_OF_STRAY_FIELD = 8
# The sources of variation on a wafer, and the constants that follow from them, drawn each on its own.
_SOURCES = ("area_spread", "resistance_spread", "anisotropy_spread", "tmr_spread")
_CONSTANTS = ("resistance_spread", "barrier_spread", "critical_current_spread", "tmr_spread")
# Of a short; a constant is above 0.
_NO_TMR = 1e-9


@dataclass(frozen=True, kw_only=True)
class NonIdealities:
    """Numbers that are 0 or None where the junctions are ideal, which is the default.

    A spread is the standard deviation of the logarithm, from junction to junction, which is a relative one where it is
    small. Of a wafer's sources of variation each moves several constants together: the area by 1/R, E_b and Ic0, so
    that the overdrive at a voltage stays; the resistance-area product by R alone; the anisotropy field by E_b, Ic0 and
    the pace. Spreads of E_b and Ic0 on their own are a worst case that no wafer shows.

    Args:
        resistance_spread: of both resistances alike, as by the resistance-area product.
        barrier_spread: of the energy barrier, and so of Δ, on its own.
        critical_current_spread: of Ic0 in both directions alike, on its own.
        tmr_spread: of the magnetoresistance.
        area_spread: of the junction's area.
        anisotropy_spread: of the anisotropy field.
        critical_current_ratio_spread: of Ic0 out of antiparallel over that out of parallel.
        stray_field_T: axial field of the other layers beyond that which the pulses are made for, see `MTJ`.
        stray_field_spread_T: its standard deviation from junction to junction.
        temperature_K: of the array, where it is not that for which the pulses are made, see `MTJ.at_temperature`.
        stuck_parallel: fraction of junctions that stay parallel.
        stuck_antiparallel: fraction of junctions that stay antiparallel.
        shorted: fraction of junctions whose barrier has broken down: a small resistance, for good.
        short_resistance_ohm: of those; a tenth of the default junction's, chosen.
        write_error: probability that a pulse does not arrive.
        clock_s: period of the clock that makes the widths, which are the nearest multiples of it; a full pulse is
            rounded up.
        amplitude_noise: relative standard deviation of a pulse's voltage, from pulse to pulse.
        jitter_s: standard deviation of a pulse's width, from pulse to pulse.
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
    area_spread: float = 0.0
    anisotropy_spread: float = 0.0
    critical_current_ratio_spread: float = 0.0
    stray_field_T: float = 0.0
    stray_field_spread_T: float = 0.0
    temperature_K: float | None = None
    stuck_parallel: float = 0.0
    stuck_antiparallel: float = 0.0
    shorted: float = 0.0
    short_resistance_ohm: float = 400.0
    write_error: float = 0.0
    clock_s: float = 0.0
    amplitude_noise: float = 0.0
    jitter_s: float = 0.0
    idle_s: float = 0.0
    reads_per_write: float = 0.0
    endurance_cycles: int | None = None

    def __post_init__(self) -> None:
        for number in fields(self):
            value = getattr(self, number.name)
            lowest = -math.inf if number.name == "stray_field_T" else 0
            if value is not None and not (math.isfinite(value) and value >= lowest):
                if lowest:
                    raise ValueError(f"{number.name} is a finite number, got {value}")
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
    def uniform(
        cls, *, spread: float = 0.0, stuck: float = 0.0, correlated: bool = False, **others: Any
    ) -> "NonIdealities":
        """A few numbers in the place of many.

        Args:
            spread: of resistance, magnetoresistance, barrier and critical current each, drawn independently: a worst
                case.
            stuck: fraction of junctions that never switch; half of them parallel, half antiparallel.
            correlated: the spread is that of area, resistance-area product, anisotropy field and magnetoresistance.
            others: fields by their names, which come before the few; None gives no value.

        Raises:
            ValueError: a value is out of its range.
        """
        few = dict.fromkeys(_SOURCES if correlated else _CONSTANTS, spread)
        few |= {"stuck_parallel": stuck / 2, "stuck_antiparallel": stuck / 2}
        return cls(**few | {name: value for name, value in others.items() if value is not None})

    @property
    def faults(self) -> float:
        """Fraction of junctions that never switch."""
        return self.stuck_parallel + self.stuck_antiparallel + self.shorted

    @property
    def varies(self) -> bool:
        """Whether junctions differ in their constants."""
        return any((self.shorted, self.stray_field_spread_T, *(getattr(self, name) for name in _SPREADS)))

    @property
    def varies_in_conductance(self) -> bool:
        """Whether what is read differs between junctions in the same state."""
        return any((self.resistance_spread, self.area_spread, self.tmr_spread, self.shorted))

    @property
    def noisy(self) -> bool:
        """Whether pulses that are alike arrive differently."""
        return any((self.amplitude_noise, self.jitter_s))

    def junction(self, device: DeviceModel) -> DeviceModel:
        """The nominal junction, at the temperature and in the field of the array.

        Raises:
            ValueError: the device has no temperature, as a table was measured at its own, or no stray field.
        """
        if self.temperature_K is not None:
            device = device.at_temperature(self.temperature_K)
        if self.stray_field_T:
            device = device.with_constants(stray_field_T=device.constant("stray_field_T") + self.stray_field_T)
        return device

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
        for spread, (stream, powers) in _SPREADS.items():
            if sigma := getattr(self, spread):
                normal = _normal(shape, seed, stream)
                for name, power in powers.items():
                    value = constants.get(name, _constant(junction, name, spread))
                    constants[name] = torch.exp(power * sigma * normal) * value
        if sigma := self.stray_field_spread_T:
            normal = _normal(shape, seed, _STREAM_OF_STRAY_FIELD)
            constants["stray_field_T"] = sigma * normal + _constant(junction, "stray_field_T", "stray_field_spread_T")
        constants = {name: value.float() for name, value in constants.items()}
        if self.shorted:
            shorted = self.stuck(shape, seed)[2]
            for name, value in (("parallel_resistance_ohm", self.short_resistance_ohm), ("tmr", _NO_TMR)):
                intact = constants.get(name, torch.full(shape, float(junction.constant(name))))
                constants[name] = torch.where(shorted, value, intact)
        return junction.with_constants(**constants)

    def on_clock(self, width_s: Tensor, full_s: float) -> Tensor:
        """Widths as the clock makes them.

        Args:
            width_s: of the pulses, as they are wanted.
            full_s: of a full one, which is rounded up.

        Raises:
            ValueError: the clock is so slow that nothing but full pulses is left.
        """
        if not self.clock_s:
            return width_s
        if self.clock_s > full_s:
            raise ValueError(
                f"clock_s is a part of a full pulse, whose width is {full_s:.3g} s here, got {self.clock_s:g}"
            )
        most = math.ceil(full_s / self.clock_s)
        ticks = torch.where(width_s < full_s, (width_s / self.clock_s).round(), most)
        return ticks * self.clock_s

    def with_noise(self, voltage_V: Real, width_s: Tensor, generator: torch.Generator) -> tuple[Real, Tensor]:
        """Voltages and widths of pulses as they arrive, in the shape of the widths or as they were."""
        if self.amplitude_noise:
            noise = torch.randn(width_s.shape, generator=generator, device=width_s.device)
            voltage_V = voltage_V * (1 + self.amplitude_noise * noise)
        if self.jitter_s:
            noise = torch.randn(width_s.shape, generator=generator, device=width_s.device)
            width_s = (width_s + self.jitter_s * noise).clamp_min(0)
        return voltage_V, width_s

    def stuck(self, shape: tuple[int, ...], seed: int) -> Tensor:
        """Which junctions are stuck parallel, stuck antiparallel and shorted, at most one of these each.

        Returns:
            bool [3, *shape].
        """
        bounds = torch.tensor([getattr(self, name) for name in _FAULTS], dtype=torch.float64).cumsum(dim=0)
        kind = torch.bucketize(_uniform(shape, seed, _STREAM_OF_FAULTS), bounds, right=True)
        return torch.stack([kind == k for k in range(len(_FAULTS))])


def _constant(junction: DeviceModel, name: str, spread: str) -> Any:
    try:
        return junction.constant(name)
    except ValueError as error:
        raise ValueError(f"{spread} cannot be had: {error}") from None


def _normal(shape: tuple[int, ...], seed: int, stream: int) -> Tensor:
    """Normal numbers, float64, by the index in the array."""
    normal: Tensor = torch.special.ndtri(_uniform(shape, seed, stream))
    return normal


def _uniform(shape: tuple[int, ...], seed: int, stream: int) -> Tensor:
    """Numbers in (0, 1), float64, by the index in the array."""
    indices = torch.arange(math.prod(shape))
    return ((random_integers(indices, seed, stream) >> 10).double() + 0.5).div_(2**53).view(shape)
