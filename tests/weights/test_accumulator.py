"""Accumulators: parameters that autograd does not know, their codes, and the store of them."""

import copy
import gc

import pytest
import torch
from torch import Tensor, nn

from bnn.bits import BitTensor
from bnn.errors import RecipeError
from bnn.layers import BinaryConv2d, BinaryLinear
from bnn.models import vgg_small
from bnn.optim import SGD, Adam, step_in_backward
from bnn.quantizers import ReCU, ScaledSign, Sign, Ternary
from bnn.quantizers.gradients import SignGradient
from bnn.weights import Accumulator, AccumulatorStore, LatentStore, is_accumulator
from bnn.weights.accumulator import decode, encode
from tests.contracts import dense, saved_bytes, signs

CODES = torch.arange(-128, 128, dtype=torch.int8)


# --- the parameter


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int8])
def test_takes_gradients_of_bits_and_of_floats(dtype):
    parameter = Accumulator(torch.zeros(3, 5, dtype=dtype))
    assert is_accumulator(parameter)
    assert not parameter.requires_grad
    calls = []
    handle = parameter.register_post_accumulate_grad_hook(calls.append)
    ones = BitTensor.from_dense(torch.ones(3, 5))
    parameter.accumulate(ones)
    assert parameter.grad is ones
    parameter.accumulate(torch.ones(3, 5, dtype=torch.bfloat16))
    assert torch.equal(parameter.grad, torch.full((3, 5), 2.0))
    handle.remove()
    parameter.accumulate(torch.full((3, 5), 2.0))
    assert torch.equal(parameter.grad, torch.full((3, 5), 4.0))
    assert [id(called) for called in calls] == [id(parameter)] * 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("optimizer", [SGD, Adam])
def test_optimizers_step_it_by_signs_and_keep_it_within_one(dtype, optimizer):
    parameter = Accumulator(torch.tensor([[0.5, -0.5, 0.9, -0.9]] * 2, dtype=dtype))
    parameter.accumulate(BitTensor.from_dense(torch.tensor([[1.0, -1.0, -1.0, 1.0]] * 2)))
    optimizer([parameter], lr=0.25).step()
    expected = torch.tensor([[0.25, -0.25, 1.0, -1.0]] * 2)
    torch.testing.assert_close(parameter.detach().float(), expected, rtol=1e-3, atol=1e-3)


def test_other_parameters_are_no_accumulators():
    assert not is_accumulator(nn.Parameter(torch.zeros(2)))
    assert not is_accumulator(torch.zeros(2, dtype=torch.int8))


@pytest.mark.parametrize("quantizer", [None, SignGradient(), SignGradient(scale="none", packed=True)])
def test_reading_apart_gives_what_reading_gives_and_hands_the_gradient_over(quantizer):
    store = AccumulatorStore((3, 5), gradient_quantizer=quantizer)
    signs_apart, take = store.read_apart()
    read = store.read()
    assert torch.equal(signs_apart.dense(), read.detach().dense())
    assert (signs_apart.dtype, signs_apart.requires_grad) == (read.dtype, False)
    gradient = torch.randn(3, 5)
    read.backward(gradient)
    expected, store.weight.grad = store.weight.grad, None
    take(gradient)
    assert type(store.weight.grad) is type(expected)
    assert torch.equal(dense(store.weight.grad), dense(expected))


def test_a_store_that_reads_in_its_own_way_is_not_read_apart():
    class Halved(AccumulatorStore):
        def read(self) -> Tensor:
            return super().read() / 2

    assert Halved((3, 5)).read_apart() is None
    assert LatentStore((3, 5)).read_apart() is None


class TestAccumulatorInAModule:
    @staticmethod
    def module() -> nn.Module:
        module = nn.Module()
        module.weight = Accumulator(torch.arange(6, dtype=torch.int8).view(2, 3))
        return module

    def test_is_a_parameter_in_the_state_and_keeps_its_codes(self):
        module = self.module()
        assert [name for name, _ in module.named_parameters()] == ["weight"]
        other = self.module()
        with torch.no_grad():
            other.weight.zero_()
        other.load_state_dict(module.state_dict())
        assert torch.equal(other.weight, module.weight)

    def test_copies_are_independent_and_whole(self):
        module = self.module()
        calls = []
        module.weight.register_post_accumulate_grad_hook(calls.append)
        copied = copy.deepcopy(module)
        copied.weight.accumulate(torch.ones(2, 3))
        with torch.no_grad():
            copied.weight.zero_()
        assert is_accumulator(copied.weight)
        assert module.weight.grad is None
        assert module.weight.any()
        assert not calls

    def test_changes_of_dtype_leave_it_alone(self):
        weight = self.module().bfloat16().weight
        assert is_accumulator(weight)
        assert weight.dtype == torch.int8
        weight.accumulate(torch.ones(2, 3))


# --- codes of 8 bits


def test_codes_are_256_values_around_zero():
    values = decode(CODES)
    assert values.dtype == torch.float32
    assert torch.equal(values, -values.flip(0))
    assert values[0] == -127.5 / 128
    assert (values.diff() == 1 / 128).all()
    assert not (values == 0).any()


def test_encode_inverts_decode(generator):
    assert torch.equal(encode(decode(CODES), None), CODES)
    assert torch.equal(encode(decode(CODES), generator), CODES)


def test_encode_clamps(generator):
    far = torch.tensor([-7.0, -1.0, 1.0, 7.0])
    assert encode(far, generator).tolist() == encode(far, None).tolist() == [-128, -128, 127, 127]


def test_small_updates_get_through_on_average(generator):
    codes = torch.zeros(100_000, dtype=torch.int8)
    moved = encode(decode(codes) + 0.001, generator)
    assert decode(moved).mean().item() - decode(codes[:1]).item() == pytest.approx(0.001, abs=5e-5)
    assert torch.equal(encode(decode(codes) + 0.001, None), codes)


# --- the store


def test_reads_the_signs_of_its_accumulators(generator):
    store = AccumulatorStore((50, 70))
    store.initialize(generator)
    assert isinstance(store.read(), BitTensor)
    assert torch.equal(store.read().dense(), signs(decode(store.weight)))
    assert store.read().dense().mean().abs() < 0.1, "no sign is favoured, although many accumulators are near zero"


@pytest.mark.parametrize("dtype", [torch.int8, torch.float16])
def test_accumulators_begin_with_the_gain_over_the_root_of_the_fan_in(generator, dtype):
    store = AccumulatorStore((100, 16, 5, 5), dtype=dtype, gain=4.0)
    store.initialize(generator)
    values = decode(store.weight.detach()) if dtype is torch.int8 else store.weight.detach().float()
    assert values.std().item() == pytest.approx(4 / 20, rel=0.02)


def test_the_gradient_reaches_the_accumulators():
    store = AccumulatorStore((5, 7))
    gradient = torch.arange(35.0).view(5, 7)
    store.read().backward(gradient)
    assert torch.equal(store.weight.grad, gradient)
    store.read().backward(gradient)
    assert torch.equal(store.weight.grad, 2 * gradient)


@pytest.mark.parametrize("quantizer", [SignGradient(scale="fan_in"), SignGradient(scale="none", packed=True)])
def test_the_gradient_goes_through_the_quantizer(quantizer, generator):
    store = AccumulatorStore((5, 7), gradient_quantizer=quantizer)
    assert store.gradient_quantizer is not quantizer
    gradient = torch.randn((5, 7), generator=generator)
    store.read().backward(gradient)
    assert type(store.weight.grad) is type(quantizer(gradient))
    assert torch.equal(store.weight.grad, quantizer(gradient))


def test_without_gradient_it_reads_the_same():
    store = AccumulatorStore((5, 7))
    with torch.no_grad():
        bits = store.read()
    assert not bits.requires_grad
    assert torch.equal(bits, store.read())


@pytest.mark.parametrize("shape", [(64, 100), (64, 25, 2, 2)])
def test_initialization_is_that_of_latent_weights(shape, generator):
    store = AccumulatorStore(shape)
    store.initialize(generator)
    values = decode(store.weight)
    assert values.std().item() == pytest.approx(0.1, rel=0.05)
    assert values.mean().item() == pytest.approx(0, abs=0.01)
    other = AccumulatorStore(shape)
    other.initialize(torch.Generator().manual_seed(0))
    assert torch.equal(store.weight, other.weight)


def test_one_byte_a_weight_is_all_there_is():
    layer = BinaryConv2d(64, 64, 3, store=AccumulatorStore)
    state = layer.state_dict()
    assert list(state) == ["store.weight"]
    assert sum(x.nbytes for x in state.values()) == layer.store.size
    assert layer.store.weight.is_contiguous(memory_format=torch.channels_last)
    assert layer.store.storage_bits == 1


def test_steps_in_backward_leave_no_float_tensor_of_the_weight_s_size():
    others = {id(x) for x in _floats()}
    layer = BinaryLinear(512, 256, store=AccumulatorStore)
    optimizer = SGD(layer.parameters(), lr=0.1)
    before = layer.store.weight.clone()
    with step_in_backward(optimizer), saved_bytes() as saved:
        y = layer(torch.randn(8, 512, generator=torch.Generator().manual_seed(1), requires_grad=True))
        assert _largest_float_elements(others) < layer.store.size
        y.square().mean().mul(1e6).backward()
    assert sum(saved.values()) < layer.store.size / 2, "the weight's bits, and the layer's input and output"
    assert layer.store.weight.grad is None
    assert not any(torch.is_tensor(value) for state in optimizer.state.values() for value in state.values())
    assert _largest_float_elements(others) < layer.store.size
    assert not torch.equal(layer.store.weight, before)


def _floats() -> list[torch.Tensor]:
    """The dense floating tensors that are alive."""
    gc.collect()
    return [x for x in gc.get_objects() if type(x) in (torch.Tensor, nn.Parameter) and x.is_floating_point()]


def _largest_float_elements(others: set[int]) -> int:
    """Elements of the largest dense floating tensor that is alive, those of other tests aside."""
    return max((x.numel() for x in _floats() if id(x) not in others), default=0)


def test_a_whole_model_takes_it(generator):
    model = vgg_small(store=AccumulatorStore)
    optimizer = Adam(model.parameters(), state_dtype=torch.int8)
    before = copy.deepcopy(model.state_dict())
    x = torch.randn((2, 3, 32, 32), generator=generator)
    nn.functional.cross_entropy(model(x), torch.tensor([1, 2])).backward()
    optimizer.step()
    changed = {name for name, x in model.state_dict().items() if not torch.equal(x, before[name])}
    assert {f"{name}" for name, parameter in model.named_parameters()} <= changed


def test_repr_tells_shape_and_quantizer():
    assert "shape=(5, 7)" in repr(AccumulatorStore((5, 7), gradient_quantizer=SignGradient()))
    assert "SignGradient(" in repr(AccumulatorStore((5, 7), gradient_quantizer=SignGradient()))


def test_owns_a_copy_of_its_quantizer():
    pattern = ReCU(tau=0.8, tail="project")
    store = AccumulatorStore((3, 4), quantizer=pattern)
    assert store.quantizer is not pattern
    assert "ReCU(tau=0.8" in repr(store)
    assert list(store.state_dict()) == ["weight"]


@pytest.mark.parametrize(
    "quantizer",
    [Ternary(), ScaledSign(), ReCU(scale="mean"), ReCU(tail="project", quantile="empirical")],
    ids=lambda quantizer: type(quantizer).__name__,
)
def test_quantizers_that_accumulators_cannot_stand_for_are_named(quantizer):
    with pytest.raises(RecipeError, match="accumulators .* cannot stand for " + type(quantizer).__name__) as error:
        AccumulatorStore((3, 4), quantizer=quantizer)
    assert "\n" not in str(error.value)


def test_a_quantizer_with_a_forward_of_its_own_is_not_stood_for():
    class Own(ReCU):
        def forward(self, x: Tensor) -> Tensor:
            return BitTensor.from_dense(-x)

    with pytest.raises(RecipeError, match="cannot stand for Own"):
        AccumulatorStore((3, 4), quantizer=Own())


@pytest.mark.parametrize("quantizer", [Sign(), ReCU(), ReCU(tail="project", scope="filter"), ReCU(standardize=False)])
def test_a_latent_store_s_quantizer_can_be_taken_over(quantizer):
    latent = LatentStore((5, 7, 3, 3), quantizer=quantizer)
    store = AccumulatorStore(latent.shape, quantizer=latent.quantizer)
    assert repr(store.quantizer) == repr(quantizer)
    assert (store.levels, store.storage_bits, store.scales) == (latent.levels, latent.storage_bits, latent.scales)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16])
def test_sums_of_signs_step_as_signs_do_and_not_where_they_are_zero(dtype, generator):
    start = torch.randint(-128, 128, (40, 50), dtype=torch.int8, generator=generator)
    votes = torch.randint(-1, 2, (40, 50), dtype=dtype, generator=generator) * 2
    by_votes, by_signs = Accumulator(start.clone()), Accumulator(start.clone())
    by_votes.accumulate(votes)
    by_signs.accumulate(BitTensor.from_dense(votes > 0))
    for parameter in (by_votes, by_signs):
        Adam([parameter], lr=0.1, betas=(0.0, 0.0), seed=3).step()
    assert torch.equal(by_votes, torch.where(votes == 0, start, by_signs))
    assert not torch.equal(by_votes, start)


def test_a_step_that_grows_with_the_gradient_grows_with_the_sum_of_signs():
    parameter = Accumulator(torch.full((4, 4), 100, dtype=torch.int8))
    parameter.accumulate(torch.full((4, 4), 2, dtype=torch.int8))
    SGD([parameter], lr=10 / 128).step()
    assert torch.equal(parameter, torch.full((4, 4), 80, dtype=torch.int8))
