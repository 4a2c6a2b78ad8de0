"""What every law of switching and every device promises, whoever adds one."""

import math
import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import hwsim.devices
from hwsim.devices import junctions, named
from hwsim.devices.base import DeviceModel, SwitchingModel, ValidityWarning
from tests.contracts import concrete_classes

MODELS = [law() for law in named.laws().values()]
DEVICES = named.junctions()

_OVERDRIVES = torch.linspace(-3, 8, 1101, dtype=torch.float64)


def valid_overdrives(model: SwitchingModel) -> tuple[float, float]:
    """The highest range of overdrives in which a law holds for all the thermal stabilities of the tests."""
    delta, overdrive = torch.meshgrid(torch.tensor([45.0, 90.0], dtype=torch.float64), _OVERDRIVES, indexing="ij")
    holds = model.holds(delta, overdrive).all(dim=0)
    highest = int(holds.nonzero().max())
    failing = (~holds[:highest]).nonzero()
    lowest = int(failing.max()) + 1 if len(failing) else 0
    return float(_OVERDRIVES[lowest]), float(_OVERDRIVES[highest])


VALID = {model.name: valid_overdrives(model) for model in MODELS}

deltas = st.floats(45, 90)
shares = st.floats(0.0, 1.0)
probabilities = st.floats(1e-5, 1 - 1e-5)


def within(model: SwitchingModel, share: float) -> float:
    low, high = VALID[model.name]
    return low + share * (high - low)


def test_every_class_is_here():
    assert {type(model) for model in MODELS} == set(concrete_classes(hwsim.devices, SwitchingModel))
    made = {type(make()) for make in DEVICES.values()}
    assert made == set(concrete_classes(hwsim.devices, DeviceModel)), "a device has a function that makes one of it"


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
class TestSwitchingModel:
    @given(delta=deltas, share=shares, exponent=st.floats(-3, 12), factor=st.floats(1, 10))
    def test_probability_rises_with_time_from_0_to_at_most_1(self, model, delta, share, exponent, factor):
        i, tau = within(model, share), 10.0**exponent
        p = model.probability(delta, i, torch.tensor([0, tau, tau * factor, math.inf], dtype=torch.float64))
        assert p[0] < 1e-12
        assert bool((p.diff() >= 0).all())
        assert p[-1] <= 1
        assert p[-1] > 1 - 1e-12 or i < 0.3

    @given(delta=deltas, first=shares, second=shares, exponent=st.floats(-2, 8))
    def test_probability_rises_with_the_overdrive(self, model, delta, first, second, exponent):
        low, high = sorted((within(model, first), within(model, second)))
        p = model.probability(delta, torch.tensor([low, high], dtype=torch.float64), 10.0**exponent)
        # Where another law takes over from the table there is a step.
        assert p[0] <= p[1] + (2e-3 if model.name == "fokker-planck" else 1e-12)

    @given(delta=deltas, share=st.floats(0.4, 1), p=probabilities)
    def test_quantile_and_probability_are_inverse(self, model, delta, share, p):
        i = within(model, share)
        tau = model.quantile(delta, i, p)
        if tau.isfinite():
            assert float(model.probability(delta, i, tau)) == pytest.approx(p, rel=1e-6)
        else:
            assert float(model.probability(delta, i, math.inf)) <= p

    def test_quantile_of_the_certain_and_the_impossible(self, model):
        i = within(model, 1.0)
        assert model.quantile(60.0, i, 0.0) == 0
        assert model.quantile(60.0, i, 1.0) == math.inf
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ValidityWarning)
            assert model.quantile(60.0, -2.0, 0.0) == 0
            assert model.quantile(60.0, -2.0, 0.5) == math.inf
            assert model.probability(60.0, -2.0, 1e6) < 1e-9

    @pytest.mark.filterwarnings("ignore::hwsim.devices.base.ValidityWarning")
    @given(delta=st.floats(1e-2, 1e4), i=st.floats(-20, 50), tau=st.floats(0, 1e30), p=st.floats(0, 1))
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_gives_a_probability_and_a_time_wherever_it_is_asked(self, model, dtype, delta, i, tau, p):
        arguments = [torch.tensor([value], dtype=dtype) for value in (delta, i, tau, p)]
        assert 0 <= float(model.probability(*arguments[:3])) <= 1
        assert float(model.quantile(arguments[0], arguments[1], arguments[3])) >= 0

    def test_dtypes_and_shapes(self, model):
        i = within(model, 0.9)
        assert model.probability(60, i, 1).dtype == torch.float64
        single = model.probability(60.0, i, torch.rand(3, 1))
        assert single.dtype == torch.float32
        assert model.probability(torch.tensor(60.0, dtype=torch.float64), i, torch.rand(3)).dtype == torch.float32
        assert model.probability(torch.full((4,), 60.0, dtype=torch.float64), i, torch.rand(3, 1)).shape == (3, 4)
        assert model.quantile(torch.full((4,), 60), i, torch.rand(3, 1)).shape == (3, 4)
        assert model.probability(60.0, i, torch.rand(0, 5)).shape == (0, 5)

    def test_single_precision_agrees_with_double(self, model):
        i = torch.linspace(*VALID[model.name], 50, dtype=torch.float64)
        p = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)[:, None]
        tau = model.quantile(60.0, i, p)
        reached = tau < 1e30
        assert reached[:, -1].all()
        difference = model.probability(60.0, i.float(), tau.float()).double() - p
        assert difference[reached].abs().max() < 2e-4

    def test_a_value_depends_on_its_own_arguments_alone(self, model, generator):
        # In more than one part, and cut so that elements change their place in the vectors of the processor.
        low, high = VALID[model.name]
        n = 70_001
        delta = 45 + 45 * torch.rand(n, generator=generator)
        i = low + (high - low) * torch.rand(n, generator=generator)
        p = torch.rand(n, generator=generator)
        tau = model.quantile(delta, i, p)
        probability = model.probability(delta, i, tau.clamp_max(1e6))
        for start, length in [(0, 20_003), (20_003, n), *((521 * k, 1 + k % 19) for k in range(130))]:
            cut = slice(start, start + length)
            assert torch.equal(model.quantile(delta[cut], i[cut], p[cut]), tau[cut])
            assert torch.equal(model.probability(delta[cut], i[cut], tau[cut].clamp_max(1e6)), probability[cut])

    @pytest.mark.parametrize("delta", [0.0, -1.0, math.nan, math.inf])
    def test_refuses_a_thermal_stability_that_is_none(self, model, delta):
        with pytest.raises(ValueError, match="thermal stability is a finite number above 0, got"):
            model.probability(delta, 3.0, 1.0)

    @pytest.mark.parametrize(
        ("i", "tau", "message"),
        [
            (math.nan, 1.0, "overdrive"),
            (math.inf, 1.0, "overdrive"),
            (3.0, -1e-9, "time is 0 or"),
            (3.0, math.nan, "time"),
        ],
    )
    def test_refuses_what_is_not_physical(self, model, i, tau, message):
        with pytest.raises(ValueError, match=message):
            model.probability(60.0, i, torch.tensor([1.0, tau]))

    @pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
    def test_refuses_what_is_no_probability(self, model, p):
        with pytest.raises(ValueError, match=r"probability is in 0..1, got"):
            model.quantile(60.0, 3.0, p)

    def test_warns_outside_its_validity_and_names_another_model(self, model):
        delta, outside = torch.meshgrid(torch.tensor([60.0, 150.0]).double(), _OVERDRIVES, indexing="ij")
        fails = ~model.holds(delta, outside)
        if not fails.any():
            pytest.skip("the law holds everywhere")
        delta, outside = (float(x[fails][fails.sum() // 2]) for x in (delta, outside))
        others = {other.name for other in MODELS} - {model.name}
        with pytest.warns(ValidityWarning, match=f"the model {model.name} is for .* use ({'|'.join(others)})"):
            model.probability(delta, torch.tensor([within(model, 1.0), outside]), 1.0)
        with pytest.warns(ValidityWarning):
            model.quantile(delta, outside, 0.5)


@pytest.mark.parametrize("make", DEVICES.values(), ids=DEVICES)
@pytest.mark.filterwarnings("ignore::hwsim.devices.base.ValidityWarning")
class TestDeviceModel:
    def test_a_voltage_drives_one_way(self, make):
        states = torch.tensor([False, True])
        up, down = (make().switch_probability(states, voltage_V=v, pulse_width_s=2e-9) for v in (1.0, -1.0))
        assert up[0] > 1e-4
        assert up[1] < 1e-9
        assert down[1] > 1e-5
        assert down[0] < 1e-9

    def test_antiparallel_resists_more(self, make):
        parallel, antiparallel = (make().resistance_ohm(state, voltage_V=0.1) for state in (False, True))
        assert 0 < parallel < antiparallel

    def test_time_and_probability_are_inverse(self, make, generator):
        device, states = make(), torch.tensor([False, True])
        voltage_V = torch.tensor([1.0, -1.0], dtype=torch.float64)
        p = device.switch_probability(states, voltage_V=voltage_V, pulse_width_s=0.6e-9)
        width_s = device.switching_time_s(states, voltage_V=voltage_V, probability=p)
        assert torch.allclose(width_s, torch.tensor(0.6e-9, dtype=torch.float64), rtol=1e-6, atol=0)

    def test_pulses_switch_as_often_as_they_should(self, make, generator):
        device = make()
        before = torch.rand(100_000, generator=generator) < 0.5
        voltage_V = torch.where(before, -1.0, 1.0)
        p = device.switch_probability(before, voltage_V=voltage_V, pulse_width_s=0.7e-9)
        pulse = device.pulse(before, voltage_V=voltage_V, pulse_width_s=0.7e-9, generator=generator)
        switched = pulse.antiparallel ^ before
        for state in (False, True):
            expected = p[before == state]
            error = switched[before == state].double().mean() - expected.double().mean()
            assert error.abs() < 4 * (expected * (1 - expected)).mean().div(len(expected)).sqrt() + 1e-6
        assert torch.equal(switched, pulse.old_state_s < 0.7e-9)

    def test_no_pulse_does_nothing(self, make, generator):
        before = torch.rand(100_000, generator=generator) < 0.5
        for voltage_V, width_s in ((1.0, 0.0), (-1.0, 0.0), (0.0, 1e-9)):
            pulse = make().pulse(before, voltage_V=voltage_V, pulse_width_s=width_s, generator=generator)
            assert torch.equal(pulse.antiparallel, before)
            assert bool((pulse.old_state_s == pulse.old_state_s.new_tensor(width_s)).all())

    def test_a_negative_width_is_refused(self, make, generator):
        for width_s in (-1e-9, math.nan):
            with pytest.raises(ValueError, match=r"width of a pulse is 0 or more|time is 0 or more"):
                make().switch_probability(False, voltage_V=1.0, pulse_width_s=width_s)
            with pytest.raises(ValueError, match="width of a pulse is 0 or more"):
                make().pulse(torch.zeros(3).bool(), voltage_V=1.0, pulse_width_s=width_s, generator=generator)

    def test_same_seed_same_bits_in_any_shape_and_with_any_threads(self, make):
        device = make()

        def pulsed(*shape: int) -> torch.Tensor:
            before = (torch.arange(140_000) % 3 == 0).view(shape)
            width_s = torch.linspace(0, 1.5e-9, 140_000).view(shape)
            voltage_V = torch.where(before, -1.0, 1.0)
            generator = torch.Generator().manual_seed(5)
            pulse = device.pulse(before, voltage_V=voltage_V, pulse_width_s=width_s, generator=generator)
            assert pulse.antiparallel.shape == pulse.old_state_s.shape == shape
            return torch.stack([pulse.antiparallel.float(), pulse.old_state_s]).flatten(1)

        whole = pulsed(140_000)
        assert torch.equal(whole, pulsed(400, 350))
        threads = torch.get_num_threads()
        torch.set_num_threads(3)
        try:
            assert torch.equal(whole, pulsed(140_000))
        finally:
            torch.set_num_threads(threads)


def test_an_array_with_spread_is_one_device(generator):
    n = 70_000
    nominal = junctions.consistent()
    spread = replace(
        nominal,
        parallel_resistance_ohm=nominal.parallel_resistance_ohm * (1 + 0.05 * torch.randn(n, generator=generator)),
        energy_barrier_J=nominal.energy_barrier_J
        * (1 + 0.05 * torch.randn(n, generator=generator, dtype=torch.float64)),
    )
    before = torch.zeros(n, dtype=torch.bool)
    p = spread.switch_probability(before, voltage_V=0.6, pulse_width_s=1.2e-9)
    assert p.std() > 0.05
    for k in (0, n - 1):
        alone = replace(
            nominal,
            parallel_resistance_ohm=float(spread.parallel_resistance_ohm[k]),
            energy_barrier_J=float(spread.energy_barrier_J[k]),
        )
        assert float(alone.switch_probability(False, voltage_V=0.6, pulse_width_s=1.2e-9)) == pytest.approx(float(p[k]))
    pulse = spread.pulse(before, voltage_V=0.6, pulse_width_s=1.2e-9, generator=generator)
    # The difference from the mean shows that each junction switches with its own probability.
    gap = (pulse.antiparallel.double() - p).mul(p - p.mean()).mean() / p.var()
    assert gap.abs() < 4 * ((p * (1 - p) * (p - p.mean()) ** 2).mean() / n).sqrt() / p.var()
