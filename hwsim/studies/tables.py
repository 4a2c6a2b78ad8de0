"""Tables of studies, and their CSV files."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bnn.training.directory import replace_file, writing

Table = Mapping[str, Sequence[Any]]
"""Columns of the same length by their names, which have the units."""


def write_csv(path: Path, table: Table) -> None:
    """Writes a table, with a line of names first; either the old or the new file is there, whole, whatever happens.

    Args:
        path: its folder is made if it is not there.
        table: None becomes an empty field; fractions are written with eight digits.

    Raises:
        RunError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    for row in zip(*table.values(), strict=True):
        writer.writerow([f"{value:.8g}" if isinstance(value, float) else value for value in row])
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, text.getvalue())
