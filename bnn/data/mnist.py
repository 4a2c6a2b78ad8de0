"""MNIST and Fashion-MNIST, read from their IDX files; torchvision is needed only to download them."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bnn.data.arrays import Dataset, Split, channel_statistics
from bnn.data.torchvision_import import import_torchvision_datasets
from bnn.errors import DataError

_IDX_UINT8 = 8


def mnist(data_dir: Path | str, *, download: bool = False) -> Dataset:
    """Loads MNIST (LeCun, Cortes and Burges, 1998): 60,000 + 10,000 digits, uint8 [n, 1, 28, 28].

    Args:
        data_dir: the folder that holds `MNIST/raw/*-ubyte`, as for `torchvision.datasets.MNIST`.
        download: fetch missing files with torchvision.

    Raises:
        DataError: a file is missing or damaged, or the download failed.
    """
    return _load("MNIST", "mnist", tuple("0123456789"), Path(data_dir), download)


def fashion_mnist(data_dir: Path | str, *, download: bool = False) -> Dataset:
    """Loads Fashion-MNIST (Xiao, Rasul and Vollgraf, arXiv:1708.07747): 60,000 + 10,000, uint8 [n, 1, 28, 28].

    Args:
        data_dir: the folder that holds `FashionMNIST/raw/*-ubyte`, as for `torchvision.datasets.FashionMNIST`.
        download: fetch missing files with torchvision.

    Raises:
        DataError: a file is missing or damaged, or the download failed.
    """
    classes = (
        "t-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    )
    return _load("FashionMNIST", "fashion_mnist", classes, Path(data_dir), download)


def _load(torchvision_name: str, name: str, classes: tuple[str, ...], data_dir: Path, download: bool) -> Dataset:
    raw = data_dir / torchvision_name / "raw"
    if download:
        try:
            getattr(import_torchvision_datasets(), torchvision_name)(root=data_dir, download=True)
        except (OSError, RuntimeError, EOFError) as error:
            raise DataError(f"cannot download {torchvision_name} to {data_dir}: {_one_line(error)}") from error
    train, test = _read_split(raw, "train"), _read_split(raw, "t10k")
    mean, std = channel_statistics(train.images)
    source = f"{torchvision_name} (IDX files in {raw})"
    return Dataset(name=name, train=train, test=test, classes=classes, mean=mean, std=std, source=source)
