"""python -m benchmarks.torture: see `benchmarks.torture`."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

import bnn
from benchmarks.machine import processor
from benchmarks.torture import (
    arguments,
    budgets,
    disks,
    flips,
    hostile,
    kills,
    nans,
    outputs,
    parsers,
    ranks,
    resume,
    signals,
    soak,
    twice,
)
from benchmarks.torture.trials import Kind, Outcome, run

MODULES = (
    *(kills, disks, flips, hostile, resume, signals, nans, twice, outputs, parsers, arguments),
    *(ranks, soak, budgets),
)
KINDS: dict[str, Kind] = {kind.name: kind for module in MODULES for kind in module.KINDS}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the kinds that are asked for. Gives 1 where a trial broke, and 0 where none did."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.torture", description="Tries to break the package.")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--short", action="store_true", help="the trials of `make test` (default)")
    form.add_argument("--long", action="store_true", help="the trials of the records")
    parser.add_argument("--only", type=_kinds, default=list(KINDS), help=f"some of {','.join(KINDS)}")
    parser.add_argument("--seed", type=int, default=0, help="of the first trial of each kind; the next has the next")
    parser.add_argument("--trials", type=int, help="so many of each kind")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="at a time")
    parser.add_argument("--markdown", type=Path, help="writes the table to a file, too, after every kind")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    began = time.monotonic()
    outcomes: list[Outcome] = []
    text = ""
    for kind in map(KINDS.__getitem__, options.only):
        count = options.trials or (kind.long if options.long else kind.short)
        outcomes.append(run(kind, range(options.seed, options.seed + count), processes=options.processes))
        print(f"{kind.name}: {outcomes[-1].trials:,} trials, {len(outcomes[-1].broken)} broken", flush=True)
        text = f"{table(outcomes)}\n\n{_about(options.seed, time.monotonic() - began)}\n"
        if options.markdown:  # so that a run that is ended leaves what it has tried
            options.markdown.parent.mkdir(parents=True, exist_ok=True)
            options.markdown.write_text(text, encoding="utf-8")
    print(text, end="")
    return int(any(outcome.broken for outcome in outcomes))


def _kinds(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in KINDS:
            raise argparse.ArgumentTypeError(f"there is no kind {name!r}; there are {', '.join(KINDS)}")
    return names


def table(outcomes: Sequence[Outcome]) -> str:
    """The rows of the records, in Markdown."""
    lines = ["| kind | tried | trials | broken | CPU, s | slowest, s |", "|---|---|---|---|---|---|"]
    for outcome in outcomes:
        lines.append(
            f"| `{outcome.kind.name}` | {outcome.kind.tried} | {outcome.trials:,} | {len(outcome.broken)} |"
            f" {outcome.cpu_s:.0f} | {outcome.slowest_s:.1f} |"
        )
    return "\n".join(lines)


def _about(seed: int, wall_s: float) -> str:
    versions = f"bnn {bnn.__version__}, torch {torch.__version__}"
    return f"Seeds from {seed} on, one thread a process, {wall_s:.0f} s; {processor()}; {versions}."


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    sys.exit(main())
