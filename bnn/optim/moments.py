"""`Moment`: a running mean of a gradient, or of its square, that is kept in few bits and worked on as float32.

dtype      bytes an element   what is kept
float32    4                  the value
bfloat16   2                  the value, or the root of a mean square
float16    2                  the value, or the root of a mean square
int8       1                  a code c for sign(x) (c / 127)^2 2^e, or for the root (c / 255)^2 2^e; a byte e a row

A *row* is one index of the first dimension, that is an output channel; a vector is one row. The root halves the range
of the exponents: squares of ordinary gradients underflow float16. The squared code has small steps near zero, where
most elements lie: its least value is 2^-14 of its row's 2^e, not 2^-7. Since e is whole, a row's factor stays put for
long, and an element that does not change is not rounded again.

Rounding is stochastic: a mean that moves by a thousandth of itself a step would never move if rounded to nearest. It
keeps a mean on average, and of a mean square its root.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bnn.optim.rows import rows_of
from bnn.random.rounding import round_to_dtype_, round_to_integers_

STATE_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int8)

# Codes are numbers of 8 bits; those of a root, which is never negative, have no sign.
_LEVELS = {torch.int8: 127, torch.uint8: 255}

# A mean over a root that is rounded to 0 would be an update without bound. With this least code, errors of Adam's steps
# were smallest for gradients whose sizes in a row are lognormal (sigma = 2, 3); it is above the least code of a mean.
_MIN_ROOT = 4


def whole_moment(state: dict[str, Any], name: str, parameter: Tensor) -> Tensor:
    """The tensor of a float32 moment, in the shape of its parameter; made in `state` if missing."""
    if name not in state:
        state[name] = torch.zeros_like(parameter, dtype=torch.float32)
    return state[name]  # type: ignore[no-any-return]


def check_moment(state: Mapping[str, Any], name: str, parameter: Tensor, *, squared: bool) -> None:
    """Refuses the tensors of a moment, if they are there, that `Moment` cannot have left.

    Args:
        state: of the parameter; nothing in it is trusted.
        name: of the moment.
        parameter: [rows, ...].
        squared: whether this is a mean of squares.

    Raises:
        ValueError: a tensor is missing, none, or of another shape or dtype; the message says which.
    """
    dtypes = {torch.uint8 if squared and dtype is torch.int8 else dtype for dtype in STATE_DTYPES}
    stored = state.get(name)
    if name in state and not _is_tensor(stored, dtypes, parameter.shape):
        raise ValueError(f"{name} is no moment of a parameter of {list(parameter.shape)}")
    if isinstance(stored, Tensor) and stored.dtype in _LEVELS:
        exponent = f"{name}_exponent"
        if not _is_tensor(state.get(exponent), {torch.int8}, (len(rows_of(parameter)),)):
            raise ValueError(f"{exponent}, which {name} needs, is missing or has not an int8 for each row")


def _is_tensor(value: Any, dtypes: Collection[torch.dtype], shape: Sequence[int]) -> bool:
    return isinstance(value, Tensor) and value.dtype in dtypes and value.shape == tuple(shape)


class Moment:
    """One running mean of one parameter. Its tensors lie in the optimizer's state, where checkpoints find them.

    Args:
        state: the optimizer's state of the parameter. The tensors are made here if missing: `name`, in the shape of
            the parameter, and for 8 bits `name_exponent`, int8 [rows].
        name: of the tensors.
        parameter: [rows, ...]; gives shape, strides and device.
        dtype: one of `STATE_DTYPES`, of tensors that are made here.
        squared: whether this is a mean of squares, which is never negative.
    """

    def __init__(
        self, state: dict[str, Any], name: str, parameter: Tensor, dtype: torch.dtype, *, squared: bool
    ) -> None:
        if name not in state:
            stored_dtype = torch.uint8 if squared and dtype is torch.int8 else dtype
            state[name] = torch.zeros_like(parameter, dtype=stored_dtype)
            if stored_dtype in _LEVELS:
                rows = len(rows_of(parameter))
                state[f"{name}_exponent"] = torch.zeros(rows, dtype=torch.int8, device=parameter.device)
        elif state[name].stride() != parameter.stride():
            # Checkpoints do not keep strides, in whose order the random numbers are drawn.
            state[name] = torch.empty_like(parameter, dtype=state[name].dtype).copy_(state[name])
        self._stored = rows_of(state[name])
        self._levels = _LEVELS.get(self._stored.dtype)
        if self._levels is not None:
            self._exponent = state[f"{name}_exponent"].view(-1, *(1 for _ in self._stored.shape[1:]))
        self._is_root = squared and self._stored.dtype is not torch.float32

    def read(self, rows: slice) -> Tensor:
        """The values of some rows, float32. Those of a float32 moment are the state itself."""
        values = self._stored[rows].float()
        if self._levels is not None:
            values.mul_(values.abs()).mul_(self._step(rows))
        return values.square_() if self._is_root else values

    def write(self, rows: slice, values: Tensor, generator: torch.Generator) -> None:
        """Keeps the values of some rows, float32, and overwrites `values`."""
        if self._is_root:
            values.sqrt_()
        if self._levels is not None:
            self._stored[rows] = self._codes(rows, values, generator)
        elif self._stored.dtype is not torch.float32:
            self._stored[rows] = round_to_dtype_(values, self._stored.dtype, generator)

    def _step(self, rows: slice) -> Tensor:
        """Value of the code 1 in each row: float32 [rows, 1, ...]."""
        assert self._levels is not None
        exponent = self._exponent[rows]
        return torch.ldexp(torch.full_like(exponent, 1 / self._levels**2, dtype=torch.float32), exponent)

    def _codes(self, rows: slice, values: Tensor, generator: torch.Generator) -> Tensor:
        largest = values.abs().amax(dim=tuple(range(1, values.dim())), keepdim=True)
        # The least e whose 2^e is above the largest value of the row.
        self._exponent[rows] = torch.frexp(largest).exponent.clamp_(-100, 127).to(torch.int8)
        squares = values.abs().div_(self._step(rows))
        below = squares.sqrt().floor_()
        # A number between c^2 and (c + 1)^2 goes up as often as it is far.
        part = squares.sub_(below.square()).div_((below * 2).add_(1))
        codes = below.add_(round_to_integers_(part, generator))
        if self._is_root:
            return codes.clamp_(_MIN_ROOT, self._levels)
        return codes.clamp_(0, self._levels).copysign_(values)
