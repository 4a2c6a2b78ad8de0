"""Adam's pass over float16 accumulators by the signs of their gradient: the formula's step, and nothing else."""

import math

import pytest
import torch
from torch import nn

from bnn.bits import BitTensor
from bnn.optim import DST, Adam
from bnn.training.checkpoint import load, save
from bnn.training.snapshot import capture, restore
from bnn.weights import Accumulator
from bnn.weights.accumulator import decode

SHAPES = [(8, 3, 3, 3), (8,), (), (6, 1003)]


def accumulators(dtype=torch.float16):
    generator = torch.Generator().manual_seed(0)
    values = [(torch.randn(shape, generator=generator) * 0.3).clamp(-1, 1) for shape in SHAPES]
    values[0] = values[0].contiguous(memory_format=torch.channels_last)
    return [Accumulator(x.to(dtype)) for x in values]


def give_signs(params, seed, *, dense):
    generator = torch.Generator().manual_seed(seed)
    for parameter in params:
        # Mostly +1 in some places and mostly -1 in others, so that weights go somewhere.
        values = torch.randn(parameter.shape, generator=generator) + torch.linspace(-2, 2, parameter.numel()).view(
            parameter.shape
        )
        bits = BitTensor.from_dense(torch.empty_like(parameter, dtype=torch.float32).copy_(values))
        parameter.grad = bits.dense(torch.float32) if dense else bits


def trained(*, dense=False, dtype=torch.float16, state_dtype=torch.float16, make=Adam, steps=30, **options):
    params = accumulators(dtype)
    optimizer = make(params, lr=0.01, state_dtype=state_dtype, **options)
    for step in range(steps):
        give_signs(params, step, dense=dense)
        optimizer.step()
    return params, optimizer


class InChunks(Adam):
    """Adam without a kernel."""

    def update_at_once(self, *_):
        return False


def tensors_of(params, optimizer):
    return [*params, *(x for p in params for x in optimizer.state[p].values() if isinstance(x, torch.Tensor))]


def same(ones, others):
    return [torch.equal(one, other) for one, other in zip(ones, others, strict=True)]


def test_follows_the_formula_in_float32():
    """In parts of the way that the parameters went, and as closely as chunks of float32 do."""
    exact = [p.detach() for p in trained(dtype=torch.float32, state_dtype=torch.float32)[0]]
    start = accumulators(torch.float32)
    way = sum((a - b).square().sum() for a, b in zip(exact, start, strict=True))

    def apart(params):
        return (sum((a - b).square().sum() for a, b in zip(params, exact, strict=True)) / way).sqrt().item()

    assert 0 < apart(trained()[0]) < 0.01
    assert apart(trained()[0]) < 1.5 * apart(trained(make=InChunks)[0])


def test_a_dense_gradient_of_signs_is_signs():
    assert all(same(tensors_of(*trained()), tensors_of(*trained(dense=True))))


def test_the_state_is_that_of_steps_in_chunks():
    for ours, theirs in zip(tensors_of(*trained()), tensors_of(*trained(make=InChunks)), strict=True):
        assert (ours.dtype, ours.shape, ours.stride()) == (theirs.dtype, theirs.shape, theirs.stride())
        assert not torch.equal(ours, theirs) or ours.numel() < 10, "the pass draws its randomness otherwise"
        assert torch.allclose(ours, theirs, atol=0.02)
    params, optimizer = trained()
    for parameter in params:
        assert list(optimizer.state[parameter]) == ["step", "exp_avg", "exp_avg_sq"]
        assert optimizer.state[parameter]["step"] == 30


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": torch.bfloat16},
        {"dtype": torch.float32},
        {"state_dtype": torch.int8},
        {"state_dtype": torch.float32},
        {"betas": (0.0, 0.99)},
        {"betas": (0.9, 0.0)},
        {"betas": (0.0, 0.0)},
        pytest.param({"make": lambda params, **options: DST(Adam(params, **options))}, id="DST"),
    ],
    ids=str,
)
def test_every_other_case_steps_as_by_a_dense_gradient(options):
    ones, others = tensors_of(*trained(steps=3, **options)), tensors_of(*trained(dense=True, steps=3, **options))
    assert all(same(ones, others))


def test_signs_in_another_order_of_memory_step_as_a_dense_gradient():
    one, other = accumulators()[:1], accumulators()[:1]
    give_signs(one, 0, dense=False)
    other[0].grad = one[0].grad.dense(torch.float32).contiguous()
    one[0].grad = one[0].grad.contiguous()
    assert one[0].grad.stride() != one[0].stride()
    for params in (one, other):
        Adam(params, state_dtype=torch.float16).step()
    assert torch.equal(one[0], other[0])


def test_signs_belong_to_the_elements_of_a_channels_last_weight():
    """Without momentum to speak of, the first step is the learning rate against each sign."""
    (weight,) = accumulators()[:1]
    before = weight.detach().float()
    give_signs([weight], 0, dense=False)
    Adam([weight], lr=0.125, betas=(1e-6, 0.5), state_dtype=torch.float16).step()
    expected = (before - 0.125 * weight.grad.dense(torch.float32)).clamp(-1, 1)
    assert torch.allclose(weight.float(), expected, atol=1e-3)


def test_the_seed_decides_and_the_number_of_threads_does_not():
    threads = torch.get_num_threads()
    try:
        one = tensors_of(*trained(seed=1, steps=3))
        torch.set_num_threads(3)
        assert all(same(one, tensors_of(*trained(seed=1, steps=3))))
    finally:
        torch.set_num_threads(threads)
    assert not all(same(one, tensors_of(*trained(seed=2, steps=3))))


def test_a_checkpoint_resumes_bit_for_bit(tmp_path):
    class Training:
        def __init__(self):
            self.model = nn.Module()
            for index, parameter in enumerate(accumulators()):
                self.model.register_parameter(str(index), parameter)
            self.params = list(self.model.parameters())
            self.optimizer = Adam(self.params, lr=0.01, state_dtype=torch.float16)

        def train(self, first, last):
            for step in range(first, last):
                give_signs(self.params, step, dense=False)
                self.optimizer.step()

    whole, before, after = Training(), Training(), Training()
    whole.train(0, 6)
    before.train(0, 3)
    save(tmp_path, capture(3, before.model, before.optimizer, {}, {}))
    restore(load(tmp_path), after.model, after.optimizer, {})
    after.train(3, 6)
    assert all(same(tensors_of(after.params, after.optimizer), tensors_of(whole.params, whole.optimizer)))


@pytest.mark.parametrize("betas", [(0.0, 0.0), (0.9, 0.999)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8])
def test_an_accumulator_that_changes_its_sign_goes_beyond_zero(dtype, betas):
    start = torch.tensor([[0.0625, -0.0625, 0.5, -0.5]])
    gradient = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    data = (start * 128).to(torch.int8) if dtype is torch.int8 else start.to(dtype)
    accumulator = Accumulator(data)
    optimizer = Adam([accumulator], lr=0.125, betas=betas, hysteresis_steps=2.0)
    accumulator.accumulate(gradient)
    optimizer.step()
    values = decode(accumulator.detach()) if dtype is torch.int8 else accumulator.detach().float()
    expected = torch.tensor([[-0.25, 0.25, 0.375, -0.375]])
    torch.testing.assert_close(values, expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("steps", [-0.1, math.inf, math.nan])
def test_a_hysteresis_is_finite_and_not_negative(steps):
    with pytest.raises(ValueError, match="hysteresis_steps is finite and at least 0"):
        Adam([torch.nn.Parameter(torch.zeros(1))], hysteresis_steps=steps)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("betas", [(0.0, 0.0), (0.9, 0.999)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.int8])
def test_a_hysteresis_of_many_learning_rates_ends_at_1(dtype, betas, packed):
    one = torch.ones(1, 1, dtype=dtype)
    accumulator = Accumulator(one) if dtype is torch.int8 else Accumulator(one / 64)
    optimizer = Adam([accumulator], lr=0.125, betas=betas, hysteresis_steps=1e3)
    gradient = torch.ones(1, 1)
    accumulator.accumulate(BitTensor.from_dense(gradient) if packed else gradient)
    optimizer.step()
    assert decode(accumulator.detach()) < -0.98 if dtype is torch.int8 else accumulator.item() == -1
