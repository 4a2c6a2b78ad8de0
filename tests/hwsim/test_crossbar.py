"""Reads as sums of currents: exact without errors, and each error against its closed form."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bnn.cost.meters.gated_xnor import count_gated_xnor
from bnn.layers import BinaryLinear
from bnn.quantizers import Ternary
from hwsim.crossbar import Crossbar, Readout, attach
from hwsim.devices import junctions
from hwsim.devices.butler import Butler
from hwsim.nonidealities import NonIdealities
from hwsim.store import DeviceStore

JUNCTION = junctions.consistent(model=Butler())


def store_of(outputs: int, inputs: int, *, seed: int = 0, **nonidealities) -> DeviceStore:
    store = DeviceStore((outputs, inputs), device=JUNCTION, nonidealities=NonIdealities(**nonidealities))
    store.initialize(torch.Generator().manual_seed(seed))
    return store


def ternary(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(-1, 2, shape, generator=torch.Generator().manual_seed(seed))


@given(outputs=st.integers(1, 30), inputs=st.integers(1, 200), seed=st.integers(0, 100))
def test_without_variation_a_read_is_the_count_of_signs(outputs, inputs, seed):
    store, x = store_of(outputs, inputs, seed=seed), ternary(3, inputs, seed=seed)
    products = x[:, None] * store.value()[None]
    assert torch.equal(Crossbar.of(store).forward(x), ((products == 1).sum(-1) - (products == -1).sum(-1)).double())


@given(bits=st.integers(2, 12), seed=st.integers(0, 100))
def test_transposed_read_is_the_adjoint(bits, seed):
    """<Wx, y> = <x, Wᵀy> for whole y, which the bits hold exactly."""
    store, x = store_of(20, 50, seed=seed), ternary(4, 50, seed=seed)
    largest = 2 ** (bits - 1) - 1
    y = torch.randint(-largest, largest + 1, (4, 20), generator=torch.Generator().manual_seed(seed))
    y[0, 0] = largest  # so that a step is 1
    crossbar = Crossbar.of(store)
    forward, transposed = crossbar.forward(x), crossbar.transposed(y, bits=bits)
    assert torch.allclose((forward * y).sum(dim=1), (x * transposed).sum(dim=1), rtol=1e-12)
    assert torch.allclose(transposed, y.double() @ store.value().double(), rtol=1e-12, atol=1e-9)


def test_adjoint_with_variation():
    crossbar = Crossbar.of(store_of(20, 50, resistance_spread=0.1, tmr_spread=0.1))
    x, y = ternary(4, 50), ternary(4, 20)
    assert torch.allclose((crossbar.forward(x) * y).sum(1), (x * crossbar.transposed(y, bits=2)).sum(1), rtol=1e-12)


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_error_of_the_bits_is_that_of_rounding(bits):
    store, delta = store_of(20, 50), torch.randn((4, 20), generator=torch.Generator().manual_seed(0))
    step = float(delta.abs().max()) / (2 ** (bits - 1) - 1)
    error = Crossbar.of(store).transposed(delta, bits=bits) - delta.double() @ store.value().double()
    assert error.abs().max() <= step / 2 * 20 + 1e-12
    assert bits > 8 or error.abs().max() > 0.1 * step
    assert not Crossbar.of(store).transposed(torch.zeros(4, 20)).any()


def test_a_read_is_that_of_the_store_s_weights_where_they_vary():
    store, x = store_of(20, 50, resistance_spread=0.1, shorted=0.01), ternary(4, 50)
    torch.testing.assert_close(
        Crossbar.of(store).forward(x), x.double() @ store.value().double().T, rtol=1e-4, atol=1e-4
    )


def test_uniform_ternary_operands_leave_five_ninths_of_the_cells_at_rest():
    layer = BinaryLinear(2000, 500, store=DeviceStore, input_quantizer=Ternary(threshold=0.5))
    size = layer.store._columns
    codes = torch.randint(0, 3, (500, size), generator=torch.Generator().manual_seed(0))
    layer.store._set_states(slice(None), torch.stack([codes != 2, codes != 0]))  # -1: (AP, P), 0_w, +1: (P, AP)
    (count,) = count_gated_xnor(layer, ternary(50, 2000).float())
    assert count.resting_probability == pytest.approx(5 / 9, abs=0.005)


class TestReadout:
    def test_a_converter_rounds_to_its_steps_and_ends(self):
        current = torch.tensor([[-9.5, -1.4, 0.0, 0.26, 0.9, 6.5]])
        sensed = Readout(adc_bits=4, adc_full_scale=3.5).sense(current, inputs=100)
        assert sensed[0].tolist() == pytest.approx([-3.5, -1.5, 0, 0.5, 1, 3.5])
        # Seven codes on each side of 0 for up to 14 inputs.
        assert Readout(adc_bits=4).sense(current, inputs=14).tolist() == [[-10, -2, 0, 0, 0, 6]]

    @given(bits=st.integers(2, 10))
    def test_error_of_the_converter_is_half_a_step(self, bits):
        store, x = store_of(30, 100), ternary(5, 100)
        exact = Crossbar.of(store).forward(x)
        error = Crossbar.of(store, readout=Readout(adc_bits=bits)).forward(x) - exact
        assert error.abs().max() <= 100 / (2 ** (bits - 1) - 1) / 2 + 1e-9

    def test_enough_bits_are_exact(self):
        store, x = store_of(30, 127), ternary(5, 127)
        assert torch.equal(Crossbar.of(store, readout=Readout(adc_bits=8)).forward(x), Crossbar.of(store).forward(x))

    def test_an_offset_belongs_to_the_line(self):
        store = store_of(3000, 10)
        offsets = Crossbar.of(store, readout=Readout(sense_offset=0.3, seed=2)).forward(torch.zeros(2, 10))
        assert torch.equal(offsets[0], offsets[1])
        assert float(offsets[0].std()) == pytest.approx(0.3, rel=0.06)
        other = Crossbar.of(store, readout=Readout(sense_offset=0.3, seed=3)).forward(torch.zeros(2, 10))
        assert not torch.equal(offsets, other)

    def test_line_resistance_is_kirchhoff_s_law(self):
        """Against the dense system of the voltages at the cells' places."""
        store, x, line_ohm = store_of(6, 12, resistance_spread=0.1), ternary(5, 12), 30.0
        crossbar = Crossbar.of(store, readout=Readout(line_resistance_ohm=line_ohm))
        found = crossbar.forward(x) * crossbar.unit_S
        first, second = crossbar.conductances_S
        for b in range(5):
            for o in range(6):
                laplace = torch.zeros(12, 12, dtype=torch.float64)
                for k in range(12):  # to the next place, and from the last to the amplifier
                    laplace[k, k] += 1 / line_ohm
                    if k < 11:
                        laplace[k + 1, k + 1] += 1 / line_ohm
                        laplace[k, k + 1] = laplace[k + 1, k] = -1 / line_ohm
                u = x[b].double()
                system = laplace + torch.diag(u.abs() * (first[o] + second[o]))
                voltage = torch.linalg.solve(system, u * (first[o] - second[o]))
                assert float(found[b, o]) == pytest.approx(float(voltage[-1] / line_ohm), rel=1e-9, abs=1e-15)

    def test_line_resistance_takes_current_away(self):
        store, x = store_of(30, 100), ternary(5, 100)
        exact = Crossbar.of(store).forward(x)
        norms = [
            float(Crossbar.of(store, readout=Readout(line_resistance_ohm=ohm)).forward(x).norm())
            for ohm in (1e-9, 1, 10)
        ]
        assert norms[0] == pytest.approx(float(exact.norm()), rel=1e-6)
        assert norms[0] > norms[1] > norms[2]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"adc_bits": 1}, "2 bits or more, got 1"),
            ({"adc_full_scale": 0.0}, "full scale of a converter is above 0"),
            ({"sense_offset": -1.0}, "sense_offset is a finite number"),
            ({"line_resistance_ohm": float("nan")}, "line_resistance_ohm is a finite number"),
        ],
    )
    def test_refuses_what_is_not_physical(self, options, message):
        with pytest.raises(ValueError, match=message):
            Readout(**options)

    def test_refuses_a_gradient_without_bits(self):
        with pytest.raises(ValueError, match="2 bits or more, its sign included, got 1"):
            Crossbar.of(store_of(2, 3)).transposed(torch.ones(1, 2), bits=1)


def test_a_network_s_layers_get_the_readout_and_keep_their_gradients():
    layer = BinaryLinear(100, 20, store=lambda _: store_of(20, 100), input_quantizer=Ternary(threshold=0.5))
    model = nn.Sequential(layer, nn.Linear(20, 3))
    x = torch.randn((4, 100), generator=torch.Generator().manual_seed(0))
    exact = layer(x)
    readout = Readout(adc_bits=4, sense_offset=0.5)
    handles = attach(model, readout)
    assert len(handles) == 1
    sensed = layer(x)
    torch.testing.assert_close(sensed, readout.sense(exact, inputs=100))
    assert not torch.equal(sensed, exact)
    sensed.sum().backward()
    gradient = layer.store.weight.grad.clone()
    for handle in handles:
        handle.remove()
    layer.store.weight.grad = None
    layer(x).sum().backward()
    assert torch.equal(layer.store.weight.grad, gradient)
