"""The short table at the end of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bnn.reports.beside_float import Comparison, comparisons
from bnn.reports.texts import energy


def print_summary(console: Console, summary: dict[str, Any], directory: Path) -> None:
    """Prints what a run reached and what it cost.

    Args:
        console: where to print.
        summary: as in `summary.json`.
        directory: of the run.
    """
    table = Table("what", "value", box=SIMPLE_HEAD, show_header=False)
    for what, value in _rows(summary):
        table.add_row(what, Text(value))
    console.print(table)
    beside = list(comparisons(summary))
    if beside:
        console.print(_beside_float(beside))
    console.print(Text(f"files: {directory}"), soft_wrap=True)


def _beside_float(beside: Sequence[Comparison]) -> Table:
    table = Table("", "this run", "in float32", "", box=SIMPLE_HEAD)
    for figure in beside:
        name = f"{figure.name}, {figure.how}"
        table.add_row(name, figure.text(figure.this), figure.text(figure.other), figure.ratio)
    return table


def _rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("test accuracy, final epoch", f"{100 * summary['test_accuracy']:.2f} %")]
    if "validation_accuracy" in summary:
        rows.append(
            (
                "validation accuracy, final epoch",
                f"{100 * summary['validation_accuracy']:.2f} % (best {100 * summary['best_validation_accuracy']:.2f} %"
                f" at epoch {summary['best_validation_epoch']})",
            )
        )
    rows += [
        ("data", summary["dataset"]),
        ("bits a weight", f"{summary['bits_per_weight']:.3g} ({summary['weights']:,} weights)"),
        ("peak memory, measured", f"{summary['peak_rss_mib']:.0f} MiB resident in the whole process"),
    ]
    if "peak_device_mib" in summary:
        rows.append(("peak device memory, measured", f"{summary['peak_device_mib']:.0f} MiB of tensors"))
    energy_J = summary["energy_j"]
    if energy_J is None:
        rows.append(("energy of training, estimated", "not counted: the model cannot run on shapes alone"))
    else:
        rows.append(("energy of training, estimated", f"{energy(energy_J)} (prices: {summary['price_table']})"))
        others = {
            name: joules for name, joules in summary["energy_by_table_j"].items() if name != summary["price_table"]
        }
        rows += [("", f"{energy(other_J)} (prices: {name})") for name, other_J in others.items()]
    rows.append(("time", f"{summary['wall_s']:.1f} s for {summary['steps']:,} steps, {summary['epochs']} epochs"))
    if summary.get("sent_bytes_a_step") is not None:
        sent = f"{summary['sent_bytes_a_step'] / 1e6:,.3f} MB a step sent by each of {summary['ranks']}"
        rows.append((f"exchange {summary['exchange']}, counted", sent))
    if summary.get("images_per_s"):
        rows.append(("speed, measured", f"{summary['images_per_s']:,.0f} examples/s in training steps"))
    if summary["skipped_steps"]:
        rows.append(("steps skipped", f"{summary['skipped_steps']} whose loss or gradient was not finite"))
    return rows
