"""`hwsim export`, as a user meets it: named junctions and device files become modules."""

import re

import pytest

from hwsim.devices import junctions


def test_a_named_junction_becomes_a_module_of_the_file_name(hwsim, tmp_path):
    path = tmp_path / "cell.va"
    code, out, err = hwsim("export", "--junction", "vcma", "-o", path)
    assert (code, err) == (0, "")
    assert out.startswith(f"{path}: holds for an overdrive of 2 or more")
    text = path.read_text(encoding="utf-8")
    assert "module cell(a, b);" in text
    assert f"anisotropy_per_V = {junctions.vcma().anisotropy_per_V!r};" in text
    assert float(re.search(r"delta = (\S+) ", text)[1]) == pytest.approx(60)


def test_at_another_temperature(hwsim, tmp_path):
    assert hwsim("export", "--temperature-K", "350", "-o", tmp_path / "hot.va")[0] == 0
    text = (tmp_path / "hot.va").read_text(encoding="utf-8")
    assert "junction consistent of hwsim at 350 K" in text
    assert float(re.search(r"delta = (\S+) ", text)[1]) == pytest.approx(46.7, rel=1e-3)


def test_a_device_file(hwsim, tmp_path):
    device = tmp_path / "device.toml"
    constants = (f"{name} = {float(junctions.consistent().constant(name))!r}" for name in junctions.MTJ.constants)
    device.write_text("\n".join(["[mtj]", *constants]), encoding="utf-8")
    assert hwsim("export", "--device", device, "-o", tmp_path / "mtj.va")[0] == 0
    assert "device file device.toml" in (tmp_path / "mtj.va").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--junction", "sot", "-o", "x.va"), "MeasuredDevice has no physical constant energy_barrier_J"),
        (("-o", "2nd.va"), "begins with no digit, got '2nd'"),
        (("--device", "none.toml", "-o", "x.va"), "none.toml cannot be read"),
        (("--temperature-K", "1000", "-o", "x.va"), "below the Curie temperature of 900 K, got 1000"),
    ],
)
def test_refuses_in_one_line(hwsim, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = hwsim("export", *words)
    assert code != 0
    assert err.count("\n") == 1
    assert message in err
    assert not list(tmp_path.iterdir())
