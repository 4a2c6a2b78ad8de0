"""A file of decoded images that is mapped into memory, and rebuilt where it is damaged."""

import json
import os
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from bnn.data.arrays import channel_histogram, histogram_statistics
from bnn.errors import DataError

# Files up to this size are read through and compared with their checksum when they are opened. Of a larger one,
# which would take minutes to read, only the header and the length are checked.
_CHECKSUM_BYTES = 2**30

Chunk = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


@dataclass(frozen=True)
class CachedImages:
    """Decoded images and their statistics."""

    images: Tensor
    """uint8 [n, C, H, W], mapped from the file; must not be written to."""
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
    """Maps a file of images into memory, after writing it where it is missing or damaged.

    A file appears whole or not at all: it is written beside its place, synced to the disk and then moved.

    Args:
        path: an .npy file; its checksum and statistics are beside it in a .json file.
        shape: [n, C, H, W] of the images.
        decode: called where the file has to be written; its chunks, uint8 [k, C, H, W], make up the n images. It puts
            the places of those that it cannot decode, which it leaves black, into what it is given, with the reason.

    Raises:
        DataError: the file cannot be written.
    """
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
        facts = json.loads(path.with_suffix(".json").read_text())
        mean, std = (tuple(float(value) for value in facts[key]) for key in ("mean", "std"))
        damaged = {int(place): str(reason) for place, reason in facts["damaged"].items()}
        # A mapping that could be written to would count against the memory that the system may promise.
        array = np.lib.format.open_memmap(path, mode="r")
        if array.shape != shape or array.dtype != np.uint8:
            return None
        if array.nbytes <= _CHECKSUM_BYTES and facts["crc32"] != _crc32(path):
            return None
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError):
        return None
    with warnings.catch_warnings():
        # torch warns that the array cannot be written to, and nothing here does.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return CachedImages(images=torch.from_numpy(array), mean=mean, std=std, damaged=damaged)


def _crc32(path: Path) -> int:
    crc32 = 0
    with path.open("rb") as file:
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
    with _replacing(path) as file:
        # Plain writes: on a full disk a mapped file would kill the process instead of raising an error.
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for chunk in decode(damaged):
            file.write(chunk.data)
            histogram += channel_histogram(torch.from_numpy(chunk))
    if len(damaged) < shape[0]:
        histogram[:, 0] -= len(damaged) * shape[2] * shape[3]
    mean, std = histogram_statistics(histogram)
    with _replacing(facts_path) as file:
        file.write(json.dumps({"crc32": _crc32(path), "mean": mean, "std": std, "damaged": damaged}).encode())


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `path` when all of it is on the disk, and vanishes on an error."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem[:8])
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
