"""Help, and command lines that cannot be understood."""

import os
import subprocess
import sys
import time

import pytest

from bnn import __version__ as version
from tests.cli.command_line import DIGITS, assert_one_line, recipe


def test_help_answers_at_once_and_without_torch():
    program = "import sys, bnn.cli; code = bnn.cli.main(['--help']); assert 'torch' not in sys.modules; sys.exit(code)"
    walls_s = []
    for _ in range(3):
        start = time.monotonic()
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        walls_s.append(time.monotonic() - start)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert all(f"bnn {command}" in ran.stdout for command in ("train", "eval", "models"))
    assert min(walls_s) < 0.5


def test_no_command_shows_the_help_and_fails(bnn):
    code, output, _ = bnn()
    assert code == 2
    assert output == bnn("--help")[1] == bnn("-h")[1]


def test_help_of_train_lists_the_options_of_every_run(bnn):
    code, output, _ = bnn("train", "--help")
    assert code == 0
    for option in ("--out", "--device", "--tensorboard", "--resume"):
        assert option in output


def test_version(bnn):
    assert bnn("--version") == (0, f"bnn {version}\n", "")


def test_help_of_a_recipe_is_its_signature(bnn):
    path = recipe('''
def recipe(*, width: int, rate: float = 0.5, kind: Literal["a", "b"] = "a", deep_net: bool = False):
    """Trains something.

    Args:
        width: units, of which 10 % are idle.
        rate: how quickly.
    """
''')
    code, output, errors = bnn("train", path, "--help")
    assert (code, errors) == (0, "")
    for part in (
        "Trains something.",
        "--width",
        "units, of which 10 % are idle. (required, type: int)",
        "how quickly. (type: float, default: 0.5)",
        "{a,b}",
        "default: a",
        "--deep-net, --no-deep-net",
        "--out",
        "--device",
        "--tensorboard",
    ):
        assert part in " ".join(output.split()), part


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["fly"], ["no command 'fly'", "bnn --help"]),
        (["trian"], ["no command 'trian', but there is 'train'", "bnn --help"]),
        (["train"], ["name a recipe first"]),
        (["train", "--epochs", "3"], ["name a recipe first"]),
        (["train", "--resume"], ["--resume"]),
        (["train", "--resume", "run", "--seed", "3"], ["unrecognized arguments: --seed 3"]),
        (["train", DIGITS, "--colour", "red"], ["unrecognized arguments: --colour red", "--help"]),
        (["train", DIGITS, "--epoch", "3"], ["unrecognized arguments: --epoch 3, but there is '--epochs'"]),
        (["train", DIGITS, "--epochs", "many"], ["epochs", "many"]),
        (["train", DIGITS, "--epochs", "1.5"], ["epochs", "1.5"]),
        (["train", DIGITS, "--epochs"], ["--epochs"]),
        (["train", DIGITS, "stray"], ["stray"]),
        (["eval"], ["RUN"]),
        (["train", DIGITS, "--widht=3"], ["unrecognized arguments: --widht=3, but there is '--width'"]),
        (["eval", "run", "--devise", "cpu"], ["unrecognized arguments: --devise cpu, but there is '--device'"]),
        (["eval", "run", "--colour"], ["unrecognized arguments: --colour"]),
        (["models", "mlp"], ["unrecognized arguments: mlp"]),
    ],
)
def test_wrong_command_line(words, parts, bnn):
    assert_one_line(bnn(*words), *parts, code=2)
    assert os.listdir() == []
