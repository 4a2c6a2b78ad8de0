"""Folders of pictures, a class a folder, decoded once into a cache."""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from bnn.data.arrays import Dataset, Split, divide_classes, split_statistics
from bnn.data.image_cache import CachedImages, Chunk, cached_images, default_cache_dir
from bnn.data.listing import Listing, list_images
from bnn.data.preprocessing import decode_image, require_pillow, undecodable
from bnn.errors import DataError

_CHUNK_BYTES = 2**23
_MAX_THREADS = 4
# Part of every cache's key; to be raised whenever the same files would be decoded to other pixels.
_DECODING = "upright; crop the centre; resize, bilinear; 2"

Progress = Callable[[int, int], None]


def image_folder(
    root: Path | str,
    *,
    size: int,
    channels: int = 3,
    test_part: float | None = None,
    seed: int = 0,
    skip_damaged: bool = False,
    cache_dir: Path | str | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Loads `root/train/<class>/*` and `root/test/<class>/*` or, without the latter, `root/val/<class>/*`.

    With `test_part`, a folder that is not divided so is divided by `seed`, each class for itself.

    The first call decodes every image: it is turned upright, its centre is cut out and resized, and its colours become
    RGB or grey. The pixels are kept in a file, of which each batch reads its own, so that a set may be larger than the
    memory. The file is named by the images' paths, sizes and modification times and by their shape: where one of
    them changes the images are decoded anew. Old files are never deleted.

    Args:
        root: the folder with the splits, or with the classes. Images are .jpg, .jpeg, .png, .bmp, .gif, .tif, .tiff and
            .webp files of 8 bits a channel; hidden files and folders are passed over.
        size: height and width of the decoded images in pixels.
        channels: 3 for RGB, 1 for grey.
        test_part: part of each class to test on, above 0 and below 1, at least one image; None asks for a test folder.
        seed: which images are tested on depends on it and on the number of images of a class.
        skip_damaged: whether to leave out images that cannot be decoded, with a warning.
        cache_dir: where the decoded pixels are kept; None: the folder that the environment variable BNN_CACHE names,
            or else ~/.cache/bnn-edge.
        name: name of the data set; None: that of `root`.
        progress: called with the images decoded so far and the images of the split, every few hundred images.

    Returns:
        The data set; images are uint8 [n, channels, size, size], in a `bnn.data.image_cache.ImageFile`.

    Raises:
        DataError: a folder is missing or empty, images are damaged, a class has too few, or the cache cannot be
            written. All folders without images, and all damaged images, are named at once.
    """
    root = Path(root)
    if size < 1:
        raise DataError(f"the image size must be at least 1 pixel, got {size}")
    if channels not in (1, 3):
        raise DataError(f"images have 1 channel or 3, not {channels}")
    if not root.is_dir():
        raise DataError(f"there is no folder {root}: point --data-dir at a folder with train/<class>/<image>")
    directory = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    tested = root / "test" if (root / "test").is_dir() else root / "val"
    divided = tested.is_dir() or test_part is None
    whole = root / "train" if divided or (root / "train").is_dir() else root
    listings = [list_images(folder) for folder in ([whole, tested] if divided else [whole])]
    if listings[0].classes != listings[-1].classes:
        odd = sorted(set(listings[0].classes) ^ set(listings[-1].classes))
        raise DataError(f"{whole} and {tested} must have the same classes; only one of them has {odd[0]}")
    shape = (channels, size, size)
    caches = [_decoded(listing, shape, directory, progress) for listing in listings]
    splits = [_undamaged(*pair, skip=skip_damaged) for pair in zip(listings, caches, strict=True)]
    mean, std = caches[0].mean, caches[0].std
    if divided:
        train, test = splits
    else:
        assert test_part is not None
        train, test = _divided(splits[0], listings[0], test_part, seed)
        mean, std = split_statistics(train)
    only_jpeg = all(file.lower().endswith((".jpg", ".jpeg")) for file in listings[0].files)
    return Dataset(
        name=name if name is not None else root.resolve().name,
        train=train,
        test=test,
        classes=listings[0].classes,
        mean=mean,
        std=std,
        source=f"{'JPEG' if only_jpeg else 'image'} folder {root}",
    )


def labelled_images(
    root: Path | str,
    *,
    image_shape: tuple[int, ...],
    skip_damaged: bool = False,
    cache_dir: Path | str | None = None,
) -> tuple[Split, tuple[str, ...]]:
    """Loads images to evaluate on: those of `root/test/<class>/*`, `root/val/<class>/*` or else `root/<class>/*`.

    Args:
        root: the folder.
        image_shape: channels, height and width of the decoded images.
        skip_damaged: see `image_folder`.
        cache_dir: see `image_folder`.

    Returns:
        The images with their labels, and the names of the classes.

    Raises:
        DataError: as `image_folder`.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"there is no folder {root}: point --data-dir at a folder with <class>/<image>")
    folders = [root / part for part in ("test", "val") if (root / part).is_dir()]
    listing = list_images(folders[0] if folders else root)
    directory = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    return _undamaged(listing, _decoded(listing, image_shape, directory, None), skip=skip_damaged), listing.classes


def _undamaged(listing: Listing, cache: CachedImages, *, skip: bool) -> Split:
    """The images that could be decoded."""
    if not cache.damaged:
        return Split(images=cache.images, labels=listing.labels)
    reasons = {listing.folder / listing.files[place]: reason for place, reason in cache.damaged.items()}
    told = undecodable(reasons, total=len(listing.files))
    if not skip:
        raise DataError(f"{told}: replace or delete them, or leave them out (--skip-damaged; skip_damaged=True)")
    warnings.warn(f"{told}; they are left out", stacklevel=3)
    rows = torch.tensor([row for row in range(len(listing.files)) if row not in cache.damaged], dtype=torch.int64)
    left = listing.labels[rows].bincount(minlength=len(listing.classes))
    for name, images in zip(listing.classes, left.tolist(), strict=True):
        if not images:
            raise DataError(f"no image of {listing.folder / name} can be decoded: add some or delete the folder")
    return Split(images=cache.images, labels=listing.labels[rows], rows=rows)


def _divided(split: Split, listing: Listing, test_part: float, seed: int) -> tuple[Split, Split]:
    """Sets a part of each class aside for testing."""
    for name, images in zip(listing.classes, split.labels.bincount(minlength=len(listing.classes)), strict=True):
        if images < 2:
            raise DataError(
                f"{listing.folder / name} has 1 image, which cannot be both trained and tested on: add more"
            )
    return divide_classes(split, part=test_part, seed=seed)


def _decoded(
    listing: Listing, image_shape: tuple[int, ...], directory: Path, progress: Progress | None
) -> CachedImages:
    size = "x".join(map(str, image_shape))
    key = hashlib.sha256(f"{_DECODING}\0{size}\0{listing.digest}".encode()).hexdigest()
    shape = (len(listing.files), *image_shape)
    return cached_images(
        directory / f"{key}.npy", shape, lambda damaged: _decode(listing, image_shape, damaged, progress)
    )


def _decode(
    listing: Listing, image_shape: tuple[int, ...], damaged: dict[int, str], progress: Progress | None
) -> Iterator[Chunk]:
    """Yields the images in chunks, uint8 [n, C, H, W]; a chunk's memory is used again for the next."""
    require_pillow()
    total = len(listing.files)
    per_chunk = max(1, min(total, _CHUNK_BYTES // int(np.prod(image_shape))))
    buffer = np.empty((per_chunk, *image_shape), dtype=np.uint8)

    def decode_into(start: int, position: int, file: str) -> None:
        try:
            buffer[position] = decode_image(listing.folder / file, image_shape)
        except DataError as error:
            buffer[position] = 0
            damaged[start + position] = str(error)

    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as threads:
        for start in range(0, total, len(buffer)):
            files = listing.files[start : start + len(buffer)]
            list(threads.map(decode_into, [start] * len(files), range(len(files)), files))
            yield buffer[: len(files)]
            if progress is not None:
                progress(start + len(files), total)
