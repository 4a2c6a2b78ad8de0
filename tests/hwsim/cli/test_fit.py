"""`hwsim fit`, as a user meets it: from counts to a device that the other commands take."""

import json
import re

import pytest
import torch

from hwsim.devices import junctions
from hwsim.devices.device_file import read_device

RESISTANCES = ("--parallel-resistance-ohm", "3978.9", "--tmr", "1", "--tmr-half-voltage-V", "0.5")


@pytest.fixture
def counts(tmp_path):
    """Exact fractions of the default junction, in one direction."""
    voltage_V = torch.linspace(0.3, 0.75, 8, dtype=torch.float64)
    width_s = torch.logspace(-9.3, -7.5, 5, dtype=torch.float64)
    p = junctions.consistent().switch_probability(False, voltage_V=voltage_V[:, None], pulse_width_s=width_s)
    lines = ["voltage_V,pulse_width_s,switched,trials"]
    lines += [
        f"{float(voltage_V[v])!r},{float(width_s[t])!r},{round(1000 * float(p[v, t]))},1000"
        for v in range(len(voltage_V))
        for t in range(len(width_s))
    ]
    path = tmp_path / "counts.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_fitted_device_takes_the_place_of_a_named_one(hwsim, counts, tmp_path):
    pytest.importorskip("matplotlib")
    device = tmp_path / "device.toml"
    code, out, err = hwsim("fit", counts, "-o", device, *RESISTANCES)
    assert (code, err) == (0, "")
    assert "energy_barrier_J" in out
    assert out.endswith(f"{device}\n{tmp_path / 'device.svg'}\n")
    picture = (tmp_path / "device.svg").read_text(encoding="utf-8")
    assert "residual, in standard errors" in picture
    assert read_device(device).critical_current_A == pytest.approx(junctions.consistent().critical_current_A, rel=0.02)

    pulse = ("--voltage-V", "0.6", "--pulse-width-s", "1.2e-9", "--json")
    fitted, named = (json.loads(hwsim("switching", *words, *pulse)[1]) for words in (("--device", device), ()))
    assert fitted["probability"] == pytest.approx(named["probability"], abs=0.02)
    schemes = ("sweep", "schemes", "--points", "3", "--schemes", "pre-distorted", "--out", tmp_path)
    code, out, err = hwsim(*schemes, "--device", device)
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda text: text.replace(",1000", ",1"), (), "switched is .*, more than the 1 trials"),
        (lambda text: text.replace("0.3,", "300,"), (), "counts.csv:2: voltage_V is 300, outside 0.001..20"),
        (lambda text: text, ("--tmr", "-1"), "tmr is a finite number above 0, got -1"),
        (lambda text: text[:40] + "0.5,1e-9,0,100\n", (), "counts.csv: no pulse out of parallel switched"),
    ],
)
def test_bad_input_is_one_line(hwsim, counts, tmp_path, change, options, message):
    counts.write_text(change(counts.read_text(encoding="utf-8")), encoding="utf-8")
    code, out, err = hwsim("fit", counts, "-o", tmp_path / "device.toml", *RESISTANCES, *options)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert re.search(message, err)
    assert not (tmp_path / "device.toml").exists()


def test_a_device_is_named_once_and_readable(hwsim, tmp_path):
    pulse = ("--voltage-V", "0.6", "--pulse-width-s", "1e-9")
    code, _, err = hwsim("switching", "--device", "x.toml", "--junction", "sot", *pulse)
    assert (code, err) == (2, "hwsim: give --junction or --device, not both\n")
    code, _, err = hwsim("switching", "--device", tmp_path / "none.toml", *pulse)
    assert code == 1
    assert "none.toml cannot be read: No such file or directory" in err
