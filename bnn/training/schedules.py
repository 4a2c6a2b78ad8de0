"""Schedules: pure functions of the epoch, so that nothing of them needs to be kept in a checkpoint."""

import math
from collections.abc import Callable

from bnn.errors import RecipeError


def warmup_cosine(epochs: int, *, warmup_epochs: float = 0.0) -> Callable[[float], float]:
    """Factor of the learning rate: linear from 0 to 1 over the warm-up, then half a cosine down to 0 at `epochs`.

    Source of the cosine: Loshchilov and Hutter 2017, arXiv 1608.03983, eq. 5, without restarts.

    Args:
        epochs: length of the training.
        warmup_epochs: length of the warm-up, at least 0 and below `epochs`.
    """
    if epochs < 1:
        raise RecipeError(f"a run has at least 1 epoch, got {epochs}")
    if not 0 <= warmup_epochs < epochs:
        raise RecipeError(f"a warm-up of {warmup_epochs} epochs does not fit a training of {epochs}: shorten it")

    def factor(epoch: float) -> float:
        if epoch < warmup_epochs:
            return epoch / warmup_epochs
        return 0.5 * (1 + math.cos(math.pi * (epoch - warmup_epochs) / (epochs - warmup_epochs)))

    return factor


def sequential(
    first: Callable[[float], float], epochs: float, second: Callable[[float], float], *, scale: float = 1.0
) -> Callable[[float], float]:
    """`first` for the first `epochs` epochs, then `second` from its own epoch 0 on, multiplied by `scale`."""
    return lambda epoch: first(epoch) if epoch < epochs else scale * second(epoch - epochs)


def trapezoid(
    epochs: float, *, peak: float, rise_epochs: float = 0.0, fall_epochs: float = 0.0
) -> Callable[[float], float]:
    """A strength that rises linearly from 0 to `peak`, stays, and falls linearly to 0 at `epochs`.

    The rise lets the network learn before weights are driven to zero; the fall ends the penalty before the weights
    become ever sparser (see `Compressibility`).

    Args:
        epochs: length of the training.
        peak: largest strength, at least 0.
        rise_epochs: length of the rise, at least 0.
        fall_epochs: length of the fall, at least 0; with the rise, at most `epochs`.
    """
    if not peak >= 0:
        raise RecipeError(f"the strength of a penalty is at least 0, got {peak}")
    if not (rise_epochs >= 0 and fall_epochs >= 0 and rise_epochs + fall_epochs <= epochs):
        raise RecipeError(f"a rise of {rise_epochs} and a fall of {fall_epochs} epochs do not fit into {epochs}")

    def strength(epoch: float) -> float:
        risen = epoch / rise_epochs if rise_epochs else 1.0
        left = (epochs - epoch) / fall_epochs if fall_epochs else 1.0
        return peak * max(0.0, min(1.0, risen, left))

    return strength
