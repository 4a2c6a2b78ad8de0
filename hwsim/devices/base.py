"""What every device model and every model of switching promises."""

import copy
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

# A number, or one for each junction.
Real = float | Tensor
# Whether a junction is antiparallel, or which ones are: bool.
State = bool | Tensor

_PART = 2**16  # junctions


class ValidityWarning(UserWarning):
    """A model is used where it does not hold; the message names one that does."""


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

    Δ = E_b / kT is the thermal stability. i = I / Ic0 is the overdrive, positive where the current drives the junction
    out of its state and negative where it holds it there. τ = αγB t / (1 + α²) is the time, with the damping α and
    B the anisotropy field in tesla. The junction starts in thermal equilibrium within its state.

    Arguments are numbers or tensors that broadcast; numbers alone are computed in float64.
    """

    name: ClassVar[str]
    advice: ClassVar[str]  # where the model does not hold, and which one does

    def probability(self, delta: Real, overdrive: Real, tau: Real) -> Tensor:
        """Probability of having switched after a pulse.

        Args:
            delta: thermal stability, above 0.
            overdrive: current over the critical current, finite, of either sign.
            tau: reduced time, 0 or more; `inf` is allowed.

        Returns:
            float in 0..1, in the shape that the arguments broadcast to. It does not fall with `tau`.

        Raises:
            ValueError: an argument is NaN or outside its range.

        Warns:
            ValidityWarning: the model does not hold for some junction.
        """
        return self._evaluate(self._probability, delta, overdrive, tau, "the time is 0 or more", math.inf)

    def quantile(self, delta: Real, overdrive: Real, probability: Real) -> Tensor:
        """Reduced time after which a junction has switched with a given probability: the inverse of `probability`.

        With a probability that is uniform in 0..1 it is a sample of the time at which a junction switches.

        Args:
            delta: thermal stability, above 0.
            overdrive: current over the critical current, finite, of either sign.
            probability: in 0..1.

        Returns:
            float, 0 or more, in the shape that the arguments broadcast to; `inf` where it is never reached.

        Raises:
            ValueError: an argument is NaN or outside its range.

        Warns:
            ValidityWarning: the model does not hold for some junction.
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
        columns = [_column(tensor, shape) for tensor in arguments]
        holds = True
        for part in _parts(result):
            d, i, x = (_cut(column, part) for column in columns)
            require((d > 0) & d.isfinite(), "the thermal stability is a finite number above 0", d)
            require(i.isfinite(), "the overdrive is a finite number", i)
            require((x >= 0) & (x <= highest), rule, x)
            result.view(-1)[part] = law(d, i, x)
            holds = holds and bool(self._holds(d, i).all())
        if not holds:
            warnings.warn(f"the model {self.name} {self.advice}", ValidityWarning, stacklevel=3)
        return result

    @abstractmethod
    def _holds(self, delta: Tensor, overdrive: Tensor) -> Tensor:
        """Where the model is valid: bool."""

    @abstractmethod
    def _probability(self, delta: Tensor, overdrive: Tensor, tau: Tensor) -> Tensor: ...

    @abstractmethod
    def _quantile(self, delta: Tensor, overdrive: Tensor, probability: Tensor) -> Tensor: ...


class DeviceModel(ABC):
    """A junction of two states, parallel and antiparallel, or an array of them.

    Every argument is a number, or a tensor with one for each junction. A positive voltage drives a junction from
    parallel to antiparallel, a negative one back.
    """

    @abstractmethod
    def resistance_ohm(self, antiparallel: State, *, voltage_V: Real) -> Real:
        """Resistance in a state, at a voltage across the junction."""

    @abstractmethod
    def switch_probability(self, antiparallel: State, *, voltage_V: Real, pulse_width_s: Real) -> Tensor:
        """Probability, 0..1, that a junction in a state is in the other one after a pulse.

        Raises:
            ValueError: a width is negative, or an argument is NaN.
        """

    @abstractmethod
    def switching_time_s(self, antiparallel: State, *, voltage_V: Real, probability: Real) -> Tensor:
        """Width of the pulse that switches a junction with a given probability; `inf` where none does.

        Raises:
            ValueError: a probability is outside 0..1, or an argument is NaN.
        """

    def pulse(self, antiparallel: Tensor, *, voltage_V: Real, pulse_width_s: Real, generator: torch.Generator) -> Pulse:
        """Pulses each junction once; it switches at a random time, if that comes before the pulse ends.

        One number of 24 bits is drawn for each junction, in the order of `antiparallel`: events rarer than 2**-25
        never happen. The outcome depends on the generator's state and not on the shape.

        Args:
            antiparallel: bool, any shape: the state of each junction.
            voltage_V: broadcasts to that shape.
            pulse_width_s: 0 or more, broadcasts to that shape. A pulse of width 0 does nothing.
            generator: on the device of `antiparallel`.

        Raises:
            ValueError: a width is negative or NaN.
        """
        states = antiparallel.reshape(-1)
        voltages, widths = (_column(value, antiparallel.shape) for value in (voltage_V, pulse_width_s))
        switched, old_state_s = [], []
        for part in _parts(states):
            state, width_s = states[part], torch.as_tensor(_cut(widths, part))
            require(width_s >= 0, "the width of a pulse is 0 or more seconds", width_s)
            uniform = torch.rand(state.shape, generator=generator, device=state.device).clamp_min_(2.0**-25)
            time_s = self._part(antiparallel.shape, part).switching_time_s(
                state, voltage_V=_cut(voltages, part), probability=uniform
            )
            switched.append(state ^ (time_s < width_s))
            old_state_s.append(torch.minimum(time_s, width_s.to(time_s)))
        return Pulse(*(torch.cat(parts).view(antiparallel.shape) for parts in (switched, old_state_s)))

    def _part(self, shape: torch.Size, part: slice) -> "DeviceModel":
        """The device of some of its junctions: those attributes cut that have a value for each."""
        device = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                object.__setattr__(device, name, _cut(_column(value, shape), part))
        return device

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


def _parts(whole: Tensor) -> Iterator[slice]:
    """Parts of a flattened tensor, so small on a CPU that what is computed on the way stays in its cache."""
    size = _PART if whole.device.type == "cpu" else max(whole.numel(), 1)
    return (slice(start, start + size) for start in range(0, max(whole.numel(), 1), size))


def _column(value: Real, shape: torch.Size) -> Any:
    """A value for each junction as a flat tensor; one value for all as it is."""
    return value.expand(shape).reshape(-1) if isinstance(value, Tensor) and value.numel() != 1 else value


def _cut(column: Real, part: slice) -> Any:
    return column[part] if isinstance(column, Tensor) and column.numel() != 1 else column


def require(condition: Tensor, rule: str, values: Tensor) -> None:
    """Raises a ValueError with the rule and the first value that breaks it."""
    if not bool(condition.all()):
        value = values.expand_as(condition)[~condition].flatten()[0].item()
        raise ValueError(f"{rule}, got {value:g}")


def require_positive(name: str, value: Real) -> None:
    """Raises a ValueError unless a quantity, of one junction or of many, is a finite number above 0."""
    tensor = torch.as_tensor(value)
    require((tensor > 0) & tensor.isfinite(), f"{name} is a finite number above 0", tensor)


def as_number(state: State) -> Real:
    """1 where a junction is antiparallel, else 0."""
    return state.to(torch.get_default_dtype()) if isinstance(state, Tensor) else float(state)


def tensors(*values: Real) -> list[Tensor]:
    """Tensors of one floating dtype on one device: those of the tensors with dimensions, else float64 on the CPU."""
    converted = [v if isinstance(v, Tensor) else torch.tensor(v, dtype=torch.float64) for v in values]
    arrays = [tensor for tensor in converted if tensor.dim()] or converted
    dtype = arrays[0].dtype
    for array in arrays[1:]:
        dtype = torch.promote_types(dtype, array.dtype)
    if not dtype.is_floating_point:
        dtype = torch.get_default_dtype()
    return [tensor.to(arrays[0].device, dtype) for tensor in converted]
