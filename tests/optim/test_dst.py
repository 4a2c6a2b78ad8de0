import functools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bnn.errors import NonFiniteError
from bnn.layers import BinaryConv2d, BinaryLinear
from bnn.optim import SGD, Adam, Bop, step_in_backward
from bnn.optim.dst import DST, to_probability_
from bnn.quantizers import Ternary
from bnn.training.checkpoint import load, save
from bnn.training.snapshot import capture, restore
from bnn.weights import DiscreteStore
from tests.contracts import dense

BASES = {
    "Adam": functools.partial(Adam, lr=0.1),
    "momentum": functools.partial(SGD, lr=0.1, momentum=0.9),
    "SGD": functools.partial(SGD, lr=0.1),
}
bases = pytest.mark.parametrize("base", BASES)


def zeros(shape: tuple[int, ...] = (400, 500), *, space: int = 1) -> DiscreteStore:
    """A store whose weights are all in the middle, 0."""
    store = DiscreteStore(shape, space=space)
    for delta in (-2.0, 1.0):
        store.program(torch.full(shape, delta), torch.Generator().manual_seed(0))
    assert not store.value().any()
    return store


def moved(store: DiscreteStore, step: float, *, m: float | None) -> Tensor:
    """The levels after plain SGD asks each weight for `step`."""
    optimizer = DST(SGD([store.weight], lr=1.0), m=m)
    store.weight.grad = torch.full(store.shape, -step)
    optimizer.step()
    return dense(store.value())


def assert_share(events: Tensor, probability: float) -> None:
    """A count within 4.5 standard deviations of the binomial: one false alarm in 150,000."""
    count, n = events.sum().item(), events.numel()
    assert abs(count - n * probability) <= 4.5 * math.sqrt(n * probability * (1 - probability))


class TestTransition:
    @pytest.mark.parametrize("step", [0.002, 0.1, -0.1, 0.3, -0.7, 0.95])
    @pytest.mark.parametrize("m", [1.0, 3.0, 10.0])
    def test_a_weight_jumps_with_the_probability_tanh(self, step, m):
        levels = moved(zeros(), step, m=m)
        sign = math.copysign(1, step)
        assert_share(levels == sign, math.tanh(m * abs(step)))
        assert (levels != -sign).all()

    @pytest.mark.parametrize("step", [0.002, -0.1, 0.7])
    def test_without_m_the_step_is_kept_on_average(self, step):
        levels = moved(zeros(), step, m=None)
        assert_share(levels == math.copysign(1, step), abs(step))

    @pytest.mark.parametrize("step", [0.1, -0.6, 0.9])
    @pytest.mark.parametrize("space", [2, 4])
    def test_without_m_the_mean_of_finer_levels_is_the_step_as_well(self, space, step):
        store = zeros(space=space)
        part = abs(step) / store.spacing % 1
        deviation = store.spacing * math.sqrt(part * (1 - part) / store.size)
        assert moved(store, step, m=None).mean().item() == pytest.approx(step, abs=4.5 * deviation + 1e-6)

    def test_tanh_acts_on_what_whole_steps_leave(self):
        store = zeros(space=3)  # spacing 1/4
        levels = moved(store, -0.6, m=3.0)  # -2.4 spacings
        assert_share(levels == -0.75, math.tanh(3 * 0.4))
        assert_share(levels == -0.5, 1 - math.tanh(3 * 0.4))

    def test_a_binary_weight_is_the_case_of_two_levels(self):
        store = DiscreteStore((400, 500), space=0)
        store.program(torch.full(store.shape, -4.0), torch.Generator())
        assert_share(moved(store, 0.5, m=3.0) == 1, math.tanh(3 * 0.5 / 2))

    @pytest.mark.parametrize("space", [0, 1, 3])
    def test_steep_and_flat_limits_are_deterministic(self, space, generator):
        """Every weight with the least wish moves on, or none but by whole steps."""
        for m, rounded in ((1e30, lambda x: x.sign() * x.abs().ceil()), (1e-30, torch.trunc)):
            store = DiscreteStore((60, 70), space=space)
            store.initialize(generator)
            before = dense(store.value())
            step = torch.randn(store.shape, generator=generator) * store.spacing
            step[:10] = 0
            optimizer = DST(SGD([store.weight], lr=1.0), m=m)
            store.weight.grad = -step
            optimizer.step()
            expected = (before + store.spacing * rounded(step / store.spacing)).clamp(-1, 1)
            assert torch.equal(dense(store.value()), expected)

    @given(
        space=st.integers(0, 4),
        place=st.floats(0, 1),
        step=st.sampled_from([0.03, 0.2, -0.4, 0.7, -1.1, 1.6, -2.3]),
        m=st.sampled_from([None, 3.0]),
        seed=st.integers(0, 10),
    )
    def test_from_every_level_the_law_is_that_of_the_paper(self, space, place, step, m, seed):
        """It bounds the step by what is left to the end and then splits it; here the end stops the weight."""
        store = DiscreteStore((50, 60), space=space)
        spacing = store.spacing
        weight = round(place * 2**space) * spacing - 1
        for delta in (-2.0, weight + 1):
            store.program(torch.full(store.shape, delta), torch.Generator())
        bounded = min(1 - weight, step) if step >= 0 else max(-1 - weight, step)
        whole = math.trunc(bounded / spacing)
        part = abs(bounded / spacing - whole)
        probability = part if m is None else math.tanh(m * part)

        optimizer = DST(SGD([store.weight], lr=1.0, seed=seed), m=m)
        store.weight.grad = torch.full(store.shape, -step)
        optimizer.step()
        levels = dense(store.value())
        least = weight + whole * spacing
        jumped = levels == least + math.copysign(spacing, step)
        assert ((levels == least) | jumped).all()
        # 6 standard deviations, since many examples are drawn; 1e-6 for steps that float32 rounds.
        deviation = math.sqrt(probability * (1 - probability) / store.size)
        assert jumped.float().mean().item() == pytest.approx(probability, abs=6 * deviation + 1e-6)

    def test_probability_by_hand(self):
        steps = torch.tensor([0.0, 0.5, -0.5, 2.25, -1.0])
        expected = [0, math.tanh(1.5), -math.tanh(1.5), 2 + math.tanh(0.75), -1]
        torch.testing.assert_close(to_probability_(steps, 3.0), torch.tensor(expected))


class TestBase:
    @bases
    def test_the_step_is_the_base_s(self, base, generator):
        """A weight ends on one of the two levels beside where the base would take it."""
        store = zeros((60, 70), space=7)
        plain = nn.Parameter(torch.zeros(60, 70))
        optimizer, other = DST(BASES[base]([store.weight]), m=None), BASES[base]([plain])
        for _ in range(3):
            store.weight.grad = plain.grad = torch.randn(60, 70, generator=generator)
            before = store.value()
            with torch.no_grad():
                plain.copy_(before)
            optimizer.step()
            other.step()
            assert ((store.value() - plain.clamp(-1, 1)).abs() < store.spacing + 1e-6).all()
            assert not torch.equal(store.value(), before)

    @bases
    def test_other_parameters_are_stepped_by_the_base(self, base, generator):
        values = [torch.randn(5, generator=generator), torch.randn((3, 4), generator=generator)]
        mine, theirs = ([nn.Parameter(value.clone()) for value in values] for _ in range(2))
        store = DiscreteStore((4, 5))
        optimizer, other = DST(BASES[base]([store.weight, *mine])), BASES[base](theirs)
        for _ in range(4):
            store.weight.grad = torch.randn(4, 5, generator=generator)
            for a, b in zip(mine, theirs, strict=True):
                a.grad = b.grad = torch.randn(a.shape, generator=generator)
            optimizer.step()
            other.step()
        for a, b in zip(mine, theirs, strict=True):
            assert torch.equal(a, b)

    @pytest.mark.parametrize(
        ("base", "dtype", "bytes_a_weight"),
        [("Adam", torch.float32, 8), ("Adam", torch.bfloat16, 4), ("momentum", torch.float16, 2), ("SGD", None, 0)],
    )
    def test_nothing_but_the_base_s_state_is_kept(self, base, dtype, bytes_a_weight):
        store = DiscreteStore((40, 50))
        optimizer = DST(BASES[base]([store.weight], **({"state_dtype": dtype} if dtype else {})))
        store.weight.grad = torch.ones(40, 50)
        optimizer.step()
        assert list(optimizer.state) == [store.weight]
        tensors = [x for x in optimizer.state[store.weight].values() if isinstance(x, Tensor)]
        assert sum(x.nbytes for x in tensors) == bytes_a_weight * store.size
        assert not optimizer._base.state

    def test_the_learning_rate_is_that_of_the_groups(self):
        store = zeros((40, 50))
        optimizer = DST(SGD([store.weight], lr=1.0))
        optimizer.param_groups[0]["lr"] = 0.0
        store.weight.grad = torch.ones(40, 50)
        optimizer.step()
        assert not store.value().any()

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda p: DST(Bop(p)), "the base of DST is Adam or SGD of bnn.optim, got Bop"),
            (lambda p: DST(torch.optim.Adam(p)), "the base of DST is"),
            (lambda p: DST(Adam(p), m=0), "DST's m is above 0 and finite, or None, got 0"),
            (lambda p: DST(Adam(p), m=math.inf), "DST's m is above 0"),
            (lambda p: DST(Adam(p), m=math.nan), "DST's m is above 0"),
            (lambda p: DST(Adam([{"params": p, "m": -3.0}])), "DST's m is above 0"),
            (lambda p: DST(SGD(p, lr=0.1, weight_decay=0.1)), "discrete weights have no weight decay, got 0.1"),
        ],
    )
    def test_options_out_of_range_are_refused(self, make, message):
        with pytest.raises(ValueError, match=message):
            make([DiscreteStore((4, 5)).weight])

    def test_other_parameters_may_decay(self):
        parameter = nn.Parameter(torch.ones(3))
        groups = [{"params": [DiscreteStore((4, 5)).weight]}, {"params": [parameter], "weight_decay": 0.1}]
        optimizer = DST(SGD(groups, lr=1.0))
        parameter.grad = torch.zeros(3)
        optimizer.step()
        torch.testing.assert_close(parameter.detach(), torch.full((3,), 0.9))


class Training:
    """A small ternary network."""

    def __init__(self, *, base: str = "Adam", seed: int = 0, threads: int = 1, **options) -> None:
        generator = torch.Generator().manual_seed(5)
        self.model = nn.Sequential(
            BinaryConv2d(2, 6, 3, store=DiscreteStore, input_quantizer=None),
            nn.BatchNorm2d(6),
            nn.Flatten(),
            BinaryLinear(96, 4, store=DiscreteStore, input_quantizer=Ternary(threshold=0.5)),
        )
        for layer in self.model:
            if hasattr(layer, "store"):
                layer.store.initialize(generator)
        self.optimizer = DST(BASES[base](self.model.parameters(), seed=seed, **options))

    def train(self, first: int, last: int) -> None:
        for step in range(first, last):
            self.backward(step)
            self.optimizer.step()
            self.optimizer.zero_grad()

    def backward(self, step: int) -> None:
        generator = torch.Generator().manual_seed(step)
        x = torch.randn((8, 2, 6, 6), generator=generator)
        y = torch.randint(4, (8,), generator=generator)
        nn.functional.cross_entropy(self.model(x), y).backward()

    def state(self) -> dict[str, Tensor]:
        state = {name: x.clone() for name, x in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                state[f"{name} {key}"] = torch.as_tensor(value).clone()
        return state


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(x, other[name]) for name, x in one.items())


class TestReproducibility:
    def test_the_seed_decides_and_nothing_else(self):
        def trained(seed: int, threads: int) -> DiscreteStore:
            store = zeros()
            optimizer = DST(Adam([store.weight], lr=0.03, state_dtype=torch.int8, seed=seed))
            torch.set_num_threads(threads)
            for step in range(3):
                store.weight.grad = torch.randn(store.shape, generator=torch.Generator().manual_seed(step))
                optimizer.step()
            torch.set_num_threads(1)
            return store

        one, other, different = (trained(*options).planes for options in ((1, 1), (1, 3), (2, 1)))
        assert torch.equal(one, other)
        assert not torch.equal(one, different)

    def test_the_global_generator_is_left_alone(self):
        training = Training()
        state = torch.get_rng_state()
        training.train(0, 2)
        assert torch.equal(torch.get_rng_state(), state)

    def test_steps_and_parameters_have_their_own_random_numbers(self):
        one, other = zeros(), zeros()
        optimizer = DST(SGD([one.weight, other.weight], lr=0.0))
        rises = []
        for _ in range(2):
            for store in (one, other):
                before = store.value()
                optimizer.param_groups[0]["lr"] = 0.1
                store.weight.grad = -torch.ones(store.shape)
                optimizer.step()
                rises.append(store.value() != before)
                store.weight.grad = None
        # The second time the weights at 1 stay; compare where both moved for the first time.
        p = math.tanh(0.3)
        assert_share(rises[0] & rises[1], p * p)
        free = ~rises[0]
        assert_share(rises[2][free], p)

    @bases
    @pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
    def test_a_checkpoint_resumes_bit_for_bit(self, base, dtype, tmp_path):
        whole, before, after = (Training(base=base, state_dtype=dtype) for _ in range(3))
        start = whole.state()
        whole.train(0, 6)
        before.train(0, 3)
        save(tmp_path, capture(3, before.model, before.optimizer, {}, {}))
        restore(load(tmp_path), after.model, after.optimizer, {})
        assert same(before.state(), after.state())
        after.train(3, 6)
        assert same(whole.state(), after.state())
        moved = {name for name, x in start.items() if not torch.equal(x, whole.state()[name])}
        assert {"0.store.planes", "3.store.planes", "1.weight"} <= moved

    def test_steps_inside_backward_are_the_same(self):
        whole, inside = Training(), Training()
        whole.train(0, 4)
        with step_in_backward(inside.optimizer):
            for step in range(4):
                inside.backward(step)
                assert all(parameter.grad is None for parameter in inside.model.parameters())
        assert same(whole.state(), inside.state())

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_gradient_that_is_not_finite_changes_nothing(self, value):
        training = Training()
        training.train(0, 2)
        before = training.state()
        training.backward(2)
        training.model[3].store.weight.grad[1, 2] = value
        with pytest.raises(NonFiniteError):
            training.optimizer.step()
        # The forward pass has moved the running statistics, which the trainer puts back.
        after = training.state()
        changed = {name for name, x in before.items() if not torch.equal(x, after[name])}
        assert changed == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


@pytest.mark.parametrize("m", [None, 3.0])
@pytest.mark.parametrize("space", [1, 2])
@bases
def test_finds_the_levels_of_a_teacher(base, m, space):
    """Linear regression on the answers of weights of these levels; the steps shrink to nothing."""
    generator = torch.Generator().manual_seed(1)
    teacher, store = (DiscreteStore((4, 64), space=space) for _ in range(2))
    for weight in (teacher, store):
        weight.initialize(generator)
    assert (store.value() == teacher.value()).float().mean() < 0.5
    x = torch.randn(512, 64, generator=generator)
    rate = {"Adam": 0.05, "momentum": 0.01, "SGD": 0.1}[base] / (m or 1)
    optimizer = DST(BASES[base]([store.weight], lr=rate), m=m)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / 200)
        optimizer.zero_grad()
        difference = nn.functional.linear(x, store.read()) - nn.functional.linear(x, teacher.value())
        difference.square().sum(1).mean().backward()
        optimizer.step()
    assert (store.value() == teacher.value()).float().mean() > 0.8
