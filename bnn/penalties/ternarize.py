"""Making a network ternary or binary in the course of its training."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bnn.errors import RecipeError
from bnn.penalties.sparse_store import SparseStore
from bnn.training import Callback, Trainer


class Ternarize(Callback):
    """Makes every `SparseStore` ternary at the start of an epoch; adds `sparsity`, the share of zeros, to each record.

    The weights that are largest, by `keep_largest`, are kept; the rest of the training tunes them. A density d leaves
    at most h(d) + d bits a weight with h(d) = -d log2 d - (1 - d) log2 (1 - d): 0.48 bits at 0.08; less where the
    layers differ in theirs.

    Args:
        epoch: at the start of which the weights become ternary, from 0.
        density: share of the weights of the network that is kept, in (0, 1]; at 1 it becomes binary.
        shrink: factor of the real weights at that moment, in (0, 1]. The largest weights are so far from 0 that they
            hardly change their signs any more; smaller ones do. The levels shrink as well, so below 1 each layer needs
            a norm behind it.
    """

    def __init__(self, *, epoch: int, density: float, shrink: float = 1.0) -> None:
        if epoch < 0:
            raise RecipeError(f"the epoch at which weights become ternary is at least 0, got {epoch}")
        if not 0 < density <= 1:
            raise RecipeError(f"the share of weights to keep lies in (0, 1], got {density}")
        if not 0 < shrink <= 1:
            raise RecipeError(f"weights that become ternary shrink by a factor in (0, 1], got {shrink}")
        self.epoch = epoch
        self.density = density
        self.shrink = shrink

    def on_epoch_begin(self, trainer: Trainer) -> None:
        """Ternarizes, once."""
        stores = _stores(trainer)
        if trainer.epoch < self.epoch or all(store.is_ternary for store in stores):
            return
        kept = keep_largest([store.weight.detach() for store in stores], density=self.density)
        for store, mask in zip(stores, kept, strict=True):
            store.ternarize_(mask)
            with torch.no_grad():
                store.weight.mul_(self.shrink)

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Counts the zeros."""
        stores = _stores(trainer)
        kept = sum(int(store.kept.sum()) for store in stores)
        record["sparsity"] = 1 - kept / max(1, sum(store.size for store in stores))


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
    kept = torch.zeros_like(joined, dtype=torch.bool)
    kept[joined.topk(max(1, round(density * len(joined))), sorted=False).indices] = True
    return [mask.view(w.shape) for mask, w in zip(torch.split(kept, [len(s) for s in scores]), weights, strict=True)]


def _scores(w: Tensor) -> Tensor:
    ascending, order = w.double().square().sort()
    not_smaller = ascending.flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(ascending)
    scores[order] = ascending / not_smaller.clamp_min(torch.finfo(torch.float64).tiny)
    return scores


def _stores(trainer: Trainer) -> list[SparseStore]:
    return [module for module in trainer.run.model.modules() if isinstance(module, SparseStore)]
