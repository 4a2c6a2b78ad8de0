"""Makes shards of a folder of pictures, in one pass that goes on where it was broken off."""

from __future__ import annotations

import io
import os
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from bnn import files
from bnn.data.arrays import histogram_statistics
from bnn.data.listing import Listing, list_images
from bnn.data.preprocessing import open_picture, require_pillow, undecodable
from bnn.data.shards.files import (
    DESCRIPTION,
    IMAGES_PER_SHARD,
    LISTING,
    Index,
    ShardFacts,
    Shards,
    read_index,
    read_shards,
    shard_path,
    write_index,
)
from bnn.errors import DataError

JPEG_QUALITY = 90
_MAX_THREADS = 16
_LISTING_BYTES = 1 << 20

Progress = Callable[[int, int], None]


class _Picture(NamedTuple):
    jpeg: bytes
    height: int
    width: int
    histogram: npt.NDArray[np.int64]


def write_shards(
    root: Path | str,
    out: Path | str,
    *,
    shorter_side: int = 256,
    skip_damaged: bool = False,
    images_per_shard: int = IMAGES_PER_SHARD,
    progress: Progress | None = None,
) -> Shards:
    """Makes shards of `root/train/<class>/*` and `root/test/<class>/*` or, without the latter, `root/val/<class>/*`.

    Pictures are turned upright, become RGB and, where their shorter side is longer than `shorter_side`, smaller, in
    bicubic interpolation, and JPEG of quality 90. A JPEG that is all that already is taken as it is, to the byte.
    Shards that are there already are left alone, so that the same call goes on with a pass that was broken off.

    Args:
        root: the folder of the pictures; see `image_folder`.
        out: folder of the shards, new, empty, or of the same pictures and `shorter_side`.
        shorter_side: in pixels, at least 8.
        skip_damaged: whether to leave out pictures that cannot be decoded, with a warning.
        images_per_shard: the most pictures of a shard.
        progress: called with the pictures that are done and all of them, after each shard.

    Returns:
        The complete shards.

    Raises:
        DataError: a folder is missing or empty, `out` is of other pictures or cannot be written, or pictures are
            damaged: all of these are named, and the shards without them stay, so that the same call with
            `skip_damaged` has nothing to do again.
    """
    root, out = Path(root), Path(out)
    if shorter_side < 8:
        raise DataError(f"the shorter side has at least 8 pixels, got {shorter_side}")
    require_pillow()
    tested = root / "test" if (root / "test").is_dir() or not (root / "val").is_dir() else root / "val"
    listings = {"train": list_images(root / "train"), "test": list_images(tested)}
    if listings["train"].classes != listings["test"].classes:
        odd = sorted(set(listings["train"].classes) ^ set(listings["test"].classes))
        raise DataError(f"{root / 'train'} and {tested} must have the same classes; only one of them has {odd[0]}")
    total = sum(len(listing.files) for listing in listings.values())
    damaged: dict[str, str] = {}
    histogram = np.zeros((3, 256), dtype=np.int64)
    counts, done = {}, 0
    try:
        _claim(out, listings, shorter_side, images_per_shard)
        with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as threads:
            for part, listing in listings.items():
                starts = range(0, len(listing.files), images_per_shard)
                counts[part] = len(starts)
                for number, start in enumerate(starts):
                    rows = range(start, min(start + images_per_shard, len(listing.files)))
                    path = shard_path(out, part, number)
                    facts = _complete(path, len(listing.classes)) or _write(path, listing, rows, shorter_side, threads)
                    damaged |= {str(listing.folder / name): reason for name, reason in facts.damaged.items()}
                    histogram += facts.histogram if part == "train" else 0
                    done += len(rows)
                    if progress is not None:
                        progress(done, total)
        _refuse_damaged(damaged, total, listings, out, counts, skip=skip_damaged)
        mean, std = histogram_statistics(torch.from_numpy(histogram))
        classes = listings["train"].classes
        shards = Shards(out, classes, counts, mean, std, shorter_side, len(damaged))
        with files.replacing(out / DESCRIPTION) as file:
            file.write(files.sealed(shards.described()))
    except OSError as error:
        raise DataError(
            f"cannot write the shards in {out} ({error.strerror or error}): make room or choose another folder; what is"
            " there is gone on with"
        ) from error
    return read_shards(out)


def _claim(out: Path, listings: dict[str, Listing], shorter_side: int, images_per_shard: int) -> None:
    """Writes down what the shards are made of, or refuses a folder that holds something else."""
    made_of = {
        **{part: listing.digest for part, listing in listings.items()},
        "shorter_side": shorter_side,
        "images_per_shard": images_per_shard,
    }
    path = out / LISTING
    out.mkdir(parents=True, exist_ok=True)
    if path.exists():
        try:
            same = files.unsealed(files.read_bytes(path, limit_bytes=_LISTING_BYTES)) == made_of
        except ValueError:
            same = False
        if not same:
            raise DataError(
                f"{out} has shards of other pictures, or of these as they were, or of another size: delete it or choose"
                " another folder"
            )
        return
    files.remove_left_behind(out)
    if any(out.iterdir()):
        raise DataError(f"{out} is not empty, and holds no shards: choose another folder")
    with files.replacing(path) as file:
        file.write(files.sealed(made_of))


def _complete(path: Path, classes: int) -> ShardFacts | None:
    """What a shard holds that an earlier pass has completed; None: there is none, or it is damaged."""
    try:
        return read_index(path, classes=classes)
    except DataError:
        return None


def _write(path: Path, listing: Listing, rows: range, shorter_side: int, threads: ThreadPoolExecutor) -> ShardFacts:
    def picture(row: int) -> _Picture | str:
        try:
            return _encoded(listing.folder / listing.files[row], shorter_side)
        except DataError as error:
            return str(error)

    damaged: dict[str, str] = {}
    histogram = np.zeros((3, 256), dtype=np.int64)
    columns = []
    with files.replacing(path) as file:
        for row, made in zip(rows, threads.map(picture, rows), strict=True):
            if isinstance(made, str):
                damaged[listing.files[row]] = made
                continue
            file.write(made.jpeg)
            histogram += made.histogram
            columns.append((len(made.jpeg), zlib.crc32(made.jpeg), made.height, made.width, int(listing.labels[row])))
    index = Index(*np.array(columns, dtype=np.int64).reshape(-1, 5).T)
    facts = ShardFacts(index, damaged, histogram)
    write_index(path, facts)
    return facts


def _encoded(path: Path, shorter_side: int) -> _Picture:
    """A picture's JPEG.

    Raises:
        DataError: it cannot be decoded; the message is the reason, without the path.
    """
    from PIL import Image

    picture, as_it_is = open_picture(path)
    scale = shorter_side / min(picture.size)
    jpeg = None
    if scale < 1:
        width, height = (max(shorter_side, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    elif as_it_is:
        jpeg = path.read_bytes()
    if jpeg is None:
        content = io.BytesIO()
        picture.save(content, "JPEG", quality=JPEG_QUALITY)
        jpeg = content.getvalue()
    histogram = np.array(picture.histogram(), dtype=np.int64).reshape(3, 256)
    return _Picture(jpeg, picture.height, picture.width, histogram)


def _refuse_damaged(
    damaged: dict[str, str], total: int, listings: dict[str, Listing], out: Path, counts: dict[str, int], *, skip: bool
) -> None:
    if not damaged:
        return
    told = undecodable(damaged, total=total)
    if not skip:
        raise DataError(f"{told}: replace or delete them, or leave them out (--skip-damaged; skip_damaged=True)")
    for part, listing in listings.items():
        paths = [shard_path(out, part, number) for number in range(counts[part])]
        labels = np.concatenate([read_index(path, classes=len(listing.classes)).index.labels for path in paths])
        for name, images in zip(listing.classes, np.bincount(labels, minlength=len(listing.classes)), strict=True):
            if not images:
                raise DataError(f"no image of {listing.folder / name} can be decoded: add some or delete the folder")
    warnings.warn(f"{told}; they are left out", stacklevel=3)
