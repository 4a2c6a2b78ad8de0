"""Making a network ternary or binary in the course of its training."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bnn.errors import RecipeError
from bnn.methods.transposable import Transposable
from bnn.training import Callback, Trainer
from bnn.weights import SparseStore

# Rare enough that sorting costs little beside the steps.
_STEPS_BETWEEN_CHOICES = 16


class Ternarize(Callback):
    """Makes every `SparseStore` ternary at the start of an epoch; adds `sparsity`, the share of zeros, to each record.

    The weights that are largest, by `keep_largest`, are kept, or in each block those of a `Transposable` pattern. From
    then on, every 16 steps, each layer keeps the largest of the real weights behind its levels, as many as before or by
    the pattern's greedy choice, until the choice is final; the rest of the training tunes it. A weight that is read as
    0 gets a gradient as well, so that it can come back. Source of that: Lin, Stich, Barba, Dmitriev and Jaggi 2020
    (dynamic pruning with feedback), arXiv 2006.07253; that what is kept has two levels is this project's own.

    A density d leaves at most h(d) + d bits a weight with h(d) = -d log2 d - (1 - d) log2 (1 - d): 0.48 bits at 0.08;
    less where the layers differ in theirs.

    Args:
        epoch: at the start of which the weights become ternary, from 0.
        density: share of the weights of the network that is kept, in (0, 1]; at 1 it becomes binary.
        pattern: of the weights that are kept, in the place of a density.
        final_epoch: at the start of which the choice becomes final; by default `epoch`, so that the first one is.
    """

    def __init__(
        self,
        *,
        epoch: int,
        density: float | None = None,
        pattern: Transposable | None = None,
        final_epoch: int | None = None,
    ) -> None:
        final_epoch = epoch if final_epoch is None else final_epoch
        if epoch < 0:
            raise RecipeError(f"the epoch at which weights become ternary is at least 0, got {epoch}")
        if final_epoch < epoch:
            raise RecipeError(f"a choice of epoch {epoch} cannot be final in epoch {final_epoch}")
        if (density is None) == (pattern is None):
            raise RecipeError("which weights are kept is said by a density or by a pattern, one of the two")
        if density is not None and not 0 < density <= 1:
            raise RecipeError(f"the share of weights to keep lies in (0, 1], got {density}")
        self.epoch = epoch
        self.density, self.pattern = density, pattern
        self.final_epoch = final_epoch

    def on_epoch_begin(self, trainer: Trainer) -> None:
        """Makes the weights ternary, once."""
        stores = _stores(trainer)
        if trainer.epoch < self.epoch or all(store.is_ternary for store in stores):
            return
        for store, mask in zip(stores, self._first_choice(stores), strict=True):
            store.ternarize_(mask)

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        """Chooses anew which weights are kept, every 16 steps."""
        if self.epoch <= trainer.epoch < self.final_epoch and trainer.step % _STEPS_BETWEEN_CHOICES == 0:
            for store in _stores(trainer):
                weight = store.weight.detach()
                if self.pattern is not None:
                    store.ternarize_(self.pattern.greedy(weight))
                else:
                    store.ternarize_(_largest(weight, int(store.kept.sum())))

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Counts the zeros."""
        stores = _stores(trainer)
        kept = sum(int(store.kept.sum()) for store in stores)
        record["sparsity"] = 1 - kept / max(1, sum(store.size for store in stores))

    def _first_choice(self, stores: Sequence[SparseStore]) -> list[Tensor]:
        weights = [store.weight.detach() for store in stores]
        if self.pattern is not None:
            return [self.pattern.optimal(weight) for weight in weights]
        assert self.density is not None
        return keep_largest(weights, density=self.density)


def keep_largest(weights: Sequence[Tensor], *, density: float) -> list[Tensor]:
    """Which weights of a network to keep: in each layer the largest, the shares of the layers by their scores.

    The score of a weight is w^2 over the sum of the squares of all weights of its layer that are not smaller; the
    highest scores of the network are kept. The scale of a layer does not matter, a layer of few weights keeps a larger
    share of them, and every layer its largest, if as many may stay as there are layers. Source: Lee, Park, Mo, Ahn and
    Shin 2021 (LAMP), arXiv 2010.07611.

    Args:
        weights: real, of any shapes; one a layer.
        density: share of all weights to keep, in (0, 1]; at least one weight is kept.

    Returns:
        bool, in the shapes of `weights`.
    """
    scores = [_scores(w.flatten()) for w in weights]
    joined = torch.cat(scores)
    kept = _largest(joined, max(1, round(density * len(joined))))
    return [mask.view(w.shape) for mask, w in zip(torch.split(kept, [len(s) for s in scores]), weights, strict=True)]


def _largest(x: Tensor, number: int) -> Tensor:
    """Mask of the `number` elements of largest magnitude: bool, of the shape of `x`."""
    kept = torch.zeros(x.numel(), dtype=torch.bool, device=x.device)
    kept[x.flatten().abs().topk(number, sorted=False).indices] = True
    return kept.view(x.shape)


def _scores(w: Tensor) -> Tensor:
    ascending, order = w.double().square().sort()
    not_smaller = ascending.flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(ascending)
    scores[order] = ascending / not_smaller.clamp_min(torch.finfo(torch.float64).tiny)
    return scores


def _stores(trainer: Trainer) -> list[SparseStore]:
    return [module for module in trainer.run.model.modules() if isinstance(module, SparseStore)]
