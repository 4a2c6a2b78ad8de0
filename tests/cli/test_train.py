"""`bnn train`: what it writes and prints, and values that cannot be used."""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from bnn import __version__ as version
from bnn.training.directory import read_json, read_metrics
from tests.cli.command_line import BNN, DIGITS, QUICK, assert_one_line, recipe


def test_train_writes_its_files_and_prints_a_table(bnn):
    code, output, errors = bnn("train", DIGITS, *QUICK, "--seed", "3", "--out", "run")
    assert (code, errors) == (0, "")
    summary = read_json(Path("run/summary.json"))
    assert 0 <= summary["test_accuracy"] <= 1
    assert summary["bits_per_weight"] == 1.0
    assert 50 < summary["peak_rss_mib"] < 10_000
    assert 0 < summary["energy_j"] < 1
    assert summary["price_table"] == "Horowitz 2014, 45 nm"
    assert (summary["epochs"], summary["seed"]) == (2, 3)
    assert 0 < summary["wall_s"] < 60
    assert f"{100 * summary['test_accuracy']:.2f} %" in output
    assert "Horowitz" in output
    assert "files: run" in output
    assert len(read_metrics(Path("run"))) == 2
    configuration = read_json(Path("run/config.json"))
    assert configuration["recipe"] == "digits"
    assert configuration["data"]["classes"] == list("0123456789")
    assert Path("run/recipe.py").read_bytes() == Path(DIGITS).read_bytes()
    assert configuration["arguments"] == {
        "preset": "standard",
        "epochs": 2,
        "batch_size": 64,
        "learning_rate": None,
        "width": 16,
        "hidden_layers": 1,
        "seed": 3,
        "data_dir": None,
    }
    assert {"bnn", "torch", "python"} <= set(configuration["versions"])


def test_train_in_a_process_of_its_own_gives_the_same_result(bnn):
    ran = subprocess.run([*BNN, "train", DIGITS, *QUICK, "--out", "alone"], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    bnn("train", DIGITS, *QUICK, "--out", "here")
    alone, here = (read_json(Path(name) / "summary.json") for name in ("alone", "here"))
    measured = dict.fromkeys(("wall_s", "images_per_s", "peak_rss_mib"))
    assert {**alone, **measured} == {**here, **measured}


def test_the_first_line_comes_at_once_and_the_second_says_what_is_trained(in_an_empty_folder):
    start = time.monotonic()
    process = subprocess.Popen([*BNN, "train", DIGITS, *QUICK, "--out", "run"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == f"bnn {version}: loading torch\n"
    assert time.monotonic() - start < 1
    assert process.stdout.readline() == (
        "digits: 1,184 binary weights and 52 float parameters; UCI optical digits (bundled): 1,293 training,"
        " 144 validation, 360 test examples; cpu; preset standard; run\n"
    )
    output, _ = process.communicate()
    summary, metrics = read_json(Path("run/summary.json")), read_metrics(Path("run"))
    assert process.returncode == 0
    assert f"{metrics[0]['images_per_s']:,.0f} examples/s" in output
    assert f"{summary['images_per_s']:,.0f} examples/s in training steps" in output


def test_without_out_the_directory_is_named_after_recipe_and_time(bnn):
    bnn("train", DIGITS, *QUICK)
    (directory,) = Path("runs").iterdir()
    assert re.fullmatch(r"digits-\d{8}-\d{6}", directory.name)


def test_tensorboard_is_written_on_request(bnn):
    pytest.importorskip("tensorboard")
    code, _, _ = bnn("train", DIGITS, *QUICK, "--out", "run", "--tensorboard")
    assert code == 0
    assert list(Path("run/tensorboard").iterdir())


def test_arguments_arrive_as_their_types_and_survive_a_resume(bnn):
    path = recipe("""
class Stop(Callback):
    def on_epoch_begin(self, trainer):
        if trainer.epoch == 1 and Path("stop").exists():
            raise MemoryError


def recipe(*, width: int, rate: float = 1, kind: Literal["a", "b"] = "a", sizes: tuple[int, ...] = (1,),
           where: Path | None = None, deep: bool = False, flat: bool = True, text: str = "x"):
    print("GOT", (width, rate, kind, sizes, where, deep, flat, text))
    return run([Stop()])
""")
    numbers = ["--width", "3", "--rate", "2", "--sizes", "[4,5]"]
    words = [*numbers, "--kind", "b", "--where", "here", "--deep", "--no-flat", "--text", "7"]
    Path("stop").touch()
    code, output, errors = bnn("train", path, *words, "--out", "run")
    assert "GOT (3, 2.0, 'b', (4, 5), PosixPath('here'), True, False, '7')" in output
    assert_one_line((code, output, errors), "out of memory", "checkpoints are untouched")
    Path("stop").unlink()
    os.mkdir("elsewhere")
    code, output, errors = bnn("train", "--resume", "run", "--recipe", "run/recipe.py")
    assert (code, errors) == (0, "")
    # A path of the first command means the same from any folder.
    assert f"GOT (3, 2.0, 'b', (4, 5), {Path('here').absolute()!r}, True, False, '7')" in output
    assert read_json(Path("run/summary.json"))["epochs"] == 2


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--epochs", "0"], ["at least 1 epoch, got 0"]),
        (["--batch-size", "0"], ["at least 1 example, got 0"]),
        (["--learning-rate", "0"], ["learning rate"]),
        (["--learning-rate", "-1"], ["learning rate"]),
        (["--seed", "-1"], ["a seed is 0 or above, got -1"]),
        (["--seed", str(2**80)], ["digits.py"]),
        (["--width", "0"], ["digits.py"]),
        (["--width", "-1"], ["digits.py"]),
        (["--batch-size", "1"], ["fails on a batch of [1, 1, 8, 8]"]),
        (["--data-dir", "nowhere"], ["there is no folder nowhere"]),
        (["--device", "cudas"], ["device 'cudas' cannot be used here"]),
        (["--device", "hpu"], ["device 'hpu' cannot be used here"]),
        (["--device", "meta"], ["device 'meta' cannot be used here"]),
    ],
)
def test_value_that_cannot_be_used(words, parts, bnn):
    assert_one_line(bnn("train", DIGITS, "--out", "run", *words), *parts)


def test_training_that_stops_on_its_own_account_is_one_line(bnn):
    path = recipe("def recipe(): return run(model=nn.Sequential(nn.Flatten(), nn.Linear(64, 10), Bad()))")
    Path(path).write_text(
        Path(path)
        .read_text()
        .replace("def run(", "class Bad(nn.Module):\n    forward = lambda self, x: x / 0\n\n\ndef run(")
    )
    assert_one_line(bnn("train", path, "--out", "run"), "3 steps in a row", "lower the learning rate", "kept in run")
