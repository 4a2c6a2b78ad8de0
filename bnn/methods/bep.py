"""Binary error propagation: the errors that go back from layer to layer are signs, too.

Source: BEP (2025), arXiv 2512.04189, for perceptrons and recurrent networks; its rules are those of public notes.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bnn.errors import RecipeError
from bnn.models import initialize
from bnn.models.parts import quantize_gradients
from bnn.optim import Boolean
from bnn.quantizers.gradients import SignGradient
from bnn.training import TrainingStep
from bnn.weights import AccumulatorStore, default_store, is_accumulator


class MarginLoss:
    """mean of max(0, margin - (z of the label - largest other z)): an example whose margin holds has no gradient.

    Args:
        margin: above 0, in the units of the logits.

    Raises:
        RecipeError: the margin is out of its range.
    """

    def __init__(self, *, margin: float = 1.0) -> None:
        if not 0 < margin < math.inf:
            raise RecipeError(f"the margin is above 0 and finite, got {margin}")
        self.margin = margin

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Of logits [N, classes] and int64 labels [N]."""
        of_label = logits.gather(1, labels[:, None])[:, 0]
        others = logits.scatter(1, labels[:, None], -math.inf)
        return (self.margin - (of_label - others.amax(1))).clamp(min=0).mean()


def bep_step(
    build: Callable[[], nn.Module],
    *,
    rate: float = 2.0**-11,
    learning_rate: float = 1e-3,
    margin: float = 1.0,
    least: float = 1.0,
    dtype: torch.dtype = torch.float16,
    seed: int = 0,
) -> TrainingStep:
    """A network that is trained by signs of errors.

    Of the error of each product its sign is taken, a = sign(g), which is 0 where the margin of an example holds or the
    window of its activation is closed. The layer before gets W^T a, and each weight has an integer from which the sum
    over the batch of a times the input is taken away; it saturates, and its sign is the weight. Here accumulators in
    [-1, 1] take the place of the integers, and `rate` that of their step. Batch norms, which the paper has none of, and
    real layers are stepped by Adam: errors that are signs say little of the size of a gradient.

    Args:
        build: makes the network; layers that it gives no store get accumulators.
        rate: of the sums of signs, above 0 and at most 1. A step of 2 for integers of b bits is one of 2^(2 - b) here.
        learning_rate: of Adam.
        margin: of the loss.
        least: magnitude of an error, in mean magnitudes of its layer, below which it counts 0. Behind a batch norm,
            whose gradient of an example depends on all, no error is 0 by itself, not where the margin holds either.
        dtype: of the accumulators, which are rounded at random: float32, bfloat16, float16 or int8.
        seed: of the weights and the roundings.

    Raises:
        RecipeError: the rate or the margin is out of its range.
    """
    if not 0 < rate <= 1:
        raise RecipeError(f"the rate of sums of signs lies in (0, 1], got {rate}")
    with default_store(partial(AccumulatorStore, dtype=dtype)):
        model = build()
    initialize(model, generator=torch.Generator().manual_seed(seed))
    quantize_gradients(model, lambda layer: SignGradient(scale="none", least=least))
    accumulators = [parameter for parameter in model.parameters() if is_accumulator(parameter)]
    others = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [{"params": accumulators, "lr": rate}, {"params": others}]
    # Without a leak, with a hysteresis of a step and its threshold in the middle, Boolean sums up gradients.
    optimizer = Boolean(
        [group for group in groups if group["params"]],
        lr=learning_rate,
        leak=False,
        hysteresis=rate,
        reach=1,
        seed=seed,
    )
    return TrainingStep(model=model, optimizer=optimizer, loss=MarginLoss(margin=margin))
