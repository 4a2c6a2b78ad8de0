"""Outputs that take nothing, or no more: a training goes on, and other commands say one line."""

import os
import sys
from pathlib import Path
from random import Random

from benchmarks.torture.runs import difference, results
from benchmarks.torture.trials import Kind, forked, one_line, require, status_of
from benchmarks.torture.writes import DIGITS, trained
from bnn.__main__ import run
from bnn.cli import main

_ROOT = Path(__file__).parents[2]
# Quick enough for a process from its start to its exit.
_WITHOUT_TORCH = ("--help", "recipes")


def trial(chance: Random, folder: Path) -> None:
    """Runs a command whose standard output, or errors, are a full device or a pipe that is read no further."""
    model = str(trained() / "model.bnnz")
    words = chance.choice(
        [
            ["train", *DIGITS, "--out", "run"],
            ["train", *DIGITS, "--out", "run"],
            ["eval", str(trained())],
            ["eval", str(trained()), "--json"],
            ["inspect", model],
            ["models"],
            ["recipes"],
            ["--help"],
            ["decompress", model, "-o", "tensors"],
        ]
    )
    output, streams = chance.choice(["full", "closed", "read in part"]), chance.choice([[1], [1], [2], [1, 2]])
    read, write = os.pipe()

    def act() -> int:
        os.close(read)
        if 2 not in streams:
            os.dup2(os.open("errors", os.O_WRONLY | os.O_CREAT), 2)
        target = os.open("/dev/full", os.O_WRONLY) if output == "full" else write
        for stream in {1, *streams}:
            os.dup2(target if stream in streams else os.open(os.devnull, os.O_WRONLY), stream)
        os.close(write)
        if words[0] in _WITHOUT_TORCH:
            os.environ["PYTHONPATH"] = str(_ROOT)
            os.execv(sys.executable, [sys.executable, "-m", "bnn", *words])
        return run("bnn", lambda: main(words))

    process = forked(act)
    os.close(write)
    if output == "read in part":
        os.read(read, chance.randint(1, 200))
    os.close(read)
    status = status_of(process)
    errors = Path("errors").read_text() if Path("errors").exists() else ""
    what = f"`bnn {words[0]}` with {'output' if streams == [1] else 'errors'} {output}"
    if words[0] == "train":
        require(status == 0, f"{what} leaves with {status}: {one_line(errors)}")
        differs = difference(results(Path("run")), results(trained()))
        require(not differs, f"{what} gives other {differs}")
    else:
        require(status in (0, 1, 141), f"{what} leaves with {status}: {one_line(errors)}")
    require("Traceback" not in errors and errors.count("\n") <= 1, f"{what} says {one_line(errors)}")


KINDS = (
    Kind(
        "outputs",
        "commands whose standard output or errors are full, closed, or read in part",
        trial,
        short=3,
        before=trained,
        long=200,
    ),
)
