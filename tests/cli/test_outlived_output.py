"""A training outlives its standard output; other commands end with it, in good order."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest

from bnn.cli.program import run_program
from bnn.reports.log import RunLog
from tests.cli.command_line import BNN, DIGITS, QUICK, results


def closed_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def full():
    return open("/dev/full", "w")


@pytest.mark.parametrize("lost", [closed_pipe, full])
def test_a_training_goes_on_without_its_output(lost, bnn, monkeypatch):
    assert bnn("train", DIGITS, *QUICK, "--out", "whole")[0] == 0
    with lost() as out, lost() as errors, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", errors)
        code, *_ = bnn("train", DIGITS, *QUICK, "--out", "run")
    assert code == 0
    assert results("run") == results("whole")
    lines = [line.split(maxsplit=2)[2] for line in Path("run/log.txt").read_text().splitlines()]
    assert lines[0].startswith("digits: 1,184 binary weights")
    assert lines[0].endswith("run; from step 0")
    assert [line[:9] for line in lines[1:]] == ["epoch 1/2", "epoch 2/2", "complete:"]


@pytest.mark.slow
def test_a_pipe_that_is_closed_behind_the_first_line(in_an_empty_folder):
    words = [*BNN, "train", DIGITS, *QUICK, "--out", "run"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().endswith("loading torch\n")
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == ("", 0)
    assert Path("run/summary.json").exists()


def test_a_log_that_is_a_pipe_which_nobody_reads_holds_nothing_up(tmp_path):
    os.mkfifo(tmp_path / "log.txt")
    log = RunLog()
    log._path = tmp_path / "log.txt"
    writing = Thread(target=log.write, args=["a line"], daemon=True)
    writing.start()
    writing.join(5)
    assert not writing.is_alive()


def test_what_ends_a_training_is_in_its_log(bnn):
    path = Path("bad.py")
    path.write_text(
        Path(DIGITS).read_text().replace("    return Run(", "    step.loss = lambda x, y: x.sum() / 0\n    return Run(")
    )
    assert bnn("train", str(path), *QUICK, "--out", "run")[0] == 1
    assert "ended by TrainingStopped: the loss or a gradient was not finite" in Path("run/log.txt").read_text()


@pytest.mark.parametrize(
    ("lost", "code", "line"), [(closed_pipe, 128 + signal.SIGPIPE, ""), (full, 1, "No space left")]
)
@pytest.mark.parametrize("word", ["go", "--help", "--version"])
def test_a_command_whose_output_cannot_be_written_ends_with_a_status(word, lost, code, line, monkeypatch, capsys):
    with lost() as out, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        status = run_program("prog", {"go": lambda words: print("x")}, [word], help_text="x", on_interrupt="")
    errors = capsys.readouterr().err
    assert status == code
    assert line in errors
    assert errors.count("\n") == (1 if line else 0)


def test_a_file_that_cannot_be_read_is_one_line(capsys):
    def fails(words):
        raise PermissionError(13, "Permission denied", "secret")

    assert run_program("prog", {"go": fails}, ["go"], help_text="", on_interrupt="") == 1
    assert capsys.readouterr().err == "prog: secret: Permission denied\n"
