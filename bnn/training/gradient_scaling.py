"""Adaptive gradient scaling: no filter's gradient is small beside its weights."""

import math
from typing import Any

import torch
from torch import Tensor

from bnn.errors import RecipeError
from bnn.stores import WeightStore
from bnn.training.step_hook import StepHook
from bnn.training.weight_state import trained_value

# Least norms of a filter's gradient and weights, of the authors' public code.
_LEAST_GRADIENT, _LEAST_WEIGHT = 1e-6, 1e-3


class AdaptiveGradientScaling(StepHook):
    """Brings the gradient g of each filter w up to |g| = ratio |w| before the step, where it is below.

    The gradient of a binary network does not know how large the latent weights are, so that filters of large weights
    hardly ever change a sign. Source: Xiang et al. 2024 (OvSW), arXiv 2407.05257, and its public code.

    Args:
        ratio: the authors' delta, above 0; they take 0.01 on ImageNet.
    """

    def __init__(self, *, ratio: float = 0.01) -> None:
        super().__init__()
        if not 0 < ratio < math.inf:
            raise RecipeError(f"the least ratio of gradient and weight is finite and above 0, got {ratio}")
        self.ratio = ratio

    @torch.no_grad()
    def before_step(self, store: WeightStore, gradient: Tensor, state: dict[str, Any]) -> None:
        """Scales."""
        least = self.ratio * _norms(trained_value(store)).clamp_min(_LEAST_WEIGHT)
        factor = (least / _norms(gradient).clamp_min(_LEAST_GRADIENT)).clamp_min(1)
        gradient.mul_(factor.to(gradient.dtype).view(-1, *[1] * (gradient.dim() - 1)))


def _norms(x: Tensor) -> Tensor:
    """Euclidean norm of each filter, float32 [out]."""
    return x.flatten(1).norm(dim=1, dtype=torch.float32)  # type: ignore[no-any-return]
