"""CIFAR-10, CIFAR-100 and SVHN through torchvision; the CIFAR sets also from a folder of images.

torchvision unpickles CIFAR's files, as they are published in that form. It does so only after their MD5 sums have
been found to be those of the original files, so that no other file is ever unpickled.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bnn.data.arrays import Dataset, Split, channel_statistics
from bnn.data.folder import image_folder
from bnn.data.torchvision_import import import_torchvision_datasets
from bnn.errors import DataError

Progress = Callable[[int, int], None]


def cifar10(data_dir: Path | str, *, download: bool = False, progress: Progress | None = None) -> Dataset:
    """Loads CIFAR-10 (Krizhevsky, 2009): 50,000 + 10,000 images, uint8 [n, 3, 32, 32].

    Args:
        data_dir: the folder that holds `cifar-10-batches-py`, as for `torchvision.datasets.CIFAR10`, or the images as
            `train/<class>/*` and `test/<class>/*`. `Dataset.source` tells which was read.
        download: fetch missing files with torchvision.
        progress: see `image_folder`.

    Raises:
        DataError: torchvision is missing, a file is missing or damaged, or the download failed.
    """
    return _cifar("CIFAR-10", Path(data_dir), 10, download, progress)


def cifar100(data_dir: Path | str, *, download: bool = False, progress: Progress | None = None) -> Dataset:
    """Loads CIFAR-100 with its 100 fine classes: 50,000 + 10,000 images, uint8 [n, 3, 32, 32].

    Args:
        data_dir: the folder that holds `cifar-100-python`, or the images; see `cifar10`.
        download: fetch missing files with torchvision.
        progress: see `image_folder`.

    Raises:
        DataError: torchvision is missing, a file is missing or damaged, or the download failed.
    """
    return _cifar("CIFAR-100", Path(data_dir), 100, download, progress)


def svhn(data_dir: Path | str, *, download: bool = False) -> Dataset:
    """Loads SVHN's cropped digits (Netzer et al., 2011): 73,257 + 26,032 images, uint8 [n, 3, 32, 32].

    Args:
        data_dir: the folder that holds `train_32x32.mat` and `test_32x32.mat`, as for `torchvision.datasets.SVHN`.
        download: fetch missing files with torchvision.

    Raises:
        DataError: torchvision or scipy is missing, a file is missing or damaged, or the download failed.
    """
    sets = import_torchvision_datasets()
    files = [(entry[1], entry[2]) for part, entry in sets.SVHN.split_list.items() if part != "extra"]
    parts = _open("SVHN", sets.SVHN, Path(data_dir), files, [{"split": "train"}, {"split": "test"}], download)
    train, test = (_split(part.data, part.labels) for part in parts)
    return _dataset("svhn", train, test, tuple("0123456789"), f"SVHN (torchvision's files in {data_dir})")


def _cifar(title: str, data_dir: Path, num_classes: int, download: bool, progress: Progress | None) -> Dataset:
    name = title.lower().replace("-", "")
    if (data_dir / "train").is_dir():
        dataset = image_folder(data_dir, size=32, name=name, progress=progress)
        if dataset.num_classes != num_classes:
            raise DataError(f"{data_dir} has {dataset.num_classes} classes, but {title} has {num_classes}")
        return replace(dataset, source=f"{title} ({dataset.source})")
    sets = import_torchvision_datasets()
    dataset_class = getattr(sets, name.upper())
    folder, meta = dataset_class.base_folder, dataset_class.meta
    listed = [*dataset_class.train_list, *dataset_class.test_list, (meta["filename"], meta["md5"])]
    files = [(f"{folder}/{file}", md5) for file, md5 in listed]
    parts = _open(title, dataset_class, data_dir, files, [{"train": True}, {"train": False}], download)
    train, test = (_split(part.data.transpose(0, 3, 1, 2), part.targets) for part in parts)
    return _dataset(name, train, test, tuple(parts[0].classes), f"{title} (torchvision's files in {data_dir / folder})")


def _open(
    title: str,
    dataset_class: Callable[..., Any],
    data_dir: Path,
    files: list[tuple[str, str]],
    options: list[dict[str, Any]],
    download: bool,
) -> list[Any]:
    """Opens the training and the test part; a failure is told by what is wrong with `files`, (name, MD5)."""
    try:
        return [dataset_class(root=data_dir, download=download, **option) for option in options]
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise DataError(f"{title} needs {package}, which is not installed: pip install {package}") from error
    except (OSError, RuntimeError, EOFError) as error:
        reason = " ".join(str(error).split())
        for name, md5 in files:
            path = data_dir / name
            if not path.is_file():
                how = (
                    "check the connection"
                    if download
                    else "point --data-dir at its folder, or download it (--download; download=True)"
                )
                raise DataError(f"there is no {path} ({reason}): {how}") from error
            try:
                content = path.read_bytes()
            except OSError as unreadable:
                raise DataError(f"{path} cannot be read: {unreadable.strerror}; make it readable") from error
            if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
                raise DataError(f"{path} is damaged, its MD5 is not {md5}: delete it and fetch it again") from error
        raise DataError(f"cannot open {title} in {data_dir}: {reason}") from error


def _split(images: Any, labels: Any) -> Split:
    return Split(
        images=torch.from_numpy(np.ascontiguousarray(images)),
        labels=torch.as_tensor(labels, dtype=torch.int64),
    )


def _dataset(name: str, train: Split, test: Split, classes: tuple[str, ...], source: str) -> Dataset:
    mean, std = channel_statistics(train.images)
    return Dataset(name=name, train=train, test=test, classes=classes, mean=mean, std=std, source=source)
