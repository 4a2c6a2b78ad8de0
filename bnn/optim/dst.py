"""DST: the discrete state transition of GXNOR-Net, which trains weights that have a few levels only."""

from typing import Any

import torch
from torch import Tensor

from bnn.optim.adam import Adam
from bnn.optim.base import LowBitOptimizer, require
from bnn.optim.rows import row_chunks, rows_of
from bnn.optim.sgd import SGD
from bnn.random.streams import generator_like, transition_seed
from bnn.weights import store_behind


class DST(LowBitOptimizer):
    """Takes the step of another optimizer, and turns it into random transitions between levels.

    Let d be the step and z the spacing of the levels. With d / z = k + v, k rounded towards 0, a weight moves by k
    levels, and by one more in the direction of d with probability

        tanh(m |v|),    or    |v| where m is None.

    It stays within the outermost levels. The first law makes small steps m times as large on average: E = tanh(m v).
    The second keeps every step on average. Source: Deng et al. 2018 (GXNOR-Net), arXiv 1705.09283, sec. 2.

    The size of a transition is fixed. A smaller learning rate makes all transitions rarer, those due to noise as much
    as the others: weights move more slowly, but not less randomly. A longer mean of the gradient, by the momentum or
    the beta 1 of the base, reduces the part of noise.

    The states are the stores': a parameter that is a `ProgrammedWeight` is moved by its store's `program`, and every
    other one, such as those of norms, by the base optimizer's formula as ever. Besides what the base keeps, a step
    holds one float32 tensor of a parameter's size.

    Args:
        base: `Adam` or `SGD`, with or without momentum, over all the parameters. Its learning rate, the dtype of its
            state and its seed are those of this optimizer, which takes its place.
        m: steepness of the tanh, above 0 and finite, or None; 3 in the paper. Also an option of the groups.
    """

    def __init__(self, base: Adam | SGD, *, m: float | None = 3.0) -> None:
        require(isinstance(base, (Adam, SGD)), "the base of DST is Adam or SGD of bnn.optim", type(base).__name__)
        self._base = base
        defaults = {**base.defaults, "m": m}
        super().__init__(base.param_groups, defaults, state_dtype=base.state_dtype, narrow_from=base.narrow_from)

    def check_group(self, group: dict[str, Any]) -> None:
        """Refuses options that are out of their range."""
        self._base.check_group(group)
        m = group["m"]
        require(m is None or 0 < m < float("inf"), "DST's m is above 0 and finite, or None", m)
        decay = group.get("weight_decay", 0)
        discrete = any(store_behind(parameter) is not None for parameter in group["params"])
        require(not (discrete and decay), "discrete weights have no weight decay", decay)

    def moments(self, group: dict[str, Any]) -> dict[str, bool]:
        """The moments of the base."""
        return self._base.moments(group)

    def update(self, weight: Tensor, gradient: Tensor, moments: list[Tensor], group: dict[str, Any], step: int) -> None:
        """The formula of the base."""
        self._base.update(weight, gradient, moments, group, step)

    def _needs_no_rounding(self, group: dict[str, Any], parameter: Tensor) -> bool:
        return store_behind(parameter) is None and super()._needs_no_rounding(group, parameter)

    def _step_parameter(self, index: int, group: dict[str, Any], parameter: Tensor, gradient: Tensor) -> None:
        store = store_behind(parameter)
        if store is None:
            return super()._step_parameter(index, group, parameter, gradient)
        # The base steps zeros in the weight's place, which leaves its step in them.
        change = torch.zeros(parameter.shape, dtype=torch.float32, device=gradient.device)
        self.state[change] = state = self.state[parameter]
        try:
            super()._step_parameter(index, group, change, gradient.contiguous())
        finally:
            del self.state[change]
        spacing, m = store.spacing, group["m"]
        if m is not None:
            rows = rows_of(change)
            for part in row_chunks(rows):
                to_probability_(rows[part].div_(spacing), m).mul_(spacing)
        seed = transition_seed(seed=group["seed"], index=index, step=state["step"])
        return store.program(change, generator_like(change, seed))


def to_probability_(steps: Tensor, m: float) -> Tensor:
    """k + v becomes k + tanh(m v), in place: v has the sign of k and |v| < 1."""
    whole = steps.trunc()
    return steps.sub_(whole).mul_(m).tanh_().add_(whole)
