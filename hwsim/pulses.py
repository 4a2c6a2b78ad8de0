"""What a pulse on each junction of an array does, and what it costs; fast where the junctions are identical."""

from functools import lru_cache
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from bnn.ops.cpu import native
from hwsim import probability_tables
from hwsim.devices.base import DeviceModel
from hwsim.devices.values import State
from hwsim.nonidealities import NonIdealities
from hwsim.synapse import requested_probabilities, source_states
from hwsim.write_scheme import WriteScheme

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

    def pulse(
        self,
        antiparallel: Tensor,
        source: Tensor,
        requested: Tensor,
        uniform: Tensor,
        rows: slice,
        *,
        generator: torch.Generator,
    ) -> Outcome:
        """Pulses some junctions once each.

        Args:
            antiparallel: bool [2, rows, columns], their states.
            source: bool, the same shape: the state that the pulse switches a junction from.
            requested: float32, the same shape: the probability that the pulse is made for; 0 means no pulse.
            uniform: float32, the same shape, in (0, 1]: decides whether and when a junction switches; 1 is never.
            rows: which ones they are.
            generator: of the noise of the pulses, if there is any.
        """
        ...


def random_integers(shape: torch.Size, place: torch.device, generator: torch.Generator) -> Tensor:
    """What `uniform_of` makes numbers of: int64 in the shape."""
    return torch.empty(shape, dtype=torch.int64, device=place).random_(generator=generator)


def uniform_pairs(shape: torch.Size, place: torch.device, generator: torch.Generator) -> Tensor:
    """Uniform numbers of 31 bits in (0, 1), two for each element of a shape: float32 [2, *shape]."""
    return uniform_of(random_integers(shape, place, generator))


def uniform_of(integers: Tensor) -> Tensor:
    """Two uniform numbers in (0, 1) for each random integer, of 31 of its bits each: float32 [2, ...]."""
    pairs = integers.view(torch.int32).view(*integers.shape, 2).bitwise_and(2**31 - 1)
    # The half keeps events that are rarer than 2**-32 from happening, and the bound is the last float below 1.
    numbers = pairs.movedim(-1, 0).to(torch.float32, memory_format=torch.contiguous_format)
    return numbers.add_(0.5).mul_(2.0**-31).clamp_max_(1 - 2.0**-24)


class IdenticalJunctions:
    """Junctions that share their constants, and get pulses without noise: everything comes from tables over the
    requested probability.

    The probability of switching is interpolated, unless it is just the requested one. Widths, voltages and times are
    those of the nearest point: energies are good to about 0.1 %, and their sums are better.

    Args:
        device: the nominal junction, for which pulses are made.
        scheme: makes the pulses.
        nonidealities: of the junctions, and of the clock that makes the pulses.
        place: torch's device.
    """

    def __init__(
        self, device: DeviceModel, scheme: WriteScheme, nonidealities: NonIdealities, place: torch.device
    ) -> None:
        self._junction = junction = nonidealities.junction(device)
        self._scheme = scheme
        p = probability_tables.probabilities()
        switching, final, excess, longest_s = [], [], [], []
        for antiparallel in (False, True):
            voltage_V = torch.as_tensor(scheme.voltages_V(device, antiparallel, p)).double().expand_as(p)
            width_s = _widths_s(device, scheme, nonidealities, antiparallel)
            actual = junction.switch_probability(antiparallel, voltage_V=voltage_V, pulse_width_s=width_s)
            # What no number is below is 0: numbers of more digits than a float32 has would be slow.
            switching.append(torch.where(actual < 2.0**-33, 0.0, actual))
            # By the state in which it flows.
            power = [_power_units_per_s(junction, state, voltage_V) for state in (False, True)]
            final += [width_s * in_state for in_state in power]
            longest_s.append(float(width_s[-1]))
            if not scheme.codes_amplitude:
                time_s = junction.switching_time_s(
                    antiparallel, voltage_V=voltage_V, probability=p.clamp_max(1 - 2**-24)
                )
                # Of no use beyond the longest pulse, and infinite where a junction never switches.
                excess.append(time_s.clamp_max(width_s[-1]) * (power[antiparallel] - power[not antiparallel]))
        self._probability = torch.cat(switching).float().to(place)
        # Energy in the state after the pulse, all through it: by the source and that state. And what it is more until
        # a junction that switches has done so: by the source, over the random number, where voltages are alike.
        self._final_units = torch.cat(final).round().int().to(place)
        self._excess_units = torch.cat(excess).round().int().to(place) if excess else None
        self._voltages_V = pulse_tables(device, scheme, nonidealities, place)[0]
        self._longest_s = torch.tensor(longest_s, device=place)
        most = torch.tensor(scheme.full_pulse_probability, dtype=torch.float64)
        exact = all(torch.allclose(table, torch.minimum(p, most), rtol=1e-9, atol=2.0**-32) for table in switching)
        self._exact_to = scheme.full_pulse_probability if exact else None

    def write(self, planes: Tensor, steps: Tensor, integers: Tensor) -> tuple[int, int, int]:
        """Pulses the pairs of junctions of cells as the scheme does it for steps of their weights, natively.

        What it does is what `requested_probabilities`, the scheme's gate and `pulse` do with `uniform_of`, to the bit.

        Args:
            planes: packed [2, rows, bytes], the antiparallel junctions; changed in place. In memory each plane is
                contiguous.
            steps: float32 [rows, columns], contiguous.
            integers: int64 [rows, columns], of `random_integers`.

        Returns:
            Pulses, switches and energy in units.
        """
        by_number = self._excess_units is None
        before = planes.clone() if by_number else planes
        counts = torch.zeros(3, dtype=torch.int64)
        native.call(
            *("pulse_pairs", planes[0], planes[1], steps, integers, *steps.shape),
            0 if self._exact_to is not None else self._probability,
            self._final_units,
            0 if self._excess_units is None else self._excess_units,
            *(self._exact_to or 1.0, self._scheme.gate, self._scheme.read_first, counts),
        )
        pulses, switches, units = counts.tolist()
        if by_number and switches:
            units += self._excess_of_cells(before, planes, steps, integers)
        return pulses, switches, units

    def pulse(
        self,
        antiparallel: Tensor,
        source: Tensor,
        requested: Tensor,
        uniform: Tensor,
        rows: slice,
        *,
        generator: torch.Generator,
    ) -> Outcome:
        """See `JunctionArray`."""
        switched = (uniform < self._switch_probability(source, requested)) & (antiparallel == source)
        after = antiparallel ^ switched
        units = probability_tables.nearest(self._final_units, requested, source.int().mul_(2).add_(after.int()))
        which = switched.reshape(-1).nonzero()[:, 0]
        more = self._excess(*(x.reshape(-1)[which] for x in (source, requested, uniform)))
        return Outcome(switched, len(which), int(units.sum()) + more)

    def _switch_probability(self, source: Tensor, requested: Tensor) -> Tensor:
        if self._exact_to is not None:
            return requested.clamp_max(self._exact_to)
        return probability_tables.interpolated(self._probability, requested, source.int())

    def _excess(self, source: Tensor, requested: Tensor, uniform: Tensor) -> int:
        """What junctions that switch take more until they have done so than they would in their state after it."""
        if self._excess_units is not None:
            return int(probability_tables.nearest(self._excess_units, uniform, source.int()).sum())
        voltage_V = self._voltages_V[probability_tables.nearest_entries(requested, source.int())]
        time_s = self._junction.switching_time_s(source, voltage_V=voltage_V, probability=uniform)
        time_s = torch.minimum(time_s, self._longest_s[source.int()])
        more = _power_units_per_s(self._junction, source, voltage_V) - _power_units_per_s(
            self._junction, ~source, voltage_V
        )
        return int((time_s * more).round().to(torch.int64).sum())

    def _excess_of_cells(self, before: Tensor, after: Tensor, steps: Tensor, integers: Tensor) -> int:
        """`_excess` of the junctions whose bits differ."""
        plane, row, byte = (before ^ after).nonzero(as_tuple=True)
        place, bit = ((before ^ after)[plane, row, byte, None] >> torch.arange(8) & 1).nonzero(as_tuple=True)
        plane, row, byte = plane[place], row[place], byte[place]
        cells = row * steps.shape[1] + 8 * byte + bit
        some = steps.flatten()[cells]
        states = (before[:, row, byte] >> bit & 1).bool()
        requested = self._scheme.gated(requested_probabilities(states, some, read_first=self._scheme.read_first))
        uniform, source = uniform_of(integers.flatten()[cells]), source_states(some)
        pick = (plane, torch.arange(len(cells)))
        return self._excess(source[pick], requested[pick], uniform[pick])


@lru_cache(maxsize=8)
def identical_junctions(
    device: DeviceModel, scheme: WriteScheme, nonidealities: NonIdealities, place: torch.device
) -> IdenticalJunctions:
    """Junctions like the nominal one, but for what befalls all alike; made once for all the layers of a network."""
    return IdenticalJunctions(device, scheme, nonidealities, place)


class VaryingJunctions:
    """Junctions that differ, or whose pulses do: each one's time of switching is computed, from its own constants.

    Args:
        device: the nominal junction, for which pulses are made.
        scheme: makes the pulses.
        nonidealities: of the pulses; those of the junctions are in the array.
        array: the device with constants for each junction, tensors of [2, out, columns].
        place: torch's device.
    """

    def __init__(
        self,
        device: DeviceModel,
        scheme: WriteScheme,
        nonidealities: NonIdealities,
        array: DeviceModel,
        place: torch.device,
    ) -> None:
        self._voltages_V, self._widths_s = pulse_tables(device, scheme, nonidealities, place)
        self._array = array
        self._nonidealities = nonidealities

    def pulse(
        self,
        antiparallel: Tensor,
        source: Tensor,
        requested: Tensor,
        uniform: Tensor,
        rows: slice,
        *,
        generator: torch.Generator,
    ) -> Outcome:
        """See `JunctionArray`."""
        pulsed = requested.flatten().nonzero()[:, 0]

        def some(x: Tensor, which: Tensor = pulsed) -> Tensor:
            return x.flatten().index_select(0, which)

        array = self._array.map_constants(lambda constant: some(constant[:, rows]))
        states = some(antiparallel)
        entries = probability_tables.nearest_entries(some(requested), some(source).int())
        made_V, made_s = (tables.index_select(0, entries) for tables in (self._voltages_V, self._widths_s))
        arriving_V, width_s = self._nonidealities.with_noise(made_V, made_s, generator)
        voltage_V = torch.as_tensor(arriving_V)
        which = (states == some(source)).nonzero()[:, 0]
        time_s = array.map_constants(lambda constant: some(constant, which)).switching_time_s(
            some(states, which), voltage_V=some(voltage_V, which), probability=some(some(uniform), which)
        )
        longest_s = some(width_s, which)
        old_state_s = width_s.index_copy(0, which, torch.minimum(time_s, longest_s))
        switches = torch.zeros_like(states).index_copy_(0, which, time_s < longest_s)
        before, after = (
            1 / torch.as_tensor(array.resistance_ohm(state, voltage_V=voltage_V))
            for state in (states, states ^ switches)
        )
        energy_J = (old_state_s * before + (width_s - old_state_s) * after) * voltage_V**2
        units = (energy_J / ENERGY_UNIT_J).round().to(torch.int64)
        switched = torch.zeros_like(antiparallel)
        switched.view(-1).index_copy_(0, pulsed, switches)
        return Outcome(switched, int(switches.sum()), int(units.sum()))


@lru_cache(maxsize=8)
def pulse_tables(
    device: DeviceModel, scheme: WriteScheme, nonidealities: NonIdealities, place: torch.device
) -> tuple[Tensor, Tensor]:
    """Voltages and widths of the pulses over the requested probability, without noise.

    Returns:
        float32, a table out of parallel and one out of antiparallel, see `probability_tables.nearest_entries`.
    """
    p = probability_tables.probabilities()
    voltages_V = [torch.as_tensor(scheme.voltages_V(device, state, p)).expand_as(p) for state in (False, True)]
    widths_s = [_widths_s(device, scheme, nonidealities, state) for state in (False, True)]
    return torch.cat(voltages_V).float().to(place), torch.cat(widths_s).float().to(place)


def _widths_s(device: DeviceModel, scheme: WriteScheme, nonidealities: NonIdealities, antiparallel: bool) -> Tensor:
    """Of a table."""
    width_s = scheme.width_s(device, antiparallel, probability_tables.probabilities())
    return nonidealities.on_clock(width_s, scheme.full_width_s(device, antiparallel))


def _power_units_per_s(device: DeviceModel, antiparallel: State, voltage_V: Tensor) -> Tensor:
    return voltage_V**2 / device.resistance_ohm(antiparallel, voltage_V=voltage_V) / ENERGY_UNIT_J
