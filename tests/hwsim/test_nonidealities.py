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
    assert hot.junction(JUNCTION).thermal_stability == pytest.approx(45)
    assert not hot.varies
    with pytest.raises(ValueError, match="MeasuredDevice has no physical constant temperature_K: use an MTJ"):
        hot.junction(junctions.sot())
    with pytest.raises(ValueError, match="MeasuredDevice has no physical constant tmr"):
        NonIdealities(tmr_spread=0.1).array(junctions.sot(), SHAPE, 0)


def test_a_few_numbers_in_the_place_of_many():
    assert NonIdealities.uniform() == NonIdealities()
    nonidealities = NonIdealities.uniform(spread=0.05, stuck=0.02, temperature_K=330)
    assert nonidealities == NonIdealities(
        resistance_spread=0.05, barrier_spread=0.05, critical_current_spread=0.05, tmr_spread=0.05,
        stuck_parallel=0.01, stuck_antiparallel=0.01, temperature_K=330,
    )  # fmt: skip
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
