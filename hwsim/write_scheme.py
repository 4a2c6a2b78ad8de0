"""What every write scheme promises: from the probability of a transition to the voltage and the width of a pulse."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hwsim.devices.base import DeviceModel
from hwsim.devices.values import Real, require


@dataclass(frozen=True, kw_only=True)
class WriteScheme(ABC):
    """Pulses that are made for a nominal junction; of constant voltage and coded width, if nothing else is said.

    Arguments of the methods:

    - `device`: the nominal junction.
    - `antiparallel`: the state that the pulse switches from, which decides its direction.
    - `probability`: that a pulse is requested to switch with, float in 0..1. Of 0 there is no pulse, of 1 it is a full
      one, and none is longer.

    Args:
        overdrive: current over the critical current, the same in both directions; above 0.
        voltage_V: in place of the overdrive, voltages that drive out of parallel and out of antiparallel: the first is
            positive, the second negative.
        one_voltage: whether both directions have the voltage that has this overdrive out of parallel.
        full_pulse_probability: with which a full pulse switches, in (0, 1]. It cannot be 1 for physical junctions.
        full_pulse_s: in place of that probability, the width of a full pulse in both directions.
        gate: the requested probability below which no pulse is made, in [0, 1).
        read_first: read the cell before it is written, and pulse only the junction that has to switch.

    Attributes:
        codes_amplitude: whether the voltages of pulses differ.

    Raises:
        ValueError: a value is out of its range.
    """

    codes_amplitude: ClassVar[bool] = False

    overdrive: float = 3.0
    voltage_V: tuple[float, float] | None = None
    one_voltage: bool = False
    full_pulse_probability: float = 0.999
    full_pulse_s: float | None = None
    gate: float = 0.0
    read_first: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.gate < 1:
            raise ValueError(f"gate is a probability in [0, 1), got {self.gate:g}")
        if self.full_pulse_s is not None and not 0 < self.full_pulse_s < float("inf"):
            raise ValueError(f"full_pulse_s is a finite number above 0, got {self.full_pulse_s:g}")
        if not 0 < self.full_pulse_probability <= 1:
            raise ValueError(f"a full pulse switches with a probability in (0, 1], got {self.full_pulse_probability:g}")
        if self.voltage_V is not None and not self.voltage_V[1] < 0 < self.voltage_V[0]:
            raise ValueError(
                "voltages are given as that out of parallel, above 0, and that out of antiparallel, below 0,"
                f" got {self.voltage_V}"
            )

    def write_voltage_V(self, device: DeviceModel, antiparallel: bool) -> float:
        """Voltage of a full pulse that switches a junction from a state.

        Raises:
            ValueError: the device knows no critical current, and no voltages are given.
        """
        if self.voltage_V is not None:
            return self.voltage_V[int(antiparallel)]
        if self.one_voltage:
            parallel_V = float(device.voltage_V(False, overdrive=self.overdrive))
            return -parallel_V if antiparallel else parallel_V
        return float(device.voltage_V(antiparallel, overdrive=self.overdrive))

    def full_width_s(self, device: DeviceModel, antiparallel: bool) -> float:
        """Width of a full pulse.

        Raises:
            ValueError: no pulse of this voltage reaches `full_pulse_probability`.
        """
        if self.full_pulse_s is not None:
            return self.full_pulse_s
        voltage_V, p = self.write_voltage_V(device, antiparallel), self.full_pulse_probability
        width_s = float(device.switching_time_s(antiparallel, voltage_V=voltage_V, probability=p))
        if width_s == float("inf"):
            raise ValueError(
                f"no pulse of {voltage_V:.3g} V switches with a probability of {p:g}: lower `full_pulse_probability`,"
                " or raise the voltage"
            )
        return width_s

    def gated(self, probability: Tensor) -> Tensor:
        """Requested probabilities, with 0 in place of those below the gate."""
        return probability * (probability >= self.gate) if self.gate else probability

    def voltages_V(self, device: DeviceModel, antiparallel: bool, probability: Tensor) -> Real:
        """Voltages of the pulses for requested probabilities; a number where all have the same.

        Raises:
            ValueError: as of `write_voltage_V`.
        """
        return self.write_voltage_V(device, antiparallel)

    def width_s(self, device: DeviceModel, antiparallel: bool, probability: Tensor) -> Tensor:
        """Widths of the pulses for requested probabilities: float64, in the shape of `probability`.

        Of a gate nothing is seen here: these are the pulses that it lets through.
        """
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
        """Probability with which the pulses for requested probabilities do switch a junction, behind the gate.

        Args:
            device: the nominal junction.
            antiparallel: the state before.
            probability: that is requested.
            junction: the one that gets the pulses, if it is not the nominal one.

        Returns:
            float64, in the shape of `probability`.
        """
        p = self.gated(probability)
        return (junction or device).switch_probability(
            antiparallel,
            voltage_V=self.voltages_V(device, antiparallel, p),
            pulse_width_s=self.width_s(device, antiparallel, p),
        )

    @abstractmethod
    def _width_s(self, device: DeviceModel, antiparallel: bool, p: Tensor, full_s: float) -> Tensor:
        """Widths for probabilities between 0 and 1, float64; those above a full pulse are cut to it."""
