"""What acts on weights and gradients right before and after the optimizer's step."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from bnn.errors import RecipeError
from bnn.stores import WeightStore
from bnn.training.callback import Callback
from bnn.training.trainer import Trainer
from bnn.training.weight_state import named_stores, trained_parameter


class StepHook(Callback):
    """Is called for every store of the model around each step of the optimizer, when its gradient is complete.

    Several of them act in the order of the run's callbacks. They need a step after backward, and gradients that are
    no packed signs: the presets `edge` and `edge-min` are without.
    """

    def __init__(self) -> None:
        self._hooks: list[RemovableHandle] = []

    def before_step(self, store: WeightStore, gradient: Tensor, state: dict[str, Any]) -> None:
        """May change the gradient, in place.

        Args:
            store: of the weight.
            gradient: of its parameter, in the parameter's shape.
            state: the optimizer's of this parameter, empty before the first step. A checkpoint keeps tensors in it.
        """

    def after_step(self, store: WeightStore, state: dict[str, Any]) -> None:
        """May look at what the step did; see `before_step`."""

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Attaches to the optimizer."""
        optimizer, stores = trainer.run.optimizer, list(named_stores(trainer.run.model))

        def before(*_: Any) -> None:
            for name, store in stores:
                gradient = trained_parameter(store).grad
                if type(gradient) is not Tensor:
                    what = "none" if gradient is None else type(gradient).__name__
                    raise RecipeError(
                        f"{type(self).__name__} needs a dense gradient of layer {name} before each step, it has {what}:"
                        " use stores whose gradient is not packed"
                    )
                self.before_step(store, gradient, optimizer.state.get(trained_parameter(store), {}))

        def after(*_: Any) -> None:
            for _name, store in stores:
                self.after_step(store, optimizer.state[trained_parameter(store)])

        self._hooks = [optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after)]

    def on_exit(self, trainer: Trainer) -> None:
        """Detaches."""
        for hook in self._hooks:
            hook.remove()
