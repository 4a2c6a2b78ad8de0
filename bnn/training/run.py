"""`Run`: everything that defines one training, as a recipe returns it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn.data import Augmentation, Dataset
from bnn.errors import RecipeError
from bnn.training.callback import Callback

Precision = Literal["float32", "bfloat16"]


@dataclass
class Run:
    """One training, ready to start. A recipe is a function that returns one; its parameters are its command line.

    Raises:
        RecipeError: a value is out of its range.
    """

    model: nn.Module
    """Takes float [B, C, H, W] and gives logits [B, classes]; its weights are those to start from."""
    data: Dataset
    optimizer: torch.optim.Optimizer
    """Over the model's parameters."""
    epochs: int
    """At least 1."""
    batch_size: int
    """At least 1; the last incomplete batch of an epoch is left out."""
    seed: int
    """0 or above; of the data's order, the augmentation and the validation split. The model has its own."""
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    """Of logits and labels; a mean over the batch."""
    schedule: Callable[[float], float] | None = None
    """Factor of the learning rate at an epoch, with fractions; None keeps the optimizer's own."""
    validation: float = 0.1
    """Part of the training split to hold out, in [0, 1). It never includes test images."""
    augment: Sequence[Augmentation] = ()
    slice_size: int | None = None
    """Largest number of examples that go through the network at once; None: the whole batch.

    A batch is cut into slices of nearly equal size whose gradients add up, so that the memory for activations does
    not grow with the batch. Batch norms see a slice at a time, as ghost batches (Hoffer et al. 2017, arXiv
    1705.08741).
    """
    precision: Precision = "float32"
    """Of the products of floats and of what lies between them, in training and evaluation.

    bfloat16 is torch's autocast: products sum in float32 and round their result, weights and optimizer keep their own
    dtype. Levels of binary and ternary layers are exact in either. A processor with bfloat16 products, such as those
    with AMX, is several times as fast. Predictions of memory and energy do not know it: they are those of float32.
    """
    callbacks: Sequence[Callback] = ()
    """What the method needs at each step or epoch, such as clipping the latent weights."""
    generators: Mapping[str, torch.Generator] = field(default_factory=dict)
    """Generators that the model or optimizer draws from in training; checkpoints keep their states."""

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise RecipeError(f"a run has at least 1 epoch, got {self.epochs}")
        if self.batch_size < 1:
            raise RecipeError(f"a batch has at least 1 example, got {self.batch_size}")
        if self.slice_size is not None and self.slice_size < 1:
            raise RecipeError(f"a slice has at least 1 example, got {self.slice_size}")
        if self.precision not in get_args(Precision):
            raise RecipeError(f"the precision is one of {', '.join(get_args(Precision))}, got {self.precision!r}")
        if self.seed < 0:
            raise RecipeError(f"a seed is 0 or above, got {self.seed}")
        if not 0 <= self.validation < 1:
            raise RecipeError(f"the validation part lies in [0, 1), got {self.validation}")
        for group in self.optimizer.param_groups:
            if not (group["lr"] > 0 and math.isfinite(group["lr"])):
                raise RecipeError(f"the learning rate is a finite number above 0, got {group['lr']}")

    @property
    def identity(self) -> dict[str, Any]:
        """JSON values that tell this run from others of the same network; a checkpoint keeps them."""
        identity = {
            "data": self.data.name,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "slice_size": self.slice_size,
            "seed": self.seed,
            "validation": self.validation,
        }
        # Checkpoints did not always name the precision; those that do not are of float32.
        return identity if self.precision == "float32" else {**identity, "precision": self.precision}
