"""`bnn train` in several processes: what it writes, how it ends and how it goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bnn.training import checkpoint
from tests.distributed.processes import ROOT, start

TRAIN = ["-m", "bnn", "train"]
DIGITS = [
    *("digits", "--preset", "edge-min", "--epochs", "3", "--batch-size", "64"),
    *("--width", "32", "--hidden-layers", "1", "--patience", "120"),
]


def torchrun(ranks: int, *arguments: str) -> subprocess.Popen:
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--rdzv-endpoint", "127.0.0.1:0"]
    return subprocess.Popen(
        [sys.executable, *launcher, "--rdzv-backend", "c10d", *TRAIN, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def alone(*arguments: str) -> None:
    """Trains in one process."""
    (process,) = start([[*TRAIN, *arguments]])
    errors = process.communicate(timeout=600)[1]
    assert process.returncode == 0, errors


def assert_same(one: Path, other: Path) -> None:
    """Whether two runs have come to the same weights, states of optimizers, and figures."""
    first, second = (checkpoint.load(run / "checkpoints") for run in (one, other))
    assert first.tensors.keys() == second.tensors.keys()
    assert not [name for name, tensor in first.tensors.items() if not torch.equal(second.tensors[name], tensor)]
    names = ("train_loss", "train_accuracy", "validation_accuracy", "test_loss", "test_accuracy")
    figures = [json.loads((run / "summary.json").read_text()) for run in (one, other)]
    assert [figures[0][name] for name in names] == [figures[1][name] for name in names]


def lines_of(processes: list[subprocess.Popen], timeout_s: float = 300) -> list[str]:
    """The error that each process ends with, which is one line."""
    lines = []
    for process in processes:
        errors = process.communicate(timeout=timeout_s)[1]
        own = [line for line in errors.splitlines() if not line.startswith("[W")]  # torch's own warnings
        assert process.returncode not in (0, None)
        assert len(own) == 1, errors
        assert own[0].startswith("bnn: "), errors
        lines.append(own[0])
    return lines


def wait_for(condition, timeout_s: float = 300) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def has_trained(run: Path) -> bool:
    """Whether an epoch is done."""
    return (run / "metrics.jsonl").exists() and bool((run / "metrics.jsonl").read_text())


@pytest.mark.slow
def test_a_batch_that_ranks_do_not_divide_and_options_that_differ_are_one_line_on_every_rank(tmp_path):
    out = ["--out", str(tmp_path / "run")]
    unlike = start([[*TRAIN, *DIGITS, *out, "--seed", seed] for seed in ("0", "1")])
    indivisible = start([[*TRAIN, *DIGITS, *out, "--batch-size", "33"]] * 2)
    for line in lines_of(unlike):
        assert "ranks 0 and 1 differ in their seed: 0 and 1" in line
    for line in lines_of(indivisible):
        assert "2 ranks do not divide a batch of 33" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_rendezvous_that_nobody_joins_ends_with_one_line(tmp_path):
    (process, other) = start([[*TRAIN, *DIGITS, "--out", str(tmp_path / "run"), "--patience", "0.2"], ["-c", "pass"]])
    other.communicate()
    (line,) = lines_of([process])
    assert "not all of the 2 ranks have come" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_ranks_that_torchrun_starts_train_what_one_process_does(tmp_path):
    options = [*DIGITS, "--exchange", "exact", "--out"]
    process = torchrun(2, *options, str(tmp_path / "two"))
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    alone(*options, str(tmp_path / "one"))
    assert_same(tmp_path / "one", tmp_path / "two")
    assert output.count("epoch 3/3") == 1
    summary = json.loads((tmp_path / "two" / "summary.json").read_text())
    assert (summary["ranks"], summary["exchange"]) == (2, "exact")
    assert summary["sent_bytes_a_step"] > 0


@pytest.mark.slow
def test_a_signal_to_the_launcher_saves_and_another_number_of_ranks_goes_on_where_that_is_exact(tmp_path):
    for mode in ("exact", "count"):
        run, options = tmp_path / mode, [*DIGITS, "--exchange", mode, "--epochs", "12", "--out"]
        process = torchrun(2, *options, str(run))
        wait_for(lambda run=run: has_trained(run))
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=300)[1]
        assert process.returncode != 0
        told = [line for line in errors.splitlines() if line.startswith("bnn: ")]
        assert len(told) == 2
        assert all(f"go on with `bnn train --resume {run}" in line for line in told)
    alone("--resume", str(tmp_path / "exact"), "--patience", "120")
    alone(*DIGITS, "--exchange", "exact", "--epochs", "12", "--out", str(tmp_path / "one"))
    assert_same(tmp_path / "one", tmp_path / "exact")
    (line,) = lines_of(start([[*TRAIN, "--resume", str(tmp_path / "count")]]))
    assert "'ranks': 2" in line


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_rank_that_is_lost_ends_the_others_and_the_run_goes_on(tmp_path, how):
    run = tmp_path / "run"
    options = [*DIGITS, "--exchange", "count", "--epochs", "8", "--out"]
    processes = start([[*TRAIN, *options, str(run), "--patience", "15"]] * 2)
    wait_for(lambda: has_trained(run))
    processes[1].send_signal(how)
    at = time.monotonic()
    (line,) = lines_of(processes[:1])
    assert time.monotonic() - at < 30
    assert "rank 0 of 2 cannot reach the others any more" in line
    processes[1].kill()
    processes[1].communicate()
    whole = tmp_path / "whole"
    for command in (["--resume", str(run), "--patience", "120"], [*options, str(whole)]):
        for process in start([[*TRAIN, *command]] * 2):
            errors = process.communicate(timeout=600)[1]
            assert process.returncode == 0, errors
    assert_same(run, whole)
