"""The UCI optical digits, which come with the package: no download, and an epoch takes well under a second."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from bnn.data.arrays import Dataset, Split, channel_statistics
from bnn.errors import DataError
from bnn.files import open_regular

_FILE = "digits.npz"
_BUNDLED = Path(__file__).parent / "files" / _FILE


def digits(data_dir: Path | str | None = None) -> Dataset:
    """Loads 1,797 handwritten digits of 8x8 grey pixels: 1,437 for training, 360 for testing.

    E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
    https://doi.org/10.24432/C50P49, CC BY 4.0; `files/LICENSE-digits.txt` says what was changed.

    Args:
        data_dir: a folder whose `digits.npz` is to be read in place of the package's; None reads the package's.

    Returns:
        The data set; images are uint8 [n, 1, 8, 8].

    Raises:
        DataError: `data_dir` is no folder or has no `digits.npz`, or that is damaged.
    """
    path = _BUNDLED
    if data_dir is not None:
        if not Path(data_dir).is_dir():
            raise DataError(f"there is no folder {data_dir}: leave --data-dir out to use the bundled digits")
        path = Path(data_dir) / _FILE
        if not path.exists():
            raise DataError(
                f"there is no {path}, in which other digits are looked for: leave --data-dir out to use the bundled"
                " ones, or train on a folder of pictures with `bnn train images`"
            )
    try:
        train, test = _read(path)
        mean, std = channel_statistics(train.images)
        return Dataset(
            name="digits",
            train=train,
            test=test,
            classes=tuple("0123456789"),
            mean=mean,
            std=std,
            source=f"UCI optical digits ({'bundled' if path == _BUNDLED else path})",
        )
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (
        EOFError,
        LookupError,
        ValueError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
        DataError,
    ) as error:
        raise DataError(f"{path} is damaged or not a digits file ({error}): delete or replace it") from error


def _read(path: Path) -> tuple[Split, Split]:
    with open_regular(path) as file:
        if not zipfile.is_zipfile(file):
            raise DataError("it is not an npz archive")
        file.seek(0)
        arrays = np.load(file, allow_pickle=False)
        train, test = (
            Split(
                images=torch.from_numpy(arrays[f"{part}_images"]),
                labels=torch.from_numpy(arrays[f"{part}_labels"]),
            )
            for part in ("train", "test")
        )
    for split in (train, test):
        if split.images.shape[1:] != (1, 8, 8):
            raise DataError(f"images must be [n, 1, 8, 8], got {list(split.images.shape)}")
    return train, test
