"""`LatentMotion`: how far the weights have gone from their start, and how far a step turns them."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from bnn.training import Callback, Trainer
from bnn.weights import named_stores


class LatentMotion(Callback):
    """Adds figures of the values that binary weights are made of, latent weights or accumulators, to each epoch.

    - `distance_from_start`: |w - w_0| over all of them. Networks that are trained in small batches go as log t (Hoffer
      et al. 2017, arXiv 1705.08741); the summary has `distance_log_slope`, the slope of a line through the distances of
      the epochs over ln(steps), and `distance_log_fit`, its coefficient of determination.
    - `effective_step`: the mean over filters of lr / |w|^2, by which a gradient turns a filter whose norm does not
      matter (Hoffer et al. 2018, arXiv 1803.01814).

    A resumed run keeps the distances of its earlier epochs. The meter keeps a copy of the first weights, in float32.

    Args:
        model: as it is before training.
    """

    def __init__(self, model: nn.Module) -> None:
        self._start = {name: _value(store) for name, store in named_stores(model) if _is_trained(store)}
        self._distances: list[list[float]] = []

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Adds the figures."""
        rates = {
            id(parameter): float(group["lr"])
            for group in trainer.run.optimizer.param_groups
            for parameter in group["params"]
        }
        squares, steps, filters = 0.0, 0.0, 0
        for name, store in named_stores(trainer.run.model):
            if name in self._start:
                value = _value(store)
                squares += float((value - self._start[name]).square().sum())
                norms = value.flatten(1).square().sum(1).clamp_min(torch.finfo(torch.float32).tiny)
                steps += float((rates.get(id(store.trained), 0.0) / norms).sum())
                filters += len(norms)
        if filters:
            record["distance_from_start"] = math.sqrt(squares)
            record["effective_step"] = steps / filters
            self._distances.append([float(trainer.step), record["distance_from_start"]])

    def on_fit_end(self, trainer: Trainer, summary: dict[str, Any]) -> None:
        """Adds the line."""
        if len(self._distances) >= 2:
            slope, fit = log_line(self._distances)
            summary["distance_log_slope"], summary["distance_log_fit"] = slope, fit

    def state(self) -> dict[str, Any]:
        """The distances up to now."""
        return {"distances": self._distances}

    def check(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Refuses what are no distances."""
        for step, distance in state.get("distances", []):
            if not (step >= 1 and distance >= 0):
                raise ValueError("a distance belongs to a step and is at least 0")

    def restore(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Takes them back."""
        self._distances = [list(pair) for pair in state.get("distances", [])]


def log_line(points: list[list[float]]) -> tuple[float, float]:
    """Slope and coefficient of determination, in 0..1, of the best line of a value over the logarithm of a step.

    Args:
        points: (step, value), steps at least 1, at least two.
    """
    steps, values = torch.tensor(points, dtype=torch.float64).unbind(1)
    x, y = steps.log() - steps.log().mean(), values - values.mean()
    slope = float((x * y).sum() / x.square().sum().clamp_min(1e-300))
    spread = float(y.square().sum())
    return slope, 1.0 if spread == 0 else max(0.0, 1 - float((y - slope * x).square().sum()) / spread)


def square_root_rate(rate: float, *, batch_size: int, of_batch_size: int) -> float:
    """The learning rate for another size of batch, in proportion to the root: it keeps the variance of a step.

    Source: Hoffer et al. 2017, arXiv 1705.08741, sec. 5.

    Args:
        rate: the one that suits `of_batch_size`.
        batch_size: at least 1.
        of_batch_size: at least 1.

    Raises:
        ValueError: a batch is empty.
    """
    if batch_size < 1 or of_batch_size < 1:
        raise ValueError(f"a batch has at least 1 example, got {batch_size} and {of_batch_size}")
    return rate * math.sqrt(batch_size / of_batch_size)


def _is_trained(store: nn.Module) -> bool:
    return any(True for _ in store.parameters())


def _value(store: Any) -> Tensor:
    return store.trained_value().float().clone()  # type: ignore[no-any-return]
