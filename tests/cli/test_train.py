"""`bnn train`: what it writes and prints, and values that cannot be used."""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest
import torch

from bnn import __version__ as version
from bnn.cli.trainer import new_folder
from bnn.errors import RunError
from bnn.training.directory import read_json, read_metrics
from tests.cli.command_line import BNN, DIGITS, QUICK, ROOT, assert_one_line, recipe


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


def test_training_of_make_takes_less_of_all_that_it_sets_beside_float32(bnn):
    (words,) = re.findall(r"^train: .*\n\t\S+/bnn train \S+ (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    code, output, _ = bnn("train", DIGITS, *words.split(), "--epochs", "1", "--out", "run")
    assert code == 0
    for name in ("memory of a step, measured", "energy of training, estimated", "trained network, counted"):
        assert re.search(rf"  {name} .* times less *$", output, re.MULTILINE), output


@pytest.mark.slow
def test_in_a_process_of_its_own_the_first_line_comes_at_once_and_the_result_is_the_same(bnn):
    start = time.monotonic()
    words = ("train", DIGITS, *QUICK, "--out", "run")
    process = subprocess.Popen([*BNN, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == f"bnn {version}: loading torch\n"
    assert time.monotonic() - start < 1
    assert process.stdout.readline() == (
        "digits: 1,184 binary weights and 52 float parameters; UCI optical digits (bundled): 1,293 training,"
        " 144 validation, 360 test examples; cpu; preset standard; run\n"
    )
    output, errors = process.communicate()
    summary, metrics = read_json(Path("run/summary.json")), read_metrics(Path("run"))
    assert (process.returncode, errors) == (0, "")
    assert f"{metrics[0]['images_per_s']:,.0f} examples/s" in output
    assert f"{summary['images_per_s']:,.0f} examples/s in training steps" in output
    bnn("train", DIGITS, *QUICK, "--out", "here")
    here = read_json(Path("here/summary.json"))
    measured = dict.fromkeys(("wall_s", "images_per_s", "peak_rss_mib", "beside_float"))
    assert {**summary, **measured} == {**here, **measured}


def test_without_out_the_directory_is_named_after_recipe_and_time(bnn):
    bnn("train", DIGITS, *QUICK)
    (directory,) = Path("runs").iterdir()
    assert re.fullmatch(r"digits-\d{8}-\d{6}", directory.name)


def test_two_that_begin_within_a_second_have_folders_of_their_own(tmp_path):
    with new_folder(tmp_path / "runs", "digits") as first, new_folder(tmp_path / "runs", "digits") as second:
        assert (first.name, second.name) == ("digits", "digits-2")
        (first / "config.json").touch()
    # What nothing has begun in goes again.
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["digits"]
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file cannot be written"), new_folder(tmp_path / "file", "digits"):
        pass


def test_a_resumed_run_takes_the_threads_that_it_began_with(bnn):
    path = recipe("""
class Stop(Callback):
    def on_epoch_begin(self, trainer):
        print("THREADS", torch.get_num_threads())
        if trainer.epoch == 1 and Path("stop").exists():
            raise MemoryError


def recipe():
    return run([Stop()])
""")
    Path("stop").touch()
    bnn("train", path, "--out", "run")
    Path("stop").unlink()
    changed = Path("run/config.json").read_text().replace('"threads": "1"', '"threads": "2"')
    Path("run/config.json").write_text(changed.replace('"torch": "', '"torch": "0.'))
    again = ("train", "--resume", "run", "--recipe", "run/recipe.py")
    try:
        code, output, errors = bnn(*again)
        assert "threads: 2, as the run began; --allow-changes takes 1, as this process would" in output
        assert_one_line((code, output, errors), "run was trained with other torch (0.", "--allow-changes")
        assert "threads" not in errors
        torch.set_num_threads(1)
        code, output, errors = bnn(*again, "--allow-changes")
        assert (code, errors) == (0, "")
        assert "THREADS 1" in output
        assert len(read_json(Path("run/config.json"))["earlier_versions"]) == 1
    finally:
        torch.set_num_threads(1)


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
    # A path means the same from any folder, and the same in the first command and in a later one.
    got = f"GOT (3, 2.0, 'b', (4, 5), {Path('here').absolute()!r}, True, False, '7')"
    assert got in output
    assert_one_line((code, output, errors), "out of memory", "checkpoints are untouched")
    Path("stop").unlink()
    os.mkdir("elsewhere")
    code, output, errors = bnn("train", "--resume", "run", "--recipe", "run/recipe.py")
    assert (code, errors) == (0, "")
    assert got in output
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
        (["--data-dir", "nowhere"], ["there is no folder /", "/nowhere: leave --data-dir out"]),
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
