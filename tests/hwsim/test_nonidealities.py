"""Spread and faults by seed, and the refusal of what is not physical."""

import itertools
import math

import pytest
import torch

from hwsim.devices import junctions
from hwsim.devices.butler import Butler
from hwsim.nonidealities import NonIdealities

JUNCTION = junctions.consistent(model=Butler())
SHAPE = (2, 100, 300)


def test_off_by_default():
    ideal = NonIdealities()
    assert not ideal.varies
    assert not ideal.faults
    assert ideal.junction(JUNCTION) is JUNCTION


@pytest.mark.parametrize(
    ("spread", "constant"),
    [
        ("resistance_spread", "parallel_resistance_ohm"),
        ("barrier_spread", "energy_barrier_J"),
        ("critical_current_spread", "critical_current_A"),
        ("tmr_spread", "tmr"),
    ],
)
class TestSpread:
    """Of a constant on its own."""

    def array(self, spread: str, seed: int = 0):
        return NonIdealities(**{spread: 0.1}).array(JUNCTION, SHAPE, seed)

    def test_is_log_normal_about_the_nominal_value(self, spread, constant):
        logs = (getattr(self.array(spread), constant) / getattr(JUNCTION, constant)).double().log()
        n = math.prod(SHAPE)
        assert abs(logs.mean()) < 4.5 * 0.1 / math.sqrt(n)
        assert float(logs.std()) == pytest.approx(0.1, abs=4.5 * 0.1 / math.sqrt(2 * n))
        assert float(((logs / 0.1).abs() < 1).double().mean()) == pytest.approx(0.6827, abs=0.01)

    def test_leaves_the_other_constants(self, spread, constant):
        values = vars(self.array(spread))
        varied = {name for name, value in values.items() if isinstance(value, torch.Tensor)}
        assert varied == {constant}
        assert values[constant].shape == SHAPE

    def test_is_a_function_of_the_seed(self, spread, constant):
        one, again, other = (getattr(self.array(spread, seed), constant) for seed in (1, 1, 2))
        assert torch.equal(one, again)
        assert abs(torch.corrcoef(torch.stack([one.log().flatten(), other.log().flatten()]))[0, 1]) < 0.02


def spread_of(quantity: torch.Tensor) -> float:
    return float(torch.as_tensor(quantity).double().log().std())


class TestSources:
    """What moves together on a wafer."""

    def array(self, **spreads: float):
        return NonIdealities(**spreads).array(JUNCTION, SHAPE, 0)

    def test_the_area_leaves_the_overdrive_at_a_voltage(self):
        array = self.array(area_spread=0.1)
        assert spread_of(array.parallel_resistance_ohm) == pytest.approx(0.1, rel=0.02)
        area = array.energy_barrier_J / JUNCTION.energy_barrier_J
        assert torch.allclose(area * array.parallel_resistance_ohm, torch.tensor(JUNCTION.parallel_resistance_ohm))
        assert torch.allclose(array.critical_current_A / JUNCTION.critical_current_A, area)
        assert spread_of(array.overdrive(torch.zeros(SHAPE).bool(), voltage_V=0.6)) < 1e-6

    def test_the_anisotropy_moves_barrier_current_and_pace(self):
        array = self.array(anisotropy_spread=0.1)
        factors = [
            getattr(array, name) / getattr(JUNCTION, name)
            for name in ("energy_barrier_J", "critical_current_A", "anisotropy_field_T")
        ]
        assert spread_of(factors[0]) == pytest.approx(0.1, rel=0.02)
        assert all(torch.allclose(factor, factors[0]) for factor in factors)
        assert array.parallel_resistance_ohm == JUNCTION.parallel_resistance_ohm

    def test_sources_multiply(self):
        area, product = self.array(area_spread=0.1), self.array(resistance_spread=0.2)
        both = self.array(area_spread=0.1, resistance_spread=0.2)
        expected = area.parallel_resistance_ohm * product.parallel_resistance_ohm / JUNCTION.parallel_resistance_ohm
        assert torch.allclose(both.parallel_resistance_ohm, expected)
        assert torch.equal(both.energy_barrier_J, area.energy_barrier_J)

    @pytest.mark.filterwarnings("ignore::hwsim.devices.base.ValidityWarning")  # the slowest of the independent ones
    def test_correlated_sources_leave_the_mean_probability(self):
        """Of a pulse that is made for 0.03: near to that by each source, and more than twice that by independent draws.

        The reference, at a spread of 10 %: 0.075 independent, 0.031 by the area alone, 0.033 by the anisotropy alone.
        """
        means = {}
        for name, flaws in {
            "independent": NonIdealities.uniform(spread=0.1),
            "area": NonIdealities(area_spread=0.1),
            "anisotropy": NonIdealities(anisotropy_spread=0.1),
        }.items():
            voltage_V = 3 * JUNCTION.critical_current_A * JUNCTION.parallel_resistance_ohm
            width_s = JUNCTION.switching_time_s(False, voltage_V=voltage_V, probability=0.03)
            array = flaws.array(JUNCTION, (60_000,), 0)
            p = array.switch_probability(torch.zeros(60_000).bool(), voltage_V=voltage_V, pulse_width_s=width_s)
            means[name] = float(p.mean())
        assert means == pytest.approx({"independent": 0.075, "area": 0.031, "anisotropy": 0.033}, abs=0.0025)

    def test_directions_and_stray_field(self):
        array = self.array(critical_current_ratio_spread=0.1, stray_field_spread_T=0.01)
        assert spread_of(array.critical_current_ratio) == pytest.approx(0.1, rel=0.02)
        assert float(array.stray_field_T.std()) == pytest.approx(0.01, rel=0.02)
        assert abs(float(array.stray_field_T.mean())) < 4.5 * 0.01 / math.sqrt(math.prod(SHAPE))
        out, back = array.overdrive(False, voltage_V=0.6), array.overdrive(True, voltage_V=-0.8)
        # The field helps one direction as much as it hinders the other, and the ratio acts on the way back alone.
        field = array.stray_field_T / JUNCTION.anisotropy_field_T
        assert torch.allclose(out - field, out.mean(), atol=2e-3)
        nominal = JUNCTION.overdrive(True, voltage_V=-0.8)
        assert torch.allclose((back + field) * array.critical_current_ratio, torch.tensor(nominal), rtol=1e-4)

    def test_a_field_of_the_whole_array(self):
        flaws = NonIdealities(stray_field_T=-0.03)
        assert not flaws.varies
        assert flaws.junction(JUNCTION).overdrive(False, voltage_V=0.6) == pytest.approx(
            JUNCTION.overdrive(False, voltage_V=0.6) - 0.1
        )


class TestClock:
    WIDTH_S = torch.tensor([0, 0.4, 0.6, 1.4, 2.1], dtype=torch.float64) * 1e-9

    def test_makes_multiples_and_rounds_a_full_pulse_up(self):
        ticks = NonIdealities(clock_s=1e-9).on_clock(self.WIDTH_S, 2.1e-9) / 1e-9
        assert ticks.tolist() == pytest.approx([0, 0, 1, 1, 3])
        assert NonIdealities().on_clock(self.WIDTH_S, 2.1e-9) is self.WIDTH_S

    def test_is_shorter_than_a_full_pulse(self):
        with pytest.raises(
            ValueError, match=r"clock_s is a part of a full pulse, whose width is 2.1e-09 s here, got 3e-09"
        ):
            NonIdealities(clock_s=3e-9).on_clock(self.WIDTH_S, 2.1e-9)


def test_noise_of_pulses():
    width_s, generator = torch.full((50_000,), 1e-9), torch.Generator().manual_seed(0)
    voltage_V, noisy_s = NonIdealities(amplitude_noise=0.02, jitter_s=1e-10).with_noise(-0.8, width_s, generator)
    assert float(voltage_V.mean()) == pytest.approx(-0.8, abs=4.5 * 0.016 / math.sqrt(50_000))
    assert float(voltage_V.std()) == pytest.approx(0.016, rel=0.02)
    assert float(noisy_s.std()) == pytest.approx(1e-10, rel=0.02)
    assert NonIdealities(jitter_s=1e-9).with_noise(1.0, width_s, generator)[1].min() == 0
    before = generator.get_state()
    assert NonIdealities().with_noise(-0.8, width_s, generator) == (-0.8, width_s)
    assert torch.equal(generator.get_state(), before), "without noise nothing is drawn"


def correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    return abs(float(torch.corrcoef(torch.stack([one.flatten().double(), other.flatten().double()]))[0, 1]))


def test_spreads_and_faults_are_independent_of_one_another():
    """Also the resistance of the critical current, and both of the faults: 4.5 standard errors."""
    names = ["parallel_resistance_ohm", "energy_barrier_J", "critical_current_A", "tmr"]
    nonidealities = NonIdealities(
        resistance_spread=0.1, barrier_spread=0.1, critical_current_spread=0.1, tmr_spread=0.1, stuck_parallel=0.2
    )
    array, faulty = nonidealities.array(JUNCTION, SHAPE, 0), nonidealities.stuck(SHAPE, 0)[0]
    quantities = {name: array.constant(name).log() for name in names} | {"faulty": faulty}
    for one, other in itertools.combinations(quantities, 2):
        assert correlation(quantities[one], quantities[other]) < 4.5 / math.sqrt(math.prod(SHAPE)), (one, other)


def test_variation_has_no_pattern_in_the_array():
    """Between the junctions of a cell, neighbouring rows and neighbouring columns."""
    logs = NonIdealities(resistance_spread=0.1).array(JUNCTION, SHAPE, 0).parallel_resistance_ohm.log()
    for one, other in ((logs[0], logs[1]), (logs[:, 1:], logs[:, :-1]), (logs[..., 1:], logs[..., :-1])):
        assert correlation(one, other) < 4.5 / math.sqrt(one.numel())


def test_faults_are_fractions_of_the_junctions_and_exclude_each_other():
    nonidealities = NonIdealities(stuck_parallel=0.1, stuck_antiparallel=0.05, shorted=0.02)
    kinds = nonidealities.stuck(SHAPE, 7)
    assert kinds.sum(dim=0).max() == 1
    n = math.prod(SHAPE)
    for kind, share in zip(kinds, (0.1, 0.05, 0.02), strict=True):
        assert abs(kind.double().mean() - share) < 4.5 * math.sqrt(share / n)
    assert nonidealities.faults == pytest.approx(0.17)
    assert not torch.equal(nonidealities.stuck(SHAPE, 8), kinds)


def test_a_short_is_a_small_resistance_in_both_states():
    nonidealities = NonIdealities(shorted=0.1, resistance_spread=0.05)
    array, shorted = nonidealities.array(JUNCTION, SHAPE, 3), nonidealities.stuck(SHAPE, 3)[2]
    for state in (False, True):
        ohm = array.resistance_ohm(torch.full(SHAPE, state), voltage_V=0.1)
        assert torch.allclose(ohm[shorted], torch.tensor(400.0))
        assert ohm[~shorted].min() > 2000


def test_temperature():
    hot = NonIdealities(temperature_K=400.0)
    assert hot.junction(JUNCTION).thermal_stability == JUNCTION.at_temperature(400.0).thermal_stability < 45
    assert not hot.varies
    with pytest.raises(ValueError, match="MeasuredDevice has no physical constant temperature_K: use an MTJ"):
        hot.junction(junctions.sot())
    with pytest.raises(ValueError, match="area_spread cannot be had: MeasuredDevice has no physical constant"):
        NonIdealities(area_spread=0.1).array(junctions.sot(), SHAPE, 0)
    with pytest.raises(ValueError, match="tmr_spread cannot be had: MeasuredDevice has no physical constant tmr"):
        NonIdealities(tmr_spread=0.1).array(junctions.sot(), SHAPE, 0)


def test_a_few_numbers_in_the_place_of_many():
    assert NonIdealities.uniform() == NonIdealities()
    nonidealities = NonIdealities.uniform(spread=0.05, stuck=0.02, temperature_K=330)
    assert nonidealities == NonIdealities(
        resistance_spread=0.05, barrier_spread=0.05, critical_current_spread=0.05, tmr_spread=0.05,
        stuck_parallel=0.01, stuck_antiparallel=0.01, temperature_K=330,
    )  # fmt: skip
    on_a_wafer = NonIdealities.uniform(spread=0.05, correlated=True, area_spread=0.1, jitter_s=1e-12, clock_s=None)
    assert on_a_wafer == NonIdealities(
        area_spread=0.1, resistance_spread=0.05, anisotropy_spread=0.05, tmr_spread=0.05, jitter_s=1e-12
    )
    with pytest.raises(ValueError, match=r"fractions are at most 1, got 1.5"):
        NonIdealities.uniform(stuck=1.5)


def test_parts_of_an_array():
    array = NonIdealities(tmr_spread=0.1).array(JUNCTION, SHAPE, 0)
    part = array.map_constants(lambda constant: constant[:, 3:5])
    assert torch.equal(part.tmr, array.tmr[:, 3:5])
    assert part.damping == array.damping


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tmr_spread": -0.1}, "tmr_spread is a finite number of 0 or more, got -0.1"),
        ({"barrier_spread": math.nan}, "barrier_spread is a finite"),
        ({"idle_s": math.inf}, "idle_s is a finite"),
        ({"area_spread": -0.1}, "area_spread is a finite number of 0 or more, got -0.1"),
        ({"stray_field_T": math.nan}, "stray_field_T is a finite number, got nan"),
        ({"jitter_s": -1e-12}, "jitter_s is a finite number of 0 or more"),
        ({"temperature_K": 0.0}, "temperature_K is above 0, got 0"),
        ({"short_resistance_ohm": 0.0}, "short_resistance_ohm is above 0"),
        ({"stuck_parallel": 0.6, "shorted": 0.6}, "fractions are at most 1, got 1.2"),
        ({"write_error": 1.5}, "a write error of 1.5"),
        ({"endurance_cycles": 0}, "endurance_cycles is above 0"),
    ],
)
def test_refuses_what_is_not_physical(options, message):
    with pytest.raises(ValueError, match=message):
        NonIdealities(**options)


def test_every_default_is_that_of_an_ideal_junction():
    numbers = vars(NonIdealities())
    assert numbers.pop("short_resistance_ohm") == 400
    assert not any(numbers.values())
