"""What every device and every law of switching promises."""

from __future__ import annotations

import copy
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from hwsim.devices.values import Real, State, batch_of, batches, flat, require, tensors

if TYPE_CHECKING:
    from typing import Self  # of Python 3.11


class ValidityWarning(UserWarning):
    """A law of switching is used where it does not hold; the message names one that does."""


class Pulse(NamedTuple):
    """What a pulse did to each junction.

    Attributes:
        antiparallel: bool, the state after it.
        old_state_s: how long the junction stayed in the state that it had before, at most the pulse's width.
    """

    antiparallel: Tensor
    old_state_s: Tensor


class SwitchingModel(ABC):
    """The law by which a junction leaves its state, in the reduced units of the macrospin.

    Arguments of the methods are numbers or tensors that broadcast; numbers alone are computed in float64. The junction
    starts in thermal equilibrium within its state.

    - `delta`: thermal stability Δ = E_b / kT, above 0.
    - `overdrive`: i = I / Ic0, finite; positive where the current drives the junction out of its state and negative
      where it holds it there.
    - `tau`: time τ = αγB t / (1 + α²), with the damping α and the anisotropy field B in tesla; 0 or more, `inf` is
      allowed.

    `probability` and `quantile` raise a ValueError for an argument that is NaN or outside its range, and warn with a
    `ValidityWarning` where the law does not hold for some junction.

    Attributes:
        name: of the law on the command line and in tables.
        advice: where the law holds, and which one to use elsewhere; the end of "the model NAME ...".
    """

    name: ClassVar[str]
    advice: ClassVar[str]

    def probability(self, delta: Real, overdrive: Real, tau: Real) -> Tensor:
        """Probability of having switched after a pulse.

        Returns:
            float in 0..1, in the shape that the arguments broadcast to. It does not fall with `tau`.
        """
        return self._evaluate(self._probability, delta, overdrive, tau, "the time is 0 or more", math.inf)

    def quantile(self, delta: Real, overdrive: Real, probability: Real) -> Tensor:
        """Reduced time after which a junction has switched with a given probability: the inverse of `probability`.

        With a probability that is uniform in 0..1 it is a sample of the time at which a junction switches.

        Returns:
            float, 0 or more, in the shape that the arguments broadcast to; `inf` where it is never reached.
        """
        return self._evaluate(self._quantile, delta, overdrive, probability, "a probability is in 0..1", 1)

    def _evaluate(
        self,
        law: Callable[[Tensor, Tensor, Tensor], Tensor],
        delta: Real,
        overdrive: Real,
        argument: Real,
        rule: str,
        highest: float,
    ) -> Tensor:
        arguments = tensors(delta, overdrive, argument)
        shape = torch.broadcast_shapes(*(tensor.shape for tensor in arguments))  # type: ignore[no-untyped-call]
        result = arguments[0].new_empty(shape)
        columns = [flat(tensor, shape) for tensor in arguments]
        holds = True
        for batch in batches(result):
            d, i, x = (batch_of(column, batch) for column in columns)
            require((d > 0) & d.isfinite(), "the thermal stability is a finite number above 0", d)
            require(i.isfinite(), "the overdrive is a finite number", i)
            require((x >= 0) & (x <= highest), rule, x)
            result.view(-1)[batch] = law(d, i, x)
            holds = holds and bool(self.holds(d, i).all())
        if not holds:
            warnings.warn(f"the model {self.name} {self.advice}", ValidityWarning, stacklevel=3)
        return result

    @abstractmethod
    def holds(self, delta: Tensor, overdrive: Tensor) -> Tensor:
        """Where the law is valid: bool, in the shape of one argument or of both together."""

    @abstractmethod
    def _probability(self, delta: Tensor, overdrive: Tensor, tau: Tensor) -> Tensor: ...

    @abstractmethod
    def _quantile(self, delta: Tensor, overdrive: Tensor, probability: Tensor) -> Tensor: ...


class DeviceModel(ABC):
    """A junction of two states, parallel and antiparallel, or an array of them.

    Arguments of the methods are numbers, or tensors with a value for each junction:

    - `antiparallel`: bool, the state before a pulse.
    - `voltage_V`: across the junction; positive drives it from parallel to antiparallel, negative back.
    - `pulse_width_s`: 0 or more.
    - `probability`: in 0..1.

    A ValueError is raised for an argument that is NaN or outside its range.

    Attributes:
        constants: names of those attributes that are physical constants, each a number or a tensor with a value for
            each junction. `hwsim.nonidealities` changes those that it knows, which are those of `MTJ`.
    """

    constants: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def resistance_ohm(self, antiparallel: State, *, voltage_V: Real) -> Real:
        """Resistance in a state, at a voltage across the junction."""

    @abstractmethod
    def switch_probability(self, antiparallel: State, *, voltage_V: Real, pulse_width_s: Real) -> Tensor:
        """Probability, 0..1, that a junction in a state is in the other one after a pulse."""

    @abstractmethod
    def switching_time_s(self, antiparallel: State, *, voltage_V: Real, probability: Real) -> Tensor:
        """Width of the pulse that switches a junction with a given probability; `inf` where none does."""

    def voltage_V(self, antiparallel: State, *, overdrive: Real) -> Tensor:
        """Voltage that drives a junction out of its state at a given overdrive: positive from parallel, else negative.

        Args:
            antiparallel: the state to leave.
            overdrive: current over the critical current, above 0.

        Raises:
            ValueError: the overdrive is not above 0, or the device does not know its critical current.
        """
        raise ValueError(f"{type(self).__name__} has no critical current: give the scheme its voltage_V")

    def constant(self, name: str) -> Any:
        """A physical constant by its name: a number, or a tensor with a value for each junction.

        Raises:
            ValueError: the device has no such constant.
        """
        if name not in self.constants:
            raise ValueError(f"{type(self).__name__} has no physical constant {name}: use an MTJ")
        return getattr(self, name)

    def with_constants(self, **constants: Real) -> Self:
        """The device, a dataclass, with other values of some of its physical constants.

        Raises:
            ValueError: the device has no such constant.
        """
        for name in constants:
            self.constant(name)
        return replace(self, **constants)  # type: ignore[type-var]

    def at_temperature(self, temperature_K: float) -> Self:
        """The device at another temperature.

        Raises:
            ValueError: the device has no temperature, or cannot have this one.
        """
        return self.with_constants(temperature_K=temperature_K)

    def map_constants(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The device with those attributes changed that have a value for each junction."""
        other = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor) and value.dim():
                object.__setattr__(other, name, change(value))
        return other

    def pulse(self, antiparallel: Tensor, *, voltage_V: Real, pulse_width_s: Real, generator: torch.Generator) -> Pulse:
        """Pulses each junction once; it switches at a random time, if that comes before the pulse ends.

        One number of 24 bits is drawn for each junction, in the order of `antiparallel`: events rarer than 2**-25
        never happen. The outcome depends on the generator's state and not on the shape.

        Args:
            antiparallel: bool, any shape.
            voltage_V: broadcasts to that shape.
            pulse_width_s: broadcasts to that shape. A pulse of width 0 does nothing.
            generator: on the device of `antiparallel`.
        """
        states = antiparallel.reshape(-1)
        voltages, widths = (flat(value, antiparallel.shape) for value in (voltage_V, pulse_width_s))
        switched, old_state_s = [], []
        for batch in batches(states):
            state, width_s = states[batch], torch.as_tensor(batch_of(widths, batch))
            require(width_s >= 0, "the width of a pulse is 0 or more seconds", width_s)
            uniform = torch.rand(state.shape, generator=generator, device=state.device).clamp_min_(2.0**-25)
            time_s = self._batch(antiparallel.shape, batch).switching_time_s(
                state, voltage_V=batch_of(voltages, batch), probability=uniform
            )
            switched.append(state ^ (time_s < width_s))
            old_state_s.append(torch.minimum(time_s, width_s.to(time_s)))
        return Pulse(*(torch.cat(parts).view(antiparallel.shape) for parts in (switched, old_state_s)))

    def _batch(self, shape: torch.Size, batch: slice) -> Self:
        return self.map_constants(lambda constant: batch_of(flat(constant, shape), batch))

    def pulse_energy_J(self, antiparallel: Tensor, pulse: Pulse, *, voltage_V: Real, pulse_width_s: Real) -> Tensor:
        """Energy that a pulse at constant voltage dissipates: V² t / R before the switch, and after it.

        Args:
            antiparallel: the state before the pulse.
            pulse: what `pulse` returned for it.
            voltage_V: as given to `pulse`.
            pulse_width_s: as given to `pulse`.
        """
        before = pulse.old_state_s / self.resistance_ohm(antiparallel, voltage_V=voltage_V)
        after = (pulse_width_s - pulse.old_state_s) / self.resistance_ohm(pulse.antiparallel, voltage_V=voltage_V)
        return (before + after) * voltage_V**2
