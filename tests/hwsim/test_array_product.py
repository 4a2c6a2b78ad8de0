"""Products on tiles: exact without limits, Kirchhoff's law with wires, and each converter against its closed form."""

import itertools
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnn.layers import BinaryConv2d, BinaryLinear
from bnn.ops.geometry import Window
from bnn.optim import Adam
from bnn.optim.dst import DST
from bnn.quantizers import Ternary
from hwsim.array_product import CellArray, array_product
from hwsim.devices import junctions
from hwsim.devices.butler import Butler
from hwsim.store import DeviceStore
from hwsim.tiles import Tiles
from tests.hwsim.nodal import current_into, potentials

JUNCTION = junctions.consistent(model=Butler())
PARALLEL_S, ANTIPARALLEL_S = 1 / 4e3, 1 / 8e3
UNIT_S = PARALLEL_S - ANTIPARALLEL_S


def array_of(*shape: int, seed: int = 0, dtype=torch.float64, **options) -> CellArray:
    """Cells in random states, [out, in] or [out, in, kh, kw]."""
    shape = (*shape, *[1] * (4 - len(shape)))
    states = torch.rand((2, *shape), generator=torch.Generator().manual_seed(seed)) < 0.5
    conductances_S = torch.where(states, ANTIPARALLEL_S, PARALLEL_S).to(dtype)
    limits = {key: options.pop(key) for key in ("seed_of_offsets", "time") if key in options}
    return CellArray(
        conductances_S=conductances_S,
        unit_S=UNIT_S,
        tiles=Tiles(**options),
        read_V=0.05,
        read_s=1e-9,
        seed=limits.get("seed_of_offsets", 0),
        time=limits.get("time", 0),
    )


def weights_of(array: CellArray) -> torch.Tensor:
    first, second = array.conductances_S
    return (first - second) / array.unit_S


def random(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def both_ways(product, x: torch.Tensor, weight: torch.Tensor, grad_seed: int = 2):
    """A product with the gradients of its input and its weight."""
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    y = product(x, weight)
    y.backward(random(*y.shape, seed=grad_seed))
    return y.detach(), x.grad, weight.grad


@pytest.mark.parametrize("size", [3, 8, 128])
def test_without_limits_a_linear_product_is_the_ideal_one(size):
    array, x = array_of(10, 7, size=size), random(4, 5, 7)
    weight = weights_of(array).view(10, 7)
    found = both_ways(lambda x, w: array_product(x, w, array, None), x, weight)
    torch.testing.assert_close(found, both_ways(F.linear, x, weight), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "window",
    [
        Window.of(),
        Window.of(stride=2, padding=1),
        Window.of(padding=2, dilation=2),
        Window.of(stride=(2, 1), padding=(0, 1)),
    ],
)
@pytest.mark.parametrize("size", [9, 20, 128])
def test_without_limits_a_convolution_is_the_ideal_one(window, size):
    array, x = array_of(11, 5, 3, 3, size=size), random(2, 5, 8, 7)
    weight = weights_of(array)
    found = both_ways(lambda x, w: array_product(x, w, array, window), x, weight)
    ideal = both_ways(lambda x, w: F.conv2d(x, w, None, *window.for_torch), x, weight)
    torch.testing.assert_close(found, ideal, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-9), (torch.float32, 1e-6)])
def test_wires_are_kirchhoff_s_law_both_ways(dtype, within):
    """Every line of every tile by nodal analysis; what they share is the gain, which is calibrated."""
    outputs, inputs, size, wire_ohm = 6, 7, 4, 20.0
    array = array_of(outputs, inputs, size=size, wire_ohm=wire_ohm, dtype=dtype)
    first, second = array.conductances_S[..., 0, 0].double()
    weight, u, delta = weights_of(array)[..., 0, 0], random(inputs), random(outputs)

    def sensed(line: list[tuple[str, float]], driven: dict[str, float]) -> float:
        """Current over V into the amplifier behind the last cell of a line of cells, each with its input."""
        chain = [*(f"place {k}" for k in range(len(line))), "amplifier"]
        net = [(one, other, 1 / wire_ohm) for one, other in itertools.pairwise(chain)]
        for k, cell in enumerate(line):
            net += [(f"place {k}", source, conductance_S) for source, conductance_S in cell]
        return current_into("amplifier", net, potentials(net, {**driven, "amplifier": 0.0}))

    def gain(true: torch.Tensor, seen: list[float]) -> float:
        seen = torch.tensor(seen, dtype=torch.float64)
        return float((true * seen).sum() / (seen * seen).sum()) if bool(seen.any()) else 1.0

    expected, expected_back = torch.zeros(outputs).double(), torch.zeros(inputs).double()
    for o in range(outputs):
        for start in range(0, inputs, size):
            cells = range(start, min(start + size, inputs))
            line = [[(f"+{k}", float(first[o, k])), (f"-{k}", float(second[o, k]))] for k in cells]

            def current(values, line=line, cells=cells) -> float:
                driven = {f"{sign}{k}": (1 if sign == "+" else -1) * float(values[k]) for k in cells for sign in "+-"}
                return sensed(line, driven) / UNIT_S

            seen = [current(torch.eye(inputs)[k]) for k in cells]
            expected[o] += gain(weight[o, cells].double(), seen) * current(u)
    for k in range(inputs):
        for start in range(0, outputs, size):
            cells = range(start, min(start + size, outputs))

            def current(values, cells=cells, k=k) -> float:
                driven = {f"{o}": float(values[o]) for o in cells}
                parts = [sensed([[(f"{o}", float(one[o, k]))] for o in cells], driven) for one in (first, second)]
                return (parts[0] - parts[1]) / UNIT_S

            seen = [current(torch.eye(outputs)[o]) for o in cells]
            expected_back[k] += gain(weight[cells, k].double(), seen) * current(delta)

    x = u[None].to(dtype).requires_grad_()
    y = array_product(x, weight, array, None)
    y.backward(delta[None].to(dtype))
    assert float((y.detach()[0] - expected).abs().max()) < within * float(expected.abs().max())
    assert float((x.grad[0] - expected_back).abs().max()) < within * float(expected_back.abs().max())
    ideal = weight.double() @ u
    assert float((expected - ideal).abs().max()) > 0.01 * float(ideal.abs().max())  # there was something to solve


@pytest.mark.parametrize("bits", [4, 6, 10])
def test_a_converter_s_error_is_half_a_step(bits):
    array, x = array_of(20, 50, adc_bits=bits, adc_range=8.0), random(4, 50).sign()
    error = array_product(x, weights_of(array).view(20, 50), array, None) - x @ weights_of(array).view(20, 50).T
    step = 8.0 * weights_of(array).view(20, 50).norm(dim=1) / (2 ** (bits - 1) - 1)
    assert bool((error.abs() <= step / 2 + 1e-9).all())
    assert float(error.abs().max()) > 0.1 * float(step.min())


def test_a_converter_ends_at_its_range():
    array = array_of(1, 100, adc_bits=6, adc_range=2.0)
    weight = weights_of(array).view(1, 100)
    y = array_product(weight.sign(), weight, array, None)  # all in phase: the norm squared
    rms = float(weight.sign().square().mean().sqrt())
    assert float(y) == pytest.approx(2.0 * float(weight.norm()) * rms)


def test_converters_of_inputs_and_gradients_round_by_each_example():
    array = array_of(12, 30, dac_bits=4)
    weight = weights_of(array).view(12, 30)
    x, rounded = random(3, 30), random(3, 30)
    scale = x.abs().amax(dim=1, keepdim=True)
    rounded = (x / scale * 7).round() / 7 * scale
    torch.testing.assert_close(array_product(x, weight, array, None), rounded @ weight.T)
    alone = array_product(x[:1], weight, array, None)
    assert torch.equal(array_product(torch.cat([x[:1], 100 * x[1:]]), weight, array, None)[:1], alone)
    ternary = torch.tensor([[-1.0, 0, 1] * 10], dtype=torch.float64)
    coarse = array_of(12, 30, dac_bits=2)
    assert torch.allclose(array_product(ternary, weight, coarse, None), ternary @ weight.T)


def test_offsets_stay_and_noise_changes_with_the_time():
    x = torch.zeros(50, 40).double()
    offsets = array_product(x, torch.zeros(3, 40), array_of(3, 40, size=10, sense_offset=0.3), None)
    assert bool((offsets == offsets[0]).all())
    assert bool((offsets != 0).any())

    def noise(**options):
        x = torch.ones(2000, 40).double()
        array = array_of(3, 40, temperature_K=300.0, **options)
        return array_product(x, torch.zeros(3, 40), array, None) - x @ weights_of(array).view(3, 40).T

    line_S = array_of(3, 40).conductances_S.sum(dim=(0, 2, 3, 4))
    wanted = Tiles(temperature_K=300.0).noise(line_S, read_V=0.05, read_s=1e-9, unit_S=UNIT_S)
    torch.testing.assert_close(noise().std(dim=0), wanted, rtol=0.06, atol=0)
    assert torch.equal(noise(), noise())
    assert not torch.equal(noise(), noise(time=1))


def test_an_example_of_zeros_gives_zeros():
    array = array_of(5, 6, adc_bits=6, dac_bits=6, wire_ohm=1.0)
    x = torch.zeros(2, 6).double().requires_grad_()
    y = array_product(x, torch.zeros(5, 6), array, None)
    y.backward(torch.zeros_like(y))
    assert not y.any()
    assert not x.grad.any()


def test_refuses_what_cannot_be_laid_out():
    with pytest.raises(ValueError, match="25 taps of a kernel do not fit on the 16 cells of a tile's line"):
        array_product(random(1, 2, 9, 9), torch.zeros(3), array_of(3, 2, 5, 5, size=16), Window.of())
    with pytest.raises(ValueError, match="a convolution in groups cannot be laid out on tiles"):
        array_product(random(1, 4, 9, 9), torch.zeros(3), array_of(4, 2, 3, 3), Window.of(groups=2))


def network(tiles: Tiles | None) -> nn.Sequential:
    store = partial(DeviceStore, device=JUNCTION, tiles=tiles)
    ternary = Ternary(threshold=0.5)
    layers = nn.Sequential(
        BinaryConv2d(1, 8, 3, store=store, input_quantizer=None),
        nn.BatchNorm2d(8),
        BinaryConv2d(8, 8, 3, stride=2, store=store, input_quantizer=ternary),
        nn.Flatten(),
        nn.BatchNorm1d(72),
        BinaryLinear(72, 4, store=store, input_quantizer=ternary),
    )
    generator = torch.Generator().manual_seed(0)
    for layer in layers:
        if hasattr(layer, "store"):
            layer.store.initialize(generator)
    return layers


def trained(tiles: Tiles | None, steps: int) -> tuple[float, list[torch.Tensor]]:
    """Loss at the end, and the weights, of a small network on four patterns in noise."""
    model = network(tiles)
    optimizer = DST(Adam(model.parameters(), lr=3e-2, seed=0))
    generator = torch.Generator().manual_seed(3)
    patterns = torch.randn((4, 1, 9, 9), generator=generator)
    for _ in range(steps):
        labels = torch.randint(4, (32,), generator=generator)
        x = patterns[labels] + 0.5 * torch.randn((32, 1, 9, 9), generator=generator)
        loss = F.cross_entropy(model(x) / 8, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return float(loss.detach()), [layer.store.planes.clone() for layer in model if hasattr(layer, "store")]


def test_a_network_learns_on_tiles_and_the_same_seed_gives_the_same_bits():
    tiles = Tiles(size=32, wire_ohm=2.0, adc_bits=6, dac_bits=6, sense_offset=0.2, temperature_K=300.0)
    loss, _ = trained(tiles, steps=25)
    assert loss < 0.9  # chance is ln 4 = 1.39
    (loss, planes), (again, same) = (trained(tiles, steps=3) for _ in range(2))
    assert loss == again
    assert all(map(torch.equal, planes, same))


def test_tiles_without_limits_are_the_weights_as_numbers():
    x = torch.randn((3, 1, 9, 9), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(Tiles())(x), network(None)(x), rtol=1e-4, atol=1e-4)


def test_lines_that_no_driver_drives_are_refused_where_the_weight_is_made():
    with pytest.raises(ValueError, match=r"a line of 1024 cells takes .* mA, more than the 5 mA of its driver"):
        DeviceStore((4, 4), device=JUNCTION, tiles=Tiles(size=1024))
