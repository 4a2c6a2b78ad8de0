"""What the loop does where several ranks train a run together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bnn.data import Batches, Split
from bnn.distributed import Ranks
from bnn.errors import DistributedError
from bnn.training.directory import versions

if TYPE_CHECKING:
    from bnn.training.run import Run
    from bnn.training.trainer import Trainer


def check_alike(trainer: Trainer) -> None:
    """Refuses ranks that do not train the same, or cannot share a batch.

    Raises:
        DistributedError: on every rank, with what differs.
    """
    run, configuration = trainer.run, trainer.configuration
    if run.exchange is None:
        return
    ranks = run.exchange.ranks
    own = {
        **versions(),
        "recipe": configuration.get("recipe_sha256"),
        **{name: value for name, value in configuration.get("arguments", {}).items() if name != "data_dir"},
        **run.identity,
        "exchange": run.exchange.mode,
        "training data": _digest_of_split(run.data.train),
        "test data": _digest_of_split(run.data.test),
        "step": trainer.step,
        "weights": _digest(run.model.state_dict()),
    }
    first, *others = (json.loads(text) for text in ranks.texts(json.dumps(own, sort_keys=True, default=str)))
    for rank, other in enumerate(others, start=1):
        for name in first:
            if other.get(name) != first[name]:
                raise DistributedError(
                    f"ranks 0 and {rank} differ in their {name}: {first[name]} and {other.get(name)}; start all with"
                    " the same release, recipe, options and data"
                )
    run.exchange.parts(run.batch_size, run.slice_count(run.batch_size))


def own_rows(run: Run) -> Callable[[int], Tensor] | None:
    """Which rows of a batch of so many examples this rank takes; None where one process has them all."""
    exchange = run.exchange
    return None if exchange is None else lambda batch_size: exchange.rows(batch_size, run.slice_count(batch_size))


def own_batches(batches: Batches, ranks: Ranks | None) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of an evaluation that this rank takes: in turn, and an empty one where none is left for it."""
    if ranks is None:
        yield from batches.epoch(0)
        return
    for first in range(0, len(batches), ranks.size):
        number = first + ranks.rank
        if number < len(batches):
            yield next(batches.epoch(0, first_batch=number))
        else:
            yield torch.empty(0), torch.empty(0)


def sums_of_batches(found: Sequence[tuple[float, int, int]], ranks: Ranks | None) -> tuple[float, int, int]:
    """Sums of the loss, the hits and the examples of batches, in the order of one process.

    Args:
        found: of each batch of this rank.
        ranks: that took the batches in turn, or None.
    """
    rows = list(found)
    if ranks is not None:
        rounds = int(ranks.agree(len(rows)))
        own = torch.zeros((rounds, 3), dtype=torch.float64, device=ranks.device)
        for row, values in zip(own, rows, strict=False):
            row.copy_(torch.tensor(values, dtype=torch.float64))
        rows = ranks.gather(own).transpose(0, 1).flatten(0, 1).tolist()
    return sum(row[0] for row in rows), int(sum(row[1] for row in rows)), int(sum(row[2] for row in rows))


def _digest(tensors: dict[str, Tensor]) -> str:
    sha256 = hashlib.sha256()
    for name, tensor in tensors.items():
        sha256.update(name.encode())
        sha256.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return sha256.hexdigest()[:12]


def _digest_of_split(split: Split) -> str:
    """Of all labels, and of the first and the last image."""
    ends = split[torch.tensor([0, len(split) - 1])][0]
    return _digest({"labels": split.labels, "images": ends})
