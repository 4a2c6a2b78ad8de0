"""A file of decoded images, of which each batch reads its own, and which is rebuilt where it is damaged."""

import math
import os
import weakref
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnn import files
from bnn.data.arrays import channel_histogram, histogram_statistics
from bnn.errors import DataError

# Files up to this size are read through and compared with their checksum when they are opened. Of a larger one,
# which would take minutes to read, only the header and the length are checked.
_CHECKSUM_BYTES = 2**30

_FACTS_BYTES = 1 << 28

Chunk = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


class ImageFile:
    """Images in a file, which are indexed as a tensor is, and read when they are.

    They are read and not mapped into memory: reading from a file that was cut short, or whose disk fails, is an error,
    where touching a mapping of it would end the process. The file that was opened is read to the end, whatever takes
    its name.

    Args:
        path: of a regular file.
        offset: where the first image begins, in bytes.
        shape: [n, C, H, W] of the images, uint8.

    Raises:
        OSError: it cannot be opened.
        ValueError: it has another length.
    """

    dtype = torch.uint8
    device = torch.device("cpu")
    ndim = 4

    def __init__(self, path: Path, *, offset: int, shape: tuple[int, ...]) -> None:
        self.shape = torch.Size(shape)
        self._path, self._offset, self._image_bytes = path, offset, math.prod(shape[1:])
        with files.open_regular(path) as file:
            if os.fstat(file.fileno()).st_size != offset + math.prod(shape):
                raise ValueError(f"{path} is not as long as its images")
            self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Tensor:
        """Reads images.

        Args:
            index: of the first dimension, as of a tensor; or of several, of which the others cost nothing less.

        Raises:
            DataError: the file has been cut short since it was opened, or cannot be read any more.
        """
        first, *others = index if isinstance(index, tuple) else (index,)
        rows = torch.arange(len(self))[first]
        images = torch.empty((rows.numel(), *self.shape[1:]), dtype=torch.uint8)
        for image, row in zip(images.view(-1, self._image_bytes).numpy(), rows.flatten().tolist(), strict=True):
            image[:] = np.frombuffer(self._read(row), np.uint8)
        images = images.view(*rows.shape, *self.shape[1:])
        return images[(slice(None),) * rows.ndim + tuple(others)] if others else images

    def _read(self, row: int) -> bytes:
        try:
            content = os.pread(self._descriptor, self._image_bytes, self._offset + row * self._image_bytes)
        except OSError as error:
            raise DataError(f"the image cache {self._path} cannot be read any more: {error.strerror}") from error
        if len(content) != self._image_bytes:
            raise DataError(f"the image cache {self._path} has been cut short: go on, and it is made anew")
        return content


@dataclass(frozen=True)
class CachedImages:
    """Decoded images and their statistics."""

    images: ImageFile
    """uint8 [n, C, H, W]."""
    mean: tuple[float, ...]
    """Mean of each channel, of pixels scaled to 0..1."""
    std: tuple[float, ...]
    """Standard deviation of each channel, of pixels scaled to 0..1."""
    damaged: dict[int, str]
    """Places of images that could not be decoded, which are black and not in mean and std, and why."""


def default_cache_dir() -> Path:
    """The folder that the environment variable BNN_CACHE names, or else ~/.cache/bnn-edge."""
    return Path(os.environ.get("BNN_CACHE") or Path.home() / ".cache" / "bnn-edge")


def cached_images(
    path: Path, shape: tuple[int, ...], decode: Callable[[dict[int, str]], Iterable[Chunk]]
) -> CachedImages:
    """Opens a file of images, after writing it where it is missing or damaged.

    A file appears whole or not at all: it is written beside its place, synced to the disk and then moved. What a kill
    has left of one goes with the next call for the same folder.

    Args:
        path: an .npy file; its checksum and statistics are beside it in a .json file.
        shape: [n, C, H, W] of the images.
        decode: called where the file has to be written; its chunks, uint8 [k, C, H, W], make up the n images. It puts
            the places of those that it cannot decode, which it leaves black, into what it is given, with the reason.

    Raises:
        DataError: the file cannot be written.
    """
    files.remove_left_behind(path.parent)
    cached = _open(path, shape)
    if cached is None:
        try:
            _write(path, shape, decode)
        except OSError as error:
            needed_MB = np.prod(shape, dtype=np.float64) / 1e6
            raise DataError(
                f"cannot write the image cache in {path.parent} ({error.strerror or error}): set BNN_CACHE to a folder"
                f" that can be written and has {needed_MB:.0f} MB free"
            ) from error
        cached = _open(path, shape)
    if cached is None:
        raise DataError(f"the image cache {path} cannot be read back: delete it, or set BNN_CACHE to another folder")
    return cached


def _open(path: Path, shape: tuple[int, ...]) -> CachedImages | None:
    """Opens the file; None where it is missing or damaged."""
    try:
        facts = files.unsealed(files.read_bytes(path.with_suffix(".json"), limit_bytes=_FACTS_BYTES))
        mean, std = (tuple(float(value) for value in facts[key]) for key in ("mean", "std"))
        damaged = {int(place): str(reason) for place, reason in facts["damaged"].items()}
        with files.open_regular(path) as file:
            if np.lib.format.read_magic(file) != (1, 0):
                return None
            header = np.lib.format.read_array_header_1_0(file)
            images = ImageFile(path, offset=file.tell(), shape=shape)
        if header != (shape, False, np.dtype(np.uint8)):
            return None
        if math.prod(shape) <= _CHECKSUM_BYTES and facts["crc32"] != _crc32(path):
            return None
    except PermissionError as error:
        raise DataError(
            f"the image cache {path} cannot be read ({error.strerror}): make it readable, or set BNN_CACHE to another"
            " folder"
        ) from error
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, TokenError):  # of numpy's header
        return None
    return CachedImages(images=images, mean=mean, std=std, damaged=damaged)


def _crc32(path: Path) -> int:
    crc32 = 0
    with files.open_regular(path) as file:
        while block := file.read(2**20):
            crc32 = zlib.crc32(block, crc32)
    return crc32


def _write(path: Path, shape: tuple[int, ...], decode: Callable[[dict[int, str]], Iterable[Chunk]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    facts_path = path.with_suffix(".json")
    # Without its facts a file counts as damaged, so new pixels are never taken for those of old facts.
    facts_path.unlink(missing_ok=True)
    histogram = torch.zeros(shape[1], 256, dtype=torch.int64)
    damaged: dict[int, str] = {}
    with files.replacing(path) as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for chunk in decode(damaged):
            file.write(chunk.data)
            histogram += channel_histogram(torch.from_numpy(chunk))
    if len(damaged) < shape[0]:
        histogram[:, 0] -= len(damaged) * shape[2] * shape[3]
    mean, std = histogram_statistics(histogram)
    facts = {"crc32": _crc32(path), "mean": mean, "std": std, "damaged": {str(k): why for k, why in damaged.items()}}
    with files.replacing(facts_path) as file:
        file.write(files.sealed(facts))
