"""Predicted beside measured memory of a training step, for networks, presets and batches.

    python -m benchmarks.memory_grid [--models mlp,cnv] [--batches 2,100] [--json FILE]

Each step is measured in a process of its own. Status 1 says that a saved byte is predicted wrong, or a peak by more
than a tenth.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.train_step import MODELS
from bnn.cli.budget.configurations import PRESETS, TrainingConfiguration, step_on_meta
from bnn.cli.budget.measure import measure
from bnn.cli.budget.networks import find_network
from bnn.cost.memory.predicted import predict_step
from bnn.errors import RunError

BY_DEFAULT = ("binarynet", "mlp", "cnv", "resnet18", "resnete18")
BATCHES = (2, 40, 70, 100)
"""70 is one that the slices of edge-min do not divide."""
MAX_DEVIATION = 0.1
"""By which part of the measured peak the predicted one may be off."""
_MIB = 2**20


def cell(model: str, preset: str, batch_size: int) -> dict[str, Any]:
    """The figures of one step in bytes.

    Raises:
        RunError: the step could not be measured.
    """
    network = find_network(model, None)
    configuration = TrainingConfiguration(preset, "adam", batch_size)
    step = step_on_meta(network, configuration)
    predicted = predict_step(step, input_shape=network.input_shape, batch_size=batch_size)
    return {
        "model": model,
        "preset": preset,
        "batch": batch_size,
        "predicted_saved_bytes": predicted.saved_bytes,
        "predicted_peak_bytes": round(predicted.table.total_bytes),
        **measure(network, configuration),
    }


def is_right(figures: dict[str, Any]) -> bool:
    """Whether the saved bytes are equal and the peak is within `MAX_DEVIATION`."""
    saved = {figures[name] for name in ("predicted_saved_bytes", "saved_bytes", "graph_bytes")}
    return len(saved) == 1 and abs(peak_ratio(figures) - 1) <= MAX_DEVIATION


def peak_ratio(figures: dict[str, Any]) -> float:
    """The predicted peak over the measured one."""
    return float(figures["predicted_peak_bytes"] / figures["peak_live_bytes"])


def grid_table(cells: list[dict[str, Any]]) -> Table:
    """A row for each step, in MiB."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title="Memory of a step, MiB", title_justify="left")
    headings = ("saved, predicted", "by hooks", "in the graph", "peak, predicted", "measured", "ratio", "resident")
    for heading in ("model", "preset", "batch", *headings):
        table.add_column(heading, justify="left" if heading in ("model", "preset") else "right", no_wrap=True)
    names = ("predicted_saved_bytes", "saved_bytes", "graph_bytes", "predicted_peak_bytes", "peak_live_bytes")
    for figures in cells:
        sizes = [f"{figures[name] / _MIB:.2f}" for name in names]
        resident = "-" if figures["resident_bytes"] is None else f"{figures['resident_bytes'] / _MIB:.1f}"
        row = (figures["model"], figures["preset"], str(figures["batch"]), *sizes)
        table.add_row(*row, f"{peak_ratio(figures):.3f}", resident)
    return table


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory_grid", description="Predicted beside measured memory of a training step."
    )
    parser.add_argument(
        "--models", default=",".join(BY_DEFAULT), metavar="A,B", help=f"networks (default {','.join(BY_DEFAULT)})"
    )
    parser.add_argument("--presets", default=",".join(PRESETS), metavar="A,B", help="presets (default all)")
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)), metavar="N,M", help="examples a step")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    chosen = parser.parse_args()
    chosen.models, chosen.presets = chosen.models.split(","), chosen.presets.split(",")
    try:
        chosen.batches = [int(number) for number in chosen.batches.split(",")]
    except ValueError:
        parser.error(f"--batches takes numbers, as in 2,100, not {chosen.batches}")
    if min(chosen.batches) < 2:
        parser.error("a batch is at least 2: batch norm needs two values a channel")
    for unknown in {*chosen.models} - {*MODELS} | {*chosen.presets} - {*PRESETS}:
        parser.error(f"there is no {unknown}; there are: {', '.join([*MODELS, *PRESETS])}")
    if chosen.json and not chosen.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {chosen.json.absolute().parent}")
    return chosen


def main() -> int:
    """Measures and prints the grid.

    Returns:
        Exit status: 1 if a step was predicted wrong or could not be measured.
    """
    chosen = options()
    cells, failed = [], False
    for step in itertools.product(chosen.models, chosen.presets, chosen.batches):
        try:
            cells.append(cell(*step))
        except RunError as error:
            failed = True
            print(f"{' '.join(map(str, step))} is left out: {error}", file=sys.stderr)
        else:
            if chosen.json:
                chosen.json.write_text(json.dumps(cells, indent=1) + "\n")
    if not cells:
        return 1
    Console(width=120).print(grid_table(cells))
    worst = max(cells, key=lambda figures: abs(peak_ratio(figures) - 1))
    wrong = [figures for figures in cells if not is_right(figures)]
    print(
        f"{len(cells)} steps, {len(wrong)} predicted wrong; the peak furthest off is {worst['model']} with"
        f" {worst['preset']} and {worst['batch']}: {peak_ratio(worst):.3f} of the measured one"
    )
    return 1 if failed or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
