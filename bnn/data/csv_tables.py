"""CSV files as they come: a header or none, commas, semicolons or tabs, one column for the class."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bnn.errors import DataError, near_match
from bnn.files import require_regular

if TYPE_CHECKING:
    from _csv import Reader

_DELIMITERS = ",;\t"
_MOST_NAMED = 3
_MOST_LISTED = 20


@dataclass(frozen=True)
class CsvTable:
    """The layout of a CSV file, as its first line tells it."""

    path: Path
    delimiter: str
    width: int
    """Number of columns."""
    header: tuple[str, ...]
    """Names of the columns; empty where the first line is one of numbers."""

    def place(self, column: str) -> int:
        """Where a column is, from 0.

        Args:
            column: its name or, of a file without a header, its number from 1.

        Raises:
            DataError: there is no such column.
        """
        if column in self.header:
            return self.header.index(column)
        if self.header:
            listed = ", ".join(self.header[:_MOST_LISTED]) + (", ..." if self.width > _MOST_LISTED else "")
            raise DataError(
                f"{self.path} has no column {column!r}{near_match(column, self.header)}; there are: {listed}"
            )
        if column.isdecimal() and 1 <= int(column) <= self.width:
            return int(column) - 1
        raise DataError(f"{self.path} has no header: name a column by its number, 1 to {self.width}, not {column!r}")

    def name(self, place: int) -> str:
        """Name of a column or, without a header, its number from 1."""
        return self.header[place] if self.header else str(place + 1)

    def read(self, features: Sequence[int], label: int | None) -> tuple[NDArray[np.float32], list[str]]:
        """Reads all rows; empty lines are passed over.

        Args:
            features: places of the columns with numbers.
            label: place of the column with the class, None for none.

        Returns:
            The numbers, float32 [rows, features], and the text of each row's class.

        Raises:
            DataError: there is no row, one of them has fewer or more cells than the first line, or a cell is no finite
                number; such cells are counted and the first of them named.
        """
        values, labels, bad = array("d"), [], _BadCells(self)
        with _reading(self.path, self.delimiter) as rows:
            for line, cells in self._data(rows):
                values.extend(bad.number(line, place, cells[place]) for place in features)
                if label is not None:
                    labels.append(cells[label].strip() or bad.note(line, label, "empty"))
        bad.raise_any()
        with np.errstate(over="ignore"):
            numbers = np.frombuffer(values).astype(np.float32).reshape(-1, len(features))
        if not len(numbers):
            raise DataError(f"{self.path} has no rows of numbers")
        if not np.isfinite(numbers).all():
            raise DataError(f"{self.path} has numbers of 3.4e38 and more, which float32 cannot hold")
        return numbers, labels

    def _data(self, reader: Reader) -> Iterator[tuple[int, list[str]]]:
        """The lines' numbers with their cells."""
        rows = (cells for cells in reader if cells)
        if self.header:
            next(rows, None)
        for cells in rows:
            if len(cells) != self.width:
                raise DataError(
                    f"{self.path}, line {reader.line_num}: {len(cells)} cells, where the first line has {self.width}"
                )
            yield reader.line_num, cells


def open_table(path: Path) -> CsvTable:
    """Reads the first line of a file.

    It is a header where none of its cells is a number, and a row where all are, or all but that of the class.

    Raises:
        DataError: the file is missing, empty or no text, or its first line is neither.
    """
    with _reading(path, ",") as rows:
        first = next((cells for cells in rows if cells), None)
    if first is None:
        raise DataError(f"{path} is empty")
    line = ",".join(first)
    delimiter = max(_DELIMITERS, key=line.count)
    with _reading(path, delimiter) as rows:
        cells = [cell.strip() for cell in next(cells for cells in rows if cells)]
    numbers = sum(math.isfinite(_number(cell)) for cell in cells)
    if numbers >= max(1, len(cells) - 1):
        return CsvTable(path, delimiter, len(cells), ())
    if numbers:
        odd = next(cell for cell in cells if not math.isfinite(_number(cell)))
        raise DataError(
            f"{path}: its first line is neither a header, whose names are no numbers, nor a row of numbers and a class:"
            f" {odd!r}"
        )
    for place, name in enumerate(cells, start=1):
        if not name or not name.isprintable():
            raise DataError(f"{path}: column {place} has no name that can be printed: name or delete it")
        if cells.count(name) > 1:
            raise DataError(f"{path}: {cells.count(name)} columns are called {name!r}")
    return CsvTable(path, delimiter, len(cells), tuple(cells))


class _BadCells:
    """Counts cells that cannot be used, and names the first."""

    def __init__(self, table: CsvTable) -> None:
        self._table = table
        self._count = 0
        self._named: list[str] = []

    def number(self, line: int, place: int, text: str) -> float:
        value = _number(text)
        if not math.isfinite(value):
            self.note(line, place, repr(text.strip()[:40]) if text.strip() else "empty")
        return value

    def note(self, line: int, place: int, what: str) -> str:
        self._count += 1
        if len(self._named) < _MOST_NAMED:
            self._named.append(f"line {line}, column {self._table.name(place)!r}: {what}")
        return ""

    def raise_any(self) -> None:
        if self._count:
            more = f" and {self._count - len(self._named)} more" if self._count > len(self._named) else ""
            raise DataError(
                f"{self._table.path} has cells that are no finite number or class: {'; '.join(self._named)}{more}: mend"
                " them, or delete their rows or columns"
            )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


@contextmanager
def _reading(path: Path, delimiter: str) -> Iterator[Reader]:
    try:
        require_regular(path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield csv.reader(file, delimiter=delimiter, skipinitialspace=True)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no table in UTF-8 text: {error}") from None
