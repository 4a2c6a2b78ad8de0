"""How a wanted probability of switching becomes a pulse: its voltage, and its width.

DST wants a transition with the probability p = tanh(m v) of what is left of a step, v in 0..1. A circuit makes a pulse
whose width is coded by v. The voltage depends on the direction, because an antiparallel junction takes less current at
the same voltage. Every scheme is designed for one nominal junction; others then do what they do.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hwsim.devices.base import DeviceModel
from hwsim.devices.values import require

SchemeName = Literal["linear", "pedestal", "pre-distorted", "read-first"]


@dataclass(frozen=True, kw_only=True)
class WriteScheme(ABC):
    """Pulses of constant voltage and coded width, made for a nominal junction.

    Arguments of the methods:

    - `device`: the nominal junction.
    - `antiparallel`: the state that the pulse switches from, which decides its direction.
    - `probability`: that a pulse is requested to switch with, float in 0..1. Of 0 there is no pulse, of 1 it is a full
      one, and none is longer.

    Args:
        overdrive: current over the critical current, the same in both directions; above 0.
        voltage_V: in place of the overdrive, voltages that drive out of parallel and out of antiparallel: the first is
            positive, the second negative.
        full_pulse_probability: with which a full pulse switches, in (0, 1]. It cannot be 1 for physical junctions.
        read_first: read the cell before it is written, and pulse only the junction that has to switch.

    Raises:
        ValueError: a value is out of its range.
    """

    overdrive: float = 3.0
    voltage_V: tuple[float, float] | None = None
    full_pulse_probability: float = 0.999
    read_first: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.full_pulse_probability <= 1:
            raise ValueError(f"a full pulse switches with a probability in (0, 1], got {self.full_pulse_probability:g}")
        if self.voltage_V is not None and not self.voltage_V[1] < 0 < self.voltage_V[0]:
            raise ValueError(
                "voltages are given as that out of parallel, above 0, and that out of antiparallel, below 0,"
                f" got {self.voltage_V}"
            )

    def write_voltage_V(self, device: DeviceModel, antiparallel: bool) -> float:
        """Voltage of every pulse that switches a junction from a state.

        Raises:
            ValueError: the device knows no critical current, and no voltages are given.
        """
        if self.voltage_V is not None:
            return self.voltage_V[int(antiparallel)]
        return float(device.voltage_V(antiparallel, overdrive=self.overdrive))

    def full_width_s(self, device: DeviceModel, antiparallel: bool) -> float:
        """Width of a full pulse.

        Raises:
            ValueError: no pulse of this voltage reaches `full_pulse_probability`.
        """
        voltage_V, p = self.write_voltage_V(device, antiparallel), self.full_pulse_probability
        width_s = float(device.switching_time_s(antiparallel, voltage_V=voltage_V, probability=p))
        if width_s == float("inf"):
            raise ValueError(
                f"no pulse of {voltage_V:.3g} V switches with a probability of {p:g}: lower `full_pulse_probability`,"
                " or raise the voltage"
            )
        return width_s

    def width_s(self, device: DeviceModel, antiparallel: bool, probability: Tensor) -> Tensor:
        """Widths of the pulses for requested probabilities: float64, in the shape of `probability`."""
        p = probability.double()
        require((p >= 0) & (p <= 1), "a probability is in 0..1", p)
        full_s = self.full_width_s(device, antiparallel)
        # Where it does not matter, a probability that every scheme can take.
        between = torch.where((p > 0) & (p < 1), p, 0.5)
        width_s = self._width_s(device, antiparallel, between, full_s).clamp(0, full_s)
        return torch.where(p > 0, torch.where(p < 1, width_s, full_s), 0.0)

    def switch_probability(
        self, device: DeviceModel, antiparallel: bool, probability: Tensor, *, junction: DeviceModel | None = None
    ) -> Tensor:
        """Probability with which the pulses for requested probabilities do switch a junction.

        Args:
            device: the nominal junction.
            antiparallel: the state before.
            probability: that is requested.
            junction: the one that gets the pulses, if it is not the nominal one.

        Returns:
            float64, in the shape of `probability`.
        """
        return (junction or device).switch_probability(
            antiparallel,
            voltage_V=self.write_voltage_V(device, antiparallel),
            pulse_width_s=self.width_s(device, antiparallel, probability),
        )

    @abstractmethod
    def _width_s(self, device: DeviceModel, antiparallel: bool, p: Tensor, full_s: float) -> Tensor:
        """Widths for probabilities between 0 and 1, float64; those above a full pulse are cut to it."""


@dataclass(frozen=True, kw_only=True)
class LinearPulse(WriteScheme):
    """The naive pulse, as wide as v: v times a full pulse.

    A junction does not switch before its angle has grown, so short pulses do nothing at all: the law is up to a third
    away from tanh.

    Args:
        m: steepness of the tanh by which DST makes p of v; None where p is v itself.
    """

    m: float | None = 3.0

    def _width_s(self, device: DeviceModel, antiparallel: bool, p: Tensor, full_s: float) -> Tensor:
        return _step_size(p, self.m) * full_s


@dataclass(frozen=True, kw_only=True)
class Pedestal(WriteScheme):
    """A pulse of a least width and one more that is as wide as v, both fitted to the law that is wanted.

    The pulse of the least width alone switches some junctions in a hundred, so steps that are all but 0 still move
    weights; only a step of exactly 0 is gated off.

    Args:
        m: steepness of the tanh by which DST makes p of v; None where p is v itself.
    """

    m: float | None = 3.0

    def _width_s(self, device: DeviceModel, antiparallel: bool, p: Tensor, full_s: float) -> Tensor:
        least_s, slope_s = self.fit_s(device, antiparallel)
        return least_s + slope_s * _step_size(p, self.m)

    def fit_s(self, device: DeviceModel, antiparallel: bool) -> tuple[float, float]:
        """Width at v = 0, and what v = 1 adds: least squares of the probabilities, over v in 0..1."""
        v = torch.linspace(0, 1, 402, dtype=torch.float64)[1:-1]
        wanted = v if self.m is None else torch.tanh(self.m * v)
        voltage_V = self.write_voltage_V(device, antiparallel)
        columns = torch.stack([torch.ones_like(v), v], dim=1)
        width_s = device.switching_time_s(antiparallel, voltage_V=voltage_V, probability=wanted)
        line_s = torch.linalg.lstsq(columns, width_s[:, None]).solution
        for _ in range(20):  # Gauss-Newton; it has settled after five
            now_s = (columns @ line_s)[:, 0].clamp_min(0)
            step_s = 1e-3 * float(width_s[len(width_s) // 2])

            def p(at_s: Tensor) -> Tensor:
                return device.switch_probability(antiparallel, voltage_V=voltage_V, pulse_width_s=at_s)

            slope_per_s = (p(now_s + step_s) - p((now_s - step_s).clamp_min(0))) / (2 * step_s)
            missing = wanted - p(now_s)
            line_s = line_s + torch.linalg.lstsq(columns * slope_per_s[:, None], missing[:, None]).solution
        return float(line_s[0]), float(line_s[1])


@dataclass(frozen=True, kw_only=True)
class PreDistorted(WriteScheme):
    """The pulse that switches the nominal junction with just the probability p that is requested."""

    def _width_s(self, device: DeviceModel, antiparallel: bool, p: Tensor, full_s: float) -> Tensor:
        voltage_V = self.write_voltage_V(device, antiparallel)
        return device.switching_time_s(antiparallel, voltage_V=voltage_V, probability=p)


def scheme_named(name: SchemeName, *, m: float | None = 3.0, overdrive: float = 3.0) -> WriteScheme:
    """A scheme by its name; `read-first` is pre-distorted, and the others write without knowledge of the state.

    Args:
        name: of the scheme.
        m: that of DST.
        overdrive: current over the critical current.
    """
    schemes: dict[SchemeName, WriteScheme] = {
        "linear": LinearPulse(m=m, overdrive=overdrive),
        "pedestal": Pedestal(m=m, overdrive=overdrive),
        "pre-distorted": PreDistorted(overdrive=overdrive),
        "read-first": PreDistorted(overdrive=overdrive, read_first=True),
    }
    return schemes[name]


def _step_size(p: Tensor, m: float | None) -> Tensor:
    """The size v of the step of p = tanh(m v), at most 1."""
    return (p if m is None else torch.atanh(p) / m).clamp_max(1)
