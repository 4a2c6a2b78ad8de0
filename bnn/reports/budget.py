"""The tables of `bnn budget`."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bnn.accounting.fit import Fit
from bnn.accounting.memory_model import MemoryTable

_MIB = 2**20


def print_budget(console: Console, tables: dict[str, MemoryTable], *, title: str, caption: str) -> None:
    """Prints a step's variables, and how many times as much the first table takes.

    Args:
        console: where to.
        tables: one or two, by the name of their preset, with the same variables.
        title: above.
        caption: below.
    """
    table = _table()
    table.add_column("variable")
    table.add_column("kept")
    for name in tables:
        table.add_column("bits", justify="right", no_wrap=True)
        table.add_column(name, justify="right", no_wrap=True)
    if len(tables) > 1:
        table.add_column("ratio", justify="right", no_wrap=True)
    for row in zip(*(of.variables for of in tables.values()), strict=True):
        cells = [cell for variable in row for cell in (str(variable.bits), _mib(variable.bytes))]
        table.add_row(row[0].name, row[0].lifetime, *cells, *_ratio([variable.bytes for variable in row]))
    totals = [of.total_bytes for of in tables.values()]
    table.add_section()
    table.add_row("total", "", *(cell for total in totals for cell in ("", _mib(total))), *_ratio(totals))
    _print(console, title, table, caption)


def print_fits(console: Console, fits: Sequence[Fit], *, title: str, caption: str) -> None:
    """Prints what fits into a budget, in the order given."""
    table = _table()
    table.add_column("preset")
    table.add_column("optimizer")
    table.add_column("batch", justify="right")
    table.add_column("MiB", justify="right")
    for fit in fits:
        table.add_row(fit.preset, fit.optimizer, str(fit.batch_size), _mib(fit.total_bytes))
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


def _ratio(sizes: Sequence[float]) -> list[str]:
    """A cell with the first size over the second, if there is a second."""
    return [f"{sizes[0] / size:.2f}" if size else "-" for size in sizes[1:]]
