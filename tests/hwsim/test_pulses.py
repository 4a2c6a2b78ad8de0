"""Tables and single junctions against the device's own law, and the energy of the pulses."""

import dataclasses
import math

import pytest
import torch

from bnn.ops.cpu import native
from hwsim import store as store_module
from hwsim.devices import junctions
from hwsim.devices.butler import Butler
from hwsim.nonidealities import NonIdealities
from hwsim.pulses import (
    ENERGY_UNIT_J,
    IdenticalJunctions,
    JunctionArray,
    Outcome,
    VaryingJunctions,
    identical_junctions,
    uniform_pairs,
)
from hwsim.store import DeviceStore
from hwsim.write_scheme import WriteScheme
from hwsim.write_schemes import AmplitudeCoded, LinearPulse, Pedestal, PreDistorted

JUNCTION = junctions.consistent(model=Butler())
IDEAL = NonIdealities()
HOT = NonIdealities(temperature_K=350.0)
CPU = torch.device("cpu")
ALL = slice(None)
WRITTEN = {
    "linear": LinearPulse(gain=4.0, offset_probability=0.01),
    "gated": Pedestal(gate=0.2),
    "pre-distorted": PreDistorted(),
    "read-first": PreDistorted(read_first=True),
    "short": PreDistorted(read_first=True, full_pulse_probability=0.9, gate=0.1),
    "amplitude": AmplitudeCoded(overdrive=8.0),
}
# A row for each probability that is requested.
REQUESTED = torch.tensor([0.0, 1e-6, 1e-3, 0.03, 0.3, 0.5, 0.9, 0.995, 1.0])
COLUMNS = 4000


def arrays(scheme: WriteScheme, flaws: NonIdealities = IDEAL) -> dict[str, JunctionArray]:
    """The same junctions by tables and one by one."""
    junction = flaws.junction(JUNCTION)
    each = torch.full((2, len(REQUESTED), COLUMNS), float(junction.parallel_resistance_ohm))
    varied = dataclasses.replace(junction, parallel_resistance_ohm=each)
    return {
        "tables": IdenticalJunctions(JUNCTION, scheme, flaws, CPU),
        "each": VaryingJunctions(JUNCTION, scheme, flaws, varied, CPU),
    }


def pulse(array: JunctionArray, *arguments: torch.Tensor, rows: slice = ALL) -> Outcome:
    return array.pulse(*arguments, rows, generator=torch.Generator().manual_seed(4))


def states(antiparallel: bool, source: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """What `pulse` takes."""
    shape = (2, len(REQUESTED), COLUMNS)
    numbers = uniform_pairs(torch.Size(shape[1:]), CPU, torch.Generator().manual_seed(3))
    return torch.full(shape, antiparallel), torch.full(shape, source), REQUESTED[:, None].expand(shape).clone(), numbers


@pytest.mark.parametrize("which", ["tables", "each"])
@pytest.mark.parametrize("scheme", [LinearPulse(), Pedestal(), PreDistorted()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("flaws", [IDEAL, HOT], ids=["nominal", "hot"])
@pytest.mark.parametrize("antiparallel", [False, True])
def test_switches_with_the_probability_of_the_law(which, scheme, flaws, antiparallel):
    outcome = pulse(arrays(scheme, flaws)[which], *states(antiparallel, antiparallel))
    p = scheme.switch_probability(JUNCTION, antiparallel, REQUESTED, junction=flaws.junction(JUNCTION))
    n = 2 * COLUMNS
    share = outcome.switched.double().mean(dim=(0, 2))
    # 4.5 standard deviations; the resolution of the tables on top.
    assert bool(((share - p).abs() <= 4.5 * (p * (1 - p) / n).sqrt() + 1e-4).all())
    assert outcome.switches == int(outcome.switched.sum())
    assert not outcome.switched[:, 0].any()


@pytest.mark.parametrize("which", ["tables", "each"])
def test_junctions_that_are_there_already_stay_and_cost(which):
    antiparallel, source, requested, numbers = states(True, False)
    outcome = pulse(arrays(PreDistorted())[which], antiparallel, source, requested, numbers)
    assert outcome.switches == 0
    width_s = PreDistorted().width_s(JUNCTION, False, REQUESTED).sum() * 2 * COLUMNS
    voltage_V = PreDistorted().write_voltage_V(JUNCTION, False)
    expected_J = voltage_V**2 / JUNCTION.resistance_ohm(True, voltage_V=voltage_V) * width_s
    assert outcome.energy_units * ENERGY_UNIT_J == pytest.approx(float(expected_J), rel=2e-3)


@pytest.mark.parametrize("scheme", [PreDistorted(), Pedestal()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("antiparallel", [False, True])
@pytest.mark.parametrize("which", ["tables", "each"])
def test_energy_is_that_of_the_device_s_own_pulse(which, antiparallel, scheme):
    """`DeviceModel.pulse` and `pulse_energy_J`, with the same random numbers in effect: their mean."""
    before, source, requested, numbers = states(antiparallel, antiparallel)
    outcome = pulse(arrays(scheme)[which], before, source, requested, numbers)
    voltage_V = scheme.write_voltage_V(JUNCTION, antiparallel)
    width_s = scheme.width_s(JUNCTION, antiparallel, requested)
    time_s = JUNCTION.switching_time_s(antiparallel, voltage_V=voltage_V, probability=numbers.double())
    ohm = [float(JUNCTION.resistance_ohm(state, voltage_V=voltage_V)) for state in (antiparallel, not antiparallel)]
    old_s = torch.minimum(time_s, width_s)
    expected_J = voltage_V**2 * (old_s / ohm[0] + (width_s - old_s) / ohm[1]).sum()
    assert outcome.energy_units * ENERGY_UNIT_J == pytest.approx(float(expected_J), rel=1e-3)


def test_tables_and_single_junctions_agree_number_by_number():
    before, source, requested, numbers = states(False, False)
    one, other = (pulse(array, before, source, requested, numbers) for array in arrays(PreDistorted()).values())
    # Only where the number is as near to the probability as the rounding of the width.
    assert (one.switched != other.switched).float().mean() < 2e-3
    assert one.energy_units == pytest.approx(other.energy_units, rel=1e-3)


def test_each_junction_has_its_own_constants():
    """Rows of junctions with the nominal resistance, and with more: their current is smaller."""
    ohm = torch.full((2, 3, COLUMNS), float(JUNCTION.parallel_resistance_ohm))
    ohm[:, 1] *= 1.2
    ohm[:, 2] *= 0.8
    array = VaryingJunctions(
        JUNCTION, PreDistorted(), IDEAL, dataclasses.replace(JUNCTION, parallel_resistance_ohm=ohm), CPU
    )  # fmt: skip
    shape = (2, 2, COLUMNS)
    numbers = uniform_pairs(torch.Size(shape[1:]), CPU, torch.Generator().manual_seed(3))
    none, half = torch.zeros(shape, dtype=torch.bool), torch.full(shape, 0.5)
    share = pulse(array, none, none, half, numbers, rows=slice(1, 3)).switched.double().mean(dim=(0, 2))
    voltage_V = PreDistorted().write_voltage_V(JUNCTION, False)
    for factor, found in zip((1.2, 0.8), share, strict=True):
        junction = dataclasses.replace(JUNCTION, parallel_resistance_ohm=JUNCTION.parallel_resistance_ohm * factor)
        p = float(PreDistorted().switch_probability(JUNCTION, False, torch.tensor(0.5), junction=junction))
        assert float(found) == pytest.approx(p, abs=4.5 * math.sqrt(p * (1 - p) / 2 / COLUMNS))
    assert voltage_V > 0


class TestUniformPairs:
    """The ground truth of a Bernoulli layer."""

    N = 100_000

    def numbers(self, *shape: int, seed: int = 0) -> torch.Tensor:
        return uniform_pairs(torch.Size(shape), CPU, torch.Generator().manual_seed(seed))

    @pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9, 0.99])
    def test_frequencies_cells_and_correlation(self, p):
        events = (self.numbers(self.N) < p).double()
        for plane in events:
            assert abs(plane.mean() - p) < 4 * math.sqrt(p * (1 - p) / self.N)
            lag = ((plane[1:] - p) * (plane[:-1] - p)).mean() / (p * (1 - p))
            assert abs(lag) < 4 / math.sqrt(self.N)
        both = ((events[0] - p) * (events[1] - p)).mean() / (p * (1 - p))
        assert abs(both) < 4 / math.sqrt(self.N), "the two junctions of a cell are independent"
        # χ² over 100 cells of 1000 numbers, within 5 standard deviations of its mean.
        counts = events[0].view(100, -1).sum(dim=1)
        chi2 = ((counts - 1000 * p) ** 2 / (1000 * p * (1 - p))).sum()
        assert abs(chi2 - 100) < 5 * math.sqrt(200)

    def test_same_seed_same_numbers_on_any_shape(self):
        flat = self.numbers(6000)
        assert torch.equal(self.numbers(60, 100).reshape(2, -1), flat)
        assert torch.equal(self.numbers(4, 3, 500).reshape(2, -1), flat)
        assert not torch.equal(self.numbers(6000, seed=1), flat)
        generator = torch.Generator().manual_seed(0)
        parts = [uniform_pairs(torch.Size((n, 100)), CPU, generator).reshape(2, -1) for n in (7, 20, 33)]
        assert torch.equal(torch.cat(parts, dim=1), flat)

    def test_stays_within_0_and_1_and_has_31_bits(self):
        numbers = self.numbers(1_000_000)
        assert 0 < numbers.min() < 1e-5
        assert numbers.max() < 1
        small = numbers[numbers < 1 / 512]  # exact in float32
        small = small.double() * 2**32
        assert (small % 2 == 1).all()
        assert (small % 256 != 128).any(), "more than 24 bits"


def test_tables_are_made_once_for_all_layers():
    scheme = PreDistorted()
    one = identical_junctions(JUNCTION, scheme, IDEAL, CPU)
    assert identical_junctions(JUNCTION, PreDistorted(), NonIdealities(), CPU) is one
    assert identical_junctions(JUNCTION, scheme, HOT, CPU) is not one


@pytest.mark.parametrize("antiparallel", [False, True])
def test_pulses_behind_a_gate_are_those_without_one(antiparallel):
    """A gate lets fewer junctions in, and changes nothing for them."""
    before, source, requested, numbers = states(antiparallel, antiparallel)
    open_, gated = Pedestal(), Pedestal(gate=0.1)
    let_in = gated.gated(requested)
    assert (let_in > 0).any(dim=0).any(dim=1).tolist() == [False] * 4 + [True] * 5
    one, other = (
        pulse(IdenticalJunctions(JUNCTION, scheme, IDEAL, CPU), before, source, let_in, numbers)
        for scheme in (open_, gated)
    )
    assert torch.equal(one.switched, other.switched)
    assert (one.switches, one.energy_units) == (other.switches, other.energy_units)
    assert one.switches > 0


@pytest.mark.parametrize("antiparallel", [False, True])
def test_amplitude_coded_pulses_switch_and_cost_as_the_law_says(antiparallel):
    scheme = AmplitudeCoded(overdrive=8.0)  # at which the law holds down to the least voltage
    array = VaryingJunctions(JUNCTION, scheme, IDEAL, JUNCTION, CPU)
    before, source, requested, numbers = states(antiparallel, antiparallel)
    outcome = pulse(array, before, source, requested, numbers)
    p = scheme.switch_probability(JUNCTION, antiparallel, REQUESTED)
    share = outcome.switched.double().mean(dim=(0, 2))
    n = 2 * COLUMNS
    assert bool(((share - p).abs() <= 4.5 * (p * (1 - p) / n).sqrt() + 2e-3).all())
    # Junctions that only hold: V² t / R with the voltage of each.
    held = pulse(array, ~before, source, requested, numbers)
    voltage_V = scheme.voltages_V(JUNCTION, antiparallel, REQUESTED)
    width_s = scheme.width_s(JUNCTION, antiparallel, REQUESTED)
    ohm = JUNCTION.resistance_ohm(not antiparallel, voltage_V=voltage_V)
    assert held.energy_units * ENERGY_UNIT_J == pytest.approx(float((voltage_V**2 * width_s / ohm).sum()) * n, rel=2e-3)


class TestNoise:
    """Of the pulses: against the mean of the law over the noise."""

    @pytest.mark.parametrize("flaws", [{"amplitude_noise": 0.05}, {"jitter_s": 0.1e-9}], ids=str)
    def test_the_mean_probability_is_that_of_the_law(self, flaws):
        flaws = NonIdealities(**flaws)
        outcome = pulse(VaryingJunctions(JUNCTION, PreDistorted(), flaws, JUNCTION, CPU), *states(False, False))
        share = outcome.switched.double().mean(dim=(0, 2))
        scheme = PreDistorted()
        normal = torch.special.ndtri((torch.arange(4000) + 0.5).double() / 4000)
        voltage_V = scheme.write_voltage_V(JUNCTION, False) * (1 + flaws.amplitude_noise * normal)
        width_s = scheme.width_s(JUNCTION, False, REQUESTED)[:, None] + flaws.jitter_s * normal
        p = JUNCTION.switch_probability(False, voltage_V=voltage_V, pulse_width_s=width_s.clamp_min(0)).mean(dim=1)
        p[0] = 0
        n = 2 * COLUMNS
        assert bool(((share - p).abs() <= 4.5 * (p * (1 - p) / n).sqrt() + 2e-3).all())
        assert p[2] > 1.3 * REQUESTED[2], "of a rare switch noise makes a less rare one"

    def test_of_the_same_generator_is_the_same(self):
        array = VaryingJunctions(JUNCTION, PreDistorted(), NonIdealities(amplitude_noise=0.05), JUNCTION, CPU)
        one, again = (pulse(array, *states(False, False)) for _ in range(2))
        assert torch.equal(one.switched, again.switched)


@pytest.mark.parametrize("which", ["tables", "each"])
def test_widths_on_a_clock(which):
    """A period of 0.5 ns: pulses of 0.6 to 0.7 ns become 0.5 ns, in which next to nothing switches."""
    outcome = pulse(arrays(PreDistorted(), NonIdealities(clock_s=0.5e-9))[which], *states(False, False))
    share = outcome.switched.double().mean(dim=(0, 2))
    width_s = PreDistorted().width_s(JUNCTION, False, REQUESTED)
    ticks = (width_s / 0.5e-9).round()
    ticks[-1] = math.ceil(float(width_s[-1]) / 0.5e-9)
    voltage_V = PreDistorted().write_voltage_V(JUNCTION, False)
    p = JUNCTION.switch_probability(False, voltage_V=voltage_V, pulse_width_s=ticks * 0.5e-9)
    assert bool(((share - p).abs() <= 4.5 * (p * (1 - p) / 2 / COLUMNS).sqrt() + 1e-4).all())
    assert p[2] < 1e-4 < REQUESTED[2]


@pytest.mark.parametrize("flaws", [IDEAL, HOT], ids=["nominal", "hot"])
@pytest.mark.parametrize("scheme", WRITTEN.values(), ids=WRITTEN)
def test_kernels_do_what_the_tables_do_bit_for_bit(monkeypatch, scheme, flaws):
    if native._extension is None:
        pytest.skip("the native kernels are not built or not chosen")
    written = {}
    sets = native._extension.instruction_sets()
    for isa in ("reference", *sets):
        monkeypatch.setattr(store_module, "instruction_set", lambda isa=isa: isa)
        monkeypatch.setattr(native, "_instruction_set", isa if isa in sets else sets[0])
        generator = torch.Generator().manual_seed(5)
        store = DeviceStore((9, 77), device=JUNCTION, scheme=scheme, nonidealities=flaws)
        store.initialize(generator)
        steps = torch.randn(store.shape, generator=generator)
        steps[:3] *= 2  # also of more than one level
        steps[3:6] *= 0.1
        steps[6] = torch.tensor([0.0, 1.0, -1.0, 2.0, -2.0, 0.5, 1e-9]).repeat(11)
        for _ in range(3):
            store.program(steps, generator)
        written[isa] = (store.planes.tolist(), store.counts.tolist())
    assert written["reference"][1][2] > 0
    assert all(of_isa == written["reference"] for of_isa in written.values())


def test_kernels_give_the_same_on_any_number_of_threads():
    def written(threads: int) -> tuple[torch.Tensor, torch.Tensor]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            store = DeviceStore((37, 4_001), device=JUNCTION)
            generator = torch.Generator().manual_seed(1)
            store.initialize(generator)
            store.program(torch.randn(store.shape, generator=generator), generator)
        finally:
            torch.set_num_threads(before)
        return store.planes, store.counts

    assert all(torch.equal(one, three) for one, three in zip(written(1), written(3), strict=True))
