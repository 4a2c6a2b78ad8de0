"""The widths that the parts of a network have been given, as a table."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bnn.posttraining.quantization import Quantized


def print_quantized(console: Console, found: Quantized) -> None:
    """Prints each part with its width, its bytes and what it costs the network."""
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption="Loss: the divergence of the network where nothing but this part has the width, in 1/1000 nats.",
    )
    table.add_column("part", overflow="fold")
    for column in ("values", "bits each", "bytes", "loss"):
        table.add_column(column, justify="right", no_wrap=True)
    for part in found.parts:
        cells = (f"{part.values:,}", part.width, f"{part.size_bytes:,}", f"{1000 * part.loss:.2f}")
        table.add_row(escape(part.name), *cells)
    console.print(table)
