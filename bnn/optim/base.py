"""`LowBitOptimizer`: works in float32 on a few rows at a time and keeps state of few bits."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, overload

import torch
from torch import Tensor

from bnn.bits import BitTensor
from bnn.errors import NonFiniteError
from bnn.ops import functions
from bnn.ops.layout import in_memory_order
from bnn.ops.without_compiler import without_compiler
from bnn.optim.finite import check_finite, few_rows, is_finite, non_finite_gradient
from bnn.optim.moments import STATE_DTYPES, Moment, check_moment, whole_moment
from bnn.optim.rows import float_rows, is_small, row_chunks, rows_of
from bnn.random.rounding import round_to_dtype_
from bnn.random.streams import generator_like, rounding_seed
from bnn.weights.accumulator import CODES_PER_UNIT, decode, encode, is_accumulator

_PARAMETER_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int8)


class LowBitOptimizer(torch.optim.Optimizer):
    """Steps one parameter at a time, some rows at a time; a subclass gives the formula in float32.

    Parameters may be of float32, bfloat16 or float16, or `bnn.weights.accumulator.Accumulator`. Narrow ones are
    read as float32 and written back with stochastic rounding, so that small updates are not lost. Besides parameters,
    gradients and state, a step holds a few float32 tensors of 2^17 elements or one row, whichever is more.

    The randomness of a rounding depends on the seed, the parameter's index in the optimizer and the number of its
    steps, and on nothing else: there is no generator to keep, and parameters may be stepped in any order, as
    `step_in_backward` does. State keeps its own dtype in `bnn.training.snapshot`; torch's `load_state_dict` would
    cast it.

    Args:
        params: parameters or groups of them, as of every torch optimizer.
        defaults: options of the groups; `lr`, `seed` and `state_dtype` among them.
        state_dtype: of the moments.
        narrow_from: parameters of fewer elements have moments of float32, which takes less time than to round them; not
            accumulators.

    Raises:
        ValueError: an option is out of its range.
    """

    def __init__(
        self, params: Iterable[Any], defaults: dict[str, Any], *, state_dtype: torch.dtype, narrow_from: int = 0
    ) -> None:
        if state_dtype not in STATE_DTYPES:
            names = ", ".join(str(dtype) for dtype in STATE_DTYPES)
            raise ValueError(f"the dtype of an optimizer's state is one of {names}, got {state_dtype}")
        require(narrow_from >= 0, "narrow_from is at least 0", narrow_from)
        self.state_dtype = state_dtype
        self.narrow_from = narrow_from
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As of every torch optimizer; the options and the dtypes of the parameters are checked."""
        with without_compiler():
            super().add_param_group(param_group)
        group = self.param_groups[-1]
        for parameter in group["params"]:
            require(
                parameter.dtype in _PARAMETER_DTYPES,
                f"a parameter is of {_PARAMETER_DTYPES}",
                parameter.dtype,
            )
        self.check_group(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As of every torch optimizer; packed gradients, which cannot be zero, always become None."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if isinstance(parameter.grad, BitTensor):
                    parameter.grad = None
        with without_compiler():
            super().zero_grad(set_to_none)

    def check_group(self, group: dict[str, Any]) -> None:
        """Refuses options that are out of their range."""
        require(group["lr"] >= 0 and math.isfinite(group["lr"]), "lr is finite and at least 0", group["lr"])
        require(group["seed"] >= 0, "seed is at least 0", group["seed"])

    def check_state(self, group: dict[str, Any], parameter: Tensor, state: Mapping[str, Any]) -> None:
        """Refuses a state that steps of this optimizer cannot have left of a parameter of a group.

        Raises:
            ValueError: the message says what is wrong.
        """
        step = state.get("step", 1)
        require(type(step) is int and step >= 1, "steps are counted from 1", step)
        for name, squared in self.moments(group).items():
            check_moment(state, name, parameter, squared=squared)

    def moments(self, group: dict[str, Any]) -> dict[str, bool]:
        """The running means that are kept of each parameter, by name: whether it is one of squares."""
        raise NotImplementedError

    def sign_step(self, group: dict[str, Any]) -> float | None:
        """The step size s where the update is w - s sign(gradient); None for other updates.

        With a step size nothing is kept between steps, and int8 accumulators with a gradient of packed signs are
        stepped in one pass over their codes, without `update`.
        """
        return None

    def ignores_scale(self, group: dict[str, Any]) -> bool:
        """Whether an update is the same for every positive multiple of the gradient."""
        return False

    def hysteresis(self, group: dict[str, Any]) -> float:
        """The least magnitude, in 0..1, of an accumulator whose sign a step has just changed."""
        return 0.0

    def update(self, weight: Tensor, gradient: Tensor, moments: list[Tensor], group: dict[str, Any], step: int) -> None:
        """Changes some rows of a parameter and of its moments, in place.

        Args:
            weight: float32 [rows, ...].
            gradient: the same; not to be changed.
            moments: float32, in the order of `moments()`; 0 at the first step.
            group: the options.
            step: counts the steps of this parameter, from 1.
        """
        raise NotImplementedError

    def update_all(
        self,
        weights: list[Tensor],
        gradients: list[Tensor],
        moments: list[list[Tensor]],
        group: dict[str, Any],
        step: int,
    ) -> None:
        """`update` of several whole parameters, such as those of norms; by default one after the other.

        Args:
            weights: float32, of any shapes.
            gradients: the same.
            moments: float32, a list of each of `moments()`.
            group: the options.
            step: counts the steps of these parameters, from 1.
        """
        for weight, gradient, *values in zip(weights, gradients, *moments, strict=True):
            self.update(rows_of(weight), rows_of(gradient), [rows_of(value) for value in values], group, step)

    def checks_gradient(self, group: dict[str, Any]) -> bool:
        """Whether `step_codes` refuses a gradient or a state that is not finite, and then has changed nothing."""
        return False

    def step_codes(self, codes: Tensor, gradient: Tensor, group: dict[str, Any], step: int, seed: int) -> bool:
        """Steps an int8 Accumulator by the values of its gradient in kernels, if the optimizer has some for it.

        Args:
            codes: the accumulator.
            gradient: of its shape.
            group: the options.
            step: counts the steps of this parameter, from 1.
            seed: of the rounding.

        Returns:
            Whether the step was taken; by default, and if not, nothing is changed and `update` is called.
        """
        return False

    def update_at_once(
        self, weight: Tensor, gradient: Tensor, stored: list[Tensor], group: dict[str, Any], step: int, seed: int
    ) -> bool:
        """Steps a float16 Accumulator in one pass of the kernels, if the optimizer has a kernel for it.

        Args:
            weight: float16 [rows, n], in the order of memory; within [-1, 1] afterwards.
            gradient: float32 [rows, n]; or its signs, packed, uint8 [rows, ceil(n / 8)].
            stored: float16 [rows, n], in the order of `moments()`, as they are kept: of a mean square the root.
            group: the options.
            step: counts the steps of this parameter, from 1.
            seed: of the roundings.

        Returns:
            Whether the step was taken; by default, and if not, nothing is changed and `update` is called.
        """
        return False

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Steps every parameter that has a gradient.

        Raises:
            NonFiniteError: a gradient has NaN or infinite values, or one whose square is infinite, or rows of an
                accumulator or its state have; nothing has been changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        numbered = enumerate((group, parameter) for group in self.param_groups for parameter in group["params"])
        pending = [
            (index, group, parameter, parameter.grad)
            for index, (group, parameter) in numbered
            if parameter.grad is not None
        ]
        check_finite((index, gradient) for index, _, _, gradient in pending)
        for index, _, parameter, _ in pending:
            self._check_accumulator(index, parameter)
        whole: dict[tuple[int, int], tuple[dict[str, Any], list[Tensor], list[Tensor]]] = {}
        for index, group, parameter, gradient in pending:
            if is_small(parameter) and self._needs_no_rounding(group, parameter):
                key = id(group), self.state[parameter].get("step", 0)
                _, parameters, gradients = whole.setdefault(key, (group, [], []))
                parameters.append(parameter)
                gradients.append(gradient)
            else:
                self._step_parameter(index, group, parameter, gradient)
        for group, parameters, gradients in whole.values():
            self._step_whole(group, parameters, gradients)
        return loss

    @torch.no_grad()
    def step_one(self, index: int) -> None:
        """Steps the parameter that is the optimizer's `index`-th, as `step` does where no other has a gradient.

        Raises:
            NonFiniteError: as of `step`; nothing has been changed.
        """
        first = 0
        for group in self.param_groups:
            if index < first + len(group["params"]):
                parameter = group["params"][index - first]
                if not self.checks_gradient(group):
                    check_finite([(index, parameter.grad)])
                    self._check_accumulator(index, parameter)
                return self._step_parameter(index, group, parameter, parameter.grad)
            first += len(group["params"])
        raise IndexError(f"the optimizer has {first} parameters, there is none with index {index}")

    def _check_accumulator(self, index: int, parameter: Tensor) -> None:
        """Refuses an accumulator that is not finite, or whose state is not, as far as a few rows tell.

        Rounding would make ordinary numbers of it, where every other parameter passes a NaN on to the loss. No gradient
        can have put it there, so that a step looks at a few rows, and a checkpoint at all.
        """
        if not is_accumulator(parameter):
            return
        for tensor in (parameter.detach(), *self.state[parameter].values()):
            if isinstance(tensor, Tensor) and tensor.is_floating_point() and not is_finite(few_rows(tensor)):
                raise NonFiniteError(
                    f"the optimizer's parameter {index}, of shape {list(parameter.shape)}, or its state is not finite:"
                    " go on from an earlier checkpoint"
                )

    def _needs_no_rounding(self, group: dict[str, Any], parameter: Tensor) -> bool:
        """Whether a parameter and its state are of float32."""
        if parameter.dtype is not torch.float32 or is_accumulator(parameter):
            return False
        state = self.state[parameter]
        made = self._dtype_of_state(parameter)
        kept = [state[name].dtype if name in state else made for name in self.moments(group)]
        return all(dtype is torch.float32 for dtype in kept)

    def _dtype_of_state(self, parameter: Tensor) -> torch.dtype:
        """Of moments that are made."""
        is_small = parameter.numel() < self.narrow_from and not is_accumulator(parameter)
        return torch.float32 if is_small else self.state_dtype

    def _step_whole(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """Steps parameters that need no rounding, and have taken equally many steps."""
        states = [self.state[parameter] for parameter in parameters]
        for state in states:
            state["step"] = state.get("step", 0) + 1
        moments = [
            [whole_moment(state, name, parameter) for state, parameter in zip(states, parameters, strict=True)]
            for name in self.moments(group)
        ]
        gradients = [
            gradient.dense(torch.float32) if isinstance(gradient, BitTensor) else gradient.float()
            for gradient in gradients
        ]
        self.update_all([parameter.detach() for parameter in parameters], gradients, moments, group, states[0]["step"])

    def _step_parameter(self, index: int, group: dict[str, Any], parameter: Tensor, gradient: Tensor) -> None:
        if self._needs_no_rounding(group, parameter):
            return self._step_whole(group, [parameter], [gradient])
        state = self.state[parameter]
        before = state.get("step")
        state["step"] = step = (before or 0) + 1
        seed = rounding_seed(seed=group["seed"], index=index, step=step)
        moments = [
            Moment(state, name, parameter, self._dtype_of_state(parameter), squared=squared)
            for name, squared in self.moments(group).items()
        ]
        accumulates = is_accumulator(parameter)
        try:
            is_taken = accumulates and self._step_at_once(group, parameter, gradient, step, seed)
        except NonFiniteError:
            state.update(step=before) if before else state.pop("step")
            self._check_accumulator(index, parameter)
            raise non_finite_gradient(index, gradient) from None
        if is_taken:
            return None
        generator = generator_like(parameter, seed)
        weights, gradients = rows_of(parameter), rows_of(gradient)
        hysteresis = self.hysteresis(group)
        for rows in row_chunks(weights):
            weight, values = decode(weights[rows]), [moment.read(rows) for moment in moments]
            negative = weight < 0 if accumulates and hysteresis else None
            self.update(weight, float_rows(gradients, rows), values, group, step)
            if negative is not None:
                _apply_hysteresis_(weight, negative, hysteresis)
            if accumulates:
                weight.clamp_(-1, 1)
            write_rows(weights[rows], weight, generator)
            for moment, value in zip(moments, values, strict=True):
                moment.write(rows, value, generator)
        return None

    def _step_at_once(self, group: dict[str, Any], parameter: Tensor, gradient: Tensor, step: int, seed: int) -> bool:
        """Steps an accumulator in one pass of the kernels, if they have one for it and its gradient."""
        fits, is_signs = gradient.stride() == parameter.stride(), isinstance(gradient, BitTensor)
        is_votes = not gradient.is_floating_point() and self.ignores_scale(group)
        state, size = self.state[parameter], self.sign_step(group)
        if size is not None and parameter.dtype is torch.int8 and fits and (is_signs or is_votes):
            _, codes = in_memory_order(parameter.detach())
            least = min(CODES_PER_UNIT * self.hysteresis(group), CODES_PER_UNIT - 1)
            numbers = (CODES_PER_UNIT * size, least, seed)
            if isinstance(gradient, BitTensor):
                functions.step_by_signs(codes, gradient.packed, *numbers)
            else:
                _step_by_votes(codes, in_memory_order(gradient)[1], *numbers)
            return True
        if parameter.dtype is torch.int8:
            return self.step_codes(parameter, gradient, group, step, seed)
        tensors = [parameter.detach(), *(state[name] for name in self.moments(group))]
        if any(tensor.dtype is not torch.float16 for tensor in tensors):
            return False
        weight, *stored = (in_memory_order(tensor)[1] for tensor in tensors)
        if isinstance(gradient, BitTensor) and fits:
            rows = gradient.packed
        else:
            rows = in_memory_order(in_order_of(parameter, gradient, torch.float32))[1]
        return self.update_at_once(weight, rows, stored, group, step, seed)


def in_order_of(parameter: Tensor, gradient: Tensor, dtype: torch.dtype) -> Tensor:
    """A gradient of a dtype with the strides of its parameter; itself where it is so already."""
    if isinstance(gradient, BitTensor):
        gradient = gradient.dense(dtype)
    if gradient.dtype is dtype and gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter, dtype=dtype).copy_(gradient)


def _step_by_votes(codes: Tensor, votes: Tensor, *step: Any) -> None:
    """`step_by_signs` by the signs of whole numbers; where these are 0, codes stay as they are."""
    before = codes.clone()
    signs = torch.cat([functions.pack(votes[rows] > 0) for rows in row_chunks(votes)])
    functions.step_by_signs(codes, signs, *step)
    for rows in row_chunks(codes):
        moves = (votes[rows] != 0).view(torch.int8).neg_()
        # By bits, which takes a fifth of the time of `torch.where`.
        codes[rows].bitwise_xor_(before[rows]).bitwise_and_(moves).bitwise_xor_(before[rows])


def require(condition: bool, rule: str, value: object) -> None:
    """Raises a ValueError that states the rule and the value that breaks it."""
    if not condition:
        raise ValueError(f"{rule}, got {value}")


def _apply_hysteresis_(weight: Tensor, was_negative: Tensor, hysteresis: float) -> None:
    """Moves what has changed its sign at least `hysteresis` away from 0."""
    negative = weight < 0
    near = (negative != was_negative) & (weight.abs() < hysteresis)
    weight.copy_(torch.where(near, torch.where(negative, -hysteresis, hysteresis), weight))


def write_rows(stored: Tensor, values: Tensor, generator: torch.Generator) -> None:
    """Rounds float32 values to a parameter's dtype, stochastically; of a float32 parameter they are its own memory."""
    if stored.dtype is torch.int8:
        stored.copy_(encode(values, generator))
    elif stored.dtype is not torch.float32:
        stored.copy_(round_to_dtype_(values, stored.dtype, generator))
