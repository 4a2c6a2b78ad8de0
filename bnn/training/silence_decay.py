"""Silence-aware decay: weights that have not changed their sign for long are pulled towards zero."""

from typing import Any

import torch
from torch import Tensor

from bnn.bits import BitTensor
from bnn.errors import RecipeError
from bnn.stores import WeightStore
from bnn.training.step_hook import StepHook
from bnn.training.weight_state import trained_value

_KEY = "flip_average"


class SilenceAwareDecay(StepHook):
    """Adds decay * w to the gradient of every weight w that is silent: whose running mean of flips is low.

    After each step the mean a of a weight becomes momentum a + (1 - momentum) [its level changed]; it begins at 0,
    and the weight is silent where a < threshold. At the defaults one change keeps a weight from being silent for 2301
    steps. The means are float32, in the optimizer's state beside those of the weight. Source: Xiang et al. 2024
    (OvSW), arXiv 2407.05257, and its public code.

    Args:
        decay: at least 0; the authors take 2e-5 on ImageNet.
        momentum: of the mean, in [0, 1).
        threshold: above 0.
    """

    def __init__(self, *, decay: float = 2e-5, momentum: float = 0.999, threshold: float = 1e-4) -> None:
        super().__init__()
        for name, value, fits in (
            ("decay is at least 0", decay, decay >= 0),
            ("momentum lies in [0, 1)", momentum, 0 <= momentum < 1),
            ("threshold is above 0", threshold, threshold > 0),
        ):
            if not fits:
                raise RecipeError(f"silence-aware decay: the {name}, got {value}")
        self.decay = decay
        self.momentum = momentum
        self.threshold = threshold
        self._before: dict[WeightStore, Tensor] = {}

    @torch.no_grad()
    def before_step(self, store: WeightStore, gradient: Tensor, state: dict[str, Any]) -> None:
        """Decays silent weights."""
        pull = self.decay * trained_value(store).to(gradient.dtype)
        if _KEY in state:
            pull *= state[_KEY] < self.threshold
        gradient.add_(pull)
        self._before[store] = _levels(store)

    @torch.no_grad()
    def after_step(self, store: WeightStore, state: dict[str, Any]) -> None:
        """Takes the changes of the step into the mean."""
        changed = _levels(store) != self._before.pop(store)
        if _KEY not in state:
            state[_KEY] = torch.zeros_like(changed, dtype=torch.float32)
        state[_KEY].mul_(self.momentum).add_((1 - self.momentum) * changed)


def _levels(store: WeightStore) -> Tensor:
    levels = store.read()
    return levels.dense(torch.bool) if isinstance(levels, BitTensor) else levels
