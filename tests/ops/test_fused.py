"""The fused passes: their specification against formulas and torch, the native kernels against the specification."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bnn.errors import NonFiniteError
from bnn.ops import cpu, fused, reference
from tests.contracts import randn

bnn = torch.ops.bnn

NATIVE = cpu.instruction_set() != "reference"

POOL = ([2, 2], [2, 2], [0, 0])
BITS, CONVOLUTION = reference.pack(randn(2, 45, seed=1)), ([1, 1], [1, 1], [1, 1], 1)

examples = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**31 - 1)
dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])
shapes = st.one_of(
    st.tuples(st.integers(1, 40), st.integers(1, 70)),
    st.tuples(st.integers(1, 4), st.integers(1, 70), st.integers(1, 9), st.integers(1, 9)),
)


def tuple_of(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def same(got: Any, expected: Any) -> None:
    """Values, signs of zeros, dtype, shape and strides."""
    for a, b in zip(tuple_of(got), tuple_of(expected), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.movedim(1, -1).is_contiguous() if a.dim() == 4 else a.stride() == b.stride()
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(torch.signbit(a.nan_to_num()), torch.signbit(b.nan_to_num()))


def check(name: str, *args: Any) -> Any:
    """Compares the registered kernel to the specification, whose result it returns."""
    expected = getattr(fused, name)(*args)
    same(getattr(bnn, name)(*args), expected)
    return expected


def channel_dims(x: Tensor) -> tuple[int, ...]:
    return tuple(d for d in range(x.dim()) if d != 1)


def spread(of_channel: Tensor, x: Tensor) -> Tensor:
    return of_channel.view(1, -1, *(1 for _ in x.shape[2:]))


def unpacked(bits: Tensor, like: Tensor) -> Tensor:
    """Truth values of packed rows in (..., C) order, with the channels moved to where `like` has them."""
    last = like.movedim(1, -1)
    return reference.unpack(bits, last[0].numel(), torch.bool).view(last.shape).movedim(-1, 1)


class TestSchemas:
    Y = randn(2, 5, 3, 3)
    WINDOW = ([3, 2], [2, 1], [1, 0])
    SAMPLES: ClassVar = {
        "norm_sign": (Y, randn(5), 1e-5),
        "norm_sign_backward": (Y, BITS, BITS, torch.ones(5), torch.ones(4, 5)),
        "norm_sign_backward_int8": (Y, BITS, BITS, torch.ones(5), torch.ones(4, 5), 3),
        "max_pool2d_choices": (Y, *WINDOW),
        "max_pool2d_scatter": (randn(2, 5, 2, 2), torch.zeros(3, 2, 3, dtype=torch.uint8), [2, 5, 3, 3], *WINDOW),
        "conv2d_max_pool2d": (BITS, [2, 5, 3, 3], BITS[:1, :3], [1, 5, 2, 2], [1, 1], [1, 1], [1, 1], 1, *WINDOW),
        "sign_window": (randn(3, 13), 0.5),
        "mask": (randn(2, 45), BITS),
    }

    def test_every_operation_has_a_sample(self) -> None:
        assert self.SAMPLES.keys() == fused.SCHEMAS.keys()

    @pytest.mark.parametrize("name", fused.SCHEMAS)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # native, and by the reference
    def test_schema_and_shape_rule_hold(self, name: str, dtype: torch.dtype) -> None:
        first, *rest = self.SAMPLES[name]
        operation = getattr(bnn, name).default
        first = first.to(dtype) if first.is_floating_point() else first
        torch.library.opcheck(operation, (first, *rest), test_utils=("test_schema", "test_faketensor"))


# --- norm and sign -------------------------------------------------------------------------------------------------


def norm_inputs(shape: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """An input of several scales, a bias and a gradient."""
    scale = 10.0 ** (torch.arange(shape[1]) % 5 - 2)
    y = randn(*shape, seed=seed)
    return (y + 1) * spread(scale, y), 0.5 * randn(shape[1], seed=seed + 1), randn(*shape, seed=seed + 2)


def some_levels(channels: int) -> Tensor:
    return torch.tensor([[-1.5], [-0.5], [0.5], [1.5]]) + 0.25 * randn(4, channels, seed=77).clamp(-1, 1)


class TestNormSign:
    @given(shape=shapes, seed=seeds)
    def test_forward_follows_the_formula(self, shape: tuple[int, ...], seed: int) -> None:
        y, bias, _ = norm_inputs(shape, seed)
        bits, inside, mean, deviation = bnn.norm_sign(y, bias, 1e-5)
        wide, dims = y.double(), channel_dims(y)
        torch.testing.assert_close(mean, wide.mean(dims).float())
        centred = wide - spread(mean.double(), y)
        torch.testing.assert_close(deviation, math.sqrt(math.pi / 2) * centred.abs().mean(dims).float())
        x = centred / spread(deviation.double() + 1e-5, y) + spread(bias.double(), y)
        # A value at an edge may fall on either side of it.
        assert torch.equal(unpacked(bits, y) | (x.abs() < 1e-4), (x >= 0) | (x.abs() < 1e-4))
        at_edge = (x.abs() - 1).abs() < 1e-4
        assert torch.equal(unpacked(inside, y) | at_edge, (x.abs() <= 1) | at_edge)

    @given(shape=shapes, seed=seeds)
    def test_backward_follows_the_formula(self, shape: tuple[int, ...], seed: int) -> None:
        y, bias, grad = norm_inputs(shape, seed)
        bits, inside, _, deviation = bnn.norm_sign(y, bias, 1e-2)
        psi = deviation + 1e-2
        levels = some_levels(shape[1])
        grad_y, grad_bias = bnn.norm_sign_backward(grad, bits, inside, psi, levels)
        dims = channel_dims(y)
        within, plus = unpacked(inside, y), unpacked(bits, y)
        passed = grad.double() * within
        v = passed / spread(psi.double(), y)
        below, minus, small, above = (spread(level.double(), y) for level in levels)
        q = torch.where(plus, torch.where(within, small, above), torch.where(within, minus, below))
        expected = v - spread(v.mean(dims), y) - spread((v * q).mean(dims), y) * q
        torch.testing.assert_close(grad_y.double(), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(grad_bias.double(), passed.sum(dims), rtol=1e-5, atol=1e-5)

    @given(shape=shapes, dtype=dtypes, last=st.booleans(), seed=seeds)
    @examples
    def test_native_equals_the_reference(
        self, isa: str, shape: tuple[int, ...], dtype: torch.dtype, last: bool, seed: int
    ) -> None:
        y, bias, grad = norm_inputs(shape, seed)
        y, grad = y.to(dtype), grad.to(dtype)
        if last:
            y, grad = (x.movedim(1, -1).contiguous().movedim(-1, 1) for x in (y, grad))
        bits, inside, _, deviation = check("norm_sign", y, bias, 1e-5)
        check("norm_sign_backward", grad, bits, inside, deviation + 1e-5, some_levels(shape[1]))
        check("norm_sign_backward_int8", grad, bits, inside, deviation + 1e-5, some_levels(shape[1]), seed)

    @pytest.mark.parametrize("shape", [(2, 128, 17, 16), (3, 33, 21, 19), (1000, 5), (700, 64), (2, 3, 60, 5), (5, 1)])
    def test_native_of_many_runs_and_of_short_rows(self, isa: str, shape: tuple[int, ...]) -> None:
        y, grad = ((randn(*shape, seed=seed) * 64).round() / 64 for seed in (0, 1))  # whose sums are exact
        bits, inside, _, deviation = check("norm_sign", y, torch.zeros(shape[1]), 1e-5)
        check("norm_sign_backward", grad, bits, inside, deviation + 1e-5, some_levels(shape[1]))
        check("norm_sign_backward_int8", grad, bits, inside, deviation + 1e-5, some_levels(shape[1]), 5)

    def test_int8_gradient_is_the_gradient_rounded(self) -> None:
        y, bias, grad = norm_inputs((6, 9, 4, 4), 0)
        bits, inside, _, deviation = bnn.norm_sign(y, bias, 1e-5)
        rest = (grad, bits, inside, deviation + 1e-5, some_levels(9))
        expected, expected_bias = bnn.norm_sign_backward(*rest)
        q, scale, grad_bias = bnn.norm_sign_backward_int8(*rest, 11)
        assert q.dtype is torch.int8
        assert torch.equal(grad_bias, expected_bias)
        assert ((q.float() * scale - expected).abs() <= scale * 1.001).all()
        largest = expected.abs().max() / 127
        assert largest <= scale <= 1.5 * largest

    @pytest.mark.parametrize("value", [torch.nan, torch.inf])
    def test_int8_gradient_that_is_not_finite_is_refused(self, value: float) -> None:
        grad, ones = torch.full((3, 8), 1.0), torch.ones(8)
        grad[1, 5] = value
        bits = reference.pack(torch.ones(3, 8))
        with pytest.raises(NonFiniteError, match="int8"):
            bnn.norm_sign_backward_int8(grad, bits, bits, ones, some_levels(8), 0)

    def test_int8_gradient_too_small_to_scale_is_zero(self) -> None:
        grad, ones = torch.full((3, 8), 1e-44), torch.ones(8)
        bits = reference.pack(randn(3, 8))
        q, scale, _ = check("norm_sign_backward_int8", grad, bits, bits, ones, some_levels(8), 0)
        assert scale.item() == 0
        assert not q.any()

    def test_three_dimensions(self, isa: str) -> None:
        check("norm_sign", randn(4, 6, 10), randn(6), 1e-5)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
    def test_other_dtypes(self, dtype: torch.dtype) -> None:
        y = randn(6, 5).to(dtype)
        results = check("norm_sign", y, randn(5), 1e-5)
        assert results[2].dtype == torch.promote_types(dtype, torch.float32)

    def test_a_tie_and_an_edge_are_plus_one_and_inside(self) -> None:
        y = torch.tensor([[-1.0], [1.0], [0.0], [0.0], [2.0], [-2.0]])  # mean 0, mean magnitude 1
        bits, inside, mean, deviation = bnn.norm_sign(y, torch.zeros(1), 0.0)
        assert mean.item() == 0
        assert deviation.item() == pytest.approx(math.sqrt(math.pi / 2), rel=1e-7)
        assert bits.flatten().tolist() == [0, 1, 1, 1, 1, 0]
        assert inside.flatten().tolist() == [1, 1, 1, 1, 0, 0]
        bits, inside, *_ = bnn.norm_sign(y, torch.ones(1), 0.0)  # where y is 0, x is 1
        assert bits.flatten().tolist() == [1, 1, 1, 1, 1, 0]
        assert inside.flatten().tolist() == [1, 0, 1, 1, 0, 1]

    @pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_what_is_not_finite_is_refused(self, value: float, dtype: torch.dtype) -> None:
        for position in (0, 77, 299):
            y = randn(3, 4, 5, 5).to(dtype)
            y.view(-1)[position] = value
            with pytest.raises(NonFiniteError, match="NaN or infinite"):
                bnn.norm_sign(y, torch.zeros(4), 1e-5)

    def test_an_empty_batch_has_no_statistics_and_an_empty_gradient(self) -> None:
        with pytest.raises(NonFiniteError):
            bnn.norm_sign(torch.empty(0, 4), torch.zeros(4), 1e-5)
        empty = torch.empty(0, 1, dtype=torch.uint8)
        grad_y, grad_bias = bnn.norm_sign_backward(torch.empty(0, 4), empty, empty, torch.ones(4), torch.ones(4, 4))
        assert grad_y.shape == (0, 4)
        assert grad_bias.tolist() == [0] * 4

    def test_a_gradient_that_does_not_pass_may_be_anything(self) -> None:
        bits, inside = reference.pack(torch.ones(3, 1)), torch.tensor([[1], [0], [1]], dtype=torch.uint8)
        grad = torch.tensor([[1.0], [torch.nan], [3.0]])
        _, grad_bias = bnn.norm_sign_backward(grad, bits, inside, torch.ones(1), torch.ones(4, 1))
        assert grad_bias.item() == 4


# --- pooling -------------------------------------------------------------------------------------------------------


@st.composite
def pools(draw: st.DrawFn) -> tuple[list[int], list[list[int]]]:
    """(height, width) of an image, and the kernel, stride and padding of a window that fits it."""
    kernel, stride = ([draw(st.integers(1, 4)) for _ in range(2)] for _ in range(2))
    padding = [draw(st.integers(0, size // 2)) for size in kernel]
    return [draw(st.integers(size, size + 8)) for size in kernel], [kernel, stride, padding]


class TestMaxPool2d:
    @given(images=st.integers(0, 3), channels=st.integers(1, 9), pool=pools(), seed=seeds)
    def test_equals_torch_with_ties(
        self, images: int, channels: int, pool: tuple[list[int], list[list[int]]], seed: int
    ) -> None:
        size, window = pool
        x = randn(images, channels, *size, seed=seed).round().requires_grad_()
        values, choices = bnn.max_pool2d_choices(x.detach(), *window)
        expected = F.max_pool2d(x, *window)
        assert torch.equal(values, expected)
        grad = randn(*expected.shape, seed=seed + 1)
        expected.backward(grad)
        scattered = bnn.max_pool2d_scatter(grad, choices, x.shape, *window)
        torch.testing.assert_close(scattered, x.grad, rtol=1e-6, atol=1e-6)

    @given(
        images=st.integers(0, 3),
        channels=st.integers(1, 70),
        pool=pools(),
        dtype=dtypes,
        last=st.booleans(),
        seed=seeds,
    )
    @examples
    def test_native_equals_the_reference(
        self,
        isa: str,
        images: int,
        channels: int,
        pool: tuple[list[int], list[list[int]]],
        dtype: torch.dtype,
        last: bool,
        seed: int,
    ) -> None:
        size, window = pool
        x = randn(images, channels, *size, seed=seed).round().to(dtype)
        if last:
            x = x.contiguous(memory_format=torch.channels_last)
        special = torch.tensor([torch.nan, -torch.inf, torch.inf, -0.0], dtype=dtype)
        place = torch.randint(0, 20, x.shape, generator=torch.Generator().manual_seed(seed))
        x = torch.where(place < 4, special[place % 4], x)
        values, choices = check("max_pool2d_choices", x, *window)
        grad = randn(*values.shape, seed=seed + 1).to(dtype)
        check("max_pool2d_scatter", grad, choices, list(x.shape), *window)

    @pytest.mark.parametrize(("channels", "side"), [(24, 40), (5, 41)])
    def test_native_of_many_runs(self, isa: str, channels: int, side: int) -> None:
        x = randn(2, channels, side, side)
        window = ([2, 2], [2, 2], [0, 0])
        values, choices = check("max_pool2d_choices", x, *window)
        check("max_pool2d_scatter", values, choices, list(x.shape), *window)

    @given(images=st.integers(0, 3), channels=st.integers(1, 70), pool=pools(), seed=seeds)
    @examples
    def test_int8_gradients_go_where_windows_do_not_overlap(
        self, isa: str, images: int, channels: int, pool: tuple[list[int], list[list[int]]], seed: int
    ) -> None:
        size, (kernel, stride, padding) = pool
        window = (kernel, [max(step, taps) for step, taps in zip(stride, kernel, strict=True)], padding)
        x = randn(images, channels, *size, seed=seed)
        values, choices = bnn.max_pool2d_choices(x, *window)
        grad = (randn(*values.shape, seed=seed + 1) * 60).clamp(-127, 127).to(torch.int8)
        scattered = check("max_pool2d_scatter", grad, choices, list(x.shape), *window)
        wide = bnn.max_pool2d_scatter(grad.float(), choices, list(x.shape), *window)
        assert torch.equal(scattered.float(), wide)

    def test_int8_gradients_of_overlapping_windows_are_refused(self, isa: str) -> None:
        window = ([3, 3], [2, 2], [0, 0])
        values, choices = bnn.max_pool2d_choices(randn(1, 2, 7, 7), *window)
        with pytest.raises(ValueError, match="do not overlap"):
            bnn.max_pool2d_scatter(values.to(torch.int8), choices, [1, 2, 7, 7], *window)

    @pytest.mark.parametrize("kernel", [1, 2, 3, 16])
    def test_a_choice_takes_the_bits_of_its_number(self, kernel: int) -> None:
        x = torch.zeros(1, 1, kernel, kernel)
        x.view(-1)[-1] = 1
        _, choices = bnn.max_pool2d_choices(x, kernel, kernel, 0)
        assert sum(plane.item() << bit for bit, plane in enumerate(choices)) == kernel**2 - 1

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
    def test_other_dtypes(self, dtype: torch.dtype) -> None:
        x = randn(2, 3, 6, 6).to(dtype)
        values, choices = check("max_pool2d_choices", x, [2, 2], [2, 2], [0, 0])
        check("max_pool2d_scatter", values, choices, [2, 3, 6, 6], [2, 2], [2, 2], [0, 0])


class TestConv2dMaxPool2d:
    @given(images=st.integers(0, 4), channels=st.integers(1, 40), groups=st.integers(1, 2), pool=pools(), seed=seeds)
    @examples
    def test_native_equals_the_reference(
        self, isa: str, images: int, channels: int, groups: int, pool: tuple[list[int], list[list[int]]], seed: int
    ) -> None:
        size, window = pool
        x_shape, weight_shape = [images, channels * groups, *size], [6 * groups, channels, 3, 2]
        x = reference.pack(randn(images, math.prod(x_shape[1:]), seed=seed))
        weight = reference.pack(randn(6 * groups, channels * 6, seed=seed + 1))
        check("conv2d_max_pool2d", x, x_shape, weight, weight_shape, [1, 1], [1, 1], [1, 1], groups, *window)

    def test_equals_the_two_one_after_the_other(self, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fused, "_CHUNK_ELEMENTS", 2 * 24 * 12 * 12)  # two images at a time
        x, weight = reference.pack(randn(5, 16 * 12 * 12)), reference.pack(randn(24, 16 * 9, seed=1))
        convolution = ([5, 16, 12, 12], weight, [24, 16, 3, 3], [1, 1], [1, 1], [1, 1], 1)
        pooled = check("conv2d_max_pool2d", x, *convolution, *POOL)
        products = bnn.conv2d(x, *convolution, torch.float16)
        same(pooled, bnn.max_pool2d_choices(products, *POOL))
        assert torch.equal(pooled[0], F.max_pool2d(products.float(), 2).half())


# --- sign and its window -------------------------------------------------------------------------------------------


class TestSignWindow:
    @given(rows=st.integers(0, 9), n=st.integers(0, 200), window=st.sampled_from([0.1, 1.0, torch.inf]), seed=seeds)
    def test_are_the_comparisons(self, rows: int, n: int, window: float, seed: int) -> None:
        x = randn(rows, n, seed=seed)
        bits, inside = bnn.sign_window(x, window)
        assert torch.equal(bits, reference.pack(x >= 0))
        assert torch.equal(inside, reference.pack((x >= -window) & (x <= window)))
        assert torch.equal(bnn.mask(x, inside), x.clamp(-window, window) * (x.abs() <= window))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
    @given(rows=st.integers(0, 9), n=st.integers(0, 200), window=st.floats(0.0625, 4), seed=seeds)
    @examples
    def test_native_equals_the_reference(
        self, isa: str, dtype: torch.dtype, rows: int, n: int, window: float, seed: int
    ) -> None:
        x = randn(rows, n, seed=seed).to(dtype)
        edge = torch.tensor(window, dtype=dtype)
        beyond = torch.nextafter(edge, torch.tensor(torch.inf, dtype=dtype))
        special = torch.stack([edge, -edge, beyond, -beyond, edge * 0, -edge * 0, beyond * torch.inf])
        place = torch.randint(0, 14, x.shape, generator=torch.Generator().manual_seed(seed))
        x = torch.where(place < 7, special[place % 7], x)
        _, inside = check("sign_window", x, window)
        check("mask", x, inside)

    @pytest.mark.parametrize("shape", [(1, 100_003), (3, 40_008), (20_000, 3)])
    def test_native_of_many_chunks(self, isa: str, shape: tuple[int, int]) -> None:
        x = randn(*shape)
        _, inside = check("sign_window", x, 1.0)
        check("mask", x, inside)
        check("sign_window", x.t(), 1.0)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
    def test_nan_is_refused_and_masked(self, dtype: torch.dtype) -> None:
        x = torch.ones(1, 9_999, dtype=dtype)
        _, inside = bnn.sign_window(x * 2 - torch.arange(9_999).remainder(2).to(dtype), 1.0)
        x[0, 4_200] = torch.nan
        with pytest.raises(NonFiniteError, match="NaN"):
            bnn.sign_window(x, 1.0)
        assert (bnn.mask(x, inside) == 1).sum().item() == 4_999


# --- threads and wrong arguments -----------------------------------------------------------------------------------


def uneven(*shape: int) -> Tensor:
    """Values of many scales that cancel: what is left of their sum is the rounding, which depends on the order."""
    half = randn(*shape) * 10 ** (5 * randn(*shape, seed=1))
    return torch.cat([half, -half.flip(0)])


UNEVEN = (uneven(2, 40, 30, 31), uneven(900, 40))
ONES = reference.pack(torch.ones(1800, 40))


@pytest.mark.skipif(not NATIVE, reason="the native kernels are not built or not chosen")
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    "run",
    [
        lambda: bnn.norm_sign(UNEVEN[0], randn(40), 1e-5),
        lambda: bnn.norm_sign_backward(UNEVEN[1], ONES, ONES, torch.ones(40), torch.ones(4, 40)),
        lambda: bnn.max_pool2d_choices(UNEVEN[0], [3, 3], [2, 2], [1, 1]),
        lambda: bnn.conv2d_max_pool2d(BITS, [2, 5, 3, 3], BITS[:1, :3], [1, 5, 2, 2], *CONVOLUTION, *POOL),
        lambda: bnn.sign_window(UNEVEN[1].view(3, -1), 1.0),
    ],
    ids=["norm_sign", "norm_sign_backward", "max_pool2d_choices", "conv2d_max_pool2d", "sign_window"],
)
def test_the_number_of_threads_changes_nothing(run: Callable[[], Any]) -> None:
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append(run())
    same(results[1], results[0])
    same(results[2], results[0])


ROW, FLOATS = torch.zeros(2, 1, dtype=torch.uint8), torch.zeros(2, 4)
IMAGE, CHOICES = torch.zeros(2, 4, 4, 4), torch.zeros(2, 2, 2, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("max_pool2d_choices", (IMAGE, [17, 16], [1, 1], [0, 0]), "1 to 256 values"),
        ("max_pool2d_choices", (IMAGE, [2, 2], [0, 1], [0, 0]), "1 to 256 values"),
        ("max_pool2d_choices", (IMAGE, [2, 2], [2, 2], [1, 2]), "half of the kernel"),
        ("max_pool2d_choices", (IMAGE, [5, 2], [2, 2], [0, 0]), "does not fit an image"),
        ("conv2d_max_pool2d", (BITS, [2, 5, 3, 3], BITS[:1], [1, 5, 9, 1], *CONVOLUTION, *POOL), "does not fit an"),
        ("max_pool2d_scatter", (IMAGE, CHOICES, [2, 4, 4, 4], *POOL), "grad must be"),
        ("max_pool2d_scatter", (IMAGE[:, :, :2, :2], CHOICES[:1], [2, 4, 4, 4], *POOL), "choices must be"),
    ],
)
def test_wrong_arguments_are_told(name: str, args: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(bnn, name)(*args)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("norm_sign", (FLOATS, torch.zeros(3), 1e-5), "bias must have 4 values"),
        ("norm_sign_backward", (FLOATS, ROW, ROW[:, :0], torch.ones(4), torch.ones(4)), "inside must be uint8"),
        ("norm_sign_backward", (FLOATS, ROW, ROW, torch.ones(4), torch.ones(1)), "levels are 4 for each of 4"),
        ("conv2d_max_pool2d", (ROW, [2, 4, 4, 4], ROW, [2, 4, 2, 2], *CONVOLUTION, *POOL), "8 bytes a row"),
        ("conv2d_max_pool2d", (ROW, [2, 4, 4, 4], ROW, [2, 3, 2, 2], *CONVOLUTION, *POOL), "does not fit an input"),
        ("mask", (torch.zeros(2, 9), ROW), "2 bytes a row"),
        ("sign_window", (torch.zeros(3), 1.0), "x must be a matrix"),
    ],
)
def test_native_arguments_are_checked_before_memory_is_touched(
    isa: str, name: str, args: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(bnn, name)(*args)
