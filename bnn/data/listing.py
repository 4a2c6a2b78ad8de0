"""The pictures of a folder, a class a folder."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bnn.errors import DataError

_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Listing:
    """The images of one folder, class by class, each class in the order of the file names."""

    folder: Path
    classes: tuple[str, ...]
    files: list[str]
    labels: Tensor
    digest: str
    """SHA-256 of the paths, sizes and modification times."""


def list_images(folder: Path) -> Listing:
    """Lists the images of `folder/<class>/*`.

    Raises:
        DataError: a folder is missing, empty or cannot be read, or a link leads nowhere.
    """
    try:
        return _listed(folder)
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from error


def _listed(folder: Path) -> Listing:
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: images are looked for in train/<class> and test/<class>")
    entries = [entry for entry in os.scandir(folder) if entry.name[0] != "."]
    dangling = sorted(entry.path for entry in entries if _dangles(entry))
    if dangling:
        raise DataError(f"{dangling[0]} is a link to nothing: mend or delete it")
    classes = sorted(entry.name for entry in entries if entry.is_dir())
    if not classes:
        raise DataError(f"{folder} has no class folders: images are looked for in {folder}/<class>/<image>")
    files: list[str] = []
    labels: list[int] = []
    empty: list[str] = []
    # The whole path counts: archives may give all their files one time, and bitmaps of one shape have one size.
    digest = hashlib.sha256(os.fsencode(folder.resolve()))
    for label, name in enumerate(classes):
        images = [entry for entry in os.scandir(folder / name) if _is_image(entry)]
        if not images:
            empty.append(str(folder / name))
        for entry in sorted(images, key=lambda image: image.name):
            facts = entry.stat(follow_symlinks=not _dangles(entry))
            files.append(f"{name}/{entry.name}")
            labels.append(label)
            digest.update(os.fsencode(f"\0{files[-1]}\0{facts.st_size}\0{facts.st_mtime_ns}"))
    if empty:
        what = "has" if len(empty) == 1 else "have"
        raise DataError(f"{', '.join(empty)} {what} no images ({', '.join(_SUFFIXES)}): add some or delete the folder")
    return Listing(
        folder=folder,
        classes=tuple(classes),
        files=files,
        labels=torch.tensor(labels),
        digest=digest.hexdigest(),
    )


def _is_image(entry: os.DirEntry[str]) -> bool:
    """A link to nothing is one, too: a picture that is damaged."""
    named = entry.name[0] != "." and entry.name.lower().endswith(_SUFFIXES)
    return named and (entry.is_file() or _dangles(entry))


def _dangles(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)
