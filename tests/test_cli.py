"""The command line, as a user meets it: in this process where that is enough, in one of its own where it is not."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bnn.cli import main
from bnn.data import digits
from bnn.training.directory import read_json, read_metrics

ROOT = Path(__file__).parents[1]
DIGITS = str(ROOT / "recipes" / "digits.py")
BNN = (sys.executable, "-c", "import sys; from bnn.cli import main; sys.exit(main())")
QUICK = ("--epochs", "2", "--width", "16", "--hidden-layers", "1", "--batch-size", "64")

HEAD = """
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from bnn.data import digits
from bnn.training import Callback, Run


def run(callbacks=(), data=None, model=None):
    model = model or nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    return Run(model=model, data=data or digits(), optimizer=torch.optim.SGD(model.parameters(), lr=0.1), epochs=2,
               batch_size=200, seed=0, callbacks=callbacks)

"""


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def bnn(capsys):
    """Runs a command in this process; gives exit status, output and errors."""

    def run(*words: str) -> tuple[int, str, str]:
        try:
            code = main(words)
        except SystemExit as exit:  # of --help
            code = exit.code
        return code, *capsys.readouterr()

    return run


def recipe(source: str, name: str = "mine.py") -> str:
    Path(name).write_text(HEAD + source)
    return name


def assert_one_line(result: tuple[int, str, str], *parts: str, code: int = 1) -> None:
    status, _, errors = result
    assert status == code
    assert re.fullmatch(r"bnn: [^\n]+\n", errors), errors
    assert "Traceback" not in errors
    for part in parts:
        assert part in errors


# --- help ----------------------------------------------------------------------------------------------------------


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
    assert output == bnn("--help")[1] == bnn("-h")[1] == bnn("train", "--help")[1]


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


# --- a run from end to end -----------------------------------------------------------------------------------------


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
        "epochs": 2,
        "batch_size": 64,
        "learning_rate": 0.01,
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
    assert {**alone, "wall_s": 0, "peak_rss_mib": 0} == {**here, "wall_s": 0, "peak_rss_mib": 0}


def test_eval_gives_the_summary_s_accuracy_and_writes_nothing(bnn):
    bnn("train", DIGITS, *QUICK, "--out", "run")
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    code, output, _ = bnn("eval", "run")
    summary = read_json(Path("run/summary.json"))
    assert code == 0
    assert f"test accuracy {100 * summary['test_accuracy']:.2f} %, loss {summary['test_loss']:.4f}" in output
    assert "after 2 of 2 epochs" in output
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


def test_without_out_the_directory_is_named_after_recipe_and_time(bnn):
    bnn("train", DIGITS, *QUICK)
    (directory,) = Path("runs").iterdir()
    assert re.fullmatch(r"digits-\d{8}-\d{6}", directory.name)


def test_models_lists_every_network(bnn):
    code, output, _ = bnn("models")
    assert code == 0
    for name in ("mlp", "cnv", "binarynet", "vgg_small", "resnet18", "resnet20", "resnete18", "birealnet18"):
        assert re.search(rf"^ *{name} ", output, re.MULTILINE)


def test_report_is_a_page_about_a_run_or_several(bnn):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    for name in ("one", "two"):
        bnn("train", DIGITS, *QUICK, "--out", name)
    code, output, errors = bnn("report", "one")
    assert (code, output, errors) == (0, "page: one/report.html\n", "")
    accuracy = f"{100 * read_json(Path('one/summary.json'))['test_accuracy']:.2f}"
    assert accuracy in Path("one/report.html").read_text()
    assert_one_line(bnn("report", "one", "two"), "-o page.html", code=2)
    assert bnn("report", "one", "two", "-o", "both.html")[0] == 0
    assert Path("both.html").stat().st_size > 0
    assert_one_line(bnn("report", "gone"), "gone/")
    assert_one_line(bnn("report", "one", "-o", "gone/page.html"), "gone")


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


# --- what users get wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["fly"], ["no command 'fly'", "bnn --help"]),
        (["--version"], ["no command '--version'"]),
        (["train"], ["name a recipe first"]),
        (["train", "--epochs", "3"], ["name a recipe first"]),
        (["train", "--resume"], ["--resume"]),
        (["train", "--resume", "run", "--seed", "3"], ["unrecognized arguments: --seed 3"]),
        (["train", DIGITS, "--colour", "red"], ["unrecognized arguments: --colour red", "--help"]),
        (["train", DIGITS, "--epoch", "3"], ["unrecognized arguments: --epoch 3"]),
        (["train", DIGITS, "--epochs", "many"], ["epochs", "many"]),
        (["train", DIGITS, "--epochs", "1.5"], ["epochs", "1.5"]),
        (["train", DIGITS, "--epochs"], ["--epochs"]),
        (["train", DIGITS, "stray"], ["stray"]),
        (["eval"], ["RUN"]),
        (["eval", "run", "--colour"], ["unrecognized arguments: --colour"]),
        (["models", "mlp"], ["unrecognized arguments: mlp"]),
    ],
)
def test_wrong_command_line(words, parts, bnn):
    assert_one_line(bnn(*words), *parts, code=2)
    assert os.listdir() == []


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


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("def recipe(:", ["mine.py cannot be executed: SyntaxError"]),
        ("import nothing_of_this_name", ["cannot be executed: ModuleNotFoundError", "nothing_of_this_name"]),
        ("raise RuntimeError('first\\nsecond')", ["cannot be executed: RuntimeError: first second"]),
        ("rezept = 1", ["has no function `recipe`"]),
        ("recipe = 1", ["has no function `recipe`"]),
        ("class recipe: pass", ["has no function `recipe`"]),
        ("def recipe(*, width=3): return run()", ["parameter width of recipe has no type"]),
        ("def recipe(*, width: 'Width' = 3): return run()", ["mine.py", "'Width' is not defined"]),
        ("def recipe(*, out: str = ''): return run()", ["a parameter of the name of an option of every run", "--out"]),
        ("def recipe(*, device: str = ''): return run()", ["of the name of an option of every run", "--device"]),
        ("def recipe(*, help: str = ''): return run()", ["parameter help of recipe cannot be an option"]),
        ("def recipe(): return 5", ["must return a bnn.training.Run, not int"]),
        ("def recipe(): return None", ["must return a bnn.training.Run, not NoneType"]),
        ("def recipe(): return {}['x']", ["mine.py: KeyError: 'x'"]),
        ("def recipe(): raise RuntimeError('first\\nsecond')", ["mine.py: RuntimeError: first second"]),
        ("def recipe(): return Path('gone').read_text()", ["mine.py: FileNotFoundError", "gone"]),
        ("def recipe(): raise MemoryError", ["out of memory"]),
        ("def recipe(x: int = 1, /): return run()", ["mine.py: TypeError"]),
        ("def recipe(*, x: float = float('inf')): return run()", ["the value of x cannot be kept"]),
        ("def recipe(*, x: list[Path] = [Path('a')]): return run()", ["the value of x cannot be kept"]),
        ("def recipe(): return run(model=nn.Flatten())", ["mine.py: ValueError: optimizer got an empty"]),
        ("def recipe(): return run(model=nn.Linear(3, 3))", ["fails on a batch of [200, 1, 8, 8]"]),
        (
            "def recipe(): return run(model=nn.Sequential(nn.Flatten(), nn.Linear(64, 5)))",
            ["fails on a batch of [200, 1, 8, 8]", "out of bounds"],
        ),
    ],
)
def test_recipe_that_cannot_be_used(source, parts, bnn):
    assert_one_line(bnn("train", recipe(source), "--out", "run"), *parts)


@pytest.mark.parametrize("path", ["gone.py", ".", "notes.txt"])
def test_recipe_that_is_no_file(path, bnn):
    Path("notes.txt").write_text("")
    assert_one_line(bnn("train", path), f"{path} is not a recipe", "name one of binary, ")


def test_recipe_without_a_required_option(bnn):
    assert_one_line(bnn("train", recipe("def recipe(*, width: int): return run()")), "width", code=2)


def test_recipe_may_define_dataclasses(bnn):
    Path("mine.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n"
        "@dataclass\nclass Size:\n    width: int = 3\n\ndef recipe(*, width: int = 3): return Size(width)\n"
    )
    assert_one_line(bnn("train", "mine.py"), "must return a bnn.training.Run, not Size")


def saved_digits(**changes: np.ndarray) -> None:
    data = digits()
    arrays = {
        f"{part}_{kind}": getattr(split, kind).numpy()
        for part, split in (("train", data.train), ("test", data.test))
        for kind in ("images", "labels")
    }
    Path("data").mkdir()
    np.savez("data/digits.npz", **{**arrays, **changes})


def test_another_digits_file_is_used(bnn):
    saved_digits(train_images=digits().train.images.numpy()[:640], train_labels=digits().train.labels.numpy()[:640])
    code, output, _ = bnn("train", DIGITS, *QUICK, "--data-dir", "data", "--out", "run")
    assert code == 0
    assert read_json(Path("run/summary.json"))["steps"] == 2 * (576 // 64)
    assert "data/digits.npz" in output


def test_labels_out_of_range_name_the_file(bnn):
    saved_digits(test_labels=digits().test.labels.numpy() + 5)
    assert_one_line(bnn("train", DIGITS, "--data-dir", "data", "--out", "run"), "data/digits.npz", "label 14")


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut short"])
def test_damaged_data_file_is_named(content, bnn):
    Path("data").mkdir()
    Path("data/digits.npz").write_bytes(content)
    assert_one_line(bnn("train", DIGITS, "--data-dir", "data", "--out", "run"), "data/digits.npz is damaged")


@pytest.mark.parametrize("folders", [[], ["train", "test"], ["train/a", "test"]])
def test_image_folder_without_classes_is_named(folders, bnn):
    Path("images").mkdir()
    for folder in folders:
        Path("images", folder).mkdir(parents=True)
    source = "from bnn.data import image_folder\n\n\ndef recipe(): return run(data=image_folder('images', size=8))"
    assert_one_line(bnn("train", recipe(source), "--out", "run"), "images")


def test_missing_mnist_is_named(bnn):
    Path("data").mkdir()
    words = ("train", str(ROOT / "recipes" / "mnist.py"), "--data-dir", "data", "--out", "run")
    assert_one_line(bnn(*words), "data/MNIST/raw/train-images-idx3-ubyte", "--data-dir")


# --- runs that exist -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("trained") / "run"
    assert main(("train", DIGITS, *QUICK, "--out", str(directory))) == 0
    return directory


@pytest.fixture
def finished(trained, capsys) -> Path:
    """A complete run to change at will."""
    capsys.readouterr()
    return Path(shutil.copytree(trained, "run"))


def test_directory_of_a_run_is_not_overwritten(finished, bnn):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    assert_one_line(bnn("train", DIGITS, *QUICK, "--out", "run"), "run is not empty", "--resume run")
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_complete_run_says_so(finished, bnn):
    assert_one_line(bnn("train", "--resume", "run"), "run is complete: all of its 2 epochs are done")


@pytest.mark.parametrize("command", [["eval"], ["train", "--resume"], ["compress", "-o", "m.bnnz"]])
def test_what_is_no_run_is_named(command, bnn):
    assert_one_line(bnn(*command, "gone"), "gone/config.json is missing")
    Path("empty").mkdir()
    assert_one_line(bnn(*command, "empty"), "empty/config.json is missing")


def _without(name: str):
    return lambda c: {key: value for key, value in c.items() if key != name}


RESUMED = {
    "not JSON": (lambda c: None, ["run/config.json cannot be read"]),
    "no version": (_without("version"), ["run was written by release", "whose runs this release", "does not open"]),
    "another version": (lambda c: {**c, "version": 99}, ["run was written by release", "train anew"]),
    "no recipe": (_without("recipe"), ["a file in it is only executed where you name it", "--recipe run/recipe.py"]),
    "no arguments": (_without("arguments"), ["run/config.json is not the configuration"]),
    "recipe of another type": (lambda c: {**c, "recipe": 5}, ["--recipe run/recipe.py"]),
    "another recipe": (lambda c: {**c, "recipe": "gone.py"}, ["is not one of the package", "--recipe run/recipe.py"]),
    "arguments of another type": (lambda c: {**c, "arguments": "x"}, ["run/config.json is not the configuration"]),
    "an unknown argument": (lambda c: {**c, "arguments": {**c["arguments"], "colour": 1}}, ["does not fit", "colour"]),
    "a wrong value": (lambda c: {**c, "arguments": {**c["arguments"], "epochs": "x"}}, ["does not fit", "epochs"]),
    "device of another type": (lambda c: {**c, "device": [1]}, ["device [1] cannot be used here"]),
    "another width": (lambda c: {**c, "arguments": {**c["arguments"], "width": 17}}, ["belongs to another"]),
    "other data": (
        lambda c: {**c, "data": {**c["data"], "classes": ["a", "b"]}},
        ["the data are not those that run began with", "their classes"],
    ),
}


@pytest.mark.parametrize(("change", "parts"), RESUMED.values(), ids=RESUMED)
def test_damaged_configuration(change, parts, finished, bnn):
    changed = change(read_json(finished / "config.json"))
    (finished / "config.json").write_text("{" if changed is None else json.dumps(changed))
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    assert_one_line(bnn("train", "--resume", "run"), *parts)
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_a_run_of_an_earlier_release_is_refused_by_its_version(finished, bnn):
    configuration = _without("version")(read_json(finished / "config.json"))
    (finished / "config.json").write_text(json.dumps({**configuration, "versions": {"bnn": "0.3.0"}}))
    for words in (["eval", "run"], ["train", "--resume", "run"], ["compress", "run", "-o", "m.bnnz"]):
        assert_one_line(bnn(*words), "run was written by release 0.3.0, whose runs this release")


def test_damaged_checkpoints_are_named(finished, bnn):
    more = ("train", "--resume", "run", "--epochs", "3")
    for path in (finished / "checkpoints").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-9])
    assert_one_line(bnn(*more), "run/checkpoints/step-", "damaged")
    for path in (finished / "checkpoints").iterdir():
        path.unlink()
    assert_one_line(bnn(*more), "there is no checkpoint in run/checkpoints")
    shutil.rmtree(finished / "checkpoints")
    assert_one_line(bnn(*more), "run/checkpoints")
    assert bnn("eval", "run")[0] == 0


@pytest.mark.filterwarnings("default")
def test_one_damaged_checkpoint_is_a_warning_of_one_line(finished, bnn):
    newest = max((finished / "checkpoints").glob("*.json"))
    newest.write_text("{}")
    code, _, errors = bnn("train", "--resume", "run")
    assert code == 0
    assert re.fullmatch(r"bnn: warning: [^\n]+\n", errors)
    assert newest.name in errors
    assert len(read_metrics(finished)) == 2


def test_a_damaged_model_is_named(finished, bnn):
    model = finished / "model.bnnz"
    model.write_bytes(model.read_bytes()[:-1])
    assert_one_line(bnn("eval", "run"), "run/model.bnnz: the file should have", "get it again")
    model.unlink()
    assert_one_line(bnn("eval", "run"), "run has no model yet", "bnn train --resume run")


def test_damaged_metrics_are_named(finished, bnn):
    (finished / "summary.json").unlink()
    (finished / "metrics.jsonl").write_text("[]\n")
    assert_one_line(bnn("train", "--resume", "run"), "run/metrics.jsonl, line 1, is damaged")


def test_damaged_summary_does_not_matter_to_eval(finished, bnn):
    (finished / "summary.json").write_text("{")
    assert bnn("eval", "run")[0] == 0


def test_a_finished_run_goes_on_to_more_epochs(bnn):
    assert bnn("train", DIGITS, *QUICK, "--out", "run")[0] == 0
    code, _, errors = bnn("train", "--resume", "run", "--epochs", "4")
    assert (code, errors) == (0, "")
    assert [record["epoch"] for record in read_metrics(Path("run"))] == [0, 1, 2, 3]
    assert read_json(Path("run/config.json"))["arguments"]["epochs"] == 4
    assert read_json(Path("run/summary.json"))["epochs"] == 4
    assert "after 4 of 4 epochs" in bnn("eval", "run")[1]
    assert_one_line(bnn("train", "--resume", "run"), "run is complete: all of its 4 epochs are done")
    assert_one_line(bnn("train", "--resume", "run", "--epochs", "3"), "has 4 epochs done, this run ends after 3")
    assert_one_line(bnn("train", "--resume", "run", "--epochs", "0"), "at least 1 epoch")


@pytest.mark.filterwarnings("default")
def test_a_recipe_of_the_user_s_own_is_executed_only_where_it_is_named(bnn):
    path = recipe("print('EXECUTED')\n\ndef recipe(): return run()")
    code, output, _ = bnn("train", path, "--out", "run")
    assert (code, "EXECUTED" in output) == (0, True)
    (Path("run") / "summary.json").unlink()
    Path(path).unlink()
    for words in (["train", "--resume", "run"], ["eval", "run"]):
        code, output, errors = bnn(*words)
        assert_one_line((code, output, errors), "only executed where you name it", "add --recipe run/recipe.py")
        assert "EXECUTED" not in output
    code, output, errors = bnn("eval", "run", "--recipe", "run/recipe.py")
    assert (code, errors) == (0, "")
    assert bnn("train", "--resume", "run", "--recipe", "run/recipe.py")[0] == 0
    Path("changed.py").write_text(Path("run/recipe.py").read_text() + "# changed\n")
    code, _, errors = bnn("eval", "run", "--recipe", "changed.py")
    assert code == 0
    assert re.fullmatch(r"bnn: warning: changed.py is not the recipe that the run began with[^\n]+\n", errors)


def test_nothing_compiled_that_lies_in_a_run_is_executed(bnn):
    path = recipe("def recipe(): return run()")
    assert bnn("train", path, "--out", "run")[0] == 0
    assert not list(Path("run").rglob("__pycache__"))


# --- signals and a full disk ---------------------------------------------------------------------------------------

SLOW = """
import os
import resource
import time

from bnn.models import initialize, mlp


class Outside(Callback):
    # What happens around the process, told by its environment so that the configuration is the same without it.
    def on_step_end(self, trainer, loss):
        time.sleep(float(os.environ.get("PAUSE_S", "0")))

    def on_epoch_begin(self, trainer):
        if trainer.epoch == 2 and "DISK_BYTES" in os.environ:
            limit = int(os.environ["DISK_BYTES"])
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def recipe():
    model = mlp(input_shape=(1, 8, 8), hidden=(16,))
    initialize(model, generator=torch.Generator().manual_seed(0))
    return Run(model=model, data=digits(), optimizer=torch.optim.Adam(model.parameters(), lr=0.01), epochs=4,
               batch_size=128, seed=0, callbacks=[Outside()])
"""


@pytest.fixture
def slow(bnn) -> str:
    """A recipe, and the results of its whole run in `whole`."""
    path = recipe(SLOW)
    assert bnn("train", path, "--out", "whole")[0] == 0
    return path


def results(directory: str) -> tuple:
    without = ("wall_s", "peak_rss_mib")

    def clean(record: dict) -> dict:
        return {name: value for name, value in record.items() if name not in without}

    tensors = max(Path(directory, "checkpoints").glob("*.safetensors"))
    return (
        [clean(record) for record in read_metrics(Path(directory))],
        clean(read_json(Path(directory, "summary.json"))),
        tensors.name,  # which carries the hash of the weights and of the optimizer's state
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_the_process_with_its_state_kept(number, code, slow, bnn, monkeypatch):
    monkeypatch.setenv("PAUSE_S", "0.1")
    process = subprocess.Popen(
        [*BNN, "train", slow, "--out", "run"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline().startswith("epoch 1/4")
    time.sleep(0.3)
    start = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - start < 10
    again = ("train", "--resume", "run", "--recipe", "run/recipe.py")
    assert_one_line((process.returncode, "", errors), "interrupted", f"`bnn {' '.join(again)}`", code=code)
    assert not Path("run/summary.json").exists()
    monkeypatch.delenv("PAUSE_S")
    assert bnn(*again)[0] == 0
    assert results("run") == results("whole")


@pytest.mark.parametrize(
    ("disk_bytes", "message"), [(2000, "cannot save the checkpoint"), (10, "run/metrics.jsonl cannot be written")]
)
def test_full_disk_is_one_line_and_the_run_goes_on_later(disk_bytes, message, slow, bnn, monkeypatch):
    monkeypatch.setenv("DISK_BYTES", str(disk_bytes))
    ran = subprocess.run([*BNN, "train", slow, "--out", "run"], capture_output=True, text=True)
    assert_one_line((ran.returncode, ran.stdout, ran.stderr), message)
    monkeypatch.delenv("DISK_BYTES")
    assert "after 2 of 2 epochs" in bnn("eval", "run", "--recipe", "run/recipe.py")[1]
    code, _, errors = bnn("train", "--resume", "run", "--recipe", "run/recipe.py")
    assert (code, errors) == (0, "")
    assert results("run") == results("whole")


def test_training_that_stops_on_its_own_account_is_one_line(bnn):
    path = recipe("def recipe(): return run(model=nn.Sequential(nn.Flatten(), nn.Linear(64, 10), Bad()))")
    Path(path).write_text(
        Path(path)
        .read_text()
        .replace("def run(", "class Bad(nn.Module):\n    forward = lambda self, x: x / 0\n\n\ndef run(")
    )
    assert_one_line(bnn("train", path, "--out", "run"), "3 steps in a row", "lower the learning rate", "kept in run")
