"""MNIST and Fashion-MNIST, read from their IDX files; torchvision is needed only to download them."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bnn.data.arrays import Dataset, Split, channel_statistics
from bnn.data.torchvision_import import import_torchvision_datasets
from bnn.errors import DataError
from bnn.files import open_regular

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
    paths = [raw / f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    if download and not all(path.exists() for path in paths):
        fetch = getattr(import_torchvision_datasets(), torchvision_name)
        try:
            fetch(root=data_dir, download=True)
        except (OSError, RuntimeError, EOFError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"cannot download {torchvision_name} to {raw}: {reason}") from error
    train, test = _read_split(*paths[:2]), _read_split(*paths[2:])
    mean, std = channel_statistics(train.images)
    source = f"{torchvision_name} (IDX files in {raw})"
    return Dataset(name=name, train=train, test=test, classes=classes, mean=mean, std=std, source=source)


def _read_split(images_path: Path, labels_path: Path) -> Split:
    images = _read_idx(images_path, dimensions=3).unsqueeze(1)
    labels = _read_idx(labels_path, dimensions=1).to(torch.int64)
    if len(images) != len(labels):
        raise DataError(f"{images_path} has {len(images)} images but {labels_path} has {len(labels)} labels")
    return Split(images=images, labels=labels)


def _read_idx(path: Path, *, dimensions: int) -> Tensor:
    """Reads an IDX file of bytes: 0, 0, the type, the number of dimensions, big-endian uint32 sizes, the data."""
    try:
        with open_regular(path) as file:
            content = np.fromfile(file, dtype=np.uint8)
    except FileNotFoundError as error:
        raise DataError(
            f"there is no {path}: point --data-dir at the folder that holds {path.parts[-3]}/raw, or download it"
            " (--download; download=True)"
        ) from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    header_bytes = 4 + 4 * dimensions
    sizes = content[4:header_bytes].tobytes()
    shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4))
    if content[:4].tolist() != [0, 0, _IDX_UINT8, dimensions]:
        raise DataError(f"{path} is not an IDX file of {dimensions} dimensions: delete it and fetch it again")
    if len(content) != header_bytes + math.prod(shape):
        raise DataError(
            f"{path} is damaged: {len(content)} bytes where its header asks for {header_bytes + math.prod(shape)};"
            " delete it and fetch it again"
        )
    return torch.from_numpy(content[header_bytes:]).view(shape)
