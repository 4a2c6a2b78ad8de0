"""How quickly a network answers, as a table."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bnn.reports.texts import ABSENT, engineering, size


def print_bench(console: Console, content: Mapping[str, Any]) -> None:
    """Prints what `bnn bench` has measured.

    Args:
        console: where to.
        content: `threads`, `batch_size` and `cores`; `ways`, the figures of each; `left_out`, why others have none.
    """
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("evaluated by")
    for column in ("one image", f"images/s, {content['batch_size']} at a time", "memory of the process"):
        table.add_column(column, justify="right")
    for way, figures in content["ways"].items():
        peak = figures["process_bytes"]
        table.add_row(
            way,
            f"{engineering(figures['latency_s'])}s",
            f"{figures['images_per_s']:,.0f}",
            ABSENT if peak is None else size(peak),
        )
    console.print(table)
    console.print(
        f"medians; {content['threads']} of {content['cores']} cores, C one image at a time; memory at its peak for one"
        " image, with Python and libraries",
        highlight=False,
        soft_wrap=True,
    )
    for way, reason in content["left_out"].items():
        console.print(f"{way} is left out: {escape(reason)}", highlight=False, soft_wrap=True)
