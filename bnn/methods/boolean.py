"""B+LD: Boolean weights that are flipped by accumulated gradients, without latent weights.

Source: Nguyen et al. 2024, arXiv 2405.16339.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from bnn.layers import BinaryLayer
from bnn.models import initialize
from bnn.models.parts import quantize_gradients
from bnn.optim import Boolean
from bnn.quantizers.gradients import BackwardScale
from bnn.quantizers.gradients.backward_scale import backward_factor
from bnn.training import TrainingStep
from bnn.weights import AccumulatorStore, default_store, is_accumulator
from bnn.weights.accumulator import CODES_PER_UNIT


def boolean_step(
    build: Callable[[], nn.Module],
    *,
    rate: float = 150.0,
    learning_rate: float = 1e-3,
    magnitude: bool = True,
    relative: bool = False,
    leak: bool = True,
    hysteresis: float = 1.0,
    reach: float = 16.0,
    scale_backward: bool = False,
    dtype: torch.dtype = torch.float16,
    seed: int = 0,
) -> TrainingStep:
    """A network whose binary weights `bnn.optim.Boolean` flips; norms and real layers are stepped by Adam.

    Args:
        build: makes the network; layers that it gives no store get accumulators.
        rate: of the accumulation, the paper's eta: 150 with batch norm, 12 without; with `relative` about 0.1.
        learning_rate: of Adam.
        magnitude: see `Boolean`, as the next four.
        relative: see `Boolean`.
        leak: see `Boolean`.
        hysteresis: see `Boolean`.
        reach: see `Boolean`.
        scale_backward: whether each layer's signal to the layer before is scaled by `backward_factor`, as networks
            without norms need; batch norms, whose gradient is divided by the deviation, do without.
        dtype: of the accumulators: float32, bfloat16, float16 or int8.
        seed: of the weights, fair coins, and of the roundings.
    """
    with default_store(partial(AccumulatorStore, dtype=dtype)):
        model = build()
    initialize(model, generator=torch.Generator().manual_seed(seed))
    accumulators = [parameter for parameter in model.parameters() if is_accumulator(parameter)]
    for accumulator in accumulators:
        to_rest_(accumulator.detach(), reach)
    if scale_backward:
        quantize_gradients(model, _scale_of)
    others = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [{"params": accumulators, "lr": rate}, {"params": others}]
    optimizer = Boolean(
        [group for group in groups if group["params"]],
        lr=learning_rate,
        magnitude=magnitude,
        relative=relative,
        leak=leak,
        hysteresis=hysteresis,
        reach=reach,
        seed=seed,
    )
    return TrainingStep(model=model, optimizer=optimizer)


def to_rest_(accumulator: torch.Tensor, reach: float) -> None:
    """Moves accumulators of `Boolean` to where m is 0 on their own side, in place; int8 to half a code."""
    high = 1 / reach
    low = -high
    if accumulator.dtype is torch.int8:
        high = round(CODES_PER_UNIT / reach) - 1
        low = -1 - high
    accumulator.copy_(torch.where(accumulator >= 0, high, low))


def _scale_of(layer: BinaryLayer) -> BackwardScale:
    stride = getattr(layer, "stride", 1)
    return BackwardScale(factor=backward_factor(layer.store.shape, strides=stride**2))
