"""The passes of a batch norm: their specifications against float64, the native kernels against the specifications."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bnn.errors import NonFiniteError
from bnn.ops import OPERATIONS
from bnn.ops.batch_norm import clamped
from bnn.ops.packing import pack, packed_bytes, unpack
from bnn.quantizers import ApproxSign, Sign
from tests.contracts import randn
from tests.ops.comparison import check, examples, generator, needs_native, random_bits, same

bnn = torch.ops.bnn

seeds = st.integers(0, 2**31 - 1)
product_dtypes = st.sampled_from([torch.float32, torch.float16])
stream_dtypes = st.sampled_from([torch.float32, torch.bfloat16])
channel_counts = st.sampled_from([1, 2, 3, 5, 8, 11, 16, 33, 64, 70])
shapes = st.one_of(
    st.tuples(st.integers(1, 40), channel_counts),
    st.tuples(st.integers(1, 4), channel_counts, st.integers(1, 9), st.integers(1, 9)),
)
# No code, one plane and two, by the slopes of a clamp, of the windows and of the polynomial.
slope_lists = st.sampled_from([(1.0,), Sign().slope_steps.slopes, ApproxSign().slope_steps.slopes, (-0.5, 2.0)])
edge_lists = st.sampled_from([Sign().slope_steps.edges, ApproxSign().slope_steps.edges, (math.inf,), (0.0, 0.5, 0.5)])
# Many runs of a kernel; rows that end inside a byte, and rows shorter than one; one channel; one pixel.
LARGE = [(2, 128, 17, 16), (3, 33, 21, 19), (1000, 5), (700, 64), (2, 3, 60, 5), (5, 1), (1, 7, 1, 1)]


def spread(of_channel: Tensor, x: Tensor) -> Tensor:
    return of_channel.view(1, -1, *(1 for _ in x.shape[2:]))


def channel_dims(x: Tensor) -> tuple[int, ...]:
    return tuple(d for d in range(x.dim()) if d != 1)


def whole(shape: Sequence[int], seed: int, *, largest: int = 64) -> Tensor:
    """Whole numbers, as products of bits are."""
    return torch.randint(-largest, largest + 1, tuple(shape), generator=generator(seed)).float()


def quarters(shape: Sequence[int], seed: int) -> Tensor:
    """Quarters within ±4: sums of these, of their products with slopes and with small whole numbers are exact."""
    return whole(shape, seed, largest=16) / 4


def codes_of(shape: Sequence[int], slopes: Sequence[float], seed: int) -> Tensor:
    planes = (len(slopes) - 1).bit_length()
    n = math.prod(shape[1:])
    if not planes:
        return torch.empty((0, shape[0], packed_bytes(n)), dtype=torch.uint8)
    return torch.stack([random_bits(shape[0], n, seed + plane) for plane in range(planes)])


def slopes_of(codes: Tensor, slopes: Sequence[float], like: Tensor) -> Tensor:
    """The slope of each element, float64, where `like` has it."""
    last = like.movedim(1, -1)
    code = torch.zeros(last.shape, dtype=torch.long)
    for plane, bits in enumerate(codes):
        code += 2**plane * unpack(bits, last[0].numel(), torch.bool).view(last.shape).long()
    return torch.tensor(slopes, dtype=torch.float32).double()[code].movedim(-1, 1)


def code_of(codes: Tensor, like: Tensor) -> Tensor:
    return slopes_of(codes, range(2 ** len(codes)), like)


def in_memory_order(last: bool, *tensors: Tensor) -> list[Tensor]:
    """The tensors channels last, or first."""
    return [x.movedim(1, -1).contiguous().movedim(-1, 1) if last else x.contiguous() for x in tensors]


def gradient_inputs(shape: Sequence[int], slopes: Sequence[float], seed: int) -> tuple[Any, ...]:
    """The gradient, its codes and slopes, and the product."""
    return quarters(shape, seed), codes_of(shape, slopes, seed + 1), list(slopes), whole(shape, seed + 3)


def of_channels(channels: int, seed: int) -> list[Tensor]:
    return [randn(channels, seed=seed + i) / (1 + 9 * i) for i in range(3)]


def terms_of(channels: int, seed: int) -> Tensor:
    return torch.stack(of_channels(channels, seed))


# Of -0 between 0 and 1 torch's clamp makes -0 on x86 and 0 on ARM, and the kernels -0 everywhere.
CLAMP_KEEPS_ZEROS = bool(torch.full((8,), -0.0).clamp(0.0, 1.0).signbit().all())


class Norm(NamedTuple):
    """A norm behind a scale, with its running statistics, in the order of the operation's arguments."""

    scale: Tensor | None
    gamma: Tensor | None
    beta: Tensor | None
    eps: float
    running_mean: Tensor
    running_var: Tensor
    momentum: float


def norm_of(channels: int, seed: int, *, plain: bool = False) -> Norm:
    """Plain: without scale, gamma and beta."""
    scale, gamma, beta = (None, None, None) if plain else of_channels(channels, seed)
    return Norm(scale, gamma, beta, 1e-3, randn(channels, seed=seed + 5), 1 + randn(channels, seed=seed + 6) ** 2, 0.25)


def statistics(y: Tensor, norm: Norm, run: Callable[..., Any] = bnn.batch_statistics) -> list[Tensor]:
    """The operation's results, and the running statistics that it leaves."""
    running = [norm.running_mean.clone(), norm.running_var.clone()]
    results = run(y, *norm[:4], *running, norm.momentum)
    return [*results, *running]


def norm_clamp(y: Tensor, *args: Any, run: Callable[..., Any] = bnn.norm_clamp_) -> tuple[Tensor, Tensor]:
    """The values that the operation leaves in the place of a copy of `y`, and the codes."""
    (place,) = in_memory_order(True, y.clone())
    codes = run(place, *args)
    return clamped(place), codes


def check_norm_clamp(y: Tensor, *args: Any) -> None:
    (got, codes), (expected, of_torch) = norm_clamp(y, *args), norm_clamp(y, *args, run=OPERATIONS["norm_clamp_"])
    if not CLAMP_KEEPS_ZEROS:
        got, expected = got + 0.0, expected + 0.0
    same((got, codes), (expected, of_torch))


def check_statistics(y: Tensor, norm: Norm) -> None:
    same(statistics(y, norm), statistics(y, norm, OPERATIONS["batch_statistics"]))


# --- the specifications against float64 ----------------------------------------------------------------------------


@given(shape=shapes.filter(lambda shape: math.prod(shape) > shape[1]), plain=st.booleans(), seed=seeds)
@examples
def test_statistics_follow_the_formula(shape: tuple[int, ...], plain: bool, seed: int) -> None:
    y, norm = whole(shape, seed), norm_of(shape[1], seed, plain=plain)
    moments, affine, running_mean, running_var = statistics(y, norm)
    wide, dims = y.double(), channel_dims(y)
    assert torch.equal(moments[0], wide.mean(dims).float())  # the sums of whole numbers are exact
    assert torch.equal(statistics(y.half(), norm)[0], moments)
    scale, gamma = (torch.ones(shape[1]) if x is None else x for x in norm[:2])
    z = wide * spread(scale.double(), y)
    layer = torch.nn.functional.batch_norm
    running = [norm.running_mean.double(), norm.running_var.double()]
    of_norm = (None if norm.gamma is None else gamma.double(), None if norm.beta is None else norm.beta.double())
    expected = layer(z, *running, *of_norm, training=True, momentum=norm.momentum, eps=norm.eps)
    torch.testing.assert_close([running_mean, running_var], [x.float() for x in running], rtol=1e-6, atol=1e-6)
    deviation = (z.var(dims, correction=0) + norm.eps).sqrt()
    torch.testing.assert_close(moments[1], (1 / deviation).float(), rtol=1e-6, atol=0)
    got = wide * spread(affine[0].double(), y) + spread(affine[1].double(), y)
    # Factor and offset are each rounded a few times.
    allowed = 2**-21 * (wide.abs() * spread(affine[0].abs(), y) + spread(affine[1].abs(), y)).amax(dims) + 1e-6
    assert ((got - expected).abs().amax(dims) <= allowed).all()


def test_the_variance_of_a_constant_channel_is_not_below_zero() -> None:
    norm = Norm(None, None, None, 2.0**-10, torch.zeros(3), torch.zeros(3), 1.0)
    for value in (7.0, -3.0, 0.0):  # squares that float32 holds
        moments, _, _, running_var = statistics(torch.full((9, 3), value), norm)
        assert moments.tolist() == [[value] * 3, [2.0**5] * 3]
        assert running_var.tolist() == [0.0] * 3
    values = 1000 + torch.arange(500.0) / 7  # squares that it rounds, down as often as up
    norm = Norm(None, None, None, 0.0, torch.zeros(500), torch.zeros(500), 1.0)
    variance = statistics(values.expand(10, -1), norm)[-1]
    assert (variance >= 0).all()
    assert (variance == 0).any()
    assert (variance <= 2**-22 * values.square()).all()


@given(shape=shapes, seed=seeds, bounds=st.sampled_from([(-1.0, 1.0), (0.0, math.inf), (-math.inf, math.inf)]))
@examples
def test_clamped_norms_follow_the_formula(shape: tuple[int, ...], seed: int, bounds: tuple[float, float]) -> None:
    y, shortcut = whole(shape, seed), quarters(shape, seed + 1) / 4
    # Powers of two and quarters: every step is exact, and so are ties with the bounds.
    factor, offset = 2.0 ** -(torch.arange(shape[1]) % 7), quarters([shape[1]], seed + 2) / 4
    for added in (None, shortcut):
        out, codes = norm_clamp(y, factor, offset, added, *bounds)
        x = y.double() * spread(factor, y) + spread(offset, y) + (0 if added is None else added.double())
        assert torch.equal(out.double(), x.clamp(*bounds))
        assert torch.equal(code_of(codes, y), 1 - ((x > bounds[0]) & (x < bounds[1])).double())
        rounded, _ = norm_clamp(y.half(), factor, offset, added, *bounds)
        assert torch.equal(rounded, out.bfloat16())


@given(shape=shapes, seed=seeds, edges=edge_lists)
@examples
def test_signs_and_codes_follow_the_formula(shape: tuple[int, ...], seed: int, edges: tuple[float, ...]) -> None:
    y = whole(shape, seed)
    factor, offset = 2.0 ** -(torch.arange(shape[1]) % 9), quarters([shape[1]], seed + 2) / 4
    for affine in ((None, None), (factor, offset)):
        bits, codes = bnn.sign_codes(y, *affine, list(edges))
        x = y.double() if affine[0] is None else y.double() * spread(factor, y) + spread(offset, y)
        assert torch.equal(code_of(bits[None], y), (x >= 0).double())
        beyond = sum((x.abs() > torch.tensor(edge).double()).double() for edge in edges)
        assert torch.equal(code_of(codes, y), beyond)


def test_a_value_at_an_edge_lies_before_it_and_zeros_are_plus_one() -> None:
    edges = list(ApproxSign().slope_steps.edges)
    exact = torch.tensor(edges)
    y = torch.cat([exact, exact.nextafter(torch.tensor(2.0)), -exact, torch.tensor([0.0, -0.0, 1.0])])[None]
    bits, codes = bnn.sign_codes(y, None, None, edges)
    assert code_of(codes, y).flatten().tolist() == [0, 1, 2, 1, 2, 3, 0, 1, 2, 0, 0, 3]
    assert code_of(bits[None], y).flatten().tolist() == [1] * 6 + [0] * 3 + [1] * 3


@given(shape=shapes, slopes=slope_lists, plain=st.booleans(), seed=seeds)
@examples
def test_terms_of_a_gradient_follow_the_formula(
    shape: tuple[int, ...], slopes: tuple[float, ...], plain: bool, seed: int
) -> None:
    grad, codes, _, y = gradient_inputs(shape, slopes, seed)
    norm, dims, count = norm_of(shape[1], seed, plain=plain), channel_dims(y), y.numel() // shape[1]
    moments = torch.stack((quarters([shape[1]], seed + 4), 0.1 + randn(shape[1], seed=seed).abs()))
    operands = (grad, codes, list(slopes), y)
    terms, bound, of_parameters = bnn.norm_gradient_terms(*operands, moments, norm.scale, norm.gamma, norm.eps)
    assert [x.dtype for x in (terms, bound, of_parameters)] == [torch.float32] * 3
    # A slope of a third is rounded, and so is its product.
    passed = (grad.double() * slopes_of(codes, slopes, grad)).float().double()
    mean, inverse = moments.double()
    scale, gamma = (torch.ones(shape[1]).double() if x is None else x.double() for x in norm[:2])
    centred = y.double() - spread(mean, y)
    sum_, along = passed.sum(dims), (passed * centred).float().double().sum(dims)
    varies = (moments[1] < torch.tensor(norm.eps, dtype=torch.float64).rsqrt().float()).double()
    x_along = scale * inverse * along  # sum of g x, with the normalised x
    torch.testing.assert_close(
        of_parameters,
        torch.stack((gamma * norm.eps * inverse**3 * along, x_along, sum_)).float(),
        rtol=1e-6,
        atol=0,
    )
    # gamma scale / deviation (g - mean(g) - x mean(g x)), where a channel varies
    exact = passed - spread(sum_ / count, y) - centred * spread(scale * inverse * x_along / count, y)
    exact = exact * spread(gamma * scale * inverse * varies, y)
    got = bnn.norm_gradient(*operands, terms)
    size = (terms[0].abs() * 130 + terms[1].abs() * 70 + terms[2].abs()).double()
    assert ((got.double() - exact).abs() <= 2**-20 * spread(size, y)).all()
    assert got.abs().amax() <= bound * (1 + 1e-5)


def test_a_channel_that_does_not_vary_has_no_gradient() -> None:
    grad, y = quarters((6, 3), 1), whole((6, 3), 2)
    y[:, 1] = 5
    norm = Norm(None, None, None, 1e-5, torch.zeros(3), torch.ones(3), 0.1)
    moments = statistics(y, norm)[0]
    terms, bound, _ = bnn.norm_gradient_terms(grad, codes_of((6, 3), (1.0,), 0), [1.0], y, moments, None, None, 1e-5)
    assert not terms[:, 1].any()
    assert terms[:, ::2].all()
    assert 0 < bound < 100


@given(shape=shapes, slopes=slope_lists, seed=seeds)
@examples
def test_gradients_follow_the_formula(shape: tuple[int, ...], slopes: tuple[float, ...], seed: int) -> None:
    inputs = gradient_inputs(shape, slopes, seed)
    of_channel = terms_of(shape[1], seed)
    of_grad, of_y, constant = of_channel
    grad, codes, _, y = inputs
    passed = grad.double() * slopes_of(codes, slopes, grad)
    terms = passed * spread(of_grad, y), y.double() * spread(of_y, y), spread(constant.double(), y)
    got = bnn.norm_gradient(*inputs, of_channel)
    # Each product and each sum is rounded once, and a slope and what it passes are.
    allowed = 3 * 2**-24 * sum(term.abs() for term in terms)
    assert ((got.double() - sum(terms)).abs() <= allowed).all()
    assert torch.equal(bnn.pass_slopes(*inputs[:3]), passed.float())

    bound = sum(term.abs() for term in terms).amax().float()
    q, scale = bnn.norm_gradient_integers(*inputs, of_channel, bound, 7, seed)
    assert (q.dtype, scale.item()) == (torch.int8, pytest.approx(bound.item() / 7, rel=1e-6))
    assert ((q.double() * scale - got.double()).abs() <= scale * (1 + 1e-5)).all()
    assert q.abs().max() <= 7


def test_integers_are_the_gradient_on_average() -> None:
    inputs = (*gradient_inputs((4, 5, 3, 3), (1.0, 0.5), 0), terms_of(5, 1))
    grad = bnn.norm_gradient(*inputs)
    bound, draws = 2 * grad.abs().amax(), 400
    rounded = [bnn.norm_gradient_integers(*inputs, bound, 3, seed) for seed in range(draws)]
    mean = torch.stack([q * scale for q, scale in rounded]).mean(0)
    # A uniform number's rounding has a deviation of at most half a step; 5 of those of the mean.
    assert ((mean - grad).abs() < 5 * (bound / 3) / 2 / math.sqrt(draws)).all()


# --- the kernels against the specifications ------------------------------------------------------------------------


def check_forward(y: Tensor, shortcut: Tensor, edges: Sequence[float], seed: int) -> None:
    factor, offset, _ = of_channels(y.shape[1], seed)
    if y.numel() > y.shape[1]:
        check_statistics(y, norm_of(y.shape[1], seed))
        check_statistics(y, norm_of(y.shape[1], seed, plain=True))
    for added in (None, shortcut):
        for bounds in ((-1.0, 1.0), (0.0, math.inf), (-math.inf, math.inf)):
            check_norm_clamp(y, factor, offset, added, *bounds)
    for affine in ((None, None), (factor, offset)):
        check("sign_codes", y, *affine, list(edges))


def check_backward(grad: Tensor, codes: Tensor, slopes: Sequence[float], y: Tensor, seed: int) -> None:
    operands, channels = (grad, codes, list(slopes), y), y.shape[1]
    moments = torch.stack((quarters([channels], seed), 0.1 + randn(channels, seed=seed).abs()))
    norm = norm_of(channels, seed)
    check("norm_gradient_terms", *operands, moments, None, None, norm.eps)
    terms, bound, _ = check("norm_gradient_terms", *operands, moments, norm.scale, norm.gamma, norm.eps)
    check("norm_gradient", *operands, terms)
    for most in (1, 127):
        check("norm_gradient_integers", *operands, terms, bound, most, seed)
    check("pass_slopes", *operands[:3])


@pytest.mark.usefixtures("isa")
class TestNative:
    @given(
        shape=shapes,
        dtype=product_dtypes,
        stream=stream_dtypes,
        edges=edge_lists,
        last=st.booleans(),
        seed=seeds,
    )
    @examples
    def test_forward(
        self,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        stream: torch.dtype,
        edges: tuple[float, ...],
        last: bool,
        seed: int,
    ) -> None:
        y, shortcut = in_memory_order(last, whole(shape, seed).to(dtype), randn(*shape, seed=seed).to(stream))
        check_forward(y, shortcut, edges, seed)

    @given(shape=shapes, dtype=product_dtypes, stream=stream_dtypes, slopes=slope_lists, last=st.booleans(), seed=seeds)
    @examples
    def test_backward(
        self,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        stream: torch.dtype,
        slopes: tuple[float, ...],
        last: bool,
        seed: int,
    ) -> None:
        grad, codes, _, y = gradient_inputs(shape, slopes, seed)
        grad, y = in_memory_order(last, grad.to(stream), y.to(dtype))
        check_backward(grad, codes, slopes, y, seed)

    @pytest.mark.parametrize("shape", LARGE)
    def test_many_runs_and_short_rows(self, shape: tuple[int, ...]) -> None:
        grad, codes, slopes, y = gradient_inputs(shape, ApproxSign().slope_steps.slopes, 5)
        check_forward(y.half(), randn(*shape).bfloat16(), ApproxSign().slope_steps.edges, 5)
        check_backward(grad.bfloat16(), codes, slopes, y.half(), 5)

    @pytest.mark.parametrize("shape", LARGE)
    def test_sums_of_real_numbers_are_near(self, shape: tuple[int, ...]) -> None:
        y, grad = randn(*shape), randn(*shape, seed=1)
        codes, slopes = codes_of(shape, (1.0, 0.0), 2), [1.0, 0.0]
        channels, norm = shape[1], norm_of(shape[1], 3)
        moments = torch.stack((randn(channels), torch.ones(channels)))
        of_terms = (grad, codes, slopes, y, moments, norm.scale, norm.gamma, norm.eps)
        pairs = [(bnn.norm_gradient_terms(*of_terms), OPERATIONS["norm_gradient_terms"](*of_terms))]
        if y.numel() > channels:
            pairs.append((statistics(y, norm), statistics(y, norm, OPERATIONS["batch_statistics"])))
        for got, expected in pairs:
            torch.testing.assert_close(list(got), list(expected), rtol=2**-22, atol=2**-22)

    @pytest.mark.parametrize("value", [0.0, -0.0, 1e-41, 6e4, math.inf, -math.inf])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    def test_values_at_the_borders_of_a_dtype(self, value: float, dtype: torch.dtype) -> None:
        y = whole((3, 11), 0).to(dtype)
        y[1, 3:9] = value
        shortcut = torch.full((3, 11), 3e38).bfloat16()
        affine = (torch.tensor([1.0, -1.0, 0.0, 1e30, -1e-30, 1.0, 1.0, -1.0, 1.0, -1.0, 2.0]), torch.full((11,), -0.0))
        for added in (None, shortcut, -shortcut):
            for bounds in ((-1.0, 1.0), (0.0, math.inf), (-math.inf, math.inf)):
                check_norm_clamp(y, *affine, added, *bounds)
        check("sign_codes", y, None, None, [1.0])
        finite = torch.where(y.isfinite(), y, 0)
        check("sign_codes", finite, *affine, list(ApproxSign().slope_steps.edges))
        grad = torch.full((3, 11), value).bfloat16()
        codes = codes_of((3, 11), (1.0, 0.5, 0.25, 0.0), 4)
        check("pass_slopes", grad, codes, [1.0, 0.5, 0.25, 0.0])
        check("norm_gradient", grad, codes, [1.0, 0.5, 0.25, 0.0], y, terms_of(11, 0))

    @pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 5, 4, 4), (2, 5, 0, 4)])
    def test_empty(self, shape: tuple[int, ...]) -> None:
        y, codes = torch.empty(shape), codes_of(shape, (1.0, 0.0), 0)
        of, terms = [torch.ones(shape[1])] * 2, torch.ones(3, shape[1])
        check_norm_clamp(y, of[0], of[0], y, -1.0, 1.0)
        check("sign_codes", y, of[0], of[0], [1.0])
        check("sign_codes", y, None, None, [0.1, 0.2, 0.3])
        check("norm_gradient", y, codes, [1.0, 0.0], y, terms)
        check("norm_gradient_integers", y, codes, [1.0, 0.0], y, terms, torch.tensor(1.0), 127, 0)
        check("pass_slopes", y, codes, [1.0, 0.0])
        if not shape[1]:
            check("norm_gradient_terms", y, codes, [1.0, 0.0], y, torch.ones(2, 0), None, None, 1e-5)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_other_dtypes_go_to_the_specification(self, dtype: torch.dtype) -> None:
        y = whole((3, 5, 2, 2), 0).to(dtype)
        check_forward(y, randn(3, 5, 2, 2), [1.0], 0)
        codes = codes_of(y.shape, (1.0, 0.0), 2)
        check_backward(quarters(y.shape, 1), codes, [1.0, 0.0], y, 0)
        check_backward(quarters(y.shape, 1).double(), codes, [1.0, 0.0], y.float(), 0)

    def test_images_that_lie_apart_in_memory(self) -> None:
        y, grad = whole((4, 6, 10, 3), 0)[:, ::2, 1::2], quarters((3, 4, 5, 3), 1).transpose(0, 1)
        check_forward(y, grad, [1.0], 3)
        check_backward(grad, codes_of(y.shape, (1.0, 0.0), 2), [1.0, 0.0], y, 3)


def uneven(*shape: int) -> Tensor:
    """Values of many scales that cancel: what is left of their sum is the rounding, which depends on the order."""
    half = randn(*shape) * 10 ** (5 * randn(*shape, seed=1))
    return torch.cat([half, -half.flip(0)])


IMAGES = uneven(2, 40, 30, 31)
ONES = torch.ones(40)
OF_GRAD_ALONE = torch.tensor([[1.0], [0.0], [0.0]]).expand(3, 40)
PLANE = codes_of(IMAGES.shape, (1.0, 0.0), 3)


@needs_native
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    "run",
    [
        lambda: statistics(IMAGES, norm_of(40, 0)),
        lambda: norm_clamp(IMAGES, ONES, ONES, IMAGES, -1.0, 1.0),
        lambda: bnn.sign_codes(IMAGES, ONES, ONES, [0.5, 1.0, 2.0]),
        lambda: bnn.norm_gradient_terms(IMAGES, PLANE, [1.0, 0.0], IMAGES, torch.ones(2, 40), None, ONES, 1e-5),
        lambda: bnn.norm_gradient_integers(
            IMAGES, PLANE, [1.0, 0.0], IMAGES, torch.ones(3, 40), IMAGES.abs().amax(), 127, 5
        ),
        lambda: bnn.pass_slopes(IMAGES, PLANE, [1.0, 0.0]),
    ],
    ids=[
        "batch_statistics",
        "norm_clamp_",
        "sign_codes",
        "norm_gradient_terms",
        "norm_gradient_integers",
        "pass_slopes",
    ],
)
def test_the_number_of_threads_changes_nothing(run: Callable[[], Any]) -> None:
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append(run())
    same(results[1], results[0])
    same(results[2], results[0])


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("position", [0, 77, 299])
def test_signs_of_nan_are_refused(isa: str, dtype: torch.dtype, position: int) -> None:
    y = randn(3, 4, 5, 5).to(dtype)
    y.view(-1)[position] = torch.nan
    for affine in ((None, None), (torch.ones(4), torch.zeros(4))):
        with pytest.raises(NonFiniteError, match="cannot take the sign of NaN"):
            bnn.sign_codes(y, *affine, [1.0])


def test_nan_that_a_factor_makes_is_refused(isa: str) -> None:
    with pytest.raises(NonFiniteError, match="cannot take the sign of NaN"):
        bnn.sign_codes(torch.zeros(2, 3), torch.tensor([1.0, math.inf, 1.0]), torch.zeros(3), [1.0])


def test_infinite_values_have_signs_and_the_last_code() -> None:
    y = torch.tensor([[math.inf, -math.inf, 3.0]])
    bits, codes = bnn.sign_codes(y, None, None, [0.5, 1.0, 2.0])
    assert code_of(bits[None], y).tolist() == [[1, 0, 1]]
    assert code_of(codes, y).tolist() == [[3, 3, 3]]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_gradient_without_finite_bound_is_refused(isa: str, value: float) -> None:
    inputs = (*gradient_inputs((3, 8), (1.0, 0.0), 0), terms_of(8, 0))
    with pytest.raises(NonFiniteError, match="to integers"):
        bnn.norm_gradient_integers(*inputs, torch.tensor(value), 127, 0)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("position", [0, 7, 8, 65])
def test_the_bound_of_a_gradient_that_is_not_finite_is_not(isa: str, value: float, position: int) -> None:
    grad, codes, slopes, y = gradient_inputs((6, 11), (1.0,), 0)
    grad.view(-1)[position] = value
    moments = torch.tensor([[0.0], [1.0]]).expand(2, 11)
    terms, bound, _ = bnn.norm_gradient_terms(grad, codes, slopes, y, moments, None, None, 1e-5)
    assert not bound.isfinite()
    assert [not x for x in terms.isfinite().all(0).tolist()] == [c == position % 11 for c in range(11)]


def test_a_gradient_too_small_to_scale_is_zero(isa: str) -> None:
    grad, codes, slopes, y = gradient_inputs((3, 8), (1.0, 0.0), 0)
    q, scale = check(
        "norm_gradient_integers", grad * 1e-44, codes, slopes, y, OF_GRAD_ALONE[:, :8], torch.tensor(1e-43), 127, 0
    )
    assert scale.item() == 0
    assert not q.any()


def test_a_gradient_beyond_its_bound_is_clamped(isa: str) -> None:
    y = torch.zeros(1, 9)
    grad, none = torch.linspace(-4, 4, 9)[None], codes_of((1, 9), (1.0,), 0)
    q, _ = check("norm_gradient_integers", grad, none, [1.0], y, OF_GRAD_ALONE[:, :9], torch.tensor(2.0), 2, 0)
    assert q.tolist() == [[-2, -2, -2, -1, 0, 1, 2, 2, 2]]


ROWS, FOUR, TERMS = torch.zeros(2, 4), torch.ones(4), torch.ones(3, 4)
OF_NORM = (TERMS[:2], None, None, 1e-5)
NO_CODES, CODES = codes_of((2, 4), (1.0,), 0), codes_of((2, 4), (1.0, 0.0), 0)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("norm_clamp_", (ROWS, FOUR[:3], FOUR, None, 0.0, 1.0), "factor must have 4 values"),
        ("norm_clamp_", (ROWS, FOUR, FOUR[:1], None, 0.0, 1.0), "offset must have 4 values"),
        ("norm_clamp_", (ROWS, FOUR, FOUR, ROWS[:1], 0.0, 1.0), r"shortcut must be \(2, 4\)"),
        ("norm_clamp_", (IMAGES, ONES, ONES, None, 0.0, 1.0), r"y must lie in \(N, ..., C\) order"),
        ("sign_codes", (ROWS, FOUR, FOUR[:2], [1.0]), "offset must have 4 values"),
        ("sign_codes", (ROWS, None, None, [0.5, 1.0]), "one or three ascending edges"),
        ("sign_codes", (ROWS, None, None, []), "one or three ascending edges"),
        ("sign_codes", (ROWS, None, None, [1.0, 0.5, 2.0]), "one or three ascending edges"),
        ("sign_codes", (ROWS.double(), None, None, [1.0, 0.5, 2.0]), "one or three ascending edges"),
        ("batch_statistics", (ROWS, FOUR[:3], None, None, 1e-5, FOUR, FOUR, 0.1), "scale must have 4 values"),
        ("batch_statistics", (ROWS, None, None, FOUR[:3], 1e-5, FOUR, FOUR, 0.1), "beta must have 4 values"),
        ("batch_statistics", (ROWS, None, None, None, 1e-5, FOUR, FOUR[:3], 0.1), "running statistics must have 4"),
        ("norm_gradient_terms", (ROWS, NO_CODES, [1.0, 0.0], ROWS, *OF_NORM), "codes of 0 planes have 1 slopes, got 2"),
        ("norm_gradient_terms", (ROWS, CODES, [1.0], ROWS, *OF_NORM), "codes of 1 planes have 2 slopes, got 1"),
        ("norm_gradient_terms", (ROWS[:1], CODES, [1.0, 0.0], ROWS, *OF_NORM), r"gradient must be \(2, 4\)"),
        (
            "norm_gradient_terms",
            (ROWS, CODES, [1.0, 0.0], ROWS, TERMS, None, None, 1e-5),
            r"moments must be float32 \(2, 4\)",
        ),
        (
            "norm_gradient_terms",
            (ROWS, CODES, [1.0, 0.0], ROWS, TERMS[:2], None, FOUR[:2], 1e-5),
            "gamma must have 4 values",
        ),
        (
            "norm_gradient",
            (ROWS, CODES[:, :1], [1.0, 0.0], ROWS, TERMS),
            r"planes of codes must be \(2, 1\)",
        ),
        ("norm_gradient", (ROWS, CODES, [1.0, 0.0], ROWS, TERMS[:, :2]), r"terms must be float32 \(3, 4\)"),
        ("norm_gradient", (ROWS, CODES.bool(), [1.0, 0.0], ROWS, TERMS), "codes must be uint8"),
        ("pass_slopes", (ROWS, CODES.expand(3, -1, -1), [1.0] * 8), "at most two planes"),
        ("pass_slopes", (ROWS.double(), CODES.expand(3, -1, -1), [1.0] * 8), "at most two planes"),
        ("pass_slopes", (ROWS, CODES[0], [1.0, 0.0]), "at most two planes"),
        (
            "norm_gradient_integers",
            (ROWS, CODES, [1.0, 0.0], ROWS, TERMS, torch.tensor(1.0), 128, 0),
            r"in 1\.\.127, got 128",
        ),
    ],
)
def test_arguments_are_checked_before_memory_is_touched(
    isa: str, name: str, args: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        getattr(bnn, name)(*args)
    assert "\n" not in str(refused.value)


def test_codes_of_no_planes_stand_for_code_0_everywhere() -> None:
    grad = quarters((3, 5), 0)
    assert torch.equal(bnn.pass_slopes(grad, codes_of((3, 5), (1.0,), 0), [0.5]), grad / 2)
    assert torch.equal(bnn.pass_slopes(grad, pack(torch.zeros(3, 5).bool())[None], [0.5, 9.0]), grad / 2)
