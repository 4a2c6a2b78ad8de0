"""RM3 and M3: the median of three gradients, which keeps what examples agree about."""

from collections.abc import Mapping

import torch
from torch import Tensor

from bnn.errors import RecipeError
from bnn.training import Callback, Trainer

_EARLIER = ("gradient_1", "gradient_2")


class MedianGradient(Callback):
    """Takes of each weight the median of the gradients of three batches: what one of them alone asks for is lost.

    Rolling (RM3), each step goes by its batch and the two before; the first two steps, which have no such, by their
    own. Otherwise (M3) every third batch makes a step, by itself and the two before, and these make none, but for the
    first of all. Use it without momentum, which would average over batches again. Beside the gradient two earlier ones
    are kept, 8 bytes a weight, in the optimizer's state. It needs dense gradients and a step after backward, which
    `edge` and `edge-min` do not have. Source: Zielinski, Krishnan and Chatterjee 2020, arXiv 2003.07422.
    What it does to binary networks is not measured.

    Args:
        rolling: whether it is RM3.
    """

    def __init__(self, *, rolling: bool = True) -> None:
        self.rolling = rolling
        self._seen: dict[Tensor, Tensor] = {}

    @torch.no_grad()
    def on_gradients(self, trainer: Trainer) -> None:
        """Puts the medians in the place of the gradients.

        Raises:
            RecipeError: a gradient is not dense, or none is left.
        """
        optimizer = trainer.run.optimizer
        trained = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not trained or any(type(parameter.grad) is not Tensor for parameter in trained):
            raise RecipeError(
                "the median of gradients needs dense ones before each step: use the preset standard, whose stores do"
                " not pack them"
            )
        for parameter in trained:
            gradient = parameter.grad
            assert gradient is not None
            self._seen[parameter] = gradient.clone()
            parameter.grad = self._median(optimizer.state.get(parameter, {}), gradient, trainer.step)

    @torch.no_grad()
    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        """Keeps the gradients for the next steps; not earlier, since an optimizer begins with an empty state."""
        for parameter, gradient in self._seen.items():
            state = trainer.run.optimizer.state[parameter]
            if not self.rolling:
                state[_EARLIER[(trainer.step - 1) % 3 % 2]] = gradient
            elif _EARLIER[1] in state:
                state[_EARLIER[0]], state[_EARLIER[1]] = state[_EARLIER[1]], gradient
            else:
                state[_EARLIER[1]] = gradient
        self._seen.clear()

    def _median(self, state: Mapping[str, Tensor], gradient: Tensor, step: int) -> Tensor | None:
        """What the step goes by, None for no step."""
        if not self.rolling and step % 3 < 2 and step > 0:
            return None
        if any(name not in state for name in _EARLIER):
            return gradient
        first, second = (state[name] for name in _EARLIER)
        return torch.minimum(torch.maximum(gradient, torch.minimum(first, second)), torch.maximum(first, second))
