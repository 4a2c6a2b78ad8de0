"""A loss with a penalty on the weights, as a `Run` takes it."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from bnn.methods.penalty import Penalty
from bnn.training import Callback, Loss, Trainer
from bnn.weights import LatentStore, SparseStore


def weights_of(model: nn.Module) -> list[Tensor]:
    """The weights that a penalty is for: latent ones, and those of real convolutions and linear layers."""
    layers = (LatentStore, SparseStore, nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return [module.weight for module in model.modules() if isinstance(module, layers)]


class PenalizedLoss:
    """loss(logits, labels) + strength * penalty(weights) in training; in evaluation the loss alone.

    Pass it as the `loss` of a `Run`, and a `PenaltySchedule` among its callbacks where the strength is to change.

    Args:
        model: whose weights are penalized; its mode tells training from evaluation.
        penalty: of `weights_of(model)`.
        strength: factor of the penalty, at least 0.
        loss: of logits and labels.
    """

    def __init__(
        self, model: nn.Module, penalty: Penalty, *, strength: float = 0.0, loss: Loss = F.cross_entropy
    ) -> None:
        self.model = model
        self.penalty = penalty
        self.strength = strength
        self.loss = loss

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar."""
        loss = self.loss(logits, labels)
        if not self.model.training or self.strength == 0:
            return loss
        return loss + self.strength * self.penalty(weights_of(self.model))


class PenaltySchedule(Callback):
    """Sets the strength of the run's `PenalizedLoss` at the start of each epoch.

    Args:
        loss: the run's loss.
        strength: of an epoch, such as `trapezoid` makes.
    """

    def __init__(self, loss: PenalizedLoss, strength: Callable[[float], float]) -> None:
        self.loss = loss
        self.strength = strength

    def on_epoch_begin(self, trainer: Trainer) -> None:
        """Sets the strength."""
        self.loss.strength = self.strength(trainer.epoch)
