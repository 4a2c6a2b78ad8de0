"""What every optimizer promises, whoever adds one, and each one's own formula."""

import copy
import functools
import inspect
import math

import pytest
import torch
from torch import Tensor, nn

import bnn.optim
from bnn.errors import NonFiniteError
from bnn.optim import DST, SGD, Adam, Bop, LowBitOptimizer, rows
from bnn.training.checkpoint import load, save
from bnn.training.snapshot import capture, restore
from bnn.weights import Accumulator
from bnn.weights.accumulator import decode
from tests.contracts import concrete_classes


def dst(params, *, seed=0, state_dtype=torch.float32):
    return DST(Adam(params, lr=0.01, state_dtype=state_dtype, seed=seed))


# Those that do not work, or hardly move, by their defaults. Every other class is made by its own.
MAKE = {
    DST: dst,
    Adam: functools.partial(Adam, lr=0.01),
    SGD: functools.partial(SGD, lr=0.05, momentum=0.9),
    Bop: functools.partial(Bop, lr=0.1, threshold=1e-3),
}
OPTIMIZERS = concrete_classes(bnn.optim, LowBitOptimizer)
STATES = [torch.float32, torch.bfloat16, torch.float16, torch.int8]
SHAPES = [(8, 3, 3, 3), (8,), (), (6, 200)]

optimizers = pytest.mark.parametrize("cls", OPTIMIZERS)
states = pytest.mark.parametrize("dtype", STATES)


def make(cls: type[LowBitOptimizer], params: list[Tensor], **options) -> LowBitOptimizer:
    return MAKE.get(cls, cls)(params, **options)


def parameters(dtype: torch.dtype = torch.float32, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = [torch.randn(shape, generator=generator) * 0.3 for shape in SHAPES]
    values[0] = values[0].contiguous(memory_format=torch.channels_last)
    if dtype is torch.int8:
        return [Accumulator((x * 100).to(dtype)) for x in values]
    return [nn.Parameter(x.to(dtype)) for x in values]


def _values(parameter: Tensor) -> Tensor:
    return decode(parameter) if parameter.dtype is torch.int8 else parameter.detach().float()


def give_gradients(params: list[Tensor], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in params:
        size = 10 ** torch.randn((), generator=generator)
        gradient = torch.randn(parameter.shape, generator=generator) * size
        parameter.grad = gradient if parameter.dtype is torch.int8 else gradient.to(parameter.dtype)


def trained(cls, dtype, *, steps: int = 5, weights=torch.float32, **options) -> tuple[list[Tensor], LowBitOptimizer]:
    params = parameters(weights)
    optimizer = make(cls, params, state_dtype=dtype, **options)
    for step in range(steps):
        give_gradients(params, step)
        optimizer.step()
    return params, optimizer


def state_tensors(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [x for state in optimizer.state.values() for x in state.values() if isinstance(x, Tensor)]


def assert_same(ones: list[Tensor], others: list[Tensor]) -> None:
    assert len(ones) == len(others)
    for one, other in zip(ones, others, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_the_walk_finds_the_known_classes():
    assert set(MAKE) <= set(OPTIMIZERS)


@optimizers
def test_options_are_named_and_the_common_ones_have_defaults(cls):
    _, *options = inspect.signature(cls).parameters.values()
    assert all(option.kind is option.KEYWORD_ONLY for option in options)
    (group,) = make(cls, parameters()).param_groups
    assert {"lr", "seed"} <= set(group)
    assert make(cls, parameters()).state_dtype is torch.float32


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            functools.partial(Adam, lr=0.01, betas=(0.8, 0.99), eps=1e-6),
            functools.partial(torch.optim.Adam, lr=0.01, betas=(0.8, 0.99), eps=1e-6, foreach=False),
        ),
        (functools.partial(SGD, lr=0.1), functools.partial(torch.optim.SGD, lr=0.1, foreach=False)),
        (
            functools.partial(SGD, lr=0.1, momentum=0.9, weight_decay=0.01),
            functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01, foreach=False),
        ),
    ],
    ids=["Adam", "SGD", "SGD with momentum and decay"],
)
def test_float32_is_torch_s_own_bit_for_bit(ours, theirs, monkeypatch):
    monkeypatch.setattr(rows, "_CHUNK_ELEMENTS", 64)  # so that parameters are stepped in several parts
    one, other = parameters(), parameters()
    our_optimizer, their_optimizer = ours(one), theirs(other)
    for step in range(30):
        for params, optimizer in ((one, our_optimizer), (other, their_optimizer)):
            give_gradients(params, step)
            optimizer.step()
    assert_same(one, other)


@optimizers
@states
def test_bytes_of_the_state(cls, dtype):
    params, optimizer = trained(cls, dtype, steps=1)
    weights = sum(p.numel() for p in params)
    rows = sum(len(p) if p.dim() > 1 else 1 for p in params)
    moments = len(optimizer.moments(optimizer.param_groups[0]))
    # Of 8 bits, one byte a row comes on top.
    expected = moments * (weights * dtype.itemsize + (rows if dtype is torch.int8 else 0))
    assert sum(x.nbytes for x in state_tensors(optimizer)) == expected


@pytest.mark.parametrize(("cls", "moments"), [(DST, 2), (Adam, 2), (SGD, 1), (Bop, 1)])
def test_moments_that_are_kept(cls, moments):
    assert len(state_tensors(trained(cls, torch.float32, steps=1)[1])) == moments * len(SHAPES)


def test_sgd_without_momentum_keeps_nothing():
    _, optimizer = trained(SGD, torch.int8, momentum=0.0)
    assert state_tensors(optimizer) == []


@optimizers
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int8])
def test_low_bit_state_stays_close_to_float32(cls, dtype):
    """In parts of the way that the parameters went. Steps by signs, of weights or of means, come a little earlier or
    later, so that the bound for every optimizer is wide."""
    start = parameters()
    exact, low = trained(cls, torch.float32, steps=20)[0], trained(cls, dtype, steps=20)[0]
    way = sum((a - b).square().sum().item() for a, b in zip(exact, start, strict=True))
    apart = sum((a - b).square().sum().item() for a, b in zip(exact, low, strict=True))
    smooth = cls in (Adam, SGD, DST)
    bound = {torch.float16: 0.01, torch.bfloat16: 0.04, torch.int8: 0.15}[dtype] if smooth else 0.3
    assert 0 <= math.sqrt(apart / way) < bound


@optimizers
@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
@pytest.mark.parametrize("weights", STATES)
def test_the_seed_decides_and_nothing_else(cls, dtype, weights):
    state = torch.get_rng_state()
    one, one_optimizer = trained(cls, dtype, weights=weights, seed=1)
    other, other_optimizer = trained(cls, dtype, weights=weights, seed=1)
    assert_same(one, other)
    assert_same(state_tensors(one_optimizer), state_tensors(other_optimizer))
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
    different = trained(cls, dtype, weights=weights, seed=2)
    same = all(
        torch.equal(a, b)
        for a, b in zip(one + state_tensors(one_optimizer), different[0] + state_tensors(different[1]), strict=True)
    )
    # Weights that are all ±1 need no rounding.
    binary = all((_values(parameter).abs() > 0.99).all() for parameter in one)
    assert same == (dtype is torch.float32 and (weights is torch.float32 or binary))


@optimizers
@states
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16, torch.int8])
def test_a_checkpoint_resumes_bit_for_bit_in_its_own_dtypes(cls, dtype, weights, tmp_path):
    class Training:
        def __init__(self) -> None:
            self.model = nn.Module()
            for index, parameter in enumerate(parameters(weights)):
                self.model.register_parameter(str(index), parameter)
            self.params = list(self.model.parameters())
            self.optimizer = make(cls, self.params, state_dtype=dtype)

        def train(self, first: int, last: int) -> None:
            for step in range(first, last):
                give_gradients(self.params, step)
                self.optimizer.step()

    whole, before, after = Training(), Training(), Training()
    whole.train(0, 6)
    before.train(0, 3)
    save(tmp_path, capture(3, before.model, before.optimizer, {}, {}))
    restore(load(tmp_path), after.model, after.optimizer, {})
    after.train(3, 6)
    assert_same(after.params, whole.params)
    assert_same(state_tensors(after.optimizer), state_tensors(whole.optimizer))


@optimizers
@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
def test_a_gradient_that_is_not_finite_changes_nothing(cls, dtype):
    params, optimizer = trained(cls, dtype)
    before = copy.deepcopy((params, state_tensors(optimizer)))
    give_gradients(params, 9)
    params[3].grad[2, 1] = math.nan
    with pytest.raises(NonFiniteError, match=r"gradient of the optimizer's parameter 3, of shape \[6, 200\]"):
        optimizer.step()
    # Of the last two the square is infinite, and a mean square would be; their sum is 0.
    for values in ([-math.inf], [1e30], [1e30, -1e30]):
        params[3].grad[2, : len(values)] = torch.tensor(values)
        with pytest.raises(NonFiniteError):
            optimizer.step()
    assert_same(params, before[0])
    assert_same(state_tensors(optimizer), before[1])


# DST has stores that it programs in their place.
@pytest.mark.parametrize("cls", [cls for cls in OPTIMIZERS if cls is not DST])
@pytest.mark.parametrize("where", ["weight", "state"])
def test_an_accumulator_that_is_not_finite_is_refused_with_nothing_changed(cls, where):
    accumulators = [Accumulator(torch.rand(6, 5).half() - 0.5), Accumulator(torch.rand(8, 3).half() - 0.5)]
    optimizer = make(cls, accumulators, state_dtype=torch.float16)
    for accumulator in accumulators:
        accumulator.grad = torch.rand(accumulator.shape) - 0.5
    optimizer.step()
    if where == "state" and not state_tensors(optimizer):
        pytest.skip("it keeps no tensors of accumulators")
    values = [*(accumulator.detach() for accumulator in accumulators), *state_tensors(optimizer)]
    (values[1] if where == "weight" else values[2])[...] = math.nan
    before = [value.clone() for value in values]
    with pytest.raises(NonFiniteError, match="or its state is not finite: go on from an earlier checkpoint"):
        optimizer.step()
    assert all(torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in zip(values, before, strict=True))


@optimizers
def test_a_parameter_without_gradient_is_left_alone(cls):
    params = parameters()
    before = params[0].detach().clone()
    optimizer = make(cls, params, state_dtype=torch.int8)
    give_gradients(params[1:], 0)
    optimizer.step()
    assert torch.equal(params[0], before)
    assert params[0] not in optimizer.state


@optimizers
def test_a_closure_gives_the_loss(cls):
    (weight, *_) = params = parameters()[:1]
    optimizer = make(cls, params)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = weight.square().sum()
        value.backward()
        return value

    first = optimizer.step(loss)
    assert first.item() > 0
    assert weight in optimizer.state


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: Adam(p, lr=-1), "lr is finite and at least 0, got -1"),
        (lambda p: Adam(p, lr=math.nan), "lr is finite"),
        (lambda p: Adam(p, betas=(0.9, 1.0)), r"betas lie in \[0, 1\), got \(0.9, 1.0\)"),
        (lambda p: Adam(p, eps=0), "eps is above 0"),
        (lambda p: Adam(p, seed=-1), "seed is at least 0"),
        (
            lambda p: Adam(p, state_dtype=torch.float64),
            "dtype of an optimizer's state is one of torch.float32",
        ),
        (lambda p: SGD(p, lr=0.1, momentum=1), r"momentum lies in \[0, 1\)"),
        (lambda p: SGD(p, lr=0.1, weight_decay=-1), "weight_decay is at least 0"),
        (lambda p: Bop(p, lr=2), r"Bop's lr lies in \(0, 1\]"),
        (lambda p: Bop(p, threshold=-1), "threshold is at least 0"),
        (lambda p: SGD([x.double() for x in p], lr=0.1), "got torch.float64"),
        (lambda p: SGD([{"params": p, "momentum": 3}], lr=0.1), "momentum lies"),
    ],
)
def test_options_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make([torch.zeros(3)])


class TestSmallUpdates:
    """Far below half a step of the weight's dtype: lost every time if rounded to nearest."""

    @pytest.mark.parametrize(("weights", "lr"), [(torch.bfloat16, 1e-4), (torch.float16, 1e-5), (torch.int8, 1e-4)])
    def test_get_through_on_average(self, weights, lr):
        start = torch.full((4, 10_000), 0.5)
        parameter = Accumulator(torch.full((4, 10_000), 64, dtype=torch.int8))
        if weights is not torch.int8:
            parameter = nn.Parameter(start.to(weights))
        before = _values(parameter).mean().item()
        optimizer = SGD([parameter], lr=lr)
        for _ in range(50):
            parameter.grad = torch.ones_like(start, dtype=weights if weights is not torch.int8 else None)
            optimizer.step()
        assert before - _values(parameter).mean().item() == pytest.approx(50 * lr, rel=0.05)


@states
@pytest.mark.parametrize("weights", STATES)
@pytest.mark.parametrize("cls", [Adam, SGD])
def test_finds_the_minimum_of_a_quadratic(cls, dtype, weights):
    generator = torch.Generator().manual_seed(5)
    target = torch.rand((10, 100), generator=generator) - 0.5
    # Curvatures that differ 100-fold.
    curvature = torch.logspace(-2, 0, 100)
    if weights is torch.int8:
        parameter = Accumulator(torch.zeros((10, 100), dtype=torch.int8))
    else:
        parameter = nn.Parameter(torch.zeros((10, 100), dtype=weights))
    optimizer = {
        Adam: Adam([parameter], lr=0.01, state_dtype=dtype),
        SGD: SGD([parameter], lr=0.5, momentum=0.9, state_dtype=dtype),
    }[cls]
    for _ in range(300):
        gradient = curvature * (_values(parameter) - target)
        parameter.grad = gradient if weights is torch.int8 else gradient.to(weights)
        optimizer.step()
    error = (_values(parameter) - target).square().mean().sqrt().item()
    assert error < 0.02


def test_small_parameters_may_keep_their_state_in_float32():
    torch.manual_seed(0)
    values = [torch.randn(100), torch.randn(40, 50), torch.randn(3, 4).clamp(-1, 1)]

    def params():
        return [*(nn.Parameter(x.clone()) for x in values[:2]), Accumulator(values[2].half())]

    def stepped(**options):
        parameters = params()
        optimizer = Adam(parameters, lr=0.01, **options)
        for step in range(3):
            for parameter in parameters:
                gradient = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step))
                parameter.grad = gradient.to(parameter.dtype)
            optimizer.step()
        return parameters, [optimizer.state[parameter]["exp_avg"].dtype for parameter in parameters]

    narrow, dtypes = stepped(state_dtype=torch.float16, narrow_from=200)
    assert dtypes == [torch.float32, torch.float16, torch.float16]
    wide, _ = stepped()
    assert torch.equal(narrow[0], wide[0])
    assert not torch.equal(narrow[1], wide[1])
    assert stepped(state_dtype=torch.float16)[1] == [torch.float16] * 3
    with pytest.raises(ValueError, match="narrow_from is at least 0, got -1"):
        Adam(params(), narrow_from=-1)
