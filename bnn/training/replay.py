"""`Replay`: examples of earlier classes as bits, which a training of new classes sees again.

A network whose first layers are frozen hands on the same bits of an example for ever: they stand for the example, and
a few hundred bytes keep it. Sources: latent replay, Pellegrini et al. 2020, arXiv 1912.01100; in one bit, Vorabbi et
al. 2024, arXiv 2401.09916.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from bnn.bits import BitTensor
from bnn.data import Batches, Dataset, Split
from bnn.errors import BnnError, CheckpointError, DataError, RecipeError, first_line
from bnn.files import require_regular
from bnn.layers import Graph
from bnn.training.callback import Callback
from bnn.training.directory import replace_file
from bnn.training.snapshot import restore_module
from bnn.weights import WeightStore

if TYPE_CHECKING:
    from bnn.training.trainer import Trainer

FILE = "replay.safetensors"
"""Name of the file in a run's directory."""
_FORMAT = "bnn-replay-1"
_LABEL_BYTES = 2
_MOST_CLASSES = 1 << 15
_NOBODY = -1
_AT_ONCE = 250


class Replay(nn.Module):
    """As many examples as fit, of all classes as equally as they come: a class-balanced reservoir.

    An example that comes when the reservoir is full takes the place of one of the largest class; one of a class that
    has been the largest itself stays with the probability by which each example of its class has stayed. Source:
    Chrysakis and Moens 2020, ICML, "Online Continual Learning from Imbalanced Data".

    Args:
        samples: how many there is room for, at least one for each class.
        row_bytes: of one of them.
        classes: their names.
        upto: the last frozen layer, as `bnn.models.freezing.freeze` takes it.
        mean: that images are normalised by.
        std: likewise.
        network: SHA-256 of the frozen part, see `frozen_digest`.
        generator: which examples stay, and which are drawn.

    Attributes:
        rows: the bits, uint8 [samples, row_bytes].
        labels: int16 [samples]; -1 where there is room.
        seen: examples that have come of each class, int64 [classes].
        was_largest: whether a class has ever been the largest of a full reservoir, bool [classes].
        earlier: how many of the classes are replayed: those that the training does not bring itself.
        per_step: how many examples are replayed in a training step.

    Raises:
        RecipeError: there is no room for one example of each class.
    """

    rows: Tensor
    labels: Tensor
    seen: Tensor
    was_largest: Tensor

    def __init__(
        self,
        samples: int,
        row_bytes: int,
        classes: Sequence[str],
        *,
        upto: str,
        mean: Sequence[float],
        std: Sequence[float],
        network: str,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if samples < len(classes):
            raise RecipeError(
                f"{len(classes)} classes take at least {len(classes)} samples of {sample_bytes(row_bytes)} bytes:"
                f" there is room for {samples}; give more, or freeze more layers"
            )
        self.classes, self.upto, self.network = tuple(classes), upto, network
        self.mean, self.std = tuple(mean), tuple(std)
        self.generator = generator
        self.earlier, self.per_step = len(self.classes), 0
        self.register_buffer("rows", torch.zeros(samples, row_bytes, dtype=torch.uint8))
        self.register_buffer("labels", torch.full((samples,), _NOBODY, dtype=torch.int16))
        self.register_buffer("seen", torch.zeros(len(self.classes), dtype=torch.int64))
        self.register_buffer("was_largest", torch.zeros(len(self.classes), dtype=torch.bool))

    def __len__(self) -> int:
        """Examples that are kept."""
        return int((self.labels != _NOBODY).sum())

    @property
    def nbytes(self) -> int:
        """Bytes of the room for examples and labels."""
        return self.rows.numel() + self.labels.numel() * _LABEL_BYTES

    def add_classes(self, classes: Sequence[str]) -> None:
        """Makes further classes known; the examples of the earlier ones stay.

        Raises:
            RecipeError: there is no room for one example of each.
        """
        new = [name for name in classes if name not in self.classes]
        if len(self.rows) < len(self.classes) + len(new):
            raise RecipeError(f"{len(self.rows)} samples are fewer than the classes: keep more samples to replay")
        self.classes += tuple(new)
        self.seen = torch.cat((self.seen, self.seen.new_zeros(len(new))))
        self.was_largest = torch.cat((self.was_largest, self.was_largest.new_zeros(len(new))))

    def offer(self, rows: Tensor, labels: Tensor) -> None:
        """Keeps some of the examples.

        Args:
            rows: uint8 [B, row_bytes].
            labels: int64 [B], of `classes`.
        """
        for row, label in zip(rows, labels.tolist(), strict=True):
            self.seen[label] += 1
            place = self._place_for(label)
            if place is not None:
                self.rows[place], self.labels[place] = row, label

    def _place_for(self, label: int) -> int | None:
        free = (self.labels == _NOBODY).nonzero()
        if len(free):
            return int(free[0])
        kept = torch.bincount(self.labels.long(), minlength=len(self.classes))
        self.was_largest |= kept == kept.max()
        if not self.was_largest[label]:
            return self._random((kept[self.labels.long()] == kept.max()).nonzero())
        stays = torch.rand((), generator=self.generator) * self.seen[label] <= kept[label]
        return self._random((self.labels == label).nonzero()) if stays else None

    def _random(self, places: Tensor) -> int:
        return int(places[int(torch.randint(len(places), (), generator=self.generator))])

    def drawn(self, parts: int) -> list[tuple[Tensor, Tensor]]:
        """The rows and labels, int64, that the parts of a training step replay: drawn from the earlier classes."""
        if self.rows.is_meta:  # shapes alone are asked for
            rows = self.rows.new_empty(self.per_step, self.rows.shape[1])
            labels = self.labels.new_empty(self.per_step)
        else:
            kept = ((self.labels != _NOBODY) & (self.labels < self.earlier)).nonzero().flatten()
            places = kept[torch.randint(len(kept), (self.per_step,), generator=self.generator).to(kept.device)]
            rows, labels = self.rows[places], self.labels[places]
        return list(zip(rows.tensor_split(parts), labels.long().tensor_split(parts), strict=True))

    def prepare(self, model: nn.Module, classes: int, *, batch_size: int, source: str) -> int:
        """Divides the batches between new examples and replayed ones, each class with an equal part.

        Args:
            model: that is to be trained, frozen before the samples.
            classes: all of them, with the new ones.
            batch_size: examples of both together.
            source: where the samples are from, for errors.

        Returns:
            How many of a batch are new.

        Raises:
            CheckpointError: the samples are of another network.
            RecipeError: a batch has no room for both.
        """
        network = cast(Graph, model)
        if frozen_digest(network) != self.network:
            raise CheckpointError(
                f"{source} is of another network than the one that the training starts from: the layers up to"
                f" {self.upto} have other weights; make the samples anew by `bnn replay`"
            )
        new = max(1, round(batch_size * max(1, classes - len(self.classes)) / classes))
        if new >= batch_size:
            raise RecipeError(f"a batch of {batch_size} has no room for new examples and replayed ones: take more")
        self.earlier, self.per_step = len(self.classes), batch_size - new
        return new

    def __str__(self) -> str:
        bits = 8 * self.rows.shape[1]
        return (
            f"replay: {len(self):,} samples of {self.earlier} classes in {self.nbytes:,} bytes, {bits:,} bits each;"
            f" {self.per_step} of them in a step"
        )


def upto_of(replay: Replay, freeze: str | None) -> str:
    """Up to which layer a network is frozen before the samples.

    Raises:
        RecipeError: `freeze`, which was asked for, is another one.
    """
    if freeze not in (None, replay.upto):
        raise RecipeError(f"the samples to replay are of layer {replay.upto}: leave out --freeze {freeze}")
    return replay.upto


def with_earlier_classes(data: Dataset, replay: Replay) -> Dataset:
    """The data set with the classes of the samples before its own, normalised as they are.

    Raises:
        DataError: it has images of other channels.
    """
    classes = (*replay.classes, *(name for name in data.classes if name not in replay.classes))
    if len(data.mean) != len(replay.mean):
        raise DataError(
            f"{data.source} has images of {len(data.mean)} channels, the samples to replay {len(replay.mean)}"
        )
    places = torch.tensor([classes.index(name) for name in data.classes])
    train, test = (replace(split, labels=places[split.labels]) for split in (data.train, data.test))
    return replace(data, train=train, test=test, classes=classes, mean=replay.mean, std=replay.std)


def sample_bytes(row_bytes: int) -> int:
    """Bytes that an example takes with its label."""
    return row_bytes + _LABEL_BYTES


def row_bytes_of(model: Graph, input_shape: tuple[int, ...]) -> int:
    """Bytes of what the frozen part hands on of one example."""
    device = next(model.parameters()).device
    with torch.no_grad():
        return model.frozen_part(torch.zeros(2, *input_shape, device=device)).packed.shape[1]


def fill(replay: Replay, model: Graph, split: Split) -> None:
    """Offers all examples of a split, as they are, without augmentation.

    Args:
        replay: which keeps some.
        model: frozen up to where the samples are of.
        split: labelled by `replay.classes`.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    batches = Batches(split, batch_size=_AT_ONCE, mean=replay.mean, std=replay.std, device=device)
    with torch.no_grad():
        for x, labels in batches.epoch(0):
            replay.offer(model.frozen_part(x).packed.cpu(), labels.cpu())
    model.train(was_training)


class KeepReplay(Callback):
    """At the end, takes examples of a run's own classes in, and writes the file from which a next run replays all."""

    def on_fit_end(self, trainer: Trainer, summary: dict[str, Any]) -> None:
        """Fills and writes."""
        run = trainer.run
        if run.replay is None or not trainer.is_writer:
            return
        run.replay.add_classes(run.data.classes)
        fill(run.replay, cast(Graph, run.model), run.data.train)
        save(run.replay, trainer.out / FILE)


def save(replay: Replay, path: Path) -> None:
    """Writes a file of samples.

    Raises:
        RunError: it cannot be written.
    """
    about: dict[str, Any] = {"classes": replay.classes, "upto": replay.upto, "network": replay.network}
    about |= {"mean": replay.mean, "std": replay.std}
    tensors = {name: x.contiguous() for name, x in replay.state_dict().items()}
    # One entry: the order of several is that of a hash.
    replace_file(path, safetensors.torch.save(tensors, {_FORMAT: json.dumps(about)}))


def load(path: Path, *, generator: torch.Generator) -> Replay:
    """Reads a file of samples; nothing in it is executed.

    Raises:
        CheckpointError: it cannot be read, or is not such a file.
    """
    try:
        require_regular(path)
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})[_FORMAT])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _restored(about, tensors, generator)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror or error}; `bnn replay RUN` writes such a file"
        ) from None
    except (SafetensorError, ValueError, LookupError, TypeError, RuntimeError, RecursionError, BnnError) as error:
        raise CheckpointError(
            f"{path} is no file of samples to replay ({first_line(error)}): make one by `bnn replay RUN`"
        ) from None


def _restored(about: dict[str, Any], tensors: dict[str, Tensor], generator: torch.Generator) -> Replay:
    names = about["classes"]
    if not isinstance(names, list) or not 0 < len(names) <= _MOST_CLASSES or len(set(map(str, names))) < len(names):
        raise ValueError("its classes are no list of names")
    mean, std = ([float(value) for value in about[name]] for name in ("mean", "std"))
    if not all(map(math.isfinite, mean)) or not all(0 < value < math.inf for value in std) or len(mean) != len(std):
        raise ValueError("its mean and deviation are none")
    rows, labels = tensors["rows"], tensors["labels"]
    replay = Replay(
        rows.shape[0],
        rows.shape[1],
        [str(name) for name in names],
        upto=str(about["upto"]),
        mean=mean,
        std=std,
        network=str(about["network"]),
        generator=generator,
    )
    restore_module(replay, tensors)
    counts = torch.bincount(labels[labels >= 0].long(), minlength=len(names))
    if (
        int(labels.min()) < _NOBODY
        or len(counts) > len(names)
        or int(counts.min()) < 1
        or bool((replay.seen < 0).any())
    ):
        raise ValueError("its labels are not those of its classes, or a class has no sample")
    return replay


def frozen_digest(model: Graph) -> str:
    """SHA-256 of all weights and statistics before the cut: samples belong to these."""
    sha256 = hashlib.sha256()
    for call in model.calls[: model.frozen]:
        if call.kind != "part":
            continue
        part = model.get_submodule(call.target)
        stores = {name: module for name, module in part.named_modules() if isinstance(module, WeightStore)}
        for name, store in stores.items():
            levels = store.read()
            signs = levels.dense(torch.bool) if isinstance(levels, BitTensor) else levels
            sha256.update(name.encode() + _bytes(signs))
        for name, tensor in part.state_dict().items():
            inside = any(name.startswith(f"{store}.") for store in stores)
            if not inside and not name.endswith("num_batches_tracked"):
                sha256.update(name.encode() + _bytes(tensor))
    return sha256.hexdigest()


def _bytes(x: Tensor) -> bytes:
    return x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
