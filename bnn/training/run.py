"""`Run`: everything that defines one training, as a recipe returns it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bnn.data import Augmentation, Dataset
from bnn.errors import RecipeError
from bnn.training.callback import Callback
from bnn.training.step import TrainingStep

_MOST_EXAMPLES = 2**31


@dataclass(kw_only=True)
class Run(TrainingStep):
    """A training step with its data, number of epochs and schedule; a recipe returns one.

    A preset's step becomes one by `Run(**vars(prepare(...)), data=..., ...)`.

    Raises:
        RecipeError: a value is out of its range.
    """

    data: Dataset
    epochs: int
    """At least 1."""
    batch_size: int
    """At least 1; the last incomplete batch of an epoch is left out."""
    seed: int
    """0 or above; of the data's order, the augmentation and the validation split. The model has its own."""
    schedule: Callable[[float], float] | None = None
    """Factor of the learning rate at an epoch, with fractions; None keeps the optimizer's own."""
    validation: float = 0.1
    """Part of the training split to hold out, in [0, 1). It never includes test images."""
    augment: Sequence[Augmentation] = ()
    callbacks: Sequence[Callback] = ()
    """What the method does at each step or epoch, such as a schedule of its own."""
    notes: Sequence[str] = ()
    """Lines for whoever starts it, such as which weights it begins with."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs < 1:
            raise RecipeError(f"a run has at least 1 epoch, got {self.epochs}")
        if self.batch_size < 1:
            raise RecipeError(f"a batch has at least 1 example, got {self.batch_size}")
        if self.batch_size > _MOST_EXAMPLES:
            raise RecipeError(f"a batch has at most {_MOST_EXAMPLES:,} examples, got {self.batch_size}")
        if self.seed < 0:
            raise RecipeError(f"a seed is 0 or above, got {self.seed}")
        if not 0 <= self.validation < 1:
            raise RecipeError(f"the validation part lies in [0, 1), got {self.validation}")
        for group in self.optimizer.param_groups:
            if not (group["lr"] > 0 and math.isfinite(group["lr"])):
                raise RecipeError(f"the learning rate is a finite number above 0, got {group['lr']}")

    @property
    def identity(self) -> dict[str, Any]:
        """JSON values that distinguish this run from others of the same network; a checkpoint keeps them."""
        return {
            "data": self.data.name,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "slice_size": self.slice_size,
            "precision": self.precision,
            "seed": self.seed,
            "validation": self.validation,
            **({} if self.exchange is None else self.exchange.identity),
            **({} if self.replay is None else {"replayed": self.replay.per_step}),
        }
