"""`hwsim sweep`, as a user meets it."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = """
from functools import partial

import torch

from bnn.data import digits
from bnn.layers import BinaryLinear
from bnn.models import initialize
from bnn.optim import Adam
from bnn.optim.dst import DST
from bnn.training import Run
from hwsim.meters import DeviceMeter
from hwsim.nonidealities import NonIdealities
from hwsim.store import DeviceStore


def recipe(*, stuck: float = 0.0, epochs: int = 1, seed: int = 0) -> Run:
    data = digits()
    store = partial(DeviceStore, nonidealities=NonIdealities.uniform(stuck=stuck))
    model = torch.nn.Sequential(
        torch.nn.Flatten(), BinaryLinear(64, 10, input_quantizer=None, store=store), torch.nn.BatchNorm1d(10)
    )
    initialize(model, generator=torch.Generator().manual_seed(seed))
    optimizer = DST(Adam(model.parameters(), lr=1e-2, seed=seed))
    return Run(
        model=model, data=data, optimizer=optimizer, epochs=epochs, batch_size=100, seed=seed, callbacks=[DeviceMeter()]
    )
"""

SWITCHING = ("sweep", "switching", "--over", "pulse-width-s", "--from", "0", "--to", "2e-9", "--points", "5")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("study", ["switching", "schemes", "accuracy"])
def test_help(hwsim, study):
    assert f"hwsim sweep {study}" in hwsim("--help")[1]
    assert study in hwsim("sweep", "--help")[1]
    code, out, _ = hwsim("sweep", study, "--help")
    assert (code, "--out FOLDER" in out) == (0, True)


def test_switching(hwsim, tmp_path):
    out = tmp_path / "new" / "folder"
    code, printed, err = hwsim(*SWITCHING, "--models", "butler, fokker-planck", "--out", out)
    path = out / "switching-pulse-width-s.csv"
    assert (code, printed, err) == (0, f"{path}\n{path.with_suffix('.svg')}\n", "")
    table = rows(path)
    assert [float(row["pulse-width-s"]) for row in table] == pytest.approx([0, 5e-10, 1e-9, 1.5e-9, 2e-9])
    assert all(abs(float(row["butler"]) - float(row["fokker-planck"])) < 1e-3 for row in table)
    assert path.with_suffix(".svg").read_text().startswith("<?xml")


def test_what_is_fixed_reaches_the_junction(hwsim, tmp_path):
    over_voltage = ("sweep", "switching", "--over", "voltage-V", "--from=-0.9", "--to=-0.7", "--points", "2")
    hwsim(*over_voltage, "--state", "AP", "--pulse-width-s", "1e-9", "--temperature-K", "350", "--out", tmp_path)
    one = ("switching", "--voltage-V=-0.9", "--pulse-width-s", "1e-9", "--temperature-K", "350", "--json")
    probability = float(rows(tmp_path / "switching-voltage-V.csv")[0]["fokker-planck"])
    assert probability == pytest.approx(json.loads(hwsim(*one)[1])["probability"])
    assert 0.1 < probability < 1


def test_schemes(hwsim, tmp_path):
    code, printed, err = hwsim(
        "sweep", "schemes", "--points", 5, "--spread", 0.05, "--correlated", "--jitter-s", 1e-12, "--format", "png",
        "--schemes", "linear,pedestal,pre-distorted", "--out", tmp_path,
    )  # fmt: skip
    assert (code, printed, err) == (0, f"{tmp_path / 'schemes.csv'}\n{tmp_path / 'schemes.png'}\n", "")
    table = rows(tmp_path / "schemes.csv")
    assert list(table[0]) == ["v", "wanted", "linear", "pedestal", "pre-distorted"]
    assert float(table[1]["pedestal"]) > 0.05 > float(table[1]["wanted"])


@pytest.mark.slow
def test_accuracy_from_training_to_figure(hwsim, tmp_path):
    """In processes of their own; one value is refused by the recipe, and the command goes on later."""
    recipe, out = tmp_path / "tiny.py", tmp_path / "out"
    recipe.write_text(RECIPE)
    command = ("sweep", "accuracy", recipe, "--over", "stuck", "--seeds", "0", "--out", out)
    code, printed, err = hwsim(*command, "--values", "0.5,3", "--", "--epochs", "1")
    assert code == 1
    assert err.endswith(
        f"hwsim: these runs failed: 3.0-seed-0 (exit status 1); {out / 'accuracy.csv'} has the others, and the same"
        " command tries these again\n"
    )
    assert printed.endswith(f"{out / 'accuracy.csv'}\n{out / 'accuracy-stuck.svg'}\n")
    (row,) = rows(out / "accuracy.csv")
    assert (row["stuck"], row["seed"], row["epochs"]) == ("0.5", "0", "1")
    assert float(row["test_accuracy"]) > 0.1
    assert float(row["write_energy_J"]) > 0
    code, _, err = hwsim(*command, "--values", "0.5", "--", "--epochs", "1")
    assert (code, err) == (0, "")
    code, _, err = hwsim(*command, "--values", "0.5", "--", "--epochs", "2")
    assert (code, err.count("\n")) == (1, 1)
    assert "name another folder with --out" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sweep",), "arguments are required: STUDY; see `hwsim sweep --help`"),
        (("sweep", "swtiching"), "invalid choice: 'swtiching'"),
        (SWITCHING, "required: --out; see `hwsim sweep switching --help`"),
        ((*SWITCHING, "--out", "O", "--pulse-width-s", "1"), "--pulse-width-s is swept: leave it away"),
        ((*SWITCHING, "--out", "O", "--voltage-V", "1", "--overdrive", "3"), "--overdrive or --voltage-V, not both"),
        ((*SWITCHING, "--out", "O", "--points", "1"), "a sweep has 2 points or more, got 1"),
        ((*SWITCHING, "--out", "O", "--from=-1"), "the time is 0 or more, got -1"),
        ((*SWITCHING, "--out", "O", "--to=nan"), "the time is 0 or more, got nan"),
        ((*SWITCHING, "--out", "O", "--models", "butler,kramers"), "there is no model 'kramers'; see"),
        ((*SWITCHING, "--out", "O", "--junction", "sot"), "invalid choice: 'sot'"),
        ((*SWITCHING, "--out", "O", "--", "--epochs", "1"), "options after `--` are those of a recipe"),
        (
            ("sweep", "switching", "--over", "overdrive", "--from", "1", "--to", "2", "--out", "O"),
            "a sweep over overdrive needs --pulse-width-s",
        ),
        (("sweep", "schemes", "--out", "O", "--schemes", "naive"), "there is no scheme 'naive'; see"),
        (("sweep", "schemes", "--out", "O", "--points", "0"), "a sweep has 2 points or more, got 0"),
        (("sweep", "schemes", "--out", "O", "--m", "0"), "m is a finite number above 0, got 0"),
        (("sweep", "schemes", "--out", "O", "--overdrive", "0"), "the overdrive is a finite number above 0, got 0"),
        (("sweep", "schemes", "--out", "O", "--spread", "-1"), "resistance_spread is a finite number of 0 or more"),
        (
            ("sweep", "accuracy", "R", "--over", "stuck", "--values", "0", "--out", "O", "--seeds", "a"),
            "invalid list of",
        ),
        (("sweep", "accuracy", "R", "--over", "stuck", "--values", "0", "--out", "O"), "R is not a recipe"),
        (("sweep", "accuracy", "R", "--over=", "--values", "0", "--out", "O"), "name an option of the recipe"),
        (("sweep", "accuracy", "R", "--over=--", "--values", "0", "--out", "O"), "argument --over: it has no value"),
        (("switching", "--voltage-V=--", "--pulse-width-s=2e-9"), "argument --voltage-V: it has no value"),
        (("sweep", "schemes", "--out", "O", "--gate", "1"), "gate is a probability in [0, 1), got 1"),
        (
            ("sweep", "schemes", "--out", "O", "--schemes", "pedestal", "--gain", "3"),
            "none of the schemes pedestal has gain",
        ),
        (("sweep", "schemes", "--out", "O", "--clock-s", "1"), "clock_s is a part of a full pulse, whose width is"),
        (
            ("sweep", "accuracy", "R", "--over", "a", "--values", "0", "--over", "b", "--out", "O"),
            "give each option once, as in --over gain --values 10,30 --over gate",
        ),
    ],
)
def test_bad_words_are_one_line(hwsim, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = hwsim(*words)
    assert (code, out) == (1 if "recipe:" in err else 2, "")
    assert message in err
    assert err.startswith("hwsim: ")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_runs_as_a_module(tmp_path):
    words = [*SWITCHING, "--models", "butler", "--out", str(tmp_path)]
    ran = subprocess.run([sys.executable, "-m", "hwsim", *words], capture_output=True, text=True, check=True)
    assert ran.stderr == ""
    assert len(rows(tmp_path / "switching-pulse-width-s.csv")) == 5


def test_energy_of_a_step_by_price_table(hwsim, tmp_path):
    code, out, err = hwsim("sweep", "energy", "--write-J", "5e-14", "--out", tmp_path)
    assert (code, err) == (0, "")
    lines = (tmp_path / "energy-mnist.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 3 * 3
    assert "all in CMOS" in (tmp_path / "energy-mnist.svg").read_text(encoding="utf-8")
    code, out, err = hwsim("sweep", "energy", "--write-J", "-1", "--out", tmp_path)
    assert (code, out, err) == (2, "", "hwsim: --write-J is an energy of 0 or more in joules, got -1\n")
