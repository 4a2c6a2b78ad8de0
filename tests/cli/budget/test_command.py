"""`bnn budget`, by calling its function."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bnn.cli.budget.command import budget
from bnn.errors import RecipeError, RunError, UsageError

MY_MODEL = """
from torch import nn

from bnn.layers import BinaryLinear


def build():
    return nn.Sequential(nn.Flatten(), BinaryLinear(48, 30), nn.BatchNorm1d(30), BinaryLinear(30, 5))


def branches():
    class Branches(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    return nn.Sequential(Branches(), nn.Linear(4, 4))


def fails():
    raise OSError("no\\nluck")


def gives_a_number():
    return 7


_hidden = build
"""


@pytest.fixture
def command(capsys):
    """Runs the command; gives what it prints."""

    def run(*words: str) -> str:
        budget([*words, *(() if "--mode" in words else ("--mode", "paper"))])
        return capsys.readouterr().out

    return run


@pytest.fixture
def my_model(tmp_path) -> str:
    path = tmp_path / "my_model.py"
    path.write_text(MY_MODEL)
    return str(path)


def refusal(command, kind, *words: str) -> str:
    with pytest.raises(kind) as caught:
        command(*words)
    message = str(caught.value)
    assert "Traceback" not in message
    return message


# --- a budget -------------------------------------------------------------------------------------------------------


def test_json_carries_the_published_figures(command):
    words = "binarynet --batch 100 --optimizer adam --preset edge --mode paper --json"
    content = json.loads(command(*words.split()))
    assert content["presets"]["standard"]["total_mib"] == pytest.approx(512.81, abs=0.005)
    assert content["presets"]["edge"]["total_mib"] == pytest.approx(138.13, abs=0.005)
    assert content["ratio"] == pytest.approx(3.71, abs=0.005)
    asked = {key: content[key] for key in ("model", "input", "mode", "batch", "optimizer")}
    assert asked == {"model": "binarynet", "input": [3, 32, 32], "mode": "paper", "batch": 100, "optimizer": "adam"}
    for preset in content["presets"].values():
        assert sum(variable["bytes"] for variable in preset["variables"]) == preset["total_mib"] * 2**20
    assert content["presets"]["edge"]["variables"][0] == {
        "name": "layer inputs, logits",
        "lifetime": "to backward",
        "elements": 100 * 291_850,
        "bits": 1,
        "bytes": 100 * 291_850 / 8,
    }


def test_table_carries_them_too_and_names_its_source(command):
    text = command("binarynet")
    assert text.startswith("binarynet, batch of 100, adam; MiB")
    assert ["total", "512.81", "138.13", "3.71"] in [line.split() for line in text.splitlines()]
    assert "arXiv 2102.04270" in text
    assert "…" not in text


def test_quirks_belong_to_the_library_s_networks(command):
    content = json.loads(command("cnv", "--json"))
    assert content["presets"]["edge"]["total_mib"] == pytest.approx(32.16, abs=0.005)
    assert content["ratio"] == pytest.approx(4.17, abs=0.005)


def test_options_reach_the_model(command):
    content = json.loads(command("binarynet", "--batch", "40", "--optimizer", "bop", "--input", "1x16x8", "--json"))
    assert (content["batch"], content["optimizer"], content["input"]) == (40, "bop", [1, 16, 8])
    inputs = content["presets"]["edge"]["variables"][0]["elements"] / 40
    assert inputs == 16 * 8 * (1 + 128 + 128 / 4 + 256 / 4 + 256 / 16 + 512 / 16 + 512 / 64) + 2 * 1024 + 10


def test_standard_alone_is_not_compared(command):
    content = json.loads(command("mlp", "--preset", "standard", "--json"))
    assert list(content["presets"]) == ["standard"]
    assert content["ratio"] == 1
    assert "edge" not in command("mlp", "--preset", "standard")


# --- what fits ------------------------------------------------------------------------------------------------------


def test_fits_into_64_mib(command):
    content = json.loads(command("binarynet", "--fit", "64MiB", "--json"))
    assert content["budget_bytes"] == 64 * 2**20
    assert [(of["preset"], of["optimizer"], of["batch_size"]) for of in content["candidates"]] == [
        ("edge", "bop", 63),
        ("edge", "sgd", 15),
    ]
    rows = [line.split() for line in command("binarynet", "--fit", "64MiB").splitlines()]
    assert rows.index(["edge", "bop", "63", "63.84"]) + 1 == rows.index(["edge", "sgd", "15", "63.60"])


def test_published_batches_that_fit_into_a_gibibyte(command):
    words = ("binarynet", "--fit", "1GiB", "--batch", "5000", "--optimizer", "adam", "--json")
    candidates = json.loads(command(*words))["candidates"]
    assert {of["preset"]: of["batch_size"] for of in candidates} == {"edge": 1675, "standard": 271}


def test_fit_with_preset_and_optimizer_given_looks_at_these_alone(command):
    words = ("mlp", "--fit", "1GB", "--preset", "standard", "--optimizer", "sgd", "--json")
    assert [of["preset"] for of in json.loads(command(*words))["candidates"]] == ["standard"]
    everything = json.loads(command("mlp", "--fit", "1GB", "--json"))["candidates"]
    assert [(of["preset"], of["optimizer"]) for of in everything] == [
        (preset, optimizer) for preset in ("standard", "edge") for optimizer in ("adam", "sgd", "bop")
    ]


def test_nothing_fits(command):
    message = refusal(command, RunError, "binarynet", "--fit", "1MiB")
    assert "no way to train binarynet fits into 1.00 MiB" in message
    assert "29.55 MiB, of edge with bop and a batch of 2" in message


# --- networks of one's own ------------------------------------------------------------------------------------------


def test_a_network_of_one_s_own(command, my_model):
    content = json.loads(command(f"{my_model}:build", "--input", "3,4,4", "--batch", "10", "--json"))
    elements = {variable["name"]: variable["elements"] for variable in content["presets"]["edge"]["variables"]}
    assert elements["layer inputs, logits"] == 10 * (48 + 30 + 5)
    assert elements["latent weights"] == 48 * 30 + 30 * 5


@pytest.mark.parametrize(
    ("function", "shape", "kind", "parts"),
    [
        ("build", None, UsageError, ["--input 3,32,32"]),
        ("build", "3,4,5", RunError, ["1 (BinaryLinear)", "3x4x5", "check the input"]),
        ("branches", "4", RunError, ["0 (Branches)", "shapes alone, not values"]),
        ("biuld", "3,4,4", UsageError, ["no function", "'biuld'", "but there is 'build'"]),
        ("_hidden", "3,4,4", UsageError, ["no function"]),
        ("fails", "3,4,4", RunError, ["cannot be built for examples of 3x4x4: OSError"]),
        ("gives_a_number", "3,4,4", RunError, ["must return a torch.nn.Module, not int"]),
    ],
)
def test_mistakes_in_one_s_own_file(command, my_model, function, shape, kind, parts):
    words = [f"{my_model}:{function}", *(["--input", shape] if shape else [])]
    message = refusal(command, kind, *words)
    assert all(part in message for part in parts), message


def test_files_that_cannot_be_used(command, tmp_path):
    assert "is not a Python file" in refusal(command, UsageError, f"{tmp_path}/none.py:build", "--input", "3")
    assert "is not a Python file" in refusal(command, UsageError, f"{tmp_path}:build", "--input", "3")
    (tmp_path / "broken.py").write_text("import nothing_of_this_name")
    message = refusal(command, RecipeError, f"{tmp_path}/broken.py:build", "--input", "3")
    assert "broken.py cannot be executed: ModuleNotFoundError" in message


# --- what is typed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("binarynt",), ["no network 'binarynt', but there is 'binarynet'", "path/to/file.py:function"]),
        (("initialize",), ["no network"]),
        (("mine/net.py",), ["which function of mine/net.py", "mine/net.py:build"]),
        (("mlp", "--preset", "edge-min"), ["edge-min is no preset of the published model", "leave out --mode paper"]),
        (("mlp", "--preset", "edgy"), ["no preset 'edgy', but there is 'edge'"]),
        (("mlp", "--optimizer", "adm"), ["no optimizer 'adm', but there is 'adam'", "adam, sgd, bop"]),
        (("mlp", "--mode", "x"), ["no mode 'x'; there are: exact, paper"]),
        (("mlp", "--epoch", "99"), ["an epoch has at least a batch of 100 examples, got --epoch 99"]),
        (("mlp", "--batch", "1"), ["--batch is at least 2"]),
        (("mlp", "--fit", "64"), ["'64' is not a size", "64MiB"]),
        (("mlp", "--input", "1,-28"), ["'1,-28' is not the shape"]),
        (("mlp", "--slice", "1", "--mode", "exact"), ["--slice is at least 2"]),
        (("mlp", "--slice", "4"), ["--slice has no place in --mode paper"]),
        (("mlp", "--measure"), ["--measure has no place in --mode paper"]),
        (("mlp", "--preset", "edge-mni", "--mode", "exact"), ["no preset 'edge-mni', but there is 'edge-min'"]),
        (("mlp", "--optimizer", "sdg", "--mode", "exact"), ["no optimizer 'sdg', but there is 'sgd'"]),
        (
            ("mlp", "--preset", "edge-min", "--optimizer", "sgd", "--mode", "exact"),
            ["edge-min steps in backward by an optimizer of its own"],
        ),
        (("mlp", "--fit", "1GiB", "--slice", "4", "--mode", "exact"), ["leave out --slice"]),
    ],
)
def test_mistakes_are_told_with_what_there_is(command, words, parts):
    message = refusal(command, UsageError, *words)
    assert all(part in message for part in parts), message


def test_a_shape_that_the_network_refuses(command):
    assert "cnv cannot be built for examples of 3x16x16: ValueError" in refusal(
        command, RunError, "cnv", "--input", "3,16,16"
    )


def test_help_needs_no_torch():
    code = (
        "import sys\n"
        "from bnn.cli.budget.command import budget\n"
        "try:\n    budget(['--help'])\n"
        "except SystemExit:\n    sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    assert "--fit" in done.stdout
