"""Variation and faults of a store's junctions: their seeds, and every non-ideality."""

import math

import pytest
import torch
from torch import nn

from bnn.layers import BinaryLinear
from bnn.models import initialize
from hwsim.devices import junctions
from hwsim.nonidealities import NonIdealities
from hwsim.store import READ_VOLTAGE_V, READ_WIDTH_S, DeviceStore
from tests.hwsim.device_stores import at, make, program


class TestSeeds:
    """Of variation and faults: one for each layer, and independent streams for each quantity."""

    SHAPE = (100, 150)

    def correlation(self, one: torch.Tensor, other: torch.Tensor) -> float:
        return abs(float(torch.corrcoef(torch.stack([one.flatten().double(), other.flatten().double()]))[0, 1]))

    def layers(self, **nonidealities) -> list[DeviceStore]:
        """Two layers of one network, which one generator initializes."""
        model = nn.ModuleList(
            BinaryLinear(150, 100, store=lambda _: make(self.SHAPE, **nonidealities)) for _ in range(2)
        )
        initialize(model, generator=torch.Generator().manual_seed(0))
        return [layer.store for layer in model]

    @pytest.mark.parametrize(
        "name",
        [
            "resistance_spread",
            "barrier_spread",
            "critical_current_spread",
            "tmr_spread",
            "area_spread",
            "anisotropy_spread",
            "critical_current_ratio_spread",
            "stray_field_spread_T",
        ],
    )
    def test_variation_of_two_layers_differs(self, name):
        one, other = (store._junctions().device for store in self.layers(**{name: 0.1}))
        constant = next(key for key, value in vars(one).items() if isinstance(value, torch.Tensor))
        assert self.correlation(getattr(one, constant), getattr(other, constant)) < 0.03

    @pytest.mark.parametrize("name", ["stuck_parallel", "stuck_antiparallel", "shorted"])
    def test_faults_of_two_layers_differ(self, name):
        one, other = (store._junctions().faulty for store in self.layers(**{name: 0.2}))
        assert self.correlation(one, other) < 0.03

    def test_the_two_junctions_of_a_cell_differ(self):
        junctions = make(self.SHAPE, resistance_spread=0.1, stuck_parallel=0.2)._junctions()
        assert self.correlation(*junctions.device.parallel_resistance_ohm.log()) < 0.03
        assert self.correlation(*junctions.faulty) < 0.03

    def test_a_new_start_draws_new_junctions(self):
        store = make(self.SHAPE, resistance_spread=0.1, stuck_parallel=0.2)
        before = store._junctions()
        store.initialize(torch.Generator().manual_seed(1))
        after = store._junctions()
        resistances = (before.device.parallel_resistance_ohm, after.device.parallel_resistance_ohm)
        assert self.correlation(*resistances) < 0.03
        assert self.correlation(before.faulty, after.faulty) < 0.03

    def test_shorts_that_are_read_are_those_that_never_switch(self):
        junctions = make(self.SHAPE, shorted=0.1)._junctions()
        assert torch.equal(junctions.device.parallel_resistance_ohm == 400, junctions.faulty)

    def test_switching_is_independent_of_the_variation(self):
        """Of what does not enter into the law of the pulse: the magnetoresistance, out of parallel."""
        store = program(at(make(self.SHAPE, tmr_spread=0.1), 0), -0.5)
        first, _ = store.antiparallel()
        assert 0.3 < float(first.double().mean()) < 0.7
        assert self.correlation(first, store._junctions().device.tmr[0].log()) < 0.03

    def test_one_exposure_and_the_next_draw_different_numbers(self):
        store, generator, switched = make(self.SHAPE), torch.Generator().manual_seed(3), []
        for _ in range(2):
            at(store, 0).expose(voltage_V=0.6, seconds=1.2e-9, generator=generator)
            switched.append(store.antiparallel())
        assert 0.2 < float(switched[0].double().mean()) < 0.8
        assert self.correlation(*switched) < 0.03
        assert self.correlation(*switched[0]) < 0.03, "the junctions of a cell are independent"


class TestNonIdealities:
    def test_stuck_junctions_stay(self):
        store = make((100, 200), stuck_parallel=0.1, stuck_antiparallel=0.05)
        parallel, antiparallel, _ = store._junctions().faults()
        for delta in (2.0, -2.0, 1.0):
            program(store, delta)
            states = store.antiparallel()
            assert not states[parallel].any()
            assert states[antiparallel].all()
        # At the lower end after a full step up from there, but for the rare failures.
        free = ~store._junctions().faults().any(dim=0).any(dim=0)
        assert float((store.value()[free] == 0).double().mean()) > 0.99

    def test_shorts_are_read_as_large_weights(self):
        store = make((100, 200), shorted=0.05)
        shorted = store._junctions().faults()[2]
        levels = store.value()
        assert (levels[shorted[0] & ~shorted[1]] > 10).all()
        assert (levels[shorted[1] & ~shorted[0]] < -10).all()
        assert set(levels[~shorted.any(dim=0)].round(decimals=5).unique().tolist()) == {-1, 0, 1}

    def test_spread_of_the_resistance_is_that_of_what_is_read(self):
        store = at(make((200, 300), resistance_spread=0.05), 2)
        levels = store.value().double()
        parallel_S, antiparallel_S = store.nominal_conductances_S
        # Both conductances vary by 5 %, independently.
        deviation = 0.05 * math.hypot(parallel_S, antiparallel_S) / (parallel_S - antiparallel_S)
        assert float(levels.std()) == pytest.approx(deviation, rel=0.03)
        assert float(levels.mean()) == pytest.approx(1, abs=0.01)
        assert not torch.equal(at(store, 3).value(), torch.zeros(store.shape)), "0 is not quite 0"

    def test_0_s_is_noisier_than_0_w(self):
        deviations = [float(at(make((200, 300), resistance_spread=0.05), code).value().std()) for code in (0, 3)]
        parallel_S, antiparallel_S = make().nominal_conductances_S
        assert deviations[0] / deviations[1] == pytest.approx(parallel_S / antiparallel_S, rel=0.03)

    def test_the_barrier_changes_what_switches_and_not_what_is_read(self):
        store = make((200, 300), barrier_spread=0.1)
        assert set(store.value().unique().tolist()) == {-1, 0, 1}
        p = float((program(at(store, 3), 0.5).value() == 1).double().mean())
        assert p == pytest.approx(0.5, abs=0.02)

    def test_heat_makes_pulses_switch_more_often(self):
        shares = [
            float((program(at(make((100, 200), temperature_K=kelvin), 3), 0.3).value() == 1).double().mean())
            for kelvin in (260.0, 300.0, 360.0)
        ]
        assert shares[0] < 0.27 < shares[1] < 0.33 < shares[2]

    @pytest.mark.parametrize("error", [0.4, 1.0])
    @pytest.mark.parametrize("spread", [0.0, 1e-6])
    def test_write_errors_are_pulses_that_do_nothing(self, error, spread):
        store = program(at(make((100, 200), write_error=error, critical_current_spread=spread), 3), 0.5)
        p = 0.5 * (1 - error)
        share = float((store.value() == 1).double().mean())
        assert share == pytest.approx(p, abs=4.5 * math.sqrt(p * (1 - p) / store.size) + 1e-4)

    def test_retention_and_read_disturb_are_the_device_s_law(self):
        """A junction of low stability, and voltages and times at which something happens."""
        weak = junctions.consistent().with_constants(curie_temperature_K=math.inf)
        store = DeviceStore((200, 300), device=weak, nonidealities=NonIdealities(temperature_K=900.0))
        junction = NonIdealities(temperature_K=900.0).junction(weak)
        for voltage_V, seconds in ((0.0, 2.0), (0.1, 1e-3)):
            at(store, 2)
            p = junction.switch_probability(torch.tensor([False, True]), voltage_V=voltage_V, pulse_width_s=seconds)
            store.expose(voltage_V=voltage_V, seconds=seconds, generator=torch.Generator().manual_seed(2))
            first, second = store.antiparallel()
            shares = [float(first.double().mean()), float((~second).double().mean())]
            assert shares == pytest.approx(p.tolist(), abs=0.01)
            assert max(shares) > 0.05

    def test_ten_years_and_ten_million_reads_leave_the_default_alone(self):
        store = DeviceStore((200, 300), nonidealities=NonIdealities(idle_s=3.15e8, reads_per_write=1e7))
        before = store.planes.clone()
        program(store, 0.0)
        assert torch.equal(store.planes, before)

    def test_reads_at_more_than_the_read_voltage_disturb(self):
        """At 0.1 V, half of the critical current, ten million reads of a nanosecond turn parallel junctions over."""
        store = at(DeviceStore((20, 30)), 0)
        store.expose(voltage_V=2 * READ_VOLTAGE_V, seconds=1e7 * READ_WIDTH_S, generator=torch.Generator())
        assert store.antiparallel().double().mean() > 0.9

    def test_worn_out_junctions_stay_as_they_are(self):
        store = make((50, 60), endurance_cycles=3)
        for step in range(20):
            program(store, 2.0 if step % 2 else -2.0)
        assert store.cycles.max() == 3
        before = store.planes.clone()
        worn = (store.cycles == 3).all(dim=0)
        assert worn.double().mean() > 0.9
        program(store, 2.0)
        changed = (store.planes != before).sum()
        assert changed == 0 or not worn.all()
        assert store.totals["switches"] == int(store.cycles.sum())
