"""Tables and arrays of numbers as data sets: what sensors measure, features of sounds."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from bnn.data.array_files import Examples, read_file, read_parts
from bnn.data.arrays import Dataset, Split, divide_classes, split_statistics
from bnn.data.preprocessing import Preprocessing
from bnn.errors import DataError

_MOST_NAMED = 3


def measurements(
    path: Path | str,
    *,
    test: Path | str | None = None,
    target: str | None = None,
    test_part: float = 0.2,
    seed: int = 0,
    name: str | None = None,
) -> Dataset:
    """Loads numbers with classes, from a CSV file or NumPy arrays.

    Each feature of a table, and each channel (the second dimension) of other arrays, is to be standardised by its mean
    and deviation over the training part. One that is constant there becomes 0, and is warned of.

    Args:
        path: a CSV file with a row an example; an .npz file with x, [n, ...], and y, [n], and perhaps x_test and
            y_test; or a folder with train.csv and test.csv, train.npz and test.npz, or such arrays as .npy files.
        test: a file of the examples to test on; None: those of `path` or, without such, a part of it.
        target: a table's column of classes, by name or, without a header, by its number from 1; None: the last one.
        test_part: part of each class to test on, above 0 and below 1, at least one example.
        seed: which examples are tested on depends on it and on the number of examples of a class.
        name: of the data set; None: that of `path`.

    Returns:
        The data set; examples are float32, as in the files. Classes are in the order of their numbers or names.

    Raises:
        DataError: a file is missing or cannot be used, the test part has other columns, sizes or classes, or a class
            has too few examples.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"there is no {path}: point --data-dir at a CSV or .npz file, or at a folder with train.csv")
    train, tested = read_parts(path, target)
    if test is not None:
        tested = read_file(Path(test), train.target or None, train.columns)
    classes = _classes(train)
    split = _split(train, classes, path)
    if tested is not None:
        if tested.values.shape[1:] != train.values.shape[1:]:
            raise DataError(
                f"examples to train on have the shape {list(train.values.shape[1:])}, those to test on"
                f" {list(tested.values.shape[1:])}"
            )
        parts = split, _split(tested, classes, Path(test) if test is not None else path)
    else:
        _require_two_each(split, classes, train.target, path)
        parts = divide_classes(split, part=test_part, seed=seed)
    mean, std = split_statistics(parts[0])
    _warn_of_constants(train, mean, std, path)
    return Dataset(
        name=path.resolve().stem if name is None else name,
        train=parts[0],
        test=parts[1],
        classes=classes,
        mean=mean,
        std=tuple(value or 1.0 for value in std),
        source=f"{'table' if train.target else 'arrays'} {path}",
        columns=train.columns,
        target=train.target,
    )


def labelled_measurements(path: Path | str, takes: Preprocessing) -> tuple[Split, tuple[str, ...]]:
    """Loads examples to evaluate on: the test part of a file or folder or, where it has none, all of it.

    Args:
        path: see `measurements`.
        takes: of the model.

    Returns:
        The examples with their labels, and the names of the classes.

    Raises:
        DataError: as `measurements`.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"there is no {path}: point --data-dir at a CSV or .npz file, or at a folder with train.csv")
    train, tested = read_parts(path, takes.target or None, takes.columns)
    found = tested or train
    classes = _classes(found)
    return _split(found, classes, path), classes


def _classes(examples: Examples) -> tuple[str, ...]:
    names = set(examples.labels)
    try:
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    except ValueError:
        return tuple(sorted(names))


def _split(examples: Examples, classes: Sequence[str], path: Path) -> Split:
    labels = {name: label for label, name in enumerate(classes)}
    unknown = sorted(set(examples.labels) - labels.keys())
    if unknown:
        raise DataError(f"{path}: the class {unknown[0]!r} is not one of those to train on: {', '.join(classes)}")
    return Split(images=examples.values, labels=torch.tensor([labels[name] for name in examples.labels]))


def _require_two_each(split: Split, classes: Sequence[str], target: str, path: Path) -> None:
    single = [name for name, count in zip(classes, split.labels.bincount().tolist(), strict=True) if count < 2]
    if single:
        named = ", ".join(single[:_MOST_NAMED]) + (", ..." if len(single) > _MOST_NAMED else "")
        hint = f"; if {target!r} is not the column of the class, name it with --target" if target else ""
        raise DataError(
            f"{path}: {len(single)} of {len(classes)} classes have 1 example, which cannot be both trained and tested"
            f" on ({named}): add more or delete it{hint}"
        )


def _warn_of_constants(examples: Examples, mean: Sequence[float], std: Sequence[float], path: Path) -> None:
    kind = "column" if examples.target else "channel"
    constant = [
        f"{examples.columns[place] if examples.columns else place + 1} ({value:.6g})"
        for place, (value, deviation) in enumerate(zip(mean, std, strict=True))
        if not deviation
    ]
    if constant:
        named = ", ".join(constant[:_MOST_NAMED]) + (", ..." if len(constant) > _MOST_NAMED else "")
        what = f"{kind}s of one value tell" if len(constant) > 1 else f"{kind} of one value tells"
        warnings.warn(
            f"{path}: {len(constant)} {what} nothing: {named}",
            stacklevel=3,
        )
