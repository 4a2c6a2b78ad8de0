"""Files of examples that are numbers: CSV tables and NumPy arrays."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bnn.data.csv_tables import open_table
from bnn.errors import DataError

_SUFFIXES = (".csv", ".npz", ".npy")
# Names of the inputs and of the classes of each part, in an .npz file or as .npy files of a folder.
_NAMES = {"train": [("x", "y"), ("x_train", "y_train")], "test": [("x_test", "y_test")]}


@dataclass(frozen=True)
class Examples:
    """Examples with the names of their classes."""

    values: Tensor
    """float32 [n, ...], finite."""
    labels: Sequence[str]
    """n names of classes."""
    columns: tuple[str, ...] = ()
    """Names of the columns of a table with a header, one for each feature."""
    target: str = ""
    """Of a table, the name of the column of the class or, without a header, its number from 1."""


def read_parts(path: Path, target: str | None, columns: Sequence[str] = ()) -> tuple[Examples, Examples | None]:
    """The training and the test part of a file or folder; None where it is not divided.

    Args:
        path: a CSV file; an .npz file with x and y, or x_train, y_train, x_test and y_test; or a folder with train.csv
            and test.csv, train.npz and test.npz, or such arrays as .npy files.
        target: see `read_table`.
        columns: see `read_table`.

    Raises:
        DataError: there is no such file, or it cannot be used.
    """
    if path.is_dir():
        return _read_folder(path, target, columns)
    if path.suffix.lower() == ".npz":
        arrays = _open_npz(path)
        return _pair(arrays, "train", path), _pair(arrays, "test", path) if "x_test" in arrays else None
    return read_file(path, target, columns), None


def read_file(path: Path, target: str | None, columns: Sequence[str] = ()) -> Examples:
    """The examples of a CSV or .npz file; the arguments are those of `read_table`.

    Raises:
        DataError: the file cannot be used.
    """
    suffix = _suffix(path)
    if suffix == ".npy":
        raise DataError(f"{path} holds one array: name a folder with x.npy and y.npy, or put both into an .npz file")
    return _pair(_open_npz(path), "train", path) if suffix == ".npz" else read_table(path, target, columns)


def read_table(path: Path, target: str | None, columns: Sequence[str] = ()) -> Examples:
    """A CSV file with classes.

    Args:
        path: of the file.
        target: the column of the class, by name or, without a header, by its number from 1; None: the last one.
        columns: names of the columns to take, of a file with a header; by default all others.

    Raises:
        DataError: the file cannot be used.
    """
    table = open_table(path)
    if table.width < 2:
        raise DataError(f"{path} has one column: a table has columns of numbers and one of classes")
    label = table.width - 1 if target is None else table.place(target)
    if columns and table.header:
        features = [table.place(column) for column in columns]
    else:
        features = [place for place in range(table.width) if place != label]
    values, labels = table.read(features, label)
    names = tuple(table.name(place) for place in features) if table.header else ()
    return Examples(torch.from_numpy(values), labels, names, table.name(label))


def read_values(path: Path, shape: tuple[int, ...], *, columns: Sequence[str] = (), target: str = "") -> Tensor:
    """Examples without, or regardless of, their classes: all rows of a CSV file, or an array.

    Args:
        path: a CSV file, an .npy file, or an .npz file with x.
        shape: of an example.
        columns: see `Examples`; a file with a header has to have them, in any order and among others.
        target: see `Examples`; a file without a header may have this column.

    Returns:
        float32 [n, *shape].

    Raises:
        DataError: the file cannot be used, or its examples are of another shape.
    """
    if _suffix(path) == ".csv":
        values = _read_columns(path, shape, columns, target)
    elif _suffix(path) == ".npy":
        values = _numbers(_load(path), path.name, path)
    else:
        arrays = _open_npz(path)
        name = next((name for name in ("x", "x_test", *arrays) if name in arrays), "x")
        values = _numbers(_array(arrays, name, path), name, path)
    if tuple(values.shape[1:]) != shape:
        raise DataError(f"{path} has examples of {list(values.shape[1:])}, the model takes {list(shape)}")
    return values


def _read_columns(path: Path, shape: tuple[int, ...], columns: Sequence[str], target: str) -> Tensor:
    table = open_table(path)
    if len(shape) > 1:
        raise DataError(f"the model takes arrays of {list(shape)}, not tables: give them in an .npy or .npz file")
    if columns and table.header:
        features = [table.place(column) for column in columns]
    else:
        features = list(range(table.width))
        if table.width == shape[0] + 1 and target.isdecimal() and not table.header:
            features.remove(table.place(target))
    return torch.from_numpy(table.read(features, None)[0])


def _read_folder(folder: Path, target: str | None, columns: Sequence[str]) -> tuple[Examples, Examples | None]:
    for suffix in (".csv", ".npz"):
        train, test = folder / f"train{suffix}", folder / f"test{suffix}"
        if train.exists():
            first = read_file(train, target, columns)
            return first, read_file(test, first.target or None, first.columns) if test.exists() else None
    names = [name for pairs in _NAMES.values() for pair in pairs for name in pair]
    arrays = {name: _load(folder / f"{name}.npy") for name in names if (folder / f"{name}.npy").exists()}
    if not arrays:
        raise DataError(
            f"{folder} has neither train.csv nor train.npz nor x.npy and y.npy: name a file, or one of your folders"
        )
    return _pair(arrays, "train", folder), _pair(arrays, "test", folder) if "x_test" in arrays else None


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if not path.exists():
        raise DataError(f"there is no file {path}")
    if suffix not in _SUFFIXES or path.is_dir():
        raise DataError(f"{path} is none of the files that are read, which end in {', '.join(_SUFFIXES)}")
    return suffix


def _pair(arrays: dict[str, NDArray[Any]], part: str, path: Path) -> Examples:
    x, y = next((pair for pair in _NAMES[part] if pair[0] in arrays), _NAMES[part][0])
    values, labels = _numbers(_array(arrays, x, path), x, path), _labels(_array(arrays, y, path), y, path)
    if len(values) != len(labels):
        raise DataError(f"{path} has {len(values)} examples in {x} and {len(labels)} classes in {y}")
    return Examples(values, labels)


def _array(arrays: dict[str, NDArray[Any]], name: str, path: Path) -> NDArray[Any]:
    if name not in arrays:
        there = f"; it has {', '.join(arrays)}" if arrays else ""
        raise DataError(f"{path} has no array {name}{there}: call the inputs x and the classes y")
    return arrays[name]


def _numbers(array: NDArray[Any], name: str, path: Path) -> Tensor:
    if array.dtype.kind not in "fiub":
        raise DataError(f"{path}: {name} is of {array.dtype}, where numbers are wanted")
    if array.ndim < 2 or not array.size:
        raise DataError(f"{path}: {name} is of shape {list(array.shape)}: examples lie along the first dimension")
    with np.errstate(over="ignore"):
        values = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    finite = values.flatten(1).isfinite()
    if not finite.all():
        row = int((~finite.all(dim=1)).nonzero()[0])
        raise DataError(f"{path}: {int((~finite).sum())} values of {name} are not finite, the first in example {row}")
    return values


def _labels(array: NDArray[Any], name: str, path: Path) -> list[str]:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    whole = array.dtype.kind == "f" and bool((array == np.trunc(array)).all())
    if array.ndim != 1 or not (whole or array.dtype.kind in "iubU"):
        raise DataError(
            f"{path}: {name} is of {array.dtype} {list(array.shape)}: it has the class of each example, as a whole"
            " number or as text"
        )
    return [str(value) for value in (array.astype(np.int64) if whole else array).tolist()]


def _open_npz(path: Path) -> dict[str, NDArray[Any]]:
    _suffix(path)
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is no .npz archive")
    with _loading(path), np.load(path, allow_pickle=False) as archive:
        return {name.lower(): archive[name] for name in archive.files}


def _load(path: Path) -> NDArray[Any]:
    with _loading(path):
        array: NDArray[Any] = np.load(path, allow_pickle=False)
        return array


@contextmanager
def _loading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, LookupError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        if "Object arrays" in str(error):
            raise DataError(
                f"{path} has an array of Python objects, which is not opened because it could execute code: save it as"
                " an array of numbers or of text"
            ) from None
        raise DataError(f"{path} is damaged or no NumPy file: {error}") from None
