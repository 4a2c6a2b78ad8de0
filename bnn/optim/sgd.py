"""Stochastic gradient descent."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from bnn.optim.base import LowBitOptimizer, require


class SGD(LowBitOptimizer):
    """g' = g + decay w; m = momentum m + g'; w = w - lr m.

    With float32 state and parameters it does what `torch.optim.SGD` does, bit for bit. Without momentum there is no
    state at all.

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        momentum: in [0, 1).
        weight_decay: at least 0.
        state_dtype: of the momentum: float32, bfloat16, float16 or int8, that is 4, 2, 2 or 1 bytes a weight.
        seed: of the stochastic rounding.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        state_dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "seed": seed}
        super().__init__(params, defaults, state_dtype=state_dtype)

    def check_group(self, group: dict[str, Any]) -> None:
        """Refuses options that are out of their range."""
        super().check_group(group)
        require(0 <= group["momentum"] < 1, "momentum lies in [0, 1)", group["momentum"])
        require(group["weight_decay"] >= 0, "weight_decay is at least 0", group["weight_decay"])

    def moments(self, group: dict[str, Any]) -> dict[str, bool]:
        """The momentum, if there is one."""
        return {"momentum_buffer": False} if group["momentum"] else {}

    def sign_step(self, group: dict[str, Any]) -> float | None:
        """The learning rate, without momentum and decay."""
        return float(group["lr"]) if group["momentum"] == group["weight_decay"] == 0 else None

    def update(self, weight: Tensor, gradient: Tensor, moments: list[Tensor], group: dict[str, Any], step: int) -> None:
        """The formula of SGD with momentum."""
        if group["weight_decay"]:
            gradient = gradient.add(weight, alpha=group["weight_decay"])
        for momentum in moments:
            gradient = momentum.mul_(group["momentum"]).add_(gradient)
        weight.sub_(gradient, alpha=group["lr"])
