"""What a pulse on each junction of an array does, and what it costs; fast where the junctions are identical."""

from functools import lru_cache
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from hwsim import probability_tables
from hwsim.devices.base import DeviceModel
from hwsim.nonidealities import NonIdealities
from hwsim.write_schemes import WriteScheme

ENERGY_UNIT_J = 1e-17
"""Energies are added up in whole units: integers have the same sum in every order."""


class Outcome(NamedTuple):
    """What pulses did.

    Attributes:
        switched: bool, in the shape of the junctions.
        switches: their number.
        energy_units: of all pulses together, in whole multiples of `ENERGY_UNIT_J`.
    """

    switched: Tensor
    switches: int
    energy_units: int


class JunctionArray(Protocol):
    """The junctions of an array, which get their pulses some rows at a time."""

    def pulse(self, antiparallel: Tensor, source: Tensor, requested: Tensor, uniform: Tensor, rows: slice) -> Outcome:
        """Pulses some junctions once each.

        Args:
            antiparallel: bool [2, rows, columns], their states.
            source: bool, the same shape: the state that the pulse switches a junction from.
            requested: float32, the same shape: the probability that the pulse is made for; 0 means no pulse.
            uniform: float32, the same shape, in (0, 1]: decides whether and when a junction switches; 1 is never.
            rows: which ones they are.
        """
        ...


def uniform_pairs(shape: torch.Size, place: torch.device, generator: torch.Generator) -> Tensor:
    """Uniform numbers of 31 bits in (0, 1), two for each element of a shape: float32 [2, *shape]."""
    integers = torch.empty(shape, dtype=torch.int64, device=place).random_(generator=generator)
    pairs = integers.view(torch.int32).view(*shape, 2).bitwise_and_(2**31 - 1)
    # The half keeps events that are rarer than 2**-32 from happening, and the bound is the last float below 1.
    numbers = pairs.movedim(-1, 0).to(torch.float32, memory_format=torch.contiguous_format)
    return numbers.add_(0.5).mul_(2.0**-31).clamp_max_(1 - 2.0**-24)


class IdenticalJunctions:
    """Junctions that share their constants: everything comes from tables over the requested probability.

    The probability of switching is interpolated, unless it is just the requested one. Widths and times are those of
    the nearest point: energies are good to about 0.1 %, and their sums are better.

    Args:
        device: the nominal junction, for which pulses are made.
        scheme: makes the pulses.
        junction: the one that gets them.
        place: torch's device.
    """

    def __init__(self, device: DeviceModel, scheme: WriteScheme, junction: DeviceModel, place: torch.device) -> None:
        p = probability_tables.probabilities()
        switching, widths, final, excess = [], [], [], []
        for antiparallel in (False, True):
            voltage_V = scheme.write_voltage_V(device, antiparallel)
            actual = scheme.switch_probability(device, antiparallel, p, junction=junction)
            # What no number is below is 0: numbers of more digits than a float32 has would be slow.
            switching.append(torch.where(actual < 2.0**-33, 0.0, actual))
            width_s = scheme.width_s(device, antiparallel, p)
            # By the state in which it flows.
            power = [voltage_V**2 / _ohm(junction, state, voltage_V) / ENERGY_UNIT_J for state in (False, True)]
            time_s = junction.switching_time_s(antiparallel, voltage_V=voltage_V, probability=p.clamp_max(1 - 2**-24))
            # Of no use beyond the longest pulse, and infinite where a junction never switches.
            time_s = time_s.clamp_max(width_s[-1])
            widths.append(width_s)
            final += [width_s * in_state for in_state in power]
            excess.append(time_s * (power[antiparallel] - power[not antiparallel]))
        self._probability, self.widths_s = (torch.cat(tables).float().to(place) for tables in (switching, widths))
        # Energy in the state after the pulse, all through it: by the source and that state. And what it is more until
        # a junction that switches has done so: by the source, over the random number.
        self._final_units, self._excess_units = (
            torch.cat(tables).round().int().to(place) for tables in (final, excess)
        )
        most = torch.tensor(scheme.full_pulse_probability, dtype=torch.float64)
        exact = all(torch.allclose(table, torch.minimum(p, most), rtol=1e-9, atol=2.0**-32) for table in switching)
        self._exact_to = scheme.full_pulse_probability if exact else None

    def pulse(self, antiparallel: Tensor, source: Tensor, requested: Tensor, uniform: Tensor, rows: slice) -> Outcome:
        """See `JunctionArray`."""
        switched = (uniform < self._switch_probability(source, requested)) & (antiparallel == source)
        after = antiparallel ^ switched
        units = probability_tables.nearest(self._final_units, requested, source.int().mul_(2).add_(after.int()))
        which = switched.reshape(-1).nonzero()[:, 0]
        until_switched = probability_tables.nearest(
            self._excess_units, uniform.reshape(-1)[which], source.reshape(-1)[which].int()
        )
        return Outcome(switched, len(which), int(units.sum()) + int(until_switched.sum()))

    def _switch_probability(self, source: Tensor, requested: Tensor) -> Tensor:
        if self._exact_to is not None:
            return requested.clamp_max(self._exact_to)
        return probability_tables.interpolated(self._probability, requested, source.int())


@lru_cache(maxsize=8)
def identical_junctions(
    device: DeviceModel, scheme: WriteScheme, temperature_K: float | None, place: torch.device
) -> IdenticalJunctions:
    """Junctions like the nominal one, but for the temperature; made once for all the layers of a network."""
    return IdenticalJunctions(device, scheme, NonIdealities(temperature_K=temperature_K).junction(device), place)


class VaryingJunctions:
    """Junctions that differ: each one's time of switching is computed, from its own constants.

    Args:
        device: the nominal junction, for which pulses are made.
        scheme: makes the pulses.
        array: the device with constants for each junction, tensors of [2, out, columns].
        place: torch's device.
    """

    def __init__(self, device: DeviceModel, scheme: WriteScheme, array: DeviceModel, place: torch.device) -> None:
        self._widths_s = identical_junctions(device, scheme, None, place).widths_s
        self._array = array
        self._voltage_V = torch.tensor([scheme.write_voltage_V(device, state) for state in (False, True)], device=place)

    def pulse(self, antiparallel: Tensor, source: Tensor, requested: Tensor, uniform: Tensor, rows: slice) -> Outcome:
        """See `JunctionArray`."""
        array = self._array.map_constants(lambda constant: constant[:, rows])
        voltage_V = self._voltage_V.index_select(0, source.flatten().int()).view(source.shape)
        width_s = probability_tables.nearest(self._widths_s, requested, source.int())
        which = ((antiparallel == source) & (requested > 0)).flatten().nonzero()[:, 0]

        def pulsed(x: Tensor) -> Tensor:
            return x.flatten().index_select(0, which)

        time_s = array.map_constants(pulsed).switching_time_s(
            pulsed(antiparallel), voltage_V=pulsed(voltage_V), probability=pulsed(uniform)
        )
        longest_s = pulsed(width_s)
        old_state_s = width_s.flatten().index_copy(0, which, torch.minimum(time_s, longest_s)).view(width_s.shape)
        switched = torch.zeros_like(antiparallel)
        switched.view(-1).index_copy_(0, which, time_s < longest_s)
        before, after = (
            1 / torch.as_tensor(array.resistance_ohm(state, voltage_V=voltage_V))
            for state in (antiparallel, antiparallel ^ switched)
        )
        energy_J = (old_state_s * before + (width_s - old_state_s) * after) * voltage_V**2
        units = (energy_J / ENERGY_UNIT_J).round().to(torch.int64)
        return Outcome(switched, int(switched.sum()), int(units.sum()))


def _ohm(device: DeviceModel, antiparallel: bool, voltage_V: float) -> float:
    return float(device.resistance_ohm(antiparallel, voltage_V=voltage_V))
