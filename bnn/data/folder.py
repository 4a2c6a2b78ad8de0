"""Folders of images in ImageNet's layout, decoded once into a memory-mapped cache."""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bnn.data.arrays import Dataset, Split
from bnn.data.image_cache import CachedImages, cached_images, default_cache_dir
from bnn.errors import DataError

_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
_CHUNK_BYTES = 2**23
_MAX_THREADS = 4
# Part of every cache's key; to be raised whenever the same files would be decoded to other pixels.
_DECODING = "resize the shorter side, bilinear; crop the centre; RGB; 1"


@dataclass(frozen=True)
class _Listing:
    """The images of one split, class by class, each class in the order of the file names."""

    folder: Path
    classes: tuple[str, ...]
    files: list[str]
    labels: Tensor
    digest: str
    """SHA-256 of the paths, sizes and modification times."""


def image_folder(
    root: Path | str,
    *,
    size: int,
    cache_dir: Path | str | None = None,
    name: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Loads `root/train/<class>/*` and `root/test/<class>/*` or, without the latter, `root/val/<class>/*`.

    The first call decodes every image: the shorter side is resized to `size`, the centre is cut out, and the colours
    become RGB. The pixels are kept in a file which this and later calls map into memory, so a set may be larger than
    the memory. The file is named by the images' paths, sizes and modification times and by `size`: where one of them
    changes the images are decoded anew. Old files are never deleted.

    Args:
        root: the folder with the splits. Images are .jpg, .jpeg, .png, .bmp and .webp files of 8 bits a channel;
            hidden files and folders are passed over.
        size: height and width of the decoded images in pixels.
        cache_dir: where the decoded pixels are kept; None: the folder that the environment variable BNN_CACHE names,
            or else ~/.cache/bnn-edge.
        name: name of the data set; None: that of `root`.
        progress: called with the images decoded so far and the images of the split, every few hundred images.

    Returns:
        The data set; images are uint8 [n, 3, size, size], read-only.

    Raises:
        DataError: a folder is missing or empty, an image is damaged, or the cache cannot be written.
    """
    root = Path(root)
    if size < 1:
        raise DataError(f"the image size must be at least 1 pixel, got {size}")
    if not root.is_dir():
        raise DataError(f"there is no folder {root}: point --data-dir at a folder with train/<class>/<image>")
    try:
        train = _list_images(root / "train")
        test = _list_images(root / "test" if (root / "test").is_dir() else root / "val")
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from error
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))
        raise DataError(f"{train.folder} and {test.folder} must have the same classes; only one of them has {odd[0]}")

    directory = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    train_images, test_images = (_decoded(listing, size, directory, progress) for listing in (train, test))
    only_jpeg = all(file.lower().endswith((".jpg", ".jpeg")) for file in train.files)
    return Dataset(
        name=name if name is not None else root.resolve().name,
        train=Split(images=train_images.images, labels=train.labels),
        test=Split(images=test_images.images, labels=test.labels),
        classes=train.classes,
        mean=train_images.mean,
        std=train_images.std,
        source=f"{'JPEG' if only_jpeg else 'image'} folder {root}",
    )


def _list_images(folder: Path) -> _Listing:
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: images are looked for in train/<class> and test/<class>")
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != ".")
    if not classes:
        raise DataError(f"{folder} has no class folders: images are looked for in {folder}/<class>/<image>")
    files: list[str] = []
    labels: list[int] = []
    # The whole path counts: archives may give all their files one time, and bitmaps of one shape have one size.
    digest = hashlib.sha256(os.fsencode(folder.resolve()))
    for label, name in enumerate(classes):
        images = [entry for entry in os.scandir(folder / name) if _is_image(entry)]
        if not images:
            raise DataError(f"{folder / name} has no images ({', '.join(_SUFFIXES)}): add some or delete the folder")
        for entry in sorted(images, key=lambda image: image.name):
            facts = entry.stat()
            if not facts.st_size:
                raise DataError(f"{entry.path} is empty: replace or delete it")
            files.append(f"{name}/{entry.name}")
            labels.append(label)
            digest.update(os.fsencode(f"\0{files[-1]}\0{facts.st_size}\0{facts.st_mtime_ns}"))
    return _Listing(
        folder=folder,
        classes=tuple(classes),
        files=files,
        labels=torch.tensor(labels),
        digest=digest.hexdigest(),
    )


def _is_image(entry: os.DirEntry[str]) -> bool:
    return entry.name[0] != "." and entry.name.lower().endswith(_SUFFIXES) and entry.is_file()


def _decoded(
    listing: _Listing, size: int, directory: Path, progress: Callable[[int, int], None] | None
) -> CachedImages:
    key = hashlib.sha256(f"{_DECODING}\0{size}\0{listing.digest}".encode()).hexdigest()
    shape = (len(listing.files), 3, size, size)
    return cached_images(directory / f"{key}.npy", shape, lambda: _decode(listing, size, progress))


def _decode(
    listing: _Listing, size: int, progress: Callable[[int, int], None] | None
) -> Iterator[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    """Yields the images in chunks, uint8 [n, 3, size, size]; a chunk's memory is used again for the next."""
    try:
        import PIL.Image  # noqa: F401
    except ModuleNotFoundError as error:
        raise DataError('image folders need Pillow, which is not installed: pip install "bnn-edge[data]"') from error
    total = len(listing.files)
    buffer = np.empty((max(1, min(total, _CHUNK_BYTES // (3 * size * size))), 3, size, size), dtype=np.uint8)

    def decode_into(position: int, file: str) -> None:
        buffer[position] = _decode_image(listing.folder / file, size).transpose(2, 0, 1)

    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as threads:
        for start in range(0, total, len(buffer)):
            files = listing.files[start : start + len(buffer)]
            list(threads.map(decode_into, range(len(files)), files))
            yield buffer[: len(files)]
            if progress is not None:
                progress(start + len(files), total)


def _decode_image(path: Path, size: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Reads an image: uint8 [size, size, 3]."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            if file.mode.startswith(("I", "F")):
                raise ValueError("more than 8 bits a channel")
            # A palette with transparency can only become RGB by way of RGBA.
            image = (file.convert("RGBA") if "transparency" in file.info else file).convert("RGB")
    # Decoders of damaged files raise nearly everything: OSError, SyntaxError, struct.error, IndexError, ...
    except Exception as error:
        raise DataError(f"{path} cannot be decoded ({error}): replace or delete it") from error
    width, height = image.size
    if width != size or height != size:
        scale = size / min(width, height)
        resized = max(size, round(width * scale)), max(size, round(height * scale))
        image = image.resize(resized, Image.Resampling.BILINEAR)
        left, top = (resized[0] - size) // 2, (resized[1] - size) // 2
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image)
