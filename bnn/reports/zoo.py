"""The table of the networks of larq-zoo."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bnn.models.zoo import RELEASED


def print_zoo(console: Console) -> None:
    """Prints every network with its counts, larq-zoo's accuracy, and where the file of its weights is."""
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption="Top-1: percent on ImageNet by larq-zoo. MMAC: million multiply-accumulates of an image with inputs"
        " of 1 bit, of dorefanet 2; and those of real numbers.",
    )
    table.add_column("model", no_wrap=True)
    for column in ("top-1", "parameters", "binary", "MMAC", "real"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, released in RELEASED.items():
        table.add_row(
            name,
            f"{released.top_1:.1f}",
            f"{released.parameters:,}",
            f"{released.binary_weights:,}",
            f"{released.low_bit_macs / 1e6:,.0f}",
            f"{released.real_macs / 1e6:,.0f}",
        )
    console.print(table)
    for released in RELEASED.values():
        console.print(f"{released.sha256[:16]}  {released.url}", highlight=False, soft_wrap=True)
