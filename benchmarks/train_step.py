"""One training step of this package beside the same step in other libraries: its time and its memory.

    python -m benchmarks.train_step --model binarynet --batch 100 --against torch,larq [--json FILE]

Each contestant trains the same network on the same shape of batch in a process of its own: forward, loss, backward,
Adam's update, clipping of the latent weights. See `benchmarks/README.md` for what the figures mean. larq needs
`make oracle`; a contestant that cannot run is left out with a line that says why.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.contestants.measure import Figures, Task

ROOT = Path(__file__).parents[1]
ORACLE = ROOT / ".venv-oracle" / "bin" / "python"
# Shape of an image and number of classes.
MODELS: dict[str, tuple[tuple[int, int, int], int]] = {
    "binarynet": ((3, 32, 32), 10),
    "mlp": ((1, 28, 28), 10),
    "cnv": ((3, 32, 32), 10),
    "resnet18": ((3, 32, 32), 10),
    "resnete18": ((3, 224, 224), 1000),
}
_MIB = 2**20


@dataclass(frozen=True)
class Contestant:
    """Who trains.

    Attributes:
        name: as the table calls it.
        python: interpreter that has the library.
        module: in `benchmarks.contestants`.
        arguments: that the module takes before the task.
    """

    name: str
    python: Path
    module: str
    arguments: tuple[str, ...] = ()


class ContestantError(Exception):
    """A contestant could not run; the message is one line."""


def ours(preset: str) -> Contestant:
    """This package with a preset of `benchmarks.contestants.ours`."""
    return Contestant(preset, Path(sys.executable), "ours", (preset,))


def others(oracle: Path) -> dict[str, Contestant]:
    """The libraries to compare with; `oracle` is the interpreter that has larq."""
    return {
        "torch": Contestant("torch", Path(sys.executable), "plain_torch"),
        "larq": Contestant("larq", oracle, "larq_tf"),
    }


def run_contestant(contestant: Contestant, task: Task) -> Figures:
    """Runs a contestant in a fresh process.

    Raises:
        ContestantError: its interpreter is missing, or it failed.
    """
    if not contestant.python.exists():
        raise ContestantError(f"{contestant.python} is missing: run `make oracle`")
    module = f"benchmarks.contestants.{contestant.module}"
    done = subprocess.run(
        [contestant.python, "-m", module, *contestant.arguments, task.to_json()],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": str(task.threads)},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"ended with status {done.returncode} and no message"]
        raise ContestantError(f"failed: {lines[-1]}")
    return Figures(**json.loads(done.stdout.splitlines()[-1]))


def ratios(ours: Figures, other: Figures) -> dict[str, float | None]:
    """How many times as much the other takes: above 1, this package takes less."""
    saved = None
    if ours.saved_bytes is not None and other.saved_bytes is not None:
        saved = other.saved_bytes / ours.saved_bytes
    return {
        "step_time": statistics.median(other.step_s) / statistics.median(ours.step_s),
        "peak_above_start": other.peak_above_start_bytes / ours.peak_above_start_bytes,
        "peak": other.peak_bytes / ours.peak_bytes,
        "saved": saved,
    }


def figures_table(title: str, figures: dict[str, Figures]) -> Table:
    """The measured values, a row for each contestant."""
    table = _table(title, "step s", "least to most", "above start", "process", "saved", "parameters")
    for name, of in figures.items():
        table.add_row(
            name,
            f"{statistics.median(of.step_s):.3f}",
            f"{min(of.step_s):.3f} - {max(of.step_s):.3f}",
            f"{of.peak_above_start_bytes / _MIB:.1f}",
            f"{of.peak_bytes / _MIB:.1f}",
            "-" if of.saved_bytes is None else f"{of.saved_bytes / _MIB:.2f}",
            f"{of.parameters:,}",
        )
    if any(of.peak_is_of_whole_process for of in figures.values()):
        table.caption = "peaks include the loading of the libraries: this system cannot reset them"
    return table


def ratios_table(all_ratios: dict[str, dict[str, dict[str, float | None]]]) -> Table:
    """How many times as much the others take, a row for each pair."""
    table = _table("Ratios: above 1, this package takes less", "step", "above start", "process", "saved")
    for name, by_other in all_ratios.items():
        for other, values in by_other.items():
            table.add_row(f"{other} / {name}", *("-" if value is None else f"{value:.2f}" for value in values.values()))
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def options() -> argparse.Namespace:
    """The command line."""

    def names(text: str) -> list[str]:
        return [name for name in text.split(",") if name]

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train_step",
        description="Time and memory of a training step beside the same step in other libraries.",
    )
    parser.add_argument("--model", choices=MODELS, default="binarynet", help="network of bnn.models")
    parser.add_argument("--batch", type=int, default=100, metavar="N", help="images a step (default 100)")
    parser.add_argument("--presets", type=names, default=["standard"], metavar="A,B", help="of this package")
    parser.add_argument("--against", type=names, default=["torch"], metavar="A,B", help="torch, larq (default torch)")
    parser.add_argument("--warmup", type=int, default=2, metavar="N", help="steps before the timed ones (default 2)")
    parser.add_argument("--steps", type=int, default=5, metavar="N", help="timed steps (default 5)")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="threads a contestant may compute with (default 1; more need a machine without other work)",
    )
    parser.add_argument("--oracle", type=Path, default=ORACLE, metavar="PYTHON", help="interpreter that has larq")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    chosen = parser.parse_args()
    for option in ("batch", "steps", "threads"):
        if getattr(chosen, option) < 1:
            parser.error(f"--{option} is at least 1")
    if chosen.batch < 2:
        parser.error("--batch is at least 2: batch norm needs two values a channel")
    for unknown in set(chosen.against) - set(others(chosen.oracle)):
        parser.error(f"--against knows torch and larq, not {unknown}")
    if chosen.json and not chosen.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {chosen.json.absolute().parent}")
    return chosen


def main() -> int:
    """Measures, prints the tables and writes the JSON where asked.

    Returns:
        Exit status: 1 if a contestant was left out.
    """
    chosen = options()
    input_shape, classes = MODELS[chosen.model]
    task = Task(chosen.model, input_shape, classes, chosen.batch, chosen.warmup, chosen.steps, chosen.threads)
    presets = [ours(name) for name in chosen.presets]
    references = [others(chosen.oracle)[name] for name in chosen.against]

    load = os.getloadavg()[0]
    figures: dict[str, Figures] = {}
    left_out: dict[str, str] = {}
    for contestant in (*presets, *references):
        try:
            figures[contestant.name] = run_contestant(contestant, task)
        except ContestantError as error:
            left_out[contestant.name] = str(error)
            print(f"{contestant.name} is left out: {error}", file=sys.stderr)

    all_ratios = {
        preset.name: {
            other.name: ratios(figures[preset.name], figures[other.name])
            for other in references
            if other.name in figures
        }
        for preset in presets
        if preset.name in figures
    }
    threads = "1 thread" if task.threads == 1 else f"{task.threads} threads"
    title = f"{task.model}, batch {task.batch}, {threads}, load {load:.1f}; memory in MiB"
    console = Console()
    console.print(figures_table(title, figures))
    console.print(ratios_table(all_ratios))
    if chosen.json:
        report = {
            "task": asdict(task),
            "machine": platform.machine(),
            "load": load,
            "contestants": {name: asdict(of) for name, of in figures.items()},
            "ratios": all_ratios,
            "left_out": left_out,
        }
        chosen.json.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if left_out else 0


if __name__ == "__main__":
    sys.exit(main())
