"""One training step of this package beside the same step in other libraries: its time and its memory.

    python -m benchmarks.train_step --model binarynet --batch 100 --against torch,torch-best,larq [--json FILE]

Each contestant trains the same network on the same shape of batch in a process of its own: forward, loss, backward,
Adam's update, clipping of the latent weights; with `--inference` it takes the forward pass of evaluation. See
`benchmarks/README.md` for what the figures mean. larq needs `make oracle`; a contestant that cannot run is left out
with a line that says why.

`torch-best` is plain PyTorch in the fastest of eight modes, all of them with fused Adam: float32 or bfloat16
(autocast), channels first or last, eager or compiled. Each is measured in a process of its own, and the table shows the
fastest with the memory of this mode. Compiling counts neither as time nor as memory: a process before the measured one
fills torch's cache, and the peaks of all contestants alike are those of the timed steps, after the warm-up.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.contestants.measure import Figures, Task
from benchmarks.machine import KERNELS, environment, processor
from bnn.models.zoo import RELEASED

ROOT = Path(__file__).parents[1]
ORACLE = ROOT / ".venv-oracle" / "bin" / "python"
_CIFAR = ((3, 32, 32), 10)
_IMAGENET = ((3, 224, 224), 1000)
# Shape of an image and number of classes. The ternary networks are not here: their weights have no plain counterpart.
MODELS: dict[str, tuple[tuple[int, int, int], int]] = {
    "binarynet": _CIFAR,
    "mlp": ((1, 28, 28), 10),
    "cnv": _CIFAR,
    "resnet8": _CIFAR,
    "resnet18": _CIFAR,
    "resnet20": _CIFAR,
    "vgg_small": _CIFAR,
    "vgg7": _CIFAR,
    "resnete18": _IMAGENET,
    "birealnet18": _IMAGENET,
}
OF_ZOO = dict.fromkeys(RELEASED, _IMAGENET)
"""Networks that only larq has, too."""
OF_RECU = ("resnet8", "resnet18", "resnet20", "vgg_small")
MODES = tuple(
    "-".join(filter(None, words))
    for words in itertools.product(("float32", "bfloat16"), ("", "last"), ("", "compiled"), ("fused",))
)
"""Those that `torch-best` is the fastest of; see `benchmarks.contestants.plain_torch`."""
_MIB = 2**20


@dataclass(frozen=True)
class Contestant:
    """Who trains.

    Attributes:
        name: as the table calls it.
        python: interpreter that has the library.
        module: in `benchmarks.contestants`.
        modes: in which it may compute; the fastest counts.
    """

    name: str
    python: Path
    module: str
    modes: tuple[str, ...] = ("",)


class ContestantError(Exception):
    """A contestant could not run; the message is one line."""


def ours(preset: str) -> Contestant:
    """This package with a preset of `benchmarks.contestants.ours`."""
    return Contestant(preset, Path(sys.executable), "ours", (preset,))


def others(oracle: Path) -> dict[str, Contestant]:
    """The libraries to compare with; `oracle` is the interpreter that has larq."""

    def torch(name: str, *modes: str) -> Contestant:
        return Contestant(name, Path(sys.executable), "plain_torch", modes)

    return {
        "torch": torch("torch", "float32"),
        "torch-best": torch("torch-best", *MODES),
        "larq": Contestant("larq", oracle, "larq_tf"),
        "larq-engine": Contestant("larq-engine", oracle, "larq_tf", ("engine",)),
        **{f"torch-{mode}": torch(f"torch-{mode}", mode) for mode in MODES},
    }


def run_mode(contestant: Contestant, task: Task, variables: dict[str, str]) -> Figures:
    """Measures a contestant in the task's mode; what is compiled comes from torch's cache.

    Args:
        contestant: who trains.
        task: what it trains, and how.
        variables: of the environment, to set.

    Raises:
        ContestantError: its interpreter is missing, or it failed.
    """
    if "compiled" in task.mode:
        run_contestant(contestant, replace(task, warmup=0, steps=1), variables)
    return run_contestant(contestant, task, variables)


def run_contestant(contestant: Contestant, task: Task, variables: dict[str, str]) -> Figures:
    """Runs a contestant in a fresh process; see `run_mode`."""
    if not contestant.python.exists():
        raise ContestantError(f"{contestant.python} is missing: run `make oracle`")
    module = f"benchmarks.contestants.{contestant.module}"
    done = subprocess.run(
        [contestant.python, "-m", module, task.to_json()],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": str(task.threads), **variables},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"ended with status {done.returncode} and no message"]
        raise ContestantError(f"failed: {lines[-1]}")
    return Figures(**json.loads(done.stdout.splitlines()[-1]))


def fastest(by_mode: dict[str, Figures]) -> str:
    """The mode whose median step is the shortest."""
    return min(by_mode, key=lambda mode: statistics.median(by_mode[mode].step_s))


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


def figures_table(title: str, figures: dict[str, Figures], *, task: Task) -> Table:
    """The measured values, a row for each contestant."""
    last = "images/s" if task.inference else "saved"
    table = _table(title, "step s", "least to most", "above start", "process", last, "parameters")
    for name, of in figures.items():
        step_s = statistics.median(of.step_s)
        saved = "-" if of.saved_bytes is None else f"{of.saved_bytes / _MIB:.2f}"
        table.add_row(
            name,
            f"{step_s:.3f}",
            f"{min(of.step_s):.3f} - {max(of.step_s):.3f}",
            f"{of.peak_above_start_bytes / _MIB:.1f}",
            f"{of.peak_bytes / _MIB:.1f}",
            f"{task.batch / step_s:.0f}" if task.inference else saved,
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


def title_of(task: Task, *, load: float, kernels: str | None) -> str:
    """What was measured."""
    words = [
        f"{task.model}{' with the weights of ReCU' if task.weights == 'recu' else ''}",
        f"{'inference, ' if task.inference else ''}batch {task.batch}",
        "1 thread" if task.threads == 1 else f"{task.threads} threads",
        f"load {load:.1f}",
        *([f"kernels {kernels}"] if kernels else []),
    ]
    return ", ".join(words) + "; memory in MiB"


def options() -> argparse.Namespace:
    """The command line."""

    def names(text: str) -> list[str]:
        return [name for name in text.split(",") if name]

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train_step",
        description="Time and memory of a training step beside the same step in other libraries.",
    )
    parser.add_argument("--model", choices=(*MODELS, *OF_ZOO), default="binarynet", help="network of bnn.models")
    parser.add_argument(
        "--weights", choices=("sign", "recu"), default="sign", help=f"recu: for {', '.join(OF_RECU)} (default sign)"
    )
    parser.add_argument("--inference", action="store_true", help="the forward pass of evaluation in place of a step")
    parser.add_argument("--batch", type=int, default=100, metavar="N", help="images a step (default 100)")
    parser.add_argument("--presets", type=names, default=["standard"], metavar="A,B", help="of this package")
    parser.add_argument(
        "--against",
        type=names,
        default=["torch"],
        metavar="A,B",
        help=f"torch, torch-best, larq, larq-engine, or a mode: torch- and {', '.join(MODES)} (default torch)",
    )
    parser.add_argument("--warmup", type=int, default=2, metavar="N", help="steps before the timed ones (default 2)")
    parser.add_argument("--steps", type=int, default=5, metavar="N", help="timed steps (default 5)")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="threads a contestant may compute with (default 1; more need a machine without other work)",
    )
    parser.add_argument(
        "--kernels",
        choices=KERNELS,
        default=os.environ.get("BNN_KERNELS") or None,
        help="hold every library to this instruction set (default: BNN_KERNELS, or each library's best)",
    )
    parser.add_argument("--oracle", type=Path, default=ORACLE, metavar="PYTHON", help="interpreter that has larq")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    chosen = parser.parse_args()
    for option in ("batch", "steps", "threads"):
        if getattr(chosen, option) < 1:
            parser.error(f"--{option} is at least 1")
    if chosen.batch < 2 and not chosen.inference:
        parser.error("--batch is at least 2: batch norm needs two values a channel")
    if chosen.kernels not in (None, *KERNELS):
        parser.error(f"BNN_KERNELS is {chosen.kernels}: the other libraries can be held to {', '.join(KERNELS)} only")
    if chosen.weights == "recu" and chosen.model not in OF_RECU:
        parser.error(f"--weights recu is for {', '.join(OF_RECU)}, not {chosen.model}")
    for unknown in set(chosen.against) - set(others(chosen.oracle)):
        parser.error(f"--against knows torch, torch-best, larq, larq-engine and torch's modes, not {unknown}")
    if chosen.json and not chosen.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {chosen.json.absolute().parent}")
    return chosen


def main() -> int:
    """Measures, prints the tables and writes the JSON where asked.

    Returns:
        Exit status: 1 if a contestant was left out.
    """
    chosen = options()
    task = Task(
        chosen.model,
        *{**MODELS, **OF_ZOO}[chosen.model],
        chosen.batch,
        chosen.warmup,
        chosen.steps,
        chosen.threads,
        weights=chosen.weights,
        inference=chosen.inference,
    )
    presets = [ours(name) for name in chosen.presets]
    references = [others(chosen.oracle)[name] for name in chosen.against]

    load = os.getloadavg()[0]
    figures: dict[str, Figures] = {}
    tried: dict[str, dict[str, Figures]] = {}
    left_out: dict[str, str] = {}
    for contestant in (*presets, *references):
        by_mode: dict[str, Figures] = {}
        for mode in contestant.modes:
            name = f"{contestant.name} as {mode}" if len(contestant.modes) > 1 else contestant.name
            try:
                by_mode[mode] = run_mode(contestant, replace(task, mode=mode), environment(chosen.kernels))
            except ContestantError as error:
                left_out[name] = str(error)
                print(f"{name} is left out: {error}", file=sys.stderr)
        if by_mode:
            figures[contestant.name] = by_mode[fastest(by_mode)]
        if len(by_mode) > 1:
            tried[contestant.name] = by_mode

    all_ratios = {
        preset.name: {
            other.name: ratios(figures[preset.name], figures[other.name])
            for other in references
            if other.name in figures
        }
        for preset in presets
        if preset.name in figures
    }
    kernels = next((of.instruction_set for of in figures.values() if of.instruction_set), chosen.kernels)
    console = Console()
    console.print(figures_table(title_of(task, load=load, kernels=kernels), figures, task=task))
    console.print(processor(), highlight=False, soft_wrap=True)
    for name, by_mode in tried.items():
        title = f"{name} is {fastest(by_mode)}, the fastest of"
        console.print(figures_table(title, by_mode, task=task))
    console.print(ratios_table(all_ratios))
    if chosen.json:
        report = {
            "task": asdict(task),
            "processor": processor(),
            "kernels": kernels,
            "held_to": chosen.kernels,
            "load": load,
            "contestants": {name: asdict(of) for name, of in figures.items()},
            "won": {name: fastest(by_mode) for name, by_mode in tried.items()},
            "tried": {name: {mode: asdict(of) for mode, of in modes.items()} for name, modes in tried.items()},
            "ratios": all_ratios,
            "left_out": left_out,
        }
        chosen.json.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if left_out else 0


if __name__ == "__main__":
    sys.exit(main())
