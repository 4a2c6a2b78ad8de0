"""A data set by its name, whole or a part of it: what recipes offer as options."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bnn.data.arrays import Dataset, hold_out
from bnn.data.idx_sets import fashion_mnist, mnist
from bnn.data.torchvision_sets import cifar10, cifar100, svhn
from bnn.errors import DataError

_LOADERS: dict[str, Callable[..., Dataset]] = {
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "svhn": svhn,
}


def load_dataset(
    name: str, data_dir: Path | str, *, download: bool = False, train_images: int | None = None
) -> Dataset:
    """Loads a data set by the name of its function in `bnn.data`.

    Args:
        name: such as `cifar10`.
        data_dir: see the function of that name.
        download: fetch missing files with torchvision.
        train_images: take this many of the training images, at random but always the same; None takes all.

    Raises:
        DataError: there is no such set or there are not so many images, or as the function of that name.
    """
    if name not in _LOADERS:
        raise DataError(f"there is no data set {name!r}; there are: {', '.join(_LOADERS)}")
    data = _LOADERS[name](data_dir, download=download)
    if train_images is None:
        return data
    images = len(data.train)
    if not 1 <= train_images <= images:
        raise DataError(f"{data.name} has {images} training images: take 1 to {images} of them, not {train_images}")
    part, _ = hold_out(data.train, fraction=1 - train_images / images, seed=0)
    return replace(data, train=part)
