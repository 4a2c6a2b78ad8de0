"""The store: ideal limits bit for bit, the law of the cell, reproducibility and resuming."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from bnn.bits import BitTensor
from bnn.errors import NonFiniteError
from bnn.layers import BinaryConv2d, BinaryLinear
from bnn.optim import SGD, Adam
from bnn.optim.dst import DST
from bnn.quantizers import Ternary
from bnn.training.checkpoint import load, save
from bnn.training.snapshot import capture, restore
from bnn.weights import DiscreteStore
from hwsim.nonidealities import NonIdealities
from hwsim.store import DeviceStore
from hwsim.synapse import transition_matrix
from hwsim.write_schemes import PreDistorted
from tests.hwsim.device_stores import IDEAL, JUNCTION, SCHEMES, at, codes, make, program


@pytest.mark.filterwarnings("ignore::hwsim.devices.base.ValidityWarning")
class TestLimits:
    """Probabilities of 0 and 1 are the ideal store's, bit for bit."""

    @pytest.mark.parametrize("m", [1e30, 1e-30])
    def test_steep_and_flat_transitions(self, m, generator):
        stores = [DiscreteStore((40, 50)), IDEAL((40, 50))]
        step = torch.randn((40, 50), generator=generator) * 1.5
        step[:5] = 0
        for store in stores:
            store.initialize(torch.Generator().manual_seed(5))
            store.weight.grad = -step
            DST(SGD([store.weight], lr=1.0), m=m).step()
        ideal, device = (store.value() for store in stores)
        assert torch.equal(ideal, device)
        assert len(ideal.unique()) == 3

    def test_a_training_of_certain_steps(self):
        def trained(store) -> list[torch.Tensor]:
            model = nn.Sequential(
                BinaryConv2d(2, 6, 3, store=store, input_quantizer=None),
                nn.BatchNorm2d(6),
                nn.Flatten(),
                BinaryLinear(96, 4, store=store, input_quantizer=Ternary(threshold=0.5)),
            )
            for layer in (model[0], model[3]):
                layer.store.initialize(torch.Generator().manual_seed(5))
            optimizer = DST(SGD(model.parameters(), lr=0.5), m=1e30)
            for step in range(4):
                generator = torch.Generator().manual_seed(step)
                x, y = torch.randn((8, 2, 6, 6), generator=generator), torch.randint(4, (8,), generator=generator)
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
                optimizer.zero_grad()
            return [layer.store.value() for layer in (model[0], model[3])] + [x.detach() for x in model[1].parameters()]

        for ideal, device in zip(trained(DiscreteStore), trained(IDEAL), strict=True):
            assert torch.equal(ideal, device)


class TestLaw:
    @pytest.mark.parametrize(
        ("scheme", "steps"),
        [
            *itertools.product(("linear", "pedestal", "pre-distorted", "read-first"), (0.3, -0.3, 0.9, 1.4, -2.0)),
            *itertools.product(("gated-pedestal", "paper", "amplitude"), (-0.3, 1.4)),
        ],
    )
    def test_transitions_are_those_of_the_cell(self, scheme, steps):
        def switch_probability(p: torch.Tensor, antiparallel: torch.Tensor) -> torch.Tensor:
            result = torch.zeros_like(p)
            for state in (False, True):
                result[antiparallel == state] = SCHEMES[scheme].switch_probability(
                    JUNCTION, state, p[antiparallel == state]
                )
            return result

        read_first = SCHEMES[scheme].read_first
        matrix = transition_matrix(steps, read_first=read_first, switch_probability=switch_probability)
        for code in range(4):
            after = codes(program(at(make((100, 200), scheme=scheme), code), steps))
            for other in range(4):
                p = min(1.0, float(matrix[code, other]))
                share = float((after == other).double().mean())
                assert share == pytest.approx(p, abs=4.5 * math.sqrt(p * (1 - p) / 20_000) + 2e-4)

    @pytest.mark.parametrize("nu", [0.01, 0.1, -0.4])
    def test_the_jump_has_the_probability_tanh(self, nu):
        store = at(make((200, 300)), 3)
        store.weight.grad = torch.full(store.shape, -nu)
        DST(SGD([store.weight], lr=1.0), m=3.0).step()
        p = math.tanh(3 * abs(nu))
        share = float((store.value() == math.copysign(1, nu)).double().mean())
        assert share == pytest.approx(p, abs=4.5 * math.sqrt(p * (1 - p) / store.size))

    def test_nothing_happens_without_a_step(self):
        store = make()
        before = store.planes.clone()
        program(store, 0.0)
        assert torch.equal(store.planes, before)
        assert store.totals == {"writes": 1, "pulses": 0, "switches": 0, "write_energy_J": 0}

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_refuses_what_is_not_finite(self, value):
        store = make()
        before = {name: x.clone() for name, x in store.state_dict().items()}
        with pytest.raises(NonFiniteError, match="lower the learning rate"):
            program(store, value)
        assert all(torch.equal(x, before[name]) for name, x in store.state_dict().items())


class TestCounts:
    def test_blind_writes_pulse_both_junctions_and_others_one_at_most(self):
        blind, first = (program(make(scheme=scheme), 0.2) for scheme in ("pre-distorted", "read-first"))
        assert blind.totals["pulses"] == 2 * blind.size
        start = make()
        assert first.totals["pulses"] == int((start.value() < 1).sum())
        assert first.totals["write_energy_J"] < 0.6 * blind.totals["write_energy_J"]

    def test_a_gate_saves_the_pulses_below_it(self):
        """Of a row with requests below it, one of 0 and one above."""
        store = at(make((3, 50), scheme="gated-pedestal"), 3)
        change = torch.tensor([[0.3], [0.0], [0.4]]).expand(3, 50)
        program(store, change)
        assert store.totals["pulses"] == 2 * 50
        moved = store.value() != 0
        assert not moved[:2].any()
        assert 0 < moved[2].sum() < 50

    def test_switches_are_what_has_changed(self):
        store = make()
        before = store.antiparallel()
        program(store, torch.linspace(-1, 1, store.size).view(store.shape))
        assert store.totals["switches"] == int((store.antiparallel() != before).sum()) > 100

    def test_energy_of_pulses_that_hold(self):
        """At +1 both junctions are where an upward change drives them: V² t / R of the new states."""
        store = program(at(make(scheme="pre-distorted"), 2), 0.5)
        expected_J = 0.0
        for state in (False, True):
            voltage_V = store.scheme.write_voltage_V(JUNCTION, state)
            width_s = float(store.scheme.width_s(JUNCTION, state, torch.tensor(0.5)))
            expected_J += voltage_V**2 * width_s / float(JUNCTION.resistance_ohm(not state, voltage_V=voltage_V))
        assert store.totals["write_energy_J"] == pytest.approx(store.size * expected_J, rel=2e-3)
        assert store.totals["switches"] == 0


class TestReproducibility:
    @pytest.mark.parametrize(
        "nonidealities",
        [{}, {"resistance_spread": 0.05, "stuck_parallel": 0.01}, {"amplitude_noise": 0.05, "jitter_s": 1e-11}],
        ids=["alike", "varied", "noisy"],
    )
    def test_the_generator_decides_and_not_the_threads(self, nonidealities):
        def states(seed: int, threads: int) -> dict[str, torch.Tensor]:
            store = make((300, 500), **nonidealities)
            state = torch.get_rng_state()
            torch.set_num_threads(threads)
            program(store, 0.3, seed)
            torch.set_num_threads(1)
            assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
            return store.state_dict()

        one, again, other = states(1, 1), states(1, 3), states(2, 1)
        assert all(torch.equal(x, again[name]) for name, x in one.items())
        assert not torch.equal(one["planes"], other["planes"])

    def test_the_bits_do_not_depend_on_the_shape(self):
        """Of the weight: rows of another length, in other chunks."""
        flat, square = (at(make(shape, scheme="pre-distorted"), 1) for shape in ((1, 90_000), (300, 300)))
        for store in (flat, square):
            program(store, 0.3)
        assert torch.equal(flat.antiparallel().flatten(), square.antiparallel().flatten())

    def test_starts_with_the_weights_of_the_ideal_store(self):
        ideal, device = DiscreteStore((30, 50)), make(seed=4)
        ideal.initialize(torch.Generator().manual_seed(4))
        assert torch.equal(device.value(), ideal.value())
        assert not (codes(device) == 0).any()

    @pytest.mark.parametrize(
        "nonidealities", [{}, {"barrier_spread": 0.1, "tmr_spread": 0.1, "shorted": 0.01, "endurance_cycles": 2}]
    )
    def test_a_checkpoint_resumes_bit_for_bit(self, nonidealities, tmp_path):
        def training(seed: int):
            layer = BinaryLinear(50, 30, store=lambda _: make(seed=seed, **nonidealities))
            return layer, DST(Adam(layer.parameters(), lr=0.1))

        def train(layer, optimizer, first: int, last: int) -> None:
            for step in range(first, last):
                x = torch.randn((8, 50), generator=torch.Generator().manual_seed(step))
                layer(x).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()

        (whole, a), (before, b), (after, c) = training(0), training(0), training(9)
        train(whole, a, 0, 6)
        train(before, b, 0, 3)
        save(tmp_path, capture(3, before, b, {}, {}))
        train(after, c, 0, 1)  # it has made its junctions from another seed
        restore(load(tmp_path), after, c, {})
        train(after, c, 3, 6)
        state = whole.state_dict()
        assert all(torch.equal(x, state[name]) for name, x in after.state_dict().items())
        assert torch.equal(whole.store.value(), after.store.value())
        assert whole.store.totals["switches"] > 0

    def test_copies_are_independent(self):
        store = make(resistance_spread=0.1)
        copied = copy.deepcopy(store)
        assert copied.weight.store is copied
        before = store.planes.clone()
        program(copied, 2.0)
        assert torch.equal(store.planes, before)
        assert torch.equal(copied.conductances_S() > 0, store.conductances_S() > 0)

    def test_a_change_of_dtype_keeps_the_counts(self):
        layer = BinaryLinear(50, 30, store=lambda _: program(make(), 0.3))
        totals = layer.store.totals
        layer.to(torch.bfloat16)
        assert layer.store.totals == totals
        assert layer.store.value().dtype == torch.bfloat16
        assert set(layer.store.value().unique().tolist()) == {-1, 0, 1}


class TestMemory:
    def test_a_state_takes_two_bits(self):
        layer = BinaryLinear(256, 100, store=DeviceStore)
        assert list(layer.state_dict()) == ["store.planes", "store.counts", "store.variation_seed"]
        assert 8 * layer.store.planes.nbytes == 2 * layer.store.size == layer.store.storage_bits * layer.store.size

    def test_can_be_made_without_memory(self):
        with torch.device("meta"):
            for store in (
                DeviceStore((5, 3, 2, 2)),
                DeviceStore((5, 3, 2, 2), nonidealities=NonIdealities(resistance_spread=0.1, shorted=0.1)),
            ):
                assert store.read().shape == (5, 3, 2, 2)

    def test_convolutions_and_their_gradients_are_those_of_the_ideal_store(self, generator):
        layers = [
            BinaryConv2d(4, 6, 3, padding=1, store=store, input_quantizer=None)
            for store in (DiscreteStore, DeviceStore)
        ]
        x = torch.randn(2, 4, 7, 8, generator=generator)
        for layer in layers:
            layer.store.initialize(torch.Generator().manual_seed(2))
            layer(x).square().sum().backward()
        assert torch.equal(layers[0].store.weight.grad, layers[1].store.weight.grad)


class TestAsEveryStore:
    """What others ask a store for, see `WeightStore`."""

    @pytest.mark.parametrize("shape", [(30, 50), (6, 5, 3, 3)])
    def test_nominal_junctions_have_three_levels(self, shape):
        store = make(shape, barrier_spread=0.1, stuck_parallel=0.1)
        assert store.levels == (-1, 0, 1) == tuple(store.value().unique().tolist())
        assert not store.is_binary
        assert torch.equal(store.trained_value(), store.value())
        assert store.trained is store.weight

    @pytest.mark.parametrize("name", ["resistance_spread", "area_spread", "tmr_spread", "shorted"])
    def test_resistances_that_vary_have_no_levels(self, name):
        store = make(**{name: 0.05})
        assert store.levels == ()
        assert len(store.value().unique()) > 3
        assert torch.equal(store.trained_value(), store.value())

    @pytest.mark.parametrize(
        ("options", "bits"), [({}, 2), ({"resistance_spread": 0.1}, 2), ({"endurance_cycles": 9}, 66)]
    )
    def test_bits_are_those_of_the_buffers_that_grow_with_the_weight(self, options, bits):
        store = make((30, 64), **options)
        kept = [store.planes] if store.cycles is None else [store.planes, store.cycles]
        assert store.training_bits == bits == 8 * sum(buffer.nbytes for buffer in kept) / store.size
        assert store.storage_bits == 2

    @pytest.mark.parametrize("options", [{}, {"resistance_spread": 0.1}], ids=["levels", "real"])
    @pytest.mark.parametrize("shape", [(30, 50), (6, 5, 3, 3)])
    def test_sign_planes_are_the_signs_of_what_is_read(self, shape, options):
        store = make(shape, **options)
        above, below = store.sign_planes()
        value = store.value()
        assert torch.equal(above, BitTensor.from_dense(value > 0).packed)
        assert torch.equal(below, BitTensor.from_dense(value < 0).packed)
        program(store, 2.0)
        assert torch.equal(above, BitTensor.from_dense(value > 0).packed), "a copy"


def test_default_is_the_ideal_law_on_the_default_junction():
    store = DeviceStore((4, 5))
    assert store.scheme == PreDistorted(read_first=True)
    assert store.device is DeviceStore((4, 5)).device, "one table for all layers"
    assert "PreDistorted" in repr(store)
