"""The tables of `bnn budget`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bnn.cost.memory.budget import Candidate
from bnn.cost.memory.predicted import StepMemory
from bnn.cost.memory.table import MemoryTable, Variable
from bnn.reports.texts import duration

_MIB = 2**20


def print_budget(
    console: Console,
    tables: dict[str, MemoryTable],
    *,
    title: str,
    caption: str,
    others: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Prints a step's variables, and how many times as much the first table takes.

    Args:
        console: where to.
        tables: one or two, by the name of their preset.
        title: above.
        caption: below.
        others: bytes that are no part of the total, of each table, by what they are.
    """
    table = _table()
    table.add_column("variable")
    table.add_column("lifetime")
    for name in tables:
        table.add_column("bits", justify="right", no_wrap=True)
        table.add_column(name, justify="right", no_wrap=True)
    if len(tables) > 1:
        table.add_column("ratio", justify="right", no_wrap=True)
    for name, lifetime in variable_names(tables.values()):
        rows = [[variable for variable in memory.variables if variable.name == name] for memory in tables.values()]
        sizes = [sum(variable.bytes for variable in row) for row in rows]
        cells = [cell for row, size in zip(rows, sizes, strict=True) for cell in (_bits(row), _mib(size))]
        table.add_row(name, lifetime, *cells, *_ratio(sizes))
    totals = [memory.total_bytes for memory in tables.values()]
    for label, figures in {"total": totals, **(others or {})}.items():
        table.add_section()
        table.add_row(label, "", *(cell for size in figures for cell in ("", _mib(size))), *_ratio(figures))
    _print(console, title, table, caption)


def print_measured(
    console: Console,
    steps: Mapping[str, tuple[StepMemory, Mapping[str, float | None]]],
    *,
    batch_size: int,
    epoch_size: int,
) -> None:
    """Prints what has been predicted of steps beside what has been measured, and what an epoch takes.

    Args:
        console: where to.
        steps: by the name of their preset: the prediction, and the figures measured.
        batch_size: examples of a step.
        epoch_size: examples of an epoch.
    """
    table = _table()
    table.add_column("")
    for name in steps:
        table.add_column(name, justify="right", no_wrap=True)
    if len(steps) > 1:
        table.add_column("ratio", justify="right", no_wrap=True)
    rows: list[tuple[str, list[float | None]]] = [
        ("saved for backward, predicted", [step.saved_bytes for step, _ in steps.values()]),
        ("  measured by hooks", [figures["saved_bytes"] for _, figures in steps.values()]),
        ("  measured in autograd's graph", [figures["graph_bytes"] for _, figures in steps.values()]),
        ("peak of live tensors, predicted", [step.table.total_bytes for step, _ in steps.values()]),
        ("  measured in torch's allocator", [figures["peak_live_bytes"] for _, figures in steps.values()]),
        (
            "peak resident above the level before the model",
            [figures["resident_bytes"] for _, figures in steps.values()],
        ),
        ("  of the whole process", [figures["process_bytes"] for _, figures in steps.values()]),
    ]
    for label, sizes in rows:
        ratio = _ratio([size or 0 for size in sizes])
        table.add_row(label, *("-" if size is None else _mib(size) for size in sizes), *ratio)
    table.add_section()
    steps_s = [figures["step_s"] or 0.0 for _, figures in steps.values()]
    epochs_s = [step_s * (epoch_size // batch_size) for step_s in steps_s]
    table.add_row("time of a step, measured", *(f"{step_s:.3g} s" for step_s in steps_s), *_ratio(steps_s))
    table.add_row(f"  an epoch of {epoch_size:,}", *map(duration, epochs_s), *_ratio(epochs_s))
    caption = (
        "Measured over a few steps with random data on this machine, in a process of its own; loading of data is extra."
    )
    _print(console, "Predicted and measured; MiB where no other unit stands", table, caption)


def print_candidates(console: Console, candidates: Sequence[Candidate], *, title: str, caption: str) -> None:
    """Prints what fits into a memory, in the order given; a star stands behind what has been measured."""
    table = _table()
    table.add_column("preset")
    table.add_column("optimizer")
    table.add_column("batch", justify="right")
    with_slices = any(candidate.slice_size for candidate in candidates)
    if with_slices:
        table.add_column("slice", justify="right")
    table.add_column("MiB", justify="right")
    for candidate in candidates:
        slices = [str(candidate.slice_size)] if with_slices else []
        size = _mib(candidate.total_bytes) + " *" * candidate.is_measured
        table.add_row(candidate.preset, candidate.optimizer, str(candidate.batch_size), *slices, size)
    _print(console, title, table, caption)


def print_tunings(console: Console, rows: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """Prints what may learn, and how many samples of earlier classes fit besides, in the order given."""
    table = _table()
    for heading in ("--freeze", "layers that learn", "weights", "MiB of a step", "bits a sample"):
        table.add_column(heading, justify="right")
    with_samples = any(row["samples"] is not None for row in rows)
    if with_samples:
        table.add_column("samples that fit", justify="right")
    for row in rows:
        samples = [f"{row['samples']:,}"] if with_samples else []
        step = _mib(row["step_bytes"])
        table.add_row(row["freeze"], str(row["layers"]), f"{row['weights']:,}", step, f"{row['bits']:,}", *samples)
    caption = (
        "Needed by the process beside Python and torch, predicted: see docs/cost.md; a sample has a label besides."
    )
    _print(console, title, table, caption)


def _table() -> Table:
    return Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))


def _print(console: Console, title: str, table: Table, caption: str) -> None:
    # Not the table's own title and caption, which would be wrapped to its width.
    console.print(title, highlight=False)
    console.print(table)
    console.print(caption, style="dim", highlight=False)


def _mib(size_bytes: float) -> str:
    return f"{size_bytes / _MIB:,.2f}"


def variable_names(tables: Iterable[MemoryTable]) -> list[tuple[str, str]]:
    """Names and lifetimes of the variables of all tables, in the order of the longest."""
    longest_first = sorted(tables, key=lambda memory: -len({variable.name for variable in memory.variables}))
    return list(
        {
            variable.name: (variable.name, variable.lifetime)
            for memory in longest_first
            for variable in memory.variables
        }.values()
    )


def _bits(variables: Sequence[Variable]) -> str:
    """The widths of a variable's elements, without those that hold next to nothing of it."""
    total = sum(variable.bytes for variable in variables)
    widths = [str(variable.bits) for variable in variables if variable.bytes >= total / 100]
    return ", ".join(widths) or "-"


def _ratio(sizes: Sequence[float]) -> list[str]:
    """A cell with the first size over the second, if there is a second."""
    return [f"{sizes[0] / size:.2f}" if size and sizes[0] else "-" for size in sizes[1:]]
