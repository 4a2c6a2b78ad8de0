"""Dispatch, errors and warnings of a command line, whatever the program."""

import signal
import warnings

import pytest

from bnn.cli.arguments import ArgumentParser
from bnn.cli.program import run_program
from bnn.errors import RunError, UsageError


def run(*arguments: str, **commands) -> int:
    return run_program("prog", commands, arguments, help_text="the help", on_interrupt="as it was")


def test_commands_take_what_is_behind_their_name():
    taken = []
    assert run("go", "-x", "1", go=taken.append) == 0
    assert taken == [["-x", "1"]]


@pytest.mark.parametrize(("arguments", "code"), [((), 2), (("-h",), 0), (("--help",), 0)])
def test_help(arguments, code, capsys):
    assert run(*arguments) == code
    assert capsys.readouterr().out == "the help"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (RunError("two\nlines"), 1, "prog: two lines\n"),
        (UsageError("what?"), 2, "prog: what?\n"),
        (KeyboardInterrupt(), 130, "prog: as it was\n"),
        (KeyboardInterrupt(signal.SIGTERM), 143, "prog: as it was\n"),
        (MemoryError(), 1, "prog: out of memory\n"),
    ],
)
def test_errors_are_one_line(error, code, line, capsys):
    def fails(arguments):
        raise error

    assert run("go", go=fails) == code
    assert capsys.readouterr().err == line


def test_unknown_commands_are_named(capsys):
    assert run("trian", train=print) == 2
    assert capsys.readouterr().err == "prog: there is no command 'trian', but there is 'train'; see `prog --help`\n"
    assert run("stop", train=print) == 2
    assert capsys.readouterr().err == "prog: there is no command 'stop'; see `prog --help`\n"


@pytest.mark.filterwarnings("always")
def test_warnings_are_one_line(capsys):
    assert run("go", go=lambda arguments: warnings.warn("look\nhere", stacklevel=1)) == 0
    assert capsys.readouterr().err == "prog: warning: look here\n"


def test_parsers_raise_and_take_no_abbreviations_nor_do_their_subcommands():
    parser = ArgumentParser(prog="prog go")
    parser.add_argument("--number", type=int)
    with pytest.raises(UsageError, match="see `prog go --help`"):
        parser.parse_args(["--num", "1"])
    parser.add_subparsers(required=True).add_parser("sub").add_argument("--long")
    with pytest.raises(UsageError, match="--lo"):
        parser.parse_args(["sub", "--lo", "1"])
