"""Making a network ternary or binary in the course of its training."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bnn.errors import RecipeError
from bnn.penalties.sparse_store import SparseStore
from bnn.training import Callback, Trainer

_TINY = torch.finfo(torch.float32).tiny


class Ternarize(Callback):
    """Makes every `SparseStore` ternary at the start of an epoch; adds `sparsity`, the share of zeros, to each record.

    The weights that are largest, by `keep_largest`, are kept; the rest of the training tunes them. A density d leaves
    at most h(d) + d bits a weight with h(d) = -d log2 d - (1 - d) log2 (1 - d): 0.48 bits at 0.08.

    Args:
        epoch: at the start of which the weights become ternary, from 0.
        density: share of the weights of the network that is kept, in (0, 1]; at 1 it becomes binary.
    """

    def __init__(self, *, epoch: int, density: float) -> None:
        if epoch < 0:
            raise RecipeError(f"the epoch at which weights become ternary is at least 0, got {epoch}")
        if not 0 < density <= 1:
            raise RecipeError(f"the share of weights to keep lies in (0, 1], got {density}")
        self.epoch = epoch
        self.density = density

    def on_epoch_begin(self, trainer: Trainer) -> None:
        """Ternarizes, once."""
        stores = _stores(trainer)
        if trainer.epoch < self.epoch or all(store.is_ternary for store in stores):
            return
        kept = keep_largest([store.weight.detach() for store in stores], density=self.density)
        for store, mask in zip(stores, kept, strict=True):
            store.ternarize_(mask)

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """Counts the zeros."""
        stores = _stores(trainer)
        kept = sum(int(store.kept.sum()) for store in stores)
        record["sparsity"] = 1 - kept / max(1, sum(store.size for store in stores))


def keep_largest(weights: Sequence[Tensor], *, density: float) -> list[Tensor]:
    """Which weights of a network to keep: those with the largest |w| / c, where c = |w|_2^2 / |w|_1 of their layer.

    c is the magnitude that the weights of a layer have where `Compressibility` is stationary. Layers of many small
    weights lose more of them than others.

    Args:
        weights: real, of any shapes; one a layer.
        density: share of all weights to keep, in (0, 1]; at least one weight is kept.

    Returns:
        bool, in the shapes of `weights`.
    """
    relative = [(w.abs() * (w.abs().sum() / w.square().sum().clamp_min(_TINY))).flatten() for w in weights]
    joined = torch.cat(relative)
    kept = torch.zeros_like(joined, dtype=torch.bool)
    kept[joined.topk(max(1, round(density * len(joined))), sorted=False).indices] = True
    return [mask.view(w.shape) for mask, w in zip(torch.split(kept, [len(r) for r in relative]), weights, strict=True)]


def _stores(trainer: Trainer) -> list[SparseStore]:
    return [module for module in trainer.run.model.modules() if isinstance(module, SparseStore)]
