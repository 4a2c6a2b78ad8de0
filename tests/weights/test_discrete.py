import copy
import gc
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bnn.bits import BitTensor
from bnn.errors import NonFiniteError
from bnn.layers import BinaryConv2d, BinaryLinear
from bnn.optim import SGD
from bnn.quantizers import Ternary
from bnn.weights import DiscreteStore, ProgrammedWeight, store_behind
from bnn.weights.discrete import uniform
from tests.contracts import dense, saved_bytes

SPACES = range(8)


def levels_of(space: int) -> list[float]:
    """The paper's Z_N, written out."""
    return [n / 2 ** (space - 1) - 1 for n in range(2**space + 1)]


def held(store: DiscreteStore) -> torch.Tensor:
    return dense(store.value())


def at(store: DiscreteStore, level: float) -> DiscreteStore:
    """Takes every weight to the lowest level and from there to `level`: whole steps are certain."""
    for delta in (-2.0, level + 1):
        store.program(torch.full(store.shape, delta), torch.Generator().manual_seed(0))
    assert (held(store) == level).all()
    return store


@pytest.mark.parametrize("space", SPACES)
def test_the_levels_are_those_of_the_discrete_space(space, generator):
    store = DiscreteStore((60, 70), space=space)
    store.initialize(generator)
    levels = levels_of(space)
    assert held(store).unique().tolist() == levels
    assert store.spacing == levels[1] - levels[0]
    assert store.storage_bits == math.ceil(math.log2(len(levels)))
    assert isinstance(store.read(), BitTensor) == (space == 0)


@pytest.mark.parametrize("space", SPACES)
def test_initialization_rounds_a_uniform_number_to_the_nearest_level(space, generator):
    store = DiscreteStore((500, 400), space=space)
    store.initialize(generator)
    levels = levels_of(space)
    steps = len(levels) - 1
    for level in levels:
        probability = (0.5 if level in (-1, 1) else 1) / steps
        assert_share(held(store) == level, probability)


def test_a_generator_makes_initialization_reproducible():
    one, other = DiscreteStore((5, 7)), DiscreteStore((5, 7))
    state = torch.get_rng_state()
    for store in (one, other):
        store.initialize(torch.Generator().manual_seed(3))
    assert torch.equal(one.planes, other.planes)
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
    other.initialize(torch.Generator().manual_seed(4))
    assert not torch.equal(one.planes, other.planes)


def test_a_parameter_knows_the_store_that_keeps_its_states():
    store = DiscreteStore((5, 7))
    assert store_behind(store.weight) is store
    copied = copy.deepcopy(store)
    assert store_behind(copied.weight) is copied
    assert store_behind(nn.Parameter(torch.zeros(3))) is None


def assert_share(events: torch.Tensor, probability: float) -> None:
    """A count within 4.5 standard deviations of the binomial: one false alarm in 150,000."""
    count, n = events.sum().item(), events.numel()
    assert abs(count - n * probability) <= 4.5 * math.sqrt(n * probability * (1 - probability))


class TestProgram:
    @given(space=st.sampled_from(SPACES), delta=st.floats(-3, 3, width=32), seed=st.integers(0, 1000))
    def test_levels_stay_on_the_grid_and_within_the_bounds(self, space, delta, seed):
        generator = torch.Generator().manual_seed(seed)
        store = DiscreteStore((3, 9), space=space)
        store.initialize(generator)
        before = held(store)
        store.program(torch.full((3, 9), delta), generator)
        after = held(store)
        assert set(after.unique().tolist()) <= set(levels_of(space))
        # By the paper: first the bound on the change, then whole steps and one more.
        bounded = torch.full((3, 9), delta).clamp(-1 - before, 1 - before)
        least = (bounded / store.spacing).trunc() * store.spacing
        moved = after - before
        assert ((moved == least) | (moved == least + math.copysign(store.spacing, delta))).all()

    @pytest.mark.parametrize("delta", [0.3, -0.3, 0.75, -0.02, 1e-3])
    def test_one_more_step_has_the_probability_of_the_rest(self, delta, generator):
        store = at(DiscreteStore((400, 500)), 0)
        store.program(torch.full((400, 500), delta), generator)
        assert_share(held(store) == math.copysign(1, delta), abs(delta))
        assert (held(store) != -math.copysign(1, delta)).all()

    def test_small_probabilities_are_kept(self, generator):
        store = at(DiscreteStore((1000, 2000)), 0)
        store.program(torch.full((1000, 2000), 1e-5), generator)
        assert_share(held(store) == 1, 1e-5)
        numbers = uniform(torch.empty(1000), generator) * 2**24
        assert (numbers.frac() != 0).float().mean() > 0.99, "24 bits would move weights that should all but stay"

    @pytest.mark.parametrize("space", [0, 1])
    def test_what_was_read_before_stays(self, space, generator):
        store = at(DiscreteStore((8, 9), space=space), -1)
        levels = store.value()
        store.program(torch.full((8, 9), 4.0), generator)
        assert (dense(levels) == -1).all()

    @pytest.mark.parametrize("delta", [0.1, -0.4, 0.6, -0.85])
    @pytest.mark.parametrize("space", [2, 3, 5])
    def test_the_change_is_kept_on_average(self, space, delta, generator):
        """Away from the bounds, whatever the number of whole steps."""
        shape = (500, 400)
        store = at(DiscreteStore(shape, space=space), -0.5 if delta > 0 else 0.5)
        before = held(store)
        store.program(torch.full(shape, delta), generator)
        part = abs(delta) / store.spacing % 1
        deviation = store.spacing * math.sqrt(part * (1 - part) / store.size)
        assert (held(store) - before).mean().item() == pytest.approx(delta, abs=4.5 * deviation + 1e-6)

    @pytest.mark.parametrize(("level", "delta"), [(-1, -0.4), (1, 0.4), (-1, -7.0), (1, 2.5)])
    def test_the_outermost_level_is_a_bound(self, level, delta, generator):
        store = at(DiscreteStore((20, 30)), level)
        store.program(torch.full((20, 30), delta), generator)
        assert (held(store) == level).all()

    def test_two_steps_take_a_ternary_weight_from_end_to_end(self, generator):
        store = at(DiscreteStore((200, 300)), -1)
        store.program(torch.full((200, 300), 1.25), generator)
        assert_share(held(store) == 1, 0.25)
        assert (held(store) != -1).all()

    def test_a_binary_weight_flips_with_the_half_of_its_change(self, generator):
        store = at(DiscreteStore((400, 500), space=0), -1)
        store.program(torch.full((400, 500), 0.6), generator)
        assert_share(held(store) == 1, 0.3)

    def test_a_change_of_nothing_moves_nothing(self, generator):
        store = DiscreteStore((200, 300))
        before = store.planes.clone()
        store.program(torch.zeros(200, 300), generator)
        assert torch.equal(store.planes, before)

    def test_the_generator_decides_and_nothing_else(self):
        store = DiscreteStore((600, 700))  # several chunks
        state = torch.get_rng_state()

        def programmed(seed: int, threads: int) -> torch.Tensor:
            torch.set_num_threads(threads)
            store.initialize(torch.Generator().manual_seed(0))
            store.program(torch.full((600, 700), 0.3), torch.Generator().manual_seed(seed))
            torch.set_num_threads(1)
            return store.planes.clone()

        assert torch.equal(programmed(1, threads=1), programmed(1, threads=3))
        assert not torch.equal(programmed(1, threads=1), programmed(2, threads=1))
        assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"

    def test_every_weight_takes_its_own_change(self, generator):
        """A convolution's, in several chunks."""
        shape = (300, 64, 3, 3)
        store = DiscreteStore(shape)
        store.initialize(generator)
        before = held(store)
        delta = torch.randint(-2, 3, shape, generator=generator).float()
        store.program(delta, generator)
        assert torch.equal(held(store), (before + delta).clamp(-1, 1))

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_refuses_what_is_not_finite(self, value, generator):
        store = DiscreteStore((4, 5))
        before = store.planes.clone()
        delta = torch.ones(4, 5)
        delta[1, 2] = value
        with pytest.raises(NonFiniteError, match="lower the learning rate"):
            store.program(delta, generator)
        assert torch.equal(store.planes, before)


class TestModule:
    @pytest.mark.parametrize("shape", [(5, 7), (5, 4, 3, 3)])
    def test_the_gradient_reaches_the_weight(self, shape):
        store = DiscreteStore(shape)
        gradient = torch.randn(shape)
        for times in (1, 2):
            store.read().backward(gradient)
            torch.testing.assert_close(store.weight.grad, times * gradient)
        with torch.no_grad():
            assert not store.read().requires_grad

    def test_a_ternary_weight_takes_two_bits(self):
        layer = BinaryLinear(256, 100, store=DiscreteStore)
        (codes,) = layer.state_dict().values()
        assert codes.dtype is torch.uint8
        assert codes.numel() == layer.store.size / 4
        assert layer.store.weight.untyped_storage().nbytes() == 4, "the parameter is one number"

    @pytest.mark.parametrize("space", SPACES)
    def test_a_weight_takes_its_storage_bits(self, space):
        store = DiscreteStore((10, 64), space=space)
        assert 8 * sum(x.nbytes for x in store.state_dict().values()) == store.storage_bits * store.size

    @pytest.mark.parametrize("space", [0, 1, 3])
    def test_state_dict_round_trip(self, space):
        one, other = (BinaryConv2d(3, 5, 3, bias=True, store=lambda s: DiscreteStore(s, space=space)) for _ in range(2))
        assert list(one.state_dict()) == ["bias", "store.planes"]
        assert not torch.equal(held(one.store), held(other.store))
        other.load_state_dict(one.state_dict())
        assert torch.equal(held(one.store), held(other.store))

    def test_a_state_without_the_codes_is_refused(self):
        with pytest.raises(RuntimeError, match=r'Missing key.*"store.planes"'):
            BinaryLinear(5, 4, store=DiscreteStore).load_state_dict({})

    @pytest.mark.parametrize("copied", ["layer", "store"])
    def test_deepcopy_is_independent(self, copied, generator):
        layer = BinaryLinear(5, 4, store=DiscreteStore)
        original = layer.store
        store = copy.deepcopy(layer).store if copied == "layer" else copy.deepcopy(original)
        assert isinstance(store.weight, ProgrammedWeight)
        assert store.weight.store is store
        before = held(original)
        at(store, 1)
        assert torch.equal(held(original), before)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    @pytest.mark.parametrize("space", [1, 7])
    def test_reads_in_the_dtype_of_the_module(self, dtype, space):
        layer = BinaryLinear(64, 40, store=lambda s: DiscreteStore(s, space=space), input_quantizer=Ternary())
        before = held(layer.store)
        layer.to(dtype)
        assert layer.store.weight.untyped_storage().nbytes() == dtype.itemsize
        assert held(layer.store).dtype == dtype
        assert torch.equal(held(layer.store).float(), before)
        y = layer(torch.randn(3, 64, dtype=dtype))
        assert y.dtype == dtype
        y.sum().backward()
        assert layer.store.weight.grad.dtype == dtype

    def test_nothing_of_the_weight_s_size_is_kept_but_what_a_product_saves(self):
        layer = BinaryLinear(512, 256, store=DiscreteStore)
        with saved_bytes() as saved:
            layer(torch.randn(8, 512, requires_grad=True))
        assert max(saved.values()) == 4 * layer.store.size, "the dense levels, until backward is done"
        gc.collect()
        floats = [x for x in gc.get_objects() if type(x) is torch.Tensor and x.shape == (256, 512)]
        assert not [x for x in floats if x.untyped_storage().nbytes() > 4]

    def test_other_optimizers_cannot_write_to_it(self):
        store = DiscreteStore((4, 5))
        store.weight.grad = torch.ones(4, 5)
        before = store.planes.clone()
        for optimizer in (SGD([store.weight], lr=1.0), torch.optim.SGD([store.weight], lr=1.0)):
            with pytest.raises(RuntimeError):
                optimizer.step()
        assert torch.equal(store.planes, before)
        assert not store.weight.any()

    def test_can_be_made_without_memory(self):
        with torch.device("meta"):
            store = DiscreteStore((5, 3, 2, 2))
            assert store.read().shape == (5, 3, 2, 2)

    @pytest.mark.parametrize("space", [-1, 8])
    def test_refuses_other_spaces(self, space):
        with pytest.raises(ValueError, match="from 0 to 7"):
            DiscreteStore((5, 7), space=space)

    def test_repr_tells_shape_and_space(self):
        assert repr(DiscreteStore((5, 7), space=2)) == "DiscreteStore(shape=(5, 7), space=2)"


class TestProducts:
    """Ternary inputs and weights in the layers, against sums of signs."""

    def test_linear_counts_signs(self, generator):
        layer = BinaryLinear(40, 6, store=DiscreteStore, input_quantizer=Ternary(threshold=0.5))
        x = torch.randn(9, 40, generator=generator)
        q, w = layer.input_quantizer(x), held(layer.store)
        pairs = q[:, None] * w[None]
        assert torch.equal(layer(x).detach(), ((pairs == 1).sum(-1) - (pairs == -1).sum(-1)).float())

    def test_convolution_and_its_gradients_are_those_of_the_dense_weight(self, generator):
        layer = BinaryConv2d(4, 6, 3, padding=1, stride=2, store=DiscreteStore, input_quantizer=Ternary(threshold=0.5))
        x = torch.randn(2, 4, 7, 8, generator=generator).requires_grad_()
        weight = held(layer.store).requires_grad_()
        layer(x).square().sum().backward()
        other = x.detach().clone().requires_grad_()
        nn.functional.conv2d(layer.input_quantizer(other), weight, None, 2, 1).square().sum().backward()
        torch.testing.assert_close(x.grad, other.grad)
        torch.testing.assert_close(layer.store.weight.grad, weight.grad)

    def test_a_binary_space_reaches_the_packed_products(self, generator):
        layer = BinaryConv2d(4, 6, 3, store=lambda shape: DiscreteStore(shape, space=0))
        x = torch.randn(2, 4, 7, 8, generator=generator).requires_grad_()
        expected = nn.functional.conv2d((x.detach() >= 0) * 2.0 - 1, held(layer.store))
        with saved_bytes() as saved:
            y = layer(x)
        assert torch.equal(y.detach(), expected)
        assert sum(saved.values()) < x.numel()
        y.sum().backward()
        assert layer.store.weight.grad.any()
