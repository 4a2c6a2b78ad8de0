"""The files of a run's directory, but for its checkpoints: configuration, recipe, model, metrics and summary."""

import json
import math
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import bnn
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

VERSION = 2
"""Of the directory, in its configuration. Those of releases up to 0.3 have none, and need their recipe elsewhere."""


def create(directory: Path) -> None:
    """Makes an empty run directory.

    Raises:
        RunError: it holds something already, or cannot be made.
    """
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise RunError(
                f"{directory} is not empty: name another folder with --out, or go on with a run there by"
                f" `bnn train --resume {directory}`"
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
    temporary = path.with_name(f".{path.name}.new")
    with writing(path):
        if path.exists() and not path.is_file():  # such as a device, which would be replaced
            raise RunError(f"{path} is no ordinary file: name another one")
        try:
            with temporary.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        RunError: the file is missing or damaged.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} is missing: {path.parent} is not the directory of a run") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None
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
    """Adds a line to the metrics. A number that is not finite is written as null.

    Raises:
        RunError: the file cannot be written.
    """
    with writing(directory / METRICS), (directory / METRICS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(_finite(record), allow_nan=False) + "\n")


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
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            break
        try:
            record = json.loads(line)
            damage = "" if isinstance(record, dict) and isinstance(record.get("epoch"), int) else "it has no epoch"
        except ValueError as error:
            damage = str(error)
        if damage:
            raise RunError(f"{path}, line {number}, is damaged ({damage}): mend or delete it")
        records.append(record)
    return records


def drop_metrics_after(directory: Path, *, epoch: int) -> None:
    """Removes the lines of `epoch` and later, which a resumed run will write again."""
    path = directory / METRICS
    kept = [record for record in read_metrics(directory) if record["epoch"] < epoch] if path.exists() else []
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
