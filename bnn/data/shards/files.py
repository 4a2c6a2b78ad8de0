"""The files of a folder of shards, and what is in each.

    shards.json         sealed: classes, statistics, and the number of shards of each part; written last
    listing.json        sealed: what the shards are made of, so that a pass that was broken off goes on
    train-00000.jpegs   JPEG files one behind the other
    train-00000.json    sealed: of each picture length, CRC-32, height, width and label; and what was left out

`test-...` likewise. Nothing is mapped into memory: reading from a file that was cut short is an error, where touching a
mapping of it would end the process.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bnn import files
from bnn.errors import DataError

DESCRIPTION, LISTING = "shards.json", "listing.json"
VERSION = 1
PARTS = ("train", "test")
IMAGES_PER_SHARD = 4096
_INDEX_BYTES = 1 << 26
_DESCRIPTION_BYTES = 1 << 24
_COLUMNS = ("lengths", "crc32", "heights", "widths", "labels")
_LARGEST = 2**31
_MOST_SHARDS = 100_000
MOST_PIXELS = 1 << 28
"""Of a picture."""


@dataclass(frozen=True, eq=False)
class Index:
    """What a shard, or several behind each other, holds; one number a picture."""

    lengths: npt.NDArray[np.int64]
    """In bytes."""
    crc32: npt.NDArray[np.int64]
    heights: npt.NDArray[np.int64]
    widths: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.lengths)


@dataclass(frozen=True, eq=False)
class ShardFacts:
    """A shard's index, with what was left out and the pixels counted."""

    index: Index
    damaged: dict[str, str]
    """Files that could not be decoded, and why."""
    histogram: npt.NDArray[np.int64]
    """[3, 256]: how often each channel has each value."""


@dataclass(frozen=True)
class Shards:
    """A complete folder of shards.

    Attributes:
        folder: where they are.
        classes: names; label k is the k-th.
        counts: how many shards each part has.
        mean: of each channel over the training pictures, of pixels scaled to 0..1.
        std: likewise.
        shorter_side: that larger pictures were made smaller to, in pixels.
        damaged: how many pictures were left out.
    """

    folder: Path
    classes: tuple[str, ...]
    counts: Mapping[str, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shorter_side: int
    damaged: int

    def index(self, part: str) -> tuple[list[Path], Index, npt.NDArray[np.int64]]:
        """The shards of a part, what they hold one behind the other, and the shard of each picture.

        Raises:
            DataError: a shard is missing or damaged.
        """
        paths = [shard_path(self.folder, part, number) for number in range(self.counts[part])]
        indices = [read_index(path, classes=len(self.classes)).index for path in paths]
        joined = (np.concatenate([getattr(index, column) for index in indices]) for column in _COLUMNS)
        return paths, Index(*joined), np.repeat(np.arange(len(paths)), [len(index) for index in indices])

    def described(self) -> dict[str, Any]:
        """As JSON values, without the folder."""
        return {
            "version": VERSION,
            "classes": list(self.classes),
            "counts": dict(self.counts),
            "mean": list(self.mean),
            "std": list(self.std),
            "shorter_side": self.shorter_side,
            "damaged": self.damaged,
        }


def shard_path(folder: Path, part: str, number: int) -> Path:
    """The pictures' file of a shard; its index is beside it, in .json."""
    return folder / f"{part}-{number:05d}.jpegs"


def read_shards(folder: Path | str) -> Shards:
    """Opens a folder of shards.

    Raises:
        DataError: it is none, is not complete, or is damaged.
    """
    folder = Path(folder)
    path = folder / DESCRIPTION
    if (folder / LISTING).exists() and not path.exists():
        raise DataError(f"the shards in {folder} are not complete: make them with the same `bnn data shard` again")
    try:
        fields = files.unsealed(files.read_bytes(path, limit_bytes=_DESCRIPTION_BYTES))
        if fields["version"] != VERSION:
            raise DataError(f"the shards in {folder} are of version {fields['version']}: make them anew")
        counts = {part: int(fields["counts"][part]) for part in PARTS}
        if not all(0 < count <= _MOST_SHARDS for count in counts.values()):
            raise ValueError(f"there are {counts} shards")
        return Shards(
            folder=folder,
            classes=_names(fields["classes"]),
            counts=counts,
            mean=_statistics(fields["mean"]),
            std=_statistics(fields["std"]),
            shorter_side=int(fields["shorter_side"]),
            damaged=int(fields["damaged"]),
        )
    except OSError as error:
        raise DataError(
            f"there are no shards in {folder} ({error.strerror}): make them with `bnn data shard FOLDER -o {folder}`"
        ) from None
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise DataError(f"{path} is damaged ({error}): make the shards anew") from None


def read_index(path: Path, *, classes: int) -> ShardFacts:
    """The index of a shard, by the name of its pictures' file, whose length is compared.

    Raises:
        DataError: the shard is missing or damaged.
    """
    try:
        content = files.read_bytes(path.with_suffix(".json"), limit_bytes=_INDEX_BYTES)
        fields = files.unsealed(content)
        index = Index(*(_column(fields[name]) for name in _COLUMNS))
        if len({len(getattr(index, name)) for name in _COLUMNS}) != 1:
            raise ValueError("its columns differ in length")
        if len(index) and not (index.labels.max() < classes and min(index.heights.min(), index.widths.min()) > 0):
            raise ValueError("a label or a size is out of range")
        if len(index) and max(int(index.lengths.max()), math.prod(_largest(index))) > MOST_PIXELS:
            raise ValueError(f"a picture has more than {MOST_PIXELS:,} pixels or bytes")
        histogram = np.array(fields["histogram"], dtype=np.int64).reshape(3, 256)
        damaged = {str(name): str(reason) for name, reason in fields["damaged"].items()}
        files.require_regular(path)
        if path.stat().st_size != index.lengths.sum():
            raise ValueError("its pictures' file has another length")
    except OSError as error:
        raise DataError(f"the shard {path} cannot be read ({error.strerror}): make the shards anew") from None
    except (ValueError, KeyError, TypeError, OverflowError, AttributeError) as error:
        raise DataError(f"the shard {path} is damaged ({error}): delete it and its .json, and make it anew") from None
    return ShardFacts(index, damaged, histogram)


def write_index(path: Path, facts: ShardFacts) -> None:
    """Writes the index of a shard beside its pictures, which completes it."""
    columns = {name: getattr(facts.index, name).tolist() for name in _COLUMNS}
    with files.replacing(path.with_suffix(".json")) as file:
        file.write(files.sealed({**columns, "damaged": facts.damaged, "histogram": facts.histogram.tolist()}))


def _largest(index: Index) -> tuple[int, int]:
    """Height and width of the picture of most pixels."""
    row = int((index.heights.astype(np.float64) * index.widths).argmax())
    return int(index.heights[row]), int(index.widths[row])


def _names(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise ValueError("its classes are no list of names")
    return tuple(values)


def _statistics(values: Any) -> tuple[float, ...]:
    """A number of each channel, of pixels in 0..1."""
    if not isinstance(values, list) or len(values) != 3 or not all(0 <= float(value) <= 1 for value in values):
        raise ValueError("its statistics are no numbers in 0..1 of three channels")
    return tuple(map(float, values))


def _column(values: Any) -> npt.NDArray[np.int64]:
    if not isinstance(values, list) or not all(type(value) is int and 0 <= value < 2 * _LARGEST for value in values):
        raise ValueError("a column is no list of whole numbers")
    return np.array(values, dtype=np.int64)
