"""`hwsim switching`, as a user meets it."""

import json
import re
import subprocess
import sys

import pytest
import torch

from hwsim.devices import junctions

REDUCED = ("switching", "--delta", "60", "--overdrive", "3", "--tau", "1.224")


def probability(result: tuple[int, str, str]) -> float:
    code, out, err = result
    assert (code, err) == (0, "")
    return json.loads(out)["probability"]


def test_help_names_the_command_and_its_options(hwsim):
    code, out, _ = hwsim("--help")
    assert code == 0
    assert "hwsim switching" in out
    code, out, _ = hwsim("switching", "--help")
    assert code == 0
    assert all(
        f"--{option}" in out for option in ("delta", "overdrive", "tau", "model", "junction", "voltage-V", "json")
    )


def test_half_have_switched_at_the_golden_time(hwsim):
    code, out, err = hwsim(*REDUCED, "--model", "fokker-planck", "--json")
    assert (code, err) == (0, "")
    assert re.fullmatch(r'\{"probability": 0\.50\d+\}\n', out)
    assert probability(hwsim(*REDUCED, "--json")) == json.loads(out)["probability"]
    assert hwsim(*REDUCED)[1] == f"probability {json.loads(out)['probability']:.6g}\n"


@pytest.mark.parametrize(
    ("model", "expected", "tolerance"), [("butler", 0.5, 1e-3), ("erf", 0.137, 1e-3), ("llg", 0.5, 0.03)]
)
def test_models(hwsim, model, expected, tolerance):
    words = ("--trajectories", "2000", "--alpha", "0.1") if model == "llg" else ()
    assert probability(hwsim(*REDUCED, "--model", model, "--json", *words)) == pytest.approx(expected, abs=tolerance)


def test_the_simulation_repeats_with_its_seed(hwsim):
    words = (*REDUCED, "--model", "llg", "--trajectories", "200", "--alpha", "0.2", "--json", "--seed")
    assert hwsim(*words, "1") == hwsim(*words, "1")
    assert hwsim(*words, "1") != hwsim(*words, "2")


@pytest.mark.filterwarnings("always::hwsim.devices.base.ValidityWarning")
def test_outside_validity_warns_with_the_model_to_use(hwsim):
    code, out, err = hwsim(*REDUCED, "--model", "neel-brown", "--json")
    assert code == 0
    assert json.loads(out)["probability"] < 0.01
    assert err.startswith("hwsim: warning: the model neel-brown is for a barrier")
    assert err.endswith("use fokker-planck where it is lower\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize("junction", ["consistent", "paper", "ut-austin"])
@pytest.mark.parametrize("voltage_V", [0.9, -0.9])
def test_physical_units(hwsim, junction, voltage_V):
    device = getattr(junctions, junction.replace("-", "_"))()
    # The state that the voltage drives out is the default.
    expected = device.switch_probability(voltage_V < 0, voltage_V=voltage_V, pulse_width_s=1e-9)
    words = ("switching", "--junction", junction, "--voltage-V", str(voltage_V), "--pulse-width-s", "1e-9", "--json")
    assert probability(hwsim(*words)) == pytest.approx(float(expected))
    if junction == "consistent":
        assert probability(hwsim(words[0], *words[3:])) == pytest.approx(float(expected))


def test_temperature_damping_and_state(hwsim):
    words = ("switching", "--voltage-V", "0.6", "--pulse-width-s", "1e-9", "--json")
    plain = probability(hwsim(*words))
    assert probability(hwsim(*words, "--temperature-K", "350")) > plain
    assert probability(hwsim(*words, "--alpha", "0.03")) > plain  # the current as it is, the time runs faster
    assert probability(hwsim(*words, "--state", "P")) == plain
    assert probability(hwsim(*words, "--state", "AP")) < 1e-9


def test_measured_junctions(hwsim, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("voltage_V,pulse_width_s,probability\n0.4,1e-9,0.2\n0.6,1e-9,0.8\n")
    pulse = ("--voltage-V", "0.5", "--pulse-width-s", "1e-9", "--json")
    assert probability(hwsim("switching", "--measured", str(table), *pulse)) == pytest.approx(0.5)
    sot = ("switching", "--junction", "sot", "--voltage-V", "0.894", "--pulse-width-s", "0.75e-9", "--json")
    assert probability(hwsim(*sot)) == pytest.approx(0.5)
    table.write_text("voltage_V,pulse_width_s,probability\n0.4,1e-9,0.8\n0.6,1e-9,0.1\n")
    code, out, err = hwsim("switching", "--measured", str(table), *pulse)
    assert (code, out) == (2, "")
    assert "table.csv:3: the probability is 0.1, below the 0.8 of line 2" in err
    code, _, err = hwsim("switching", "--measured", str(tmp_path / "none.csv"), *pulse)
    assert code == 1
    assert "none.csv cannot be read: No such file or directory" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("swtiching",), "there is no command 'swtiching', but there is 'switching'; see `hwsim --help`"),
        (("switching",), "--pulse-width-s, --voltage-V is missing"),
        ((*REDUCED[:-2],), "--tau is missing"),
        (
            (*REDUCED, "--voltage-V", "1"),
            "reduced units or physical ones, not both: --delta, --overdrive, --tau, --volt",
        ),
        ((*REDUCED, "--model", "kramers"), "invalid choice: 'kramers'"),
        (
            (*REDUCED, "--modle", "erf"),
            "unrecognized arguments: --modle erf, but there is '--model'; see `hwsim switching --help`",
        ),
        (("switching", "--delta", "-60", "--overdrive", "3", "--tau", "1"), "thermal stability is .* above 0, got -60"),
        (("switching", "--delta", "60", "--overdrive", "3", "--tau", "-1"), "the time is 0 or more, got -1"),
        (("switching", "--delta", "60", "--overdrive", "nan", "--tau", "1"), "overdrive is a finite number, got nan"),
        ((*REDUCED, "--alpha", "0"), "alpha is a finite number above 0, got 0"),
        (
            ("switching", "--voltage-V", "1", "--pulse-width-s", "1e-9", "--temperature-K", "0"),
            "temperature_K is a finite number above 0, got 0",
        ),
        (
            ("switching", "--voltage-V", "1", "--pulse-width-s", "1e-9", "--junction", "sot", "--measured", "x.csv"),
            "give --junction or --measured, not both",
        ),
        (
            ("switching", "--voltage-V", "1", "--pulse-width-s", "1e-9", "--junction", "sot", "--model", "erf"),
            "--model has no effect on a MeasuredDevice, which has its own law",
        ),
        ((*REDUCED[:-1], "1e6", "--model", "llg"), "takes too long"),
    ],
)
def test_bad_words_are_one_line(hwsim, words, message):
    code, out, err = hwsim(*words)
    assert (code, out) == (2, "")
    assert re.search(message, err)
    assert err.startswith("hwsim: ")
    assert err.count("\n") == 1


@pytest.mark.slow
def test_runs_as_a_module():
    ran = subprocess.run(
        [sys.executable, "-m", "hwsim", *REDUCED, "--model", "butler", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(ran.stdout)["probability"] == pytest.approx(0.5, abs=1e-3)
    assert ran.stderr == ""


def test_a_probability_is_as_exact_as_a_double(hwsim):
    # A float32 has no more than 24 bits.
    p = probability(hwsim("switching", "--voltage-V", "0.6", "--pulse-width-s", "1e-9", "--json"))
    assert float(torch.tensor(p, dtype=torch.float32)) != p
