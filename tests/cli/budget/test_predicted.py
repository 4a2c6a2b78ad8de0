"""`bnn budget` in its own mode, by calling its function."""

import json

import pytest

from bnn.cli.budget import needed, predicted
from bnn.cli.budget.command import budget
from bnn.errors import RunError, UsageError
from bnn.ops import cpu

MY_MODEL = """
from torch import nn

from bnn.layers import BinaryBlock, BinaryLinear


def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 30), nn.ReLU(), nn.Linear(30, 5))


def small():
    return nn.Sequential(nn.Flatten(), BinaryBlock(BinaryLinear(48, 30), nn.BatchNorm1d(30)))


ready = small()


def branches():
    class Branches(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    return nn.Sequential(nn.Linear(4, 4), Branches())
"""


@pytest.fixture
def command(capsys):
    """Runs the command; gives what it prints."""

    def run(*words: str) -> str:
        budget([*words, *(() if {"--measure", "--fit"} & {*words} else ("--no-measure",))])
        return capsys.readouterr().out

    return run


@pytest.fixture
def my_model(tmp_path) -> str:
    path = tmp_path / "my_model.py"
    path.write_text(MY_MODEL)
    return str(path)


def as_json(command, *words: str) -> dict:
    return json.loads(command(*words, "--json"))


@pytest.fixture
def small(my_model) -> tuple[str, ...]:
    """A network of one block, of which a prediction is quick."""
    return f"{my_model}:small", "--input", "3,4,4", "--batch", "20"


def test_table_and_json_carry_the_same_figures(command, small):
    lines = [line.split() for line in command(*small).splitlines()]
    content = as_json(command, *small)
    totals = [f"{content['presets'][name]['total_mib']:.2f}" for name in ("standard", "edge")]
    assert ["total", *totals, f"{content['ratio']:.2f}"] in lines
    saved = [f"{content['presets'][name]['saved_bytes'] / 2**20:.2f}" for name in ("standard", "edge")]
    assert ["saved", "for", "backward", *saved] in [line[:5] for line in lines]
    for preset in content["presets"].values():
        assert sum(variable["bytes"] for variable in preset["variables"]) == preset["total_mib"] * 2**20


def test_options_reach_the_step(command, small):
    def step(*words):
        found = as_json(command, *small, "--preset", "edge", *words)["presets"]["edge"]
        return found["saved_bytes"], {(v["name"], v["bits"]): v["elements"] for v in found["variables"]}

    saved_bytes, variables = step()
    weights = variables["latent weights", 16]
    assert variables["optimizer state", 16] >= 2 * weights
    assert weights <= step("--optimizer", "sgd")[1]["optimizer state", 16] < 2 * weights
    assert step("--slice", "10")[0] < saved_bytes


@pytest.mark.skipif(cpu.instruction_set() == "reference", reason="the reference makes float copies")
@pytest.mark.slow
def test_measured_beside_predicted(capsys):
    budget(["mlp", "--input", "1,6,6", "--batch", "20", "--preset", "edge-min", "--json"])
    content = json.loads(capsys.readouterr().out)
    for preset in content["presets"].values():
        measured = preset["measured"]
        assert preset["saved_bytes"] == measured["saved_bytes"] == measured["graph_bytes"]
        assert preset["total_mib"] * 2**20 == pytest.approx(measured["peak_live_bytes"], rel=0.1)
        assert measured["resident_bytes"] is None or measured["resident_bytes"] > 0
        assert measured["process_bytes"] > max(50 * 2**20, measured["resident_bytes"] or 0)
        assert measured["step_s"] > 0


def test_what_fits_is_what_the_step_takes(command, small):
    words = (*small, "--preset", "edge", "--optimizer", "adam")
    step = as_json(command, *words, "--slice", "20")["presets"]["edge"]
    whole = step["process_bytes"] / 2**20
    assert whole > 1.1 * step["total_mib"]
    (candidate,) = as_json(command, *words, "--fit", f"{whole + 0.01}MiB")["candidates"]
    with pytest.raises(RunError, match="the least is"):
        command(*words, "--batch", "2", "--fit", f"{step['total_mib'] / 4}MiB")
    assert candidate == {
        "preset": "edge",
        "optimizer": "adam",
        "batch_size": 20,
        "slice_size": 20,
        "total_bytes": step["process_bytes"],
        "is_measured": False,
    }
    rows = [line.split() for line in command(*words, "--fit", "1GiB").splitlines()]
    assert ["edge", "adam", "20", "20", f"{whole:.2f}"] in rows


def test_what_is_measured_decides_what_fits(command, small, monkeypatch):
    asked = []

    def measured(network, configuration):
        asked.append(configuration.slice_size)
        return 2**31 if configuration.slice_size == 20 else 2**20

    monkeypatch.setattr(needed, "measure_needed", measured)
    words = (*small, "--preset", "edge", "--optimizer", "adam", "--measure", "--fit", "1GiB")
    rows = [line.split() for line in command(*words).splitlines()]
    assert asked == [20, 10]
    assert ["edge", "adam", "20", "10", "1.00", "*"] in rows


def test_what_this_machine_cannot_measure_is_predicted(command, small, monkeypatch):
    monkeypatch.setattr(needed, "available_bytes", lambda: 10_000)
    words = (*small, "--preset", "edge", "--optimizer", "adam", "--measure", "--fit", "1GiB")
    with pytest.warns(UserWarning, match="^edge is predicted alone: this machine cannot measure it$"):
        (candidate,) = as_json(command, *words)["candidates"]
    assert not candidate["is_measured"]


def test_nothing_fits(command, my_model):
    with pytest.raises(RunError) as caught:
        command(f"{my_model}:small", "--input", "3,4,4", "--batch", "2", "--preset", "edge", "--fit", "4KiB")
    assert "my_model.py:small fits into 0.00 MiB: the least is 3.89 MiB" in str(caught.value)
    assert "of edge with adam and a batch of 2" in str(caught.value)


def test_a_network_of_one_s_own_has_every_preset(command, my_model):
    def latent_bits(preset, name="small"):
        content = as_json(command, f"{my_model}:{name}", "--input", "3,4,4", "--batch", "10", "--preset", preset)
        (weights,) = (v for v in content["presets"][preset]["variables"] if v["name"] == "latent weights")
        assert weights["elements"] == 48 * 30
        return weights["bits"]

    assert [latent_bits(preset) for preset in ("standard", "edge", "edge-min")] == [32, 16, 8]
    # A module that is ready is not changed by the preset before.
    assert [latent_bits(preset, "ready") for preset in ("edge-min", "standard")] == [8, 32]


def test_a_network_without_binary_layers_stays_as_it_is(command, my_model):
    presets = as_json(command, f"{my_model}:build", "--input", "3,4,4", "--batch", "10")["presets"]
    for preset in presets.values():
        sizes = {variable["name"]: variable["bytes"] for variable in preset["variables"]}
        assert sizes["other parameters"] == 4 * (48 * 30 + 30 + 30 * 5 + 5)


def test_mistakes_are_one_line(command, my_model):
    with pytest.raises(RunError, match=r"1 \(Branches\) cannot run on the shape of one 4 example: .*shapes alone"):
        command(f"{my_model}:branches", "--input", "4")
    with pytest.raises(UsageError, match="leave out --slice"):
        command("mlp", "--fit", "1GiB", "--slice", "4")


def test_a_step_that_does_not_fit_here_is_not_taken(capsys, small, monkeypatch):
    monkeypatch.setattr(predicted, "available_bytes", lambda: 10_000)
    with pytest.warns(UserWarning, match="^nothing is measured: standard does not fit into the memory that is free$"):
        budget([*small])
    assert "time of a step" not in capsys.readouterr().out
