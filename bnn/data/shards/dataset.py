"""A data set in shards, whose pictures are decoded as they are asked for."""

from __future__ import annotations

import os
import weakref
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bnn import files
from bnn.data.arrays import Dataset, Split
from bnn.data.shards.crops import centre_boxes, random_boxes
from bnn.data.shards.decoding import cut_out, decoder
from bnn.data.shards.files import Shards, read_shards
from bnn.data.threads import reading_threads
from bnn.errors import DataError

_MAX_THREADS = 16
_PARTS_A_THREAD = 2


def sharded(folder: Path | str, *, size: int = 224, name: str | None = None) -> Dataset:
    """Opens shards that `write_shards`, or `bnn data shard`, has made.

    Training sees a random part of each picture, another one each epoch, which depends on the seed, the epoch and the
    picture alone; everything else the centre. A pool of threads decodes. Memory holds the index, 64 bytes a picture,
    and the pictures of a few batches, however large the set is.

    Args:
        folder: of the shards.
        size: height and width of the images.
        name: name of the data set; None: that of the folder.

    Returns:
        The data set; images are uint8 [n, 3, size, size], in `ShardImages`.

    Raises:
        DataError: there are no shards, or they are damaged, or not complete.
    """
    if size < 1:
        raise DataError(f"the image size must be at least 1 pixel, got {size}")
    shards = read_shards(folder)
    train, test = (_split(ShardImages(shards, part, size=size)) for part in ("train", "test"))
    return Dataset(
        name=name if name is not None else Path(folder).resolve().name,
        train=train,
        test=test,
        classes=shards.classes,
        mean=shards.mean,
        std=shards.std,
        source=f"shards {folder}",
    )


def _split(images: ShardImages) -> Split:
    return Split(images=images, labels=images.labels, random_parts=images.random_parts)


class ShardImages:
    """Pictures in shards, which are indexed as a tensor is: the centre of each, decoded when it is asked for.

    Args:
        shards: the folder.
        part: "train" or "test".
        size: height and width of the images.

    Attributes:
        labels: int64 [n].

    Raises:
        DataError: a shard is missing or damaged.
    """

    dtype = torch.uint8
    device = torch.device("cpu")
    ndim = 4

    def __init__(self, shards: Shards, part: str, *, size: int) -> None:
        self._paths, index, shard_of = shards.index(part)
        if not len(index):
            raise DataError(f"the {part} shards in {shards.folder} have no pictures: make them anew")
        lengths, self._crc32, self._shard_of = index.lengths, index.crc32, shard_of
        # Within its shard, a picture begins where those before it end.
        ends = lengths.cumsum()
        begins_of_shards = {int(shard): int(ends[row] - lengths[row]) for row, shard in _firsts(shard_of)}
        self._begins = ends - lengths - [begins_of_shards[int(shard)] for shard in shard_of]
        self._lengths = lengths
        self._heights, self._widths = torch.from_numpy(index.heights), torch.from_numpy(index.widths)
        self.labels = torch.from_numpy(index.labels)
        self.shape = torch.Size((len(index), 3, size, size))
        self._decode = decoder()
        self._descriptors: dict[int, int] = {}
        self._thread_count = min(_MAX_THREADS, os.cpu_count() or 1)
        self._threads = reading_threads(self._thread_count)
        weakref.finalize(self, _close, self._descriptors)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Tensor:
        """The centres of pictures.

        Args:
            index: of the first dimension, as of a tensor; or of several, of which the others cost nothing less.

        Raises:
            DataError: a picture is damaged or cannot be read any more.
        """
        first, *others = index if isinstance(index, tuple) else (index,)
        rows = torch.arange(len(self))[first]
        flat = rows.flatten()
        images = self._images(flat, centre_boxes(self._heights[flat], self._widths[flat]))
        images = images.view(*rows.shape, *self.shape[1:])
        return images[(slice(None),) * rows.ndim + tuple(others)] if others else images

    def random_parts(self, rows: Tensor, random: Tensor) -> Tensor:
        """A random part of each picture.

        Args:
            rows: int64 [b].
            random: int64 [b], uniform in 0..2**63-1.

        Returns:
            uint8 [b, 3, size, size].

        Raises:
            DataError: as of indexing.
        """
        return self._images(rows, random_boxes(self._heights[rows], self._widths[rows], random))

    def jpeg(self, row: int) -> bytes:
        """The bytes of a picture.

        Raises:
            DataError: they are damaged or cannot be read.
        """
        shard = int(self._shard_of[row])
        path = self._paths[shard]
        try:
            if shard not in self._descriptors:
                with files.open_regular(path) as file:
                    # Two threads may both open it; one of them is kept, and the other closed at once.
                    own = os.dup(file.fileno())
                if self._descriptors.setdefault(shard, own) != own:
                    os.close(own)
            content = os.pread(self._descriptors[shard], int(self._lengths[row]), int(self._begins[row]))
        except OSError as error:
            raise DataError(f"the shard {path} cannot be read any more: {error.strerror}") from error
        if len(content) != self._lengths[row] or zlib.crc32(content) != self._crc32[row]:
            raise DataError(f"{self._place(row)} is damaged: {_MEND}")
        return content

    def _images(self, rows: Tensor, boxes: Tensor) -> Tensor:
        images = torch.empty((len(rows), *self.shape[1:]), dtype=torch.uint8, memory_format=torch.channels_last)
        work = list(zip(images, rows.tolist(), boxes.tolist(), strict=True))

        def put(first: int) -> None:
            for one in work[first::parts]:
                self._put(*one)

        # Several pictures at a time: threads that are handed one after the other wait for each other.
        parts = _PARTS_A_THREAD * self._thread_count
        list(self._threads.map(put, range(parts)))
        return images

    def _put(self, image: Tensor, row: int, box: list[int]) -> None:
        jpeg = self.jpeg(row)
        try:
            pixels = self._decode(jpeg)
        except Exception as error:  # decoders raise nearly everything
            raise DataError(f"{self._place(row)} cannot be decoded ({error}): {_MEND}") from error
        if pixels.shape != (int(self._heights[row]), int(self._widths[row]), 3):
            raise DataError(f"{self._place(row)} is of another size than its index says: {_MEND}")
        top, left, height, width = box
        image.copy_(cut_out(pixels, (top, left, height, width), image.shape[-1]))

    def _place(self, row: int) -> str:
        return f"the picture at byte {self._begins[row]} of {self._paths[int(self._shard_of[row])]}"


_MEND = "delete the file and its .json, and make it anew with `bnn data shard`"


def _firsts(shard_of: Any) -> list[tuple[int, int]]:
    """The first row of each shard that has one, with its number."""
    return [(row, shard) for row, shard in enumerate(shard_of) if row == 0 or shard_of[row - 1] != shard]


def _close(descriptors: dict[int, int]) -> None:
    for descriptor in descriptors.values():
        os.close(descriptor)
