"""What a pulse on each junction of an array does, and what it costs; fast where the junctions are alike."""

from functools import lru_cache
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from hwsim.devices.base import DeviceModel
from hwsim.nonidealities import NonIdealities, mapped
from hwsim.write_schemes import WriteScheme

ENERGY_UNIT_J = 1e-17
"""Energies are added up in whole units: integers have the same sum in every order."""

# A table has so many points for each doubling of the odds p/(1 - p), between these powers of 2. Its points are found
# from the bits of the odds as a float32: exponent, and the first bits of the fraction.
_LOW, _HIGH = -32, 24
_BITS = 7
_SHIFT = 23 - _BITS
_FIRST = (_LOW + 127) << _BITS
_POINTS = ((_HIGH - _LOW) << _BITS) + 1


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


class Array(Protocol):
    """The junctions of an array, which get their pulses some rows at a time."""

    def pulse(self, antiparallel: Tensor, out_of: Tensor, asked: Tensor, uniform: Tensor, rows: slice) -> Outcome:
        """Pulses some junctions once each.

        Args:
            antiparallel: bool [2, rows, columns], their states.
            out_of: bool, the same shape: the state that the pulse drives a junction out of.
            asked: float32, the same shape: the probability that the pulse is made for; 0 means none.
            uniform: float32, the same shape, in [0, 1): decides whether and when a junction switches.
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


class AlikeJunctions:
    """Junctions that share their constants: everything comes from tables over the probability that is asked for.

    The probability of switching is interpolated, unless it is just what is asked for. Widths and times are those of
    the nearest point, within 0.4 % of the odds: energies are good to about 0.1 %, and their sums are better.

    Args:
        device: the nominal junction, for which pulses are made.
        scheme: makes the pulses.
        junction: the one that gets them.
        place: torch's device.
    """

    def __init__(self, device: DeviceModel, scheme: WriteScheme, junction: DeviceModel, place: torch.device) -> None:
        points = torch.arange(_POINTS, dtype=torch.float64)
        # Even steps within an octave, as those of a float's fraction.
        odds = torch.exp2((points / 2**_BITS).floor() + _LOW) * (1 + points.remainder(2**_BITS) / 2**_BITS)
        p = odds / (1 + odds)
        p[0], p[-1] = 0, 1
        delivered, widths, kept, gained = [], [], [], []
        for antiparallel in (False, True):
            voltage_V = scheme.write_voltage_V(device, antiparallel)
            chance = scheme.delivered(device, antiparallel, p, junction=junction)
            # What no number is below is 0: numbers of more digits than a float32 has would be slow.
            delivered.append(torch.where(chance < 2.0**-33, 0.0, chance))
            width_s = scheme.width_s(device, antiparallel, p)
            # By the state in which it flows.
            power = [voltage_V**2 / _ohm(junction, state, voltage_V) / ENERGY_UNIT_J for state in (False, True)]
            time_s = junction.switching_time_s(antiparallel, voltage_V=voltage_V, probability=p.clamp_max(1 - 2**-24))
            # Of no use beyond the longest pulse, and infinite where a junction never switches.
            time_s = time_s.clamp_max(width_s[-1])
            widths.append(width_s)
            kept += [width_s * of for of in power]
            gained.append(time_s * (power[antiparallel] - power[not antiparallel]))
        # By the state driven out of, and for `_kept` by that after the pulse as well.
        self._delivered, self.widths_s = (torch.cat(table).float().to(place) for table in (delivered, widths))
        self._kept, self._gained = (torch.cat(table).round().int().to(place) for table in (kept, gained))
        most = torch.tensor(scheme.certain, dtype=torch.float64)
        exact = all(torch.allclose(table, torch.minimum(p, most), rtol=1e-9, atol=2.0**-32) for table in delivered)
        self._exact_to = scheme.certain if exact else None

    def pulse(self, antiparallel: Tensor, out_of: Tensor, asked: Tensor, uniform: Tensor, rows: slice) -> Outcome:
        """See `Array`."""
        switched = (uniform < self._probability(out_of, asked)) & (antiparallel == out_of)
        # As if all had been in the state after the pulse, all through it,
        after = antiparallel ^ switched
        units = look_up(self._kept, asked, out_of.int().mul_(2).add_(after.int()))
        # and what it was more until those that switched did.
        which = switched.reshape(-1).nonzero()[:, 0]
        early = look_up(self._gained, uniform.reshape(-1)[which], out_of.reshape(-1)[which].int())
        return Outcome(switched, len(which), int(units.sum()) + int(early.sum()))

    def _probability(self, out_of: Tensor, asked: Tensor) -> Tensor:
        if self._exact_to is not None:
            return asked.clamp_max(self._exact_to)
        bits = _odds(asked).view(torch.int32)
        point = (bits >> _SHIFT).sub_(_FIRST)
        low, high = (_entries(self._delivered, (point + k).clamp_(max=_POINTS - 1), out_of.int()) for k in (0, 1))
        return low.lerp_(high, (bits & ((1 << _SHIFT) - 1)).float().mul_(2.0**-_SHIFT))


@lru_cache(maxsize=8)
def alike(device: DeviceModel, scheme: WriteScheme, temperature_K: float | None, place: torch.device) -> AlikeJunctions:
    """Junctions like the nominal one, but for the temperature; made once for all the layers of a network."""
    return AlikeJunctions(device, scheme, NonIdealities(temperature_K=temperature_K).junction(device), place)


class VariedJunctions:
    """Junctions that differ: each one's time of switching is computed, from its own constants.

    Args:
        device: the nominal junction, for which pulses are made.
        scheme: makes the pulses.
        array: the device with constants for each junction, tensors of [2, out, columns].
        place: torch's device.
    """

    def __init__(self, device: DeviceModel, scheme: WriteScheme, array: DeviceModel, place: torch.device) -> None:
        self._nominal = alike(device, scheme, None, place)
        self._array = array
        self._voltage_V = torch.tensor([scheme.write_voltage_V(device, state) for state in (False, True)], device=place)

    def pulse(self, antiparallel: Tensor, out_of: Tensor, asked: Tensor, uniform: Tensor, rows: slice) -> Outcome:
        """See `Array`."""
        array = mapped(self._array, lambda constant: constant[:, rows])
        voltage_V = self._voltage_V.index_select(0, out_of.flatten().int()).view(out_of.shape)
        width_s = look_up(self._nominal.widths_s, asked, out_of.int())
        which = ((antiparallel == out_of) & (asked > 0)).flatten().nonzero()[:, 0]

        def driven(x: Tensor) -> Tensor:
            return x.flatten().index_select(0, which)

        time_s = mapped(array, driven).switching_time_s(
            driven(antiparallel), voltage_V=driven(voltage_V), probability=driven(uniform)
        )
        longest_s = driven(width_s)
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


def look_up(table: Tensor, p: Tensor, which: Tensor) -> Tensor:
    """Entries of several tables at the points nearest to probabilities.

    Args:
        table: [tables * points], one after another.
        p: float32, in 0..1.
        which: int32, in the shape of `p`: the number of the table.
    """
    half = 1 << (_SHIFT - 1)
    return _entries(table, (_odds(p).view(torch.int32).add_(half) >> _SHIFT).sub_(_FIRST), which)


def _odds(p: Tensor) -> Tensor:
    return (p / (1 - p)).clamp_(2.0**_LOW, 2.0**_HIGH)


def _entries(table: Tensor, point: Tensor, which: Tensor) -> Tensor:
    return table.index_select(0, point.add(which, alpha=_POINTS).flatten()).view(point.shape)
