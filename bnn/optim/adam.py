"""Adam."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from bnn.ops import functions
from bnn.ops.layout import in_memory_order
from bnn.optim.base import LowBitOptimizer, in_order_of, require
from bnn.optim.rows import rows_of
from bnn.weights.accumulator import CODES_PER_UNIT, is_accumulator

_ROW_SQUARES = "row_avg_sq"


class Adam(LowBitOptimizer):
    """m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; w = w - lr m' / (sqrt(v') + eps), m' and v' without bias.

    With float32 state and parameters it does what `torch.optim.Adam` does, bit for bit. Source: Kingma and Ba 2015,
    arXiv 1412.6980, algorithm 1; for state of 8 bits, Dettmers et al. 2022, arXiv 2110.02861, from which the codes
    here differ (see `bnn.optim.moments`).

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        betas: decays of the mean and of the mean square, in [0, 1). Where both are 0, as they may be in a group of
            its own, there is no state, and a weight moves by `lr` against the sign of its gradient.
        eps: added to the root, above 0.
        state_dtype: of both moments: float32, bfloat16, float16 or int8, that is 8, 4, 4 or 2 bytes a weight.
        narrow_from: parameters of fewer elements that are no accumulators have moments of float32.
        hysteresis_steps: in learning rates, at least 0: an `Accumulator` that changes its sign is set at least this far
            beyond 0, but not beyond 1. Without it, noisy signs carry the accumulator to and fro across 0, and flip its
            weight.
        seed: of the stochastic rounding.

    A group of int8 accumulators may have two more options. With `row_squares` the mean square is one of a whole row,
    that is of an output channel, and all that is kept of it is a float32 a row, `row_avg_sq`; the decay of the mean is
    0, and a gradient is rounded to bfloat16. No weight moves further than `limit_steps` learning rates. Source: Zhang
    et al. 2024, arXiv 2406.16793, of which this is the second moment.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        state_dtype: torch.dtype = torch.float32,
        narrow_from: int = 0,
        hysteresis_steps: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            params,
            {"lr": lr, "betas": betas, "eps": eps, "hysteresis_steps": hysteresis_steps, "seed": seed},
            state_dtype=state_dtype,
            narrow_from=narrow_from,
        )

    def check_group(self, group: dict[str, Any]) -> None:
        """Refuses options that are out of their range."""
        super().check_group(group)
        require(all(0 <= beta < 1 for beta in group["betas"]), "betas lie in [0, 1)", group["betas"])
        require(group["eps"] > 0, "eps is above 0", group["eps"])
        steps = group["hysteresis_steps"]
        require(0 <= steps < math.inf, "hysteresis_steps is finite and at least 0", steps)
        if _has_row_squares(group):
            require(not group["betas"][0], "with row_squares the decay of the mean is 0", group["betas"])
            dtypes = {parameter.dtype for parameter in group["params"]}
            fits = dtypes == {torch.int8} and all(map(is_accumulator, group["params"]))
            require(fits, "row_squares is for accumulators of int8", dtypes)
            limit = group.get("limit_steps", 0)
            require(0 < limit < math.inf, "with row_squares limit_steps is finite and above 0", limit)

    def check_state(self, group: dict[str, Any], parameter: Tensor, state: Mapping[str, Any]) -> None:
        """Refuses a state that steps of this optimizer cannot have left."""
        super().check_state(group, parameter, state)
        if _has_row_squares(group):
            squares, rows = state.get(_ROW_SQUARES), len(rows_of(parameter))
            if not isinstance(squares, Tensor) or squares.dtype is not torch.float32 or squares.shape != (rows,):
                raise ValueError(f"{_ROW_SQUARES} is not a float32 of each of {rows} rows")
            if (squares < 0).any():
                raise ValueError(f"{_ROW_SQUARES} has a mean square below 0")

    def checks_gradient(self, group: dict[str, Any]) -> bool:
        """With `row_squares`, since the mean squares are there before anything is changed."""
        return _has_row_squares(group)

    def step_codes(self, codes: Tensor, gradient: Tensor, group: dict[str, Any], step: int, seed: int) -> bool:
        """v = b2 v + (1 - b2) mean g^2 of each row; w = w - clamp(lr g / (sqrt(v') + eps), +-limit_steps lr)."""
        if not _has_row_squares(group):
            return False
        state, size = self.state[codes], CODES_PER_UNIT * float(group["lr"])
        rows = in_memory_order(in_order_of(codes, gradient, torch.bfloat16))[1]
        if _ROW_SQUARES not in state:
            state[_ROW_SQUARES] = torch.zeros(len(rows), device=codes.device)
        least = min(CODES_PER_UNIT * self.hysteresis(group), CODES_PER_UNIT - 1)
        numbers = (size, group["betas"][1], group["eps"], group["limit_steps"], least, step, seed)
        functions.adam_by_rows(in_memory_order(codes.detach())[1], state[_ROW_SQUARES], rows, *numbers)
        return True

    def moments(self, group: dict[str, Any]) -> dict[str, bool]:
        """The mean and the mean square, unless their decay is 0 or rows have one."""
        if _has_row_squares(group):
            return {}
        means = {"exp_avg": False, "exp_avg_sq": True}
        return {name: squared for (name, squared), beta in zip(means.items(), group["betas"], strict=True) if beta}

    def sign_step(self, group: dict[str, Any]) -> float | None:
        """The learning rate where both decays are 0: g / sqrt(g^2) is the sign."""
        return float(group["lr"]) if not any(group["betas"]) else None

    def ignores_scale(self, group: dict[str, Any]) -> bool:
        """Where both decays are 0."""
        return not any(group["betas"])

    def hysteresis(self, group: dict[str, Any]) -> float:
        """`hysteresis_steps` learning rates, at most 1."""
        return min(1.0, float(group["hysteresis_steps"] * group["lr"]))

    def update(self, weight: Tensor, gradient: Tensor, moments: list[Tensor], group: dict[str, Any], step: int) -> None:
        """Adam's formula."""
        self.update_all([weight], [gradient], [[moment] for moment in moments], group, step)

    def update_all(
        self,
        weights: list[Tensor],
        gradients: list[Tensor],
        moments: list[list[Tensor]],
        group: dict[str, Any],
        step: int,
    ) -> None:
        """Adam's formula, of all parameters in one call each."""
        beta1, beta2 = group["betas"]
        means = gradients
        if beta1:
            means = moments[0]
            torch._foreach_lerp_(means, gradients, 1 - beta1)
        if beta2:
            torch._foreach_mul_(moments[-1], beta2)
            torch._foreach_addcmul_(moments[-1], gradients, gradients, value=1 - beta2)
            roots = torch._foreach_sqrt(moments[-1])
        else:
            roots = torch._foreach_sqrt(torch._foreach_mul(gradients, gradients))
        torch._foreach_div_(roots, math.sqrt(1 - beta2**step))
        torch._foreach_add_(roots, group["eps"])
        torch._foreach_addcdiv_(weights, means, roots, value=-group["lr"] / (1 - beta1**step))

    def update_at_once(
        self, weight: Tensor, gradient: Tensor, stored: list[Tensor], group: dict[str, Any], step: int, seed: int
    ) -> bool:
        """The same formula, where both moments are kept."""
        if not all(group["betas"]):
            return False
        mean, root = stored
        options = (group["lr"], group["betas"], group["eps"], self.hysteresis(group))
        adam = functions.adam_by_signs if gradient.dtype is torch.uint8 else functions.adam_by_values
        adam(weight, mean, root, gradient, *options, step, seed)
        return True


def _has_row_squares(group: Mapping[str, Any]) -> bool:
    return bool(group.get("row_squares"))
