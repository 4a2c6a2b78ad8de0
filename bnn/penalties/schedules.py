"""Strengths of a penalty over a training, as pure functions of the epoch."""

from collections.abc import Callable

from bnn.errors import RecipeError


def trapezoid(
    epochs: float, *, peak: float, rise_epochs: float = 0.0, fall_epochs: float = 0.0
) -> Callable[[float], float]:
    """The strength: linear from 0 to `peak`, then constant, then linear to 0 at `epochs`.

    The rise lets the network learn before weights are driven to zero; the fall keeps the penalty from going on to
    ever sparser weights (see `Compressibility`).

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
