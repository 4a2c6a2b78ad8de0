"""`Graph`: a network as a list of calls, of its parts and of functions from a list."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn.bits import BitTensor, cat_rows
from bnn.layers.products import in_rows

INPUT = "%x"
"""The network's input."""


class Call(NamedTuple):
    """One call. What begins with % is the value of that name, in arguments and lists of them."""

    result: str
    """Name of its value, which begins with %."""
    kind: str
    """part, function or method."""
    target: str
    """Name of the part, of a function in `FUNCTIONS`, or of a method in `METHODS`."""
    arguments: tuple[Any, ...]
    options: tuple[tuple[str, Any], ...] = ()
    """Names and values."""

    def taking(self, others: Mapping[str, str]) -> Call:
        """The call with other values in the place of some, by their names."""
        options = tuple((name, _renamed(value, others)) for name, value in self.options)
        return self._replace(arguments=_renamed(self.arguments, others), options=options)


def _shape(x: Tensor) -> torch.Size:
    return x.shape


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{f"operator.{name}": getattr(operator, name) for name in ("add", "sub", "mul", "truediv", "floordiv", "neg")},
    **{f"torch.{name}": getattr(torch, name) for name in ("add", "sub", "mul", "div", "cat", "stack", "flatten")},
    **{f"torch.{name}": getattr(torch, name) for name in ("mean", "sum", "reshape", "transpose", "permute", "squeeze")},
    **{f"torch.{name}": getattr(torch, name) for name in ("unsqueeze", "chunk", "split", "sigmoid", "tanh", "clamp")},
    **{f"torch.{name}": getattr(torch, name) for name in ("max_pool2d", "adaptive_avg_pool1d")},
    **{f"F.{name}": getattr(F, name) for name in ("avg_pool2d", "adaptive_avg_pool2d", "pad", "interpolate")},
    **{f"F.{name}": getattr(F, name) for name in ("leaky_relu", "silu", "gelu", "hardswish", "hardsigmoid", "softmax")},
    **{f"F.{name}": getattr(F, name) for name in ("hardtanh", "log_softmax", "normalize")},
    "operator.getitem": operator.getitem,
    "slice": slice,
    "shape": _shape,
}
"""What a call may name: functions of torch and of Python's operators that compute and do nothing else."""

METHODS = (
    *("reshape", "flatten", "size", "mean", "sum", "permute", "transpose", "contiguous", "squeeze"),
    *("unsqueeze", "chunk", "split", "add", "sub", "mul", "div", "sigmoid", "tanh", "clamp", "softmax"),
)
"""Methods of tensors that a call may name."""


class Graph(nn.Module):
    """Calls parts and functions in order; the parts have the names that they have in the network it was made of.

    What is called is looked up in lists, so that a description from anywhere can be built (`bnn.codec`). The first
    `frozen` calls are not trained: they keep nothing for backward, and their norms and dropouts are always in
    evaluation mode.

    Args:
        parts: by name, with dots between the levels.
        calls: in their order; each takes values of earlier ones.
        output: name of the value that is returned.
        frozen: number of calls from the first.

    Raises:
        ValueError: a call names what there is not, or a value that is not there yet.
    """

    def __init__(
        self, parts: Mapping[str, nn.Module], calls: Sequence[Sequence[Any]], output: str, *, frozen: int = 0
    ) -> None:
        super().__init__()
        self.calls = tuple(Call(*call) for call in calls)
        self.output = output
        for name, part in parts.items():
            _add_part(self, name, part)
        self._names = tuple(parts)
        self._check()
        self.frozen = frozen
        last_use = {name: place for place, call in enumerate(self.calls) for name in (call.result, *values_of(call))}
        self._ends = [
            [name for name, last in last_use.items() if last == place and name != output]
            for place in range(len(self.calls))
        ]
        if frozen:
            self.train()

    @property
    def parts(self) -> dict[str, nn.Module]:
        """By name."""
        return {name: self.get_submodule(name) for name in self._names}

    @property
    def frozen(self) -> int:
        """Number of calls, from the first, that are not trained."""
        return self._frozen

    @frozen.setter
    def frozen(self, calls: int) -> None:
        if not 0 <= calls <= len(self.calls):
            raise ValueError(f"of {len(self.calls)} calls so many cannot be frozen: {calls}")
        self._frozen = calls

    def train(self, mode: bool = True) -> Graph:
        """As of any module; what is frozen stays in evaluation mode."""
        super().train(mode)
        for call in self.calls[: self.frozen]:
            if call.kind == "part":
                self.get_submodule(call.target).eval()
        return self

    @property
    def handed_on(self) -> list[str]:
        """Names of the values that the frozen calls give and later ones take."""
        given = {INPUT, *(call.result for call in self.calls[: self.frozen])}
        taken = [name for call in self.calls[self.frozen :] for name in values_of(call)]
        return list(dict.fromkeys(name for name in taken if name in given))

    def forward(self, x: Tensor, replayed: Tensor | None = None) -> Any:
        """Whatever the network gives of its input.

        Args:
            x: the input.
            replayed: rows of bits, uint8 [R, ...], that `frozen_part` has given of other examples, which stand behind
                those of `x` from there on.
        """
        if replayed is None:
            return self.run({INPUT: x}, 0)[self.output]
        own = self.frozen_part(x)
        others = BitTensor(replayed, (len(replayed), *own.shape[1:]), own.stride(), own.dtype)
        return self.run({self.handed_on[0]: cat_rows([own, others])}, self.frozen)[self.output]

    def frozen_part(self, x: Tensor) -> BitTensor:
        """What the frozen calls hand on: bits, whose rows are the examples.

        Raises:
            ValueError: they hand on several values, or one that is not of bits.
        """
        name, *others = self.handed_on
        value = self.run({INPUT: x}, 0, self.frozen)[name]
        if others or not isinstance(value, BitTensor):
            raise ValueError(f"the frozen part hands on {', '.join(self.handed_on)}, and not one value of bits")
        return in_rows(value)

    def run(self, values: dict[str, Any], first: int, stop: int | None = None) -> dict[str, Any]:
        """Takes the calls from `first` on; returns the values that are left.

        Args:
            values: those that the calls take from earlier ones, by name. Those that no later call takes are dropped.
            first: place of the call to begin with.
            stop: place of the call to stop before; None: takes all.
        """
        for place in range(first, len(self.calls) if stop is None else stop):
            call = self.calls[place]
            with torch.set_grad_enabled(torch.is_grad_enabled() and place >= self.frozen):
                values[call.result] = self.take(call, values)
            for name in self._ends[place]:
                del values[name]
        return values

    def extra_repr(self) -> str:  # noqa: D102
        return f"{len(self.calls)} calls" + (f", {self.frozen} of them frozen" if self.frozen else "")

    def take(self, call: Call, values: Mapping[str, Any]) -> Any:
        """What a call gives, with the values that it takes from earlier ones, by name."""
        arguments = [_with_values(argument, values) for argument in call.arguments]
        options = {name: _with_values(value, values) for name, value in call.options}
        if call.kind == "part":
            return self.get_submodule(call.target)(*arguments, **options)
        if call.kind == "function":
            return FUNCTIONS[call.target](*arguments, **options)
        return getattr(arguments[0], call.target)(*arguments[1:], **options)

    def _check(self) -> None:
        known = {"part": self._names, "function": FUNCTIONS, "method": METHODS}
        values = {INPUT}
        for call in self.calls:
            if call.target not in known.get(call.kind, ()):
                raise ValueError(f"there is no {call.kind} {call.target!r} to call")
            missing = [name for name in values_of(call) if name not in values]
            if missing or not call.result.startswith("%") or call.result in values:
                raise ValueError(f"the call of {call.target!r} takes or gives a value that it cannot")
            values.add(call.result)
        if self.output not in values:
            raise ValueError(f"there is no value {self.output!r} to return")


def values_of(call: Call) -> list[str]:
    """Names of the values that a call takes."""
    found: list[str] = []

    def look(argument: Any) -> None:
        if isinstance(argument, (list, tuple)):
            for item in argument:
                look(item)
        elif _is_value(argument):
            found.append(argument)

    look(call.arguments)
    look([value for _, value in call.options])
    return found


def _is_value(argument: Any) -> bool:
    return isinstance(argument, str) and argument.startswith("%")


def _renamed(argument: Any, others: Mapping[str, str]) -> Any:
    if isinstance(argument, (list, tuple)):
        return tuple(_renamed(item, others) for item in argument)
    return others.get(argument, argument) if _is_value(argument) else argument


def _with_values(argument: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(argument, (list, tuple)):
        return tuple(_with_values(item, values) for item in argument)
    return values[argument] if _is_value(argument) else argument


def _add_part(graph: nn.Module, name: str, part: nn.Module) -> None:
    """Puts a part below modules that hold others and are never called."""
    *levels, last = name.split(".")
    owner = graph
    for level in levels:
        if level not in owner._modules:
            owner.add_module(level, nn.Module())
        owner = owner.get_submodule(level)
    owner.add_module(last, part)
