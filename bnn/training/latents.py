"""Callbacks that keep latent weights in their place."""

import torch

from bnn.errors import RecipeError
from bnn.stores import LatentStore
from bnn.training.callback import Callback
from bnn.training.trainer import Trainer


class ClipLatents(Callback):
    """Clips every latent weight to [-limit, limit] after each step.

    Source: Courbariaux et al. 2016, arXiv 1602.02830, sec. 1.5: a latent weight beyond the straight-through window
    would get no gradient any more.
    """

    def __init__(self, *, limit: float = 1.0) -> None:
        if not limit > 0:
            raise RecipeError(f"the limit of latent weights is above 0, got {limit}")
        self.limit = limit

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        """Clips."""
        with torch.no_grad():
            for store in _latent_stores(trainer):
                store.weight.clamp_(-self.limit, self.limit)


class ProjectLatents(Callback):
    """Lets every weight quantizer move its latent weights after each step, as `ReCU(tail="project")` does."""

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        """Projects."""
        for store in _latent_stores(trainer):
            store.project_()


def _latent_stores(trainer: Trainer) -> list[LatentStore]:
    return [module for module in trainer.run.model.modules() if isinstance(module, LatentStore)]
