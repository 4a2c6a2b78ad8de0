"""The Boolean optimizer of B+LD, which has no latent weights."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from bnn.optim.adam import Adam
from bnn.optim.base import require, write_rows
from bnn.optim.rows import float_rows, row_chunks, rows_of
from bnn.random.streams import generator_like, rounding_seed
from bnn.weights.accumulator import decode, is_accumulator

_KEPT = "kept_share"


class Boolean(Adam):
    """m = b m + lr g; a weight w of ±1 flips where m w >= 1, and m is 0 again. Real parameters are stepped by `Adam`.

    b, of each parameter, is 0 at its first step and then the share of its weights that the last step did not flip.

    Weight and m are one number here, an `Accumulator` a = (w - m) / reach, whose sign is the weight: m w >= 1 where a
    has reached 0, and m = 0 where a is ±1 / reach. It ends at ±1, so that m w stays at 1 - reach and above; the paper's
    m has no end. A weight that was pushed away from flipping has as far to come back; with a reach of 1 nothing of a
    push away is kept.

    The method is a step of accumulators with three switches, and with all of them off and a reach of 1 it is that of
    the preset `edge-signs`, `Adam` without means: the *magnitude* of the gradient counts and not its sign alone; a
    *leak* draws m back to 0; and what flips is set *hysteresis* beyond the threshold, where 1 is m = 0.

    lr is large, since gradients of a mean loss are small: the paper takes 150 for VGG-small with batch norm and 12
    without, and Adam of rate 1e-3 for norms and real layers, in a group of their own; a cosine takes both to 0. Weights
    begin at m = 0. A *relative* step takes g in mean magnitudes of its tensor: gradients differ between layers, and
    fall as a network learns, and a rate that fits the first steps then hardly flips a weight in later ones; lr is about
    0.1. Source: Nguyen et al. 2024 (Boolean logic deep learning), arXiv 2405.16339, algorithm 1, with what public
    re-implementations add to it, of which relative steps are one.

    Args:
        params: parameters or groups of them; accumulators are Boolean.
        lr: rate of the accumulation in groups of accumulators, learning rate in others.
        magnitude: whether the size of the gradient counts.
        relative: whether it counts in mean magnitudes of its tensor. Signs have one of 1.
        leak: whether b is the share of kept weights, and not 1.
        hysteresis: 1 - m w of a weight that has just flipped, in (0, 1].
        reach: 1 and above: largest 1 - m w that is kept.
        betas: of Adam.
        eps: of Adam.
        state_dtype: of Adam's moments.
        seed: of the stochastic rounding.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-3,
        magnitude: bool = True,
        relative: bool = False,
        leak: bool = True,
        hysteresis: float = 1.0,
        reach: float = 16.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        state_dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> None:
        self._switches = {
            "magnitude": magnitude,
            "relative": relative,
            "leak": leak,
            "hysteresis": hysteresis,
            "reach": reach,
        }
        super().__init__(params, lr=lr, betas=betas, eps=eps, state_dtype=state_dtype, seed=seed)

    def check_group(self, group: dict[str, Any]) -> None:
        """Refuses options that are out of their range."""
        for name, value in self._switches.items():
            group.setdefault(name, value)
        super().check_group(group)
        require(0 < group["hysteresis"] <= 1, "hysteresis lies in (0, 1]", group["hysteresis"])
        require(1 <= group["reach"] < math.inf, "reach is at least 1 and finite", group["reach"])

    def check_state(self, group: dict[str, Any], parameter: Tensor, state: Mapping[str, Any]) -> None:
        """Refuses a state that steps of this optimizer cannot have left."""
        if not is_accumulator(parameter):
            return super().check_state(group, parameter, state)
        step, kept = state.get("step", 1), state.get(_KEPT, 0.0)
        require(type(step) is int and step >= 1, "steps are counted from 1", step)
        require(type(kept) is float and 0 <= kept <= 1, "a share of kept weights lies in 0..1", kept)
        return None

    def _step_parameter(self, index: int, group: dict[str, Any], parameter: Tensor, gradient: Tensor) -> None:
        if not is_accumulator(parameter):
            return super()._step_parameter(index, group, parameter, gradient)
        state = self.state[parameter]
        state["step"] = step = state.get("step", 0) + 1
        kept = state.get(_KEPT, 0.0) if group["leak"] else 1.0
        generator = generator_like(parameter, rounding_seed(seed=group["seed"], index=index, step=step))
        weights, gradients, flips = rows_of(parameter), rows_of(gradient), 0
        rate = group["lr"]
        if group["relative"] and group["magnitude"]:
            rate /= max(mean_magnitude(gradients), torch.finfo(torch.float32).tiny)
        for rows in row_chunks(weights):
            values = decode(weights[rows])
            flips += step_(values, float_rows(gradients, rows), group, rate=rate, kept=kept)
            write_rows(weights[rows], values, generator)
        state[_KEPT] = 1 - flips / max(1, parameter.numel())
        return None


def mean_magnitude(gradients: Tensor) -> float:
    """Of [rows, ...], some rows at a time."""
    total = sum(float(float_rows(gradients, rows).abs().sum()) for rows in row_chunks(gradients))
    return total / max(1, gradients.numel())


def step_(values: Tensor, gradient: Tensor, group: Mapping[str, Any], *, rate: float, kept: float) -> int:
    """Steps accumulators in place; gives how many weights flip.

    Args:
        values: float32, in -1..1.
        gradient: the same shape.
        group: the options.
        rate: of the accumulation, in the units of the gradient.
        kept: the decay b, in 0..1.
    """
    unit = 1 / group["reach"]
    rest = torch.where(values >= 0, unit, -unit)
    gradient = gradient if group["magnitude"] else gradient.sign()
    values.sub_(rest).mul_(kept).add_(rest).sub_(gradient, alpha=rate * unit)
    flips = values * rest <= 0
    values.copy_(torch.where(flips, -group["hysteresis"] * rest, values)).clamp_(-1, 1)
    return int(flips.sum())
