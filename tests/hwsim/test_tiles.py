"""Lines of tiles: what wires leave of a current, noise, and what is refused."""

import itertools
import math

import pytest
import torch

from hwsim.tiles import Tiles, fast_normal_numbers, normal_numbers, tiles_of_size
from tests.hwsim.nodal import current_into, potentials


@pytest.mark.parametrize(("wire_ohm", "dtype", "within"), [(1.0, "float64", 1e-9), (30.0, "float32", 1e-6)])
def test_what_reaches_the_amplifier_is_kirchhoff_s_law(wire_ohm, dtype, within):
    generator = torch.Generator().manual_seed(0)
    loads_S = (torch.rand((9, 2), generator=generator) * 1e-3).to(getattr(torch, dtype))
    loads_S[3] = 0.0  # a place without a cell
    passed = Tiles(wire_ohm=wire_ohm).passed(loads_S)
    for line in range(2):
        chain = [*(f"place {k}" for k in range(9)), "amplifier"]
        net = [(one, other, 1 / wire_ohm) for one, other in itertools.pairwise(chain)]
        net += [(f"place {k}", f"input {k}", float(loads_S[k, line])) for k in range(9)]
        for k in range(9):
            if loads_S[k, line]:
                inputs = {f"input {j}": float(j == k) for j in range(9)}
                voltages = potentials(net, {**inputs, "amplifier": 0.0})
                part = current_into("amplifier", net, voltages) / float(loads_S[k, line])
                assert float(passed[k, line]) == pytest.approx(part, rel=within)


def test_a_uniform_line_is_a_ladder():
    """Far from its ends each place passes on the same part, which solves a quadratic."""
    g, r = 1e-3, 40.0
    passed = Tiles(wire_ohm=r).passed(torch.full((400, 1), g, dtype=torch.float64))[:, 0]
    z = 1 + r * g / 2 - math.sqrt(r * g + (r * g) ** 2 / 4)
    assert float(passed[200] / passed[201]) == pytest.approx(z, rel=1e-9)


def test_noise_is_that_of_johnson_and_nyquist():
    # 2 k 300 K 0.05 S / 1 ns = (0.64 µA)²; a unit is 0.05 V 125 µS = 6.25 µA.
    noise = Tiles(temperature_K=300.0).noise(torch.tensor([0.05]), read_V=0.05, read_s=1e-9, unit_S=125e-6)
    assert float(noise) == pytest.approx(0.103, abs=0.001)
    assert Tiles().noise(torch.tensor([0.05]), read_V=0.05, read_s=1e-9, unit_S=125e-6) is None


def test_fast_numbers_are_normal():
    like = torch.empty(7, 100_001)
    numbers = fast_normal_numbers(like, torch.Generator().manual_seed(0))
    assert numbers.shape == like.shape
    assert abs(float(numbers.mean())) < 0.005
    assert float(numbers.std()) == pytest.approx(1, abs=0.005)
    assert float((numbers > 2).float().mean()) == pytest.approx(0.02275, abs=0.001)
    flat = numbers.flatten()
    assert abs(float((flat[1:] * flat[:-1]).mean())) < 0.005
    assert torch.equal(numbers, fast_normal_numbers(like, torch.Generator().manual_seed(0)))


def test_numbers_by_index_do_not_depend_on_their_count():
    few, many = (normal_numbers(count, 5, 1, place=torch.device("cpu")) for count in (10, 1000))
    assert torch.equal(few, many[:10])
    assert not torch.equal(few, normal_numbers(10, 6, 1, place=torch.device("cpu")))
    assert float(many.std()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "1 cell or more on a line, got 0"),
        ({"adc_bits": 1}, "adc_bits of a converter for both signs are 2 to 24, got 1"),
        ({"dac_bits": 99}, "dac_bits of a converter for both signs are 2 to 24, got 99"),
        ({"wire_ohm": -1.0}, "wire_ohm is a finite number of 0 or more, got -1"),
        ({"sense_offset": math.nan}, "sense_offset is a finite number"),
        ({"adc_range": 0.0}, "adc_range is a finite number above 0, got 0"),
        ({"temperature_K": 0.0}, "temperature_K is a finite number above 0, got 0"),
    ],
)
def test_refuses_what_is_not_physical(options, message):
    with pytest.raises(ValueError, match=message):
        Tiles(**options)


def test_refuses_lines_that_no_driver_drives():
    Tiles(size=128).require_drivable(19e-6)
    with pytest.raises(
        ValueError, match=r"a line of 1024 cells takes 19.5 mA, more than the 5 mA .* tiles of 263 cells"
    ):
        Tiles(size=1024).require_drivable(19e-6)


def test_limits_need_a_size():
    assert tiles_of_size(None, wire_ohm=0.0, adc_bits=None) is None
    assert tiles_of_size(64, wire_ohm=1.0, adc_bits=6) == Tiles(size=64, wire_ohm=1.0, adc_bits=6)
    with pytest.raises(ValueError, match="wire_ohm, adc_bits of an array without tiles: give tile_size as well"):
        tiles_of_size(None, wire_ohm=1.0, adc_bits=6, dac_bits=None)
