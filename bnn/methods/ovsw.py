"""OvSW: silent weights, those that hardly ever change their sign, are overcome by two changes of the gradient.

Source: Xiang et al. 2024, arXiv 2407.05257, and its public code.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from bnn.bits import BitTensor
from bnn.errors import RecipeError
from bnn.training import Callback, Trainer
from bnn.weights import WeightStore, named_stores

# Least norms of a filter's gradient and weights, of the authors' public code.
_MIN_GRADIENT_NORM, _MIN_WEIGHT_NORM = 1e-6, 1e-3
_FLIP_AVERAGE = "flip_average"


class AdaptiveGradientScaling(Callback):
    """Brings the gradient g of each filter w up to |g| = ratio |w| before the step, where it is below.

    The gradient of a binary network does not know how large the latent weights are, so that filters of large weights
    hardly ever change a sign. It needs dense gradients and a step after backward, which the presets `edge` and
    `edge-min` do not have; their steps would not see the size of a filter's gradient.

    Args:
        ratio: the authors' delta, above 0; they take 0.01 on ImageNet.
    """

    def __init__(self, *, ratio: float = 0.01) -> None:
        if not 0 < ratio < math.inf:
            raise RecipeError(f"the least ratio of gradient and weight is finite and above 0, got {ratio}")
        self.ratio = ratio

    @torch.no_grad()
    def on_gradients(self, trainer: Trainer) -> None:
        """Scales the gradients."""
        for store, gradient in _dense_gradients(self, trainer):
            least = self.ratio * _norms(store.trained_value()).clamp_min(_MIN_WEIGHT_NORM)
            factor = (least / _norms(gradient).clamp_min(_MIN_GRADIENT_NORM)).clamp_min(1)
            gradient.mul_(factor.to(gradient.dtype).view(-1, *[1] * (gradient.dim() - 1)))


class SilenceAwareDecay(Callback):
    """Adds decay * w to the gradient of every weight w that is silent: whose running mean of flips is low.

    After each step the mean a of a weight becomes momentum a + (1 - momentum) [its level changed]; it begins at 0,
    and the weight is silent where a < threshold. At the defaults one change keeps a weight from being silent for 2301
    steps. The means are float32, in the optimizer's state beside those of the weight. It needs what
    `AdaptiveGradientScaling` needs.

    Args:
        decay: at least 0; the authors take 2e-5 on ImageNet.
        momentum: of the mean, in [0, 1).
        threshold: above 0.
    """

    def __init__(self, *, decay: float = 2e-5, momentum: float = 0.999, threshold: float = 1e-4) -> None:
        for name, value, is_valid in (
            ("decay is at least 0", decay, decay >= 0),
            ("momentum lies in [0, 1)", momentum, 0 <= momentum < 1),
            ("threshold is above 0", threshold, threshold > 0),
        ):
            if not is_valid:
                raise RecipeError(f"silence-aware decay: the {name}, got {value}")
        self.decay = decay
        self.momentum = momentum
        self.threshold = threshold
        self._before: dict[WeightStore, Tensor] = {}

    @torch.no_grad()
    def on_gradients(self, trainer: Trainer) -> None:
        """Decays silent weights."""
        for store, gradient in _dense_gradients(self, trainer):
            pull = self.decay * store.trained_value().to(gradient.dtype)
            state = trainer.run.optimizer.state.get(store.trained, {})
            if _FLIP_AVERAGE in state:
                pull *= state[_FLIP_AVERAGE] < self.threshold
            gradient.add_(pull)
            self._before[store] = _levels(store)

    @torch.no_grad()
    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        """Updates the means with the changes of the step."""
        for _, store in named_stores(trainer.run.model):
            changed = _levels(store) != self._before.pop(store)
            state = trainer.run.optimizer.state[store.trained]
            if _FLIP_AVERAGE not in state:
                state[_FLIP_AVERAGE] = torch.zeros_like(changed, dtype=torch.float32)
            state[_FLIP_AVERAGE].mul_(self.momentum).add_((1 - self.momentum) * changed)


def _dense_gradients(callback: Callback, trainer: Trainer) -> Iterator[tuple[WeightStore, Tensor]]:
    """Every store of the model with its parameter's gradient."""
    for name, store in named_stores(trainer.run.model):
        gradient = store.trained.grad
        if type(gradient) is not Tensor:
            what = "none" if gradient is None else type(gradient).__name__
            raise RecipeError(
                f"{type(callback).__name__} needs a dense gradient of layer {name} before each step, it has {what}: use"
                " stores whose gradient is not packed"
            )
        yield store, gradient


def _norms(x: Tensor) -> Tensor:
    """Euclidean norm of each filter, float32 [out]."""
    return x.flatten(1).norm(dim=1, dtype=torch.float32)  # type: ignore[no-any-return]


def _levels(store: WeightStore) -> Tensor:
    levels = store.read()
    return levels.dense(torch.bool) if isinstance(levels, BitTensor) else levels
