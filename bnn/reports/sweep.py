"""What the runs of a sweep come to: a table, and a file of comma-separated values."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bnn.reports.groups import MEASURES, grouped, paired, signed_text, spread, spread_text, values
from bnn.reports.texts import ABSENT
from bnn.training import directory

_SHOWN = ("test_accuracy", "step_bytes", "energy_j", "images_per_s")


@dataclass(frozen=True)
class SweptRun:
    """A complete run, by its files."""

    label: str
    configuration: dict[str, Any]
    summary: dict[str, Any]


def read_swept(folder: Path) -> SweptRun:
    """Reads a run that is complete.

    Raises:
        RunError: a file is missing or damaged.
    """
    files = (directory.CONFIGURATION, directory.SUMMARY)
    return SweptRun(folder.name, *(directory.read_json(folder / name) for name in files))


def print_sweep(console: Console, runs: Sequence[SweptRun]) -> None:
    """Prints means and sample deviations of each kind of runs, and differences of the first, paired by seed."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("runs")
    table.add_column("n", justify="right")
    for key in _SHOWN:
        table.add_column(MEASURES[key].name.partition(",")[0].lower(), justify="right", no_wrap=key == _SHOWN[0])
    groups = grouped(runs)
    accuracy = MEASURES["test_accuracy"]
    if len(groups) > 1:
        table.add_column("difference", justify="right", no_wrap=True)
    for group in groups:
        cells = [spread_text(spread(values(runs, group, MEASURES[key])), MEASURES[key]) for key in _SHOWN]
        differences = []
        if len(groups) > 1:
            found = None if group is groups[0] else paired(runs, group, groups[0], accuracy)
            differences = [ABSENT if found is None else signed_text(found, accuracy)]
        table.add_row(group.name, str(len(group.members)), *cells, *differences)
    console.print(table)
    caption = "Means ± sample deviations."
    if len(groups) > 1:
        caption += f" Differences of accuracy from {groups[0].name}, paired by seed."
    console.print(caption, style="dim", highlight=False)


def write_csv(path: Path, runs: Sequence[SweptRun], options: Sequence[str]) -> None:
    """Writes a line for each run: the options that were swept, then its figures.

    Args:
        path: of the file, which is replaced.
        runs: complete ones.
        options: names of the recipe's parameters.

    Raises:
        RunError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *options, *MEASURES])
    for run in runs:
        arguments = run.configuration.get("arguments")
        arguments = arguments if isinstance(arguments, dict) else {}
        figures = [measure.read(run.summary) for measure in MEASURES.values()]
        writer.writerow([run.label, *(arguments.get(name) for name in options), *figures])
    directory.replace_file(path, text.getvalue())
