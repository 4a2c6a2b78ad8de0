"""The files of a run's directory, but for its checkpoints: configuration, recipe, model, metrics and summary."""

import json
import math
import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch

import bnn
from bnn import files
from bnn.errors import RunError
from bnn.ops import cpu

CONFIGURATION = "config.json"
RECIPE = "recipe.py"
"""A copy of the recipe's file, where there is one."""
MODEL = "model.bnnz"
"""The network as it is after the last epoch, see `bnn.codec`."""
METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
CHECKPOINTS = "checkpoints"
LOCK = "lock"
HOLDER = "lock.json"
"""Which process holds the lock, see `bnn.training.lock`."""

_NAMED = 10  # of what lacks

# Far above what a run writes.
_JSON_BYTES = 1 << 24
_METRICS_BYTES = 1 << 26

VERSION = 2
"""Of the directory, in its configuration. Those of releases up to 0.3 have none, and need their recipe elsewhere."""


def create(directory: Path) -> None:
    """Makes an empty run directory. A start that was killed before its configuration was there leaves it empty, too.

    Raises:
        RunError: it holds something already, or cannot be made.
    """
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        if any(not _precedes_configuration(path.name) for path in directory.iterdir()):
            raise RunError(
                f"{directory} is not empty: name another folder with --out, or go on with a run there by"
                f" `bnn train --resume {directory}`"
            )


def _precedes_configuration(name: str) -> bool:
    return name in (LOCK, HOLDER) or fnmatch(name, files.LEFT_BEHIND)


def has_begun(directory: Path) -> bool:
    """Whether a run has come to its first checkpoint; one that has not can begin again in its place.

    Raises:
        RunError: the directory cannot be read.
    """
    with reading(directory):
        later = (CHECKPOINTS, METRICS, MODEL, SUMMARY)
        names = {path.name for path in directory.iterdir()}
        return bool(names & set(later[1:])) or (
            CHECKPOINTS in names and any((directory / CHECKPOINTS).glob("[!.]*.json"))
        )


def versions() -> dict[str, str]:
    """Versions, kernels and threads, on which a run's figures may depend besides its configuration."""
    return {
        "bnn": bnn.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "kernels": cpu.instruction_set(),
        "threads": str(torch.get_num_threads()),
    }


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes a JSON object by `replace_file`. A number that is not finite is written as null.

    Raises:
        RunError: the file cannot be written.
    """
    replace_file(path, json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")


def replace_file(path: Path, content: str | bytes) -> None:
    """Writes a text, as UTF-8, or bytes so that either the old or the new file is there, whole, whatever happens.

    Raises:
        RunError: the file cannot be written.
    """
    with writing(path), files.replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        RunError: the file is missing, unreadable or damaged.
    """
    try:
        value = files.read_json(path, limit_bytes=_JSON_BYTES)
    except FileNotFoundError:
        raise RunError(f"{path} is missing: {path.parent} is not the directory of a run") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}") from None
    if not isinstance(value, dict):
        raise RunError(f"{path} is damaged: it does not hold a JSON object")
    return value


def read_configuration(run: Path) -> dict[str, Any]:
    """A run's configuration.

    Raises:
        RunError: the directory is not a run's, is damaged, or is of another version.
    """
    configuration = read_json(run / CONFIGURATION)
    if configuration.get("version") != VERSION:
        of = configuration.get("versions")
        release = of.get("bnn", "an unknown") if isinstance(of, dict) else "an unknown"
        raise RunError(
            f"{run} was written by release {str(release)[:20]}, whose runs this release ({bnn.__version__}) does not"
            " open: go on with that release, or train anew"
        )
    return configuration


def append_metrics(directory: Path, record: dict[str, Any]) -> None:
    """Adds a line to the metrics and forces it to disk. A number that is not finite is written as null.

    Raises:
        RunError: the file cannot be written.
    """
    with writing(directory / METRICS):
        with files.open_to_append(directory / METRICS) as file:
            file.write(json.dumps(_finite(record), allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        files.sync_folder(directory)


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """The lines of metrics. A last line that a crash cut short is left out.

    Raises:
        RunError: the file is missing or damaged.
    """
    path = directory / METRICS
    try:
        lines = files.read_bytes(path, limit_bytes=_METRICS_BYTES).split(b"\n")[:-1]
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from None
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = files.parse_json(line)
            damage = "" if isinstance(record, dict) and type(record.get("epoch")) is int else "it has no epoch"
        except ValueError as error:
            damage = str(error)
        if damage:
            raise RunError(f"{path}, line {number}, is damaged ({damage}): mend or delete it")
        records.append(record)
    return records


def drop_metrics_after(directory: Path, *, epoch: int) -> None:
    """Removes the lines of `epoch` and later, which a resumed run will write again; warns of earlier ones that lack."""
    path = directory / METRICS
    kept = [record for record in read_metrics(directory) if record["epoch"] < epoch] if path.exists() else []
    lacking = sorted(set(range(epoch)) - {record["epoch"] for record in kept})
    if lacking:
        numbers = ", ".join(str(number + 1) for number in lacking[:_NAMED]) + (", ..." if lacking[_NAMED:] else "")
        message = f"{path} lacks {len(lacking)} of the {epoch} epochs done ({numbers}); their figures are lost"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    replace_file(path, "".join(json.dumps(record) + "\n" for record in kept))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a failure to write into one line.

    Raises:
        RunError: in place of an OSError, such as a full disk.
    """
    try:
        yield
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}; earlier results are untouched") from None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns a failure to read into one line.

    Raises:
        RunError: in place of an OSError, such as a folder of another user.
    """
    try:
        yield
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from None
