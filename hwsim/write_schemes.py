"""How a wanted probability of switching becomes a pulse: its voltage, and its width.

DST wants a transition with the probability p = tanh(m v) of what is left of a step, v in 0..1. A circuit makes a pulse
whose width, or whose amplitude, is coded by v. The voltage depends on the direction, because an antiparallel junction
takes less current at the same voltage. Every scheme is designed for one nominal junction; others then do what they do.

`LinearPulse`, `Pedestal` and `AmplitudeCoded` are what a circuit does with a counter or a converter. `PreDistorted` is
the ideal bound: it holds the inverse of the law of switching, so that nominal junctions do just what is wanted,
whatever they are.
"""

import warnings
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from hwsim.devices.base import DeviceModel, ValidityWarning
from hwsim.line_fit import fit_line
from hwsim.write_scheme import WriteScheme

SchemeName = Literal["linear", "paper", "pedestal", "gated-pedestal", "amplitude", "pre-distorted", "read-first"]


@dataclass(frozen=True, kw_only=True)
class LinearPulse(WriteScheme):
    """A pulse as wide as v, times a gain, beyond an offset.

    A junction does not switch before its angle has grown, so that without an offset short pulses do nothing at all: the
    law is up to a third away from tanh, and steps as small as those of training never get through. With one voltage it
    is the scheme of arXiv 1912.12636, as recalled: blind, ±V, widths in proportion to v, a full pulse for whole steps.

    Args:
        m: steepness of the tanh by which DST makes p of v; None where p is v itself.
        gain: full pulses of width that v = 1 adds, above 0. A pulse is a full one at most.
        offset_probability: with which the offset alone switches, less than a full pulse; of 0 there is none.

    Raises:
        ValueError: a value is out of its range.
    """

    m: float | None = 3.0
    gain: float = 1.0
    offset_probability: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.gain < float("inf"):
            raise ValueError(f"gain is a finite number above 0, got {self.gain:g}")
        if not 0 <= self.offset_probability < self.full_pulse_probability:
            raise ValueError(
                f"offset_probability is 0 or more and below the {self.full_pulse_probability:g} of a full pulse, got"
                f" {self.offset_probability:g}"
            )

    def _width_s(self, device: DeviceModel, antiparallel: bool, p: Tensor, full_s: float) -> Tensor:
        voltage_V = self.write_voltage_V(device, antiparallel)
        # A probability of 0 takes a width of 0.
        offset_s = device.switching_time_s(antiparallel, voltage_V=voltage_V, probability=self.offset_probability)
        _require_room(float(offset_s), full_s)
        return float(offset_s) + self.gain * _step_size(p, self.m) * full_s


@dataclass(frozen=True, kw_only=True)
class Pedestal(WriteScheme):
    """A pulse of a least width and one more that is as wide as v, both fitted to the law that is wanted.

    The pulse of the least width alone switches some junctions in a hundred, so steps that are all but 0 still move
    weights: without a gate, only a step of exactly 0 is none.

    Args:
        m: steepness of the tanh by which DST makes p of v; None where p is v itself.
    """

    m: float | None = 3.0

    def _width_s(self, device: DeviceModel, antiparallel: bool, p: Tensor, full_s: float) -> Tensor:
        least_s, slope_s = self.fit_s(device, antiparallel)
        _require_room(least_s, full_s)
        return least_s + slope_s * _step_size(p, self.m)

    def fit_s(self, device: DeviceModel, antiparallel: bool) -> tuple[float, float]:
        """Width at v = 0, and what v = 1 adds: least squares of the probabilities, over v in 0..1."""
        voltage_V = self.write_voltage_V(device, antiparallel)
        return fit_line(
            lambda v: _probability(v, self.m),
            lambda s: device.switch_probability(antiparallel, voltage_V=voltage_V, pulse_width_s=s),
            lambda p: device.switching_time_s(antiparallel, voltage_V=voltage_V, probability=p),
        )


@dataclass(frozen=True, kw_only=True)
class AmplitudeCoded(WriteScheme):
    """Pulses as wide as a full one, whose voltage is a least one and one more in proportion to v, fitted as a pedestal.

    For circuits with a converter in place of a clock, and for devices that were measured over the voltage alone, at the
    one width `full_pulse_s`. No pulse has more than the voltage of a full one.

    Args:
        m: steepness of the tanh by which DST makes p of v; None where p is v itself.

    Its methods raise a ValueError where a full pulse switches less than half of the junctions.
    """

    codes_amplitude: ClassVar[bool] = True

    m: float | None = 3.0

    def voltages_V(self, device: DeviceModel, antiparallel: bool, probability: Tensor) -> Tensor:
        """See `WriteScheme`."""
        full_V, (least_V, slope_V) = self.write_voltage_V(device, antiparallel), self.fit_V(device, antiparallel)
        amplitude_V = least_V + slope_V * _step_size(probability.double(), self.m)
        amplitude_V = torch.where(probability < 1, amplitude_V.clamp(0, abs(full_V)), abs(full_V))
        return -amplitude_V if antiparallel else amplitude_V

    def fit_V(self, device: DeviceModel, antiparallel: bool) -> tuple[float, float]:
        """Amplitude at v = 0, and what v = 1 adds: least squares of the probabilities, over v in 0..1."""
        full_V, width_s = self.write_voltage_V(device, antiparallel), self.full_width_s(device, antiparallel)

        def probability(amplitude_V: Tensor) -> Tensor:
            voltage_V = -amplitude_V if antiparallel else amplitude_V
            return device.switch_probability(antiparallel, voltage_V=voltage_V, pulse_width_s=width_s)

        if (most := float(probability(torch.tensor(abs(full_V), dtype=torch.float64)))) < 0.5:
            raise ValueError(
                f"a full pulse of {full_V:.3g} V and {width_s:.3g} s switches with {most:.2g} only, which leaves no"
                " amplitudes to code with: raise voltage_V or full_pulse_s"
            )

        def inverse(p: Tensor) -> Tensor:
            low, high = torch.zeros_like(p), torch.full_like(p, abs(full_V))
            for _ in range(50):
                middle = (low + high) / 2
                enough = probability(middle) > p
                low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
            return high

        with warnings.catch_warnings():
            # The search goes through voltages that no pulse has.
            warnings.simplefilter("ignore", ValidityWarning)
            return fit_line(lambda v: _probability(v, self.m), probability, inverse)

    def _width_s(self, device: DeviceModel, antiparallel: bool, p: Tensor, full_s: float) -> Tensor:
        return torch.full_like(p, full_s)


@dataclass(frozen=True, kw_only=True)
class PreDistorted(WriteScheme):
    """The pulse that switches the nominal junction with just the probability p that is requested: the ideal bound.

    It takes a table of the inverse of the law. What it reaches with nominal junctions says nothing about them.
    """

    def _width_s(self, device: DeviceModel, antiparallel: bool, p: Tensor, full_s: float) -> Tensor:
        voltage_V = self.write_voltage_V(device, antiparallel)
        return device.switching_time_s(antiparallel, voltage_V=voltage_V, probability=p)


_NAMED: dict[SchemeName, tuple[type[WriteScheme], dict[str, Any]]] = {
    "linear": (LinearPulse, {}),
    "paper": (LinearPulse, {"one_voltage": True, "gain": 30.0, "offset_probability": 1e-4}),
    "pedestal": (Pedestal, {}),
    "gated-pedestal": (Pedestal, {"gate": 0.003}),
    "amplitude": (AmplitudeCoded, {"gate": 0.003}),
    "pre-distorted": (PreDistorted, {}),
    "read-first": (PreDistorted, {"read_first": True}),
}


def options_of(name: SchemeName) -> set[str]:
    """Names of the options that a scheme has."""
    return {option.name for option in fields(_NAMED[name][0])}


def scheme_named(name: SchemeName, *, m: float | None = 3.0, **options: Any) -> WriteScheme:
    """A scheme by its name; `read-first` is pre-distorted, and the others write without knowledge of the state.

    Args:
        name: of the scheme.
        m: that of DST.
        options: of the scheme, in place of its own; None leaves its own.

    Raises:
        ValueError: the scheme has no such option, or a value is out of its range.
    """
    kind, own = _NAMED[name]
    given = {option: value for option, value in options.items() if value is not None}
    takes = options_of(name)
    for option in given.keys() - takes:
        others = ", ".join(other for other in _NAMED if option in options_of(other))
        hint = f": it is an option of {others}" if others else ""
        raise ValueError(f"the write scheme {name} has no {option}{hint}")
    return kind(**own | given | ({"m": m} if "m" in takes else {}))


def _require_room(least_s: float, full_s: float) -> None:
    if least_s >= full_s:
        raise ValueError(
            f"the least pulse takes {least_s:.3g} s and a full one {full_s:.3g} s, which leaves no widths to code with:"
            " raise full_pulse_s, or lower the least pulse's probability"
        )


def _probability(v: Tensor, m: float | None) -> Tensor:
    return v if m is None else torch.tanh(m * v)


def _step_size(p: Tensor, m: float | None) -> Tensor:
    """The size v of the step of p = tanh(m v), at most 1."""
    return (p if m is None else torch.atanh(p) / m).clamp_max(1)
