"""Max-pooling: the specification against torch, and every native kernel against the specification."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bnn.ops import PoolWindow, Window, packed_bytes, pooling
from bnn.ops.packing import pack
from tests.contracts import randn, signs
from tests.ops.comparison import (
    check,
    examples,
    float_dtypes,
    generator,
    needs_native,
    pools,
    random_bits,
    rows_of,
    same,
    seeds,
)

bnn = torch.ops.bnn

HALVING = PoolWindow.of(2)
Pool = tuple[Sequence[int], PoolWindow]


# --- of bits -------------------------------------------------------------------------------------------------------


@given(
    kernel=st.tuples(st.integers(2, 3), st.integers(2, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    channels=st.sampled_from([1, 3, 8]),
)
def test_forward_is_an_or_and_backward_goes_to_the_first_maximum(kernel, stride, padding, channels):
    pool = PoolWindow.of(kernel, stride=stride, padding=padding)
    x = randn(2, channels, 5, 6)
    image = signs(x).double().requires_grad_()
    pooled = F.max_pool2d(image, *pool.for_torch)
    assert torch.equal(pooling.max_pool2d(rows_of(x), x.shape, pool), rows_of(pooled.detach()))
    grad = randn(*pooled.shape, seed=1).double()
    pooled.backward(grad)
    assert torch.equal(pooling.max_pool2d_backward(grad, rows_of(x), x.shape, pool), image.grad)


def test_ties_go_to_the_first_in_row_order() -> None:
    x = torch.tensor([[[[-1.0, 1, -1, -1], [1, 1, -1, -1]]]])
    grad = pooling.max_pool2d_backward(torch.tensor([[[[5.0, 7.0]]]]), rows_of(x), x.shape, HALVING)
    assert grad.tolist() == [[[[0, 5, 7, 0], [0, 0, 0, 0]]]]


@pytest.mark.usefixtures("isa")
@given(
    images=st.integers(1, 3),
    channels=st.integers(1, 70),
    pool=pools(most_dilation=3),
    dtype=float_dtypes,
    ones=st.floats(0, 1),
    seed=seeds,
)
@examples
def test_max_pool2d_and_its_gradient_equal_the_specification(
    images: int, channels: int, pool: Pool, dtype: torch.dtype, ones: float, seed: int
) -> None:
    size, window = pool
    x = pack(torch.rand(images, channels * size[0] * size[1], generator=generator(seed)) < ones)
    x_shape = [images, channels, *size]
    check("max_pool2d", x, x_shape, window)
    grad = torch.randn(window.output_shape(x_shape), generator=generator(seed + 1)).to(dtype)
    check("max_pool2d_backward", grad, x, x_shape, window)
    check("max_pool2d_backward", grad.contiguous(memory_format=torch.channels_last), x, x_shape, window)


@pytest.mark.usefixtures("isa")
def test_max_pool2d_of_no_image() -> None:
    x = torch.empty(0, packed_bytes(3 * 16), dtype=torch.uint8)
    assert bnn.max_pool2d(x, [0, 3, 4, 4], HALVING).shape == (0, 2)
    grad = bnn.max_pool2d_backward(torch.empty(0, 3, 2, 2), x, [0, 3, 4, 4], HALVING)
    assert grad.shape == (0, 3, 4, 4)


@pytest.mark.usefixtures("isa")
def test_the_gradient_keeps_nan_and_infinity() -> None:
    x = pack(torch.tensor([[False, True, True, True]]))
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        for value in (torch.nan, torch.inf, -torch.inf):
            # Two windows overlap in the element that is the first maximum of both.
            grad = torch.full((1, 1, 1, 2), value, dtype=dtype)
            args = (x, [1, 1, 1, 4], PoolWindow.of((1, 3), stride=1))
            got = bnn.max_pool2d_backward(grad, *args)
            assert torch.equal(got.nan_to_num(7.0), pooling.max_pool2d_backward(grad, *args).nan_to_num(7.0))


# --- with choices --------------------------------------------------------------------------------------------------


class TestChoices:
    @given(images=st.integers(0, 3), channels=st.integers(1, 9), pool=pools(), seed=seeds)
    def test_equals_torch_with_ties(self, images: int, channels: int, pool: Pool, seed: int) -> None:
        size, window = pool
        x = randn(images, channels, *size, seed=seed).round().requires_grad_()
        values, choices = bnn.max_pool2d_choices(x.detach(), window)
        expected = F.max_pool2d(x, *window.for_torch)
        assert torch.equal(values, expected)
        grad = randn(*expected.shape, seed=seed + 1)
        expected.backward(grad)
        scattered = bnn.max_pool2d_scatter(grad, choices, x.shape, window)
        torch.testing.assert_close(scattered, x.grad, rtol=1e-6, atol=1e-6)

    @given(
        images=st.integers(0, 3),
        channels=st.integers(1, 70),
        pool=pools(),
        dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
        last=st.booleans(),
        seed=seeds,
    )
    @examples
    def test_native_equals_the_reference(
        self,
        isa: str,
        images: int,
        channels: int,
        pool: Pool,
        dtype: torch.dtype,
        last: bool,
        seed: int,
    ) -> None:
        size, window = pool
        x = randn(images, channels, *size, seed=seed).round().to(dtype)
        if last:
            x = x.contiguous(memory_format=torch.channels_last)
        special = torch.tensor([torch.nan, -torch.inf, torch.inf, -0.0], dtype=dtype)
        place = torch.randint(0, 20, x.shape, generator=generator(seed))
        x = torch.where(place < 4, special[place % 4], x)
        values, choices = check("max_pool2d_choices", x, window)
        grad = randn(*values.shape, seed=seed + 1).to(dtype)
        check("max_pool2d_scatter", grad, choices, list(x.shape), window)

    @pytest.mark.parametrize(("channels", "side"), [(24, 40), (5, 41)])
    def test_native_of_many_runs(self, isa: str, channels: int, side: int) -> None:
        x = randn(2, channels, side, side)
        window = HALVING
        values, choices = check("max_pool2d_choices", x, window)
        check("max_pool2d_scatter", values, choices, list(x.shape), window)

    @given(images=st.integers(0, 3), channels=st.integers(1, 70), pool=pools(), seed=seeds)
    @examples
    def test_int8_gradients_go_where_windows_do_not_overlap(
        self, isa: str, images: int, channels: int, pool: Pool, seed: int
    ) -> None:
        size, window = pool
        apart = [max(pair) for pair in zip(window.stride, window.kernel, strict=True)]
        window = PoolWindow.of(window.kernel, stride=apart, padding=window.padding)
        x = randn(images, channels, *size, seed=seed)
        values, choices = bnn.max_pool2d_choices(x, window)
        grad = (randn(*values.shape, seed=seed + 1) * 60).clamp(-127, 127).to(torch.int8)
        scattered = check("max_pool2d_scatter", grad, choices, list(x.shape), window)
        wide = bnn.max_pool2d_scatter(grad.float(), choices, list(x.shape), window)
        assert torch.equal(scattered.float(), wide)

    def test_int8_gradients_of_overlapping_windows_are_refused(self, isa: str) -> None:
        window = PoolWindow.of(3, stride=2)
        values, choices = bnn.max_pool2d_choices(randn(1, 2, 7, 7), window)
        with pytest.raises(ValueError, match="do not overlap"):
            bnn.max_pool2d_scatter(values.to(torch.int8), choices, [1, 2, 7, 7], window)

    @pytest.mark.parametrize("kernel", [1, 2, 3, 16])
    def test_a_choice_takes_the_bits_of_its_number(self, kernel: int) -> None:
        x = torch.zeros(1, 1, kernel, kernel)
        x.view(-1)[-1] = 1
        _, choices = bnn.max_pool2d_choices(x, PoolWindow.of(kernel))
        assert sum(plane.item() << bit for bit, plane in enumerate(choices)) == kernel**2 - 1

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
    def test_other_dtypes(self, dtype: torch.dtype) -> None:
        x = randn(2, 3, 6, 6).to(dtype)
        values, choices = check("max_pool2d_choices", x, HALVING)
        check("max_pool2d_scatter", values, choices, [2, 3, 6, 6], HALVING)


class TestConv2dMaxPool2d:
    @given(images=st.integers(0, 4), channels=st.integers(1, 40), groups=st.integers(1, 2), pool=pools(), seed=seeds)
    @examples
    def test_native_equals_the_reference(
        self, isa: str, images: int, channels: int, groups: int, pool: Pool, seed: int
    ) -> None:
        size, window = pool
        x_shape, weight_shape = [images, channels * groups, *size], [6 * groups, channels, 3, 2]
        x = pack(randn(images, math.prod(x_shape[1:]), seed=seed))
        weight = pack(randn(6 * groups, channels * 6, seed=seed + 1))
        check("conv2d_max_pool2d", x, x_shape, weight, weight_shape, Window.of(padding=1, groups=groups), window)

    def test_equals_the_two_one_after_the_other(self, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pooling, "_CHUNK_ELEMENTS", 2 * 24 * 12 * 12)  # two images at a time
        x, weight = pack(randn(5, 16 * 12 * 12)), pack(randn(24, 16 * 9, seed=1))
        convolution = ([5, 16, 12, 12], weight, [24, 16, 3, 3], Window.of(padding=1))
        pooled = check("conv2d_max_pool2d", x, *convolution, HALVING)
        products = bnn.conv2d(x, *convolution, torch.float16)
        same(pooled, bnn.max_pool2d_choices(products, HALVING))
        assert torch.equal(pooled[0], F.max_pool2d(products.float(), 2).half())


BITS = random_bits(2, 45, 1)
IMAGE, CHOICES = torch.zeros(2, 4, 4, 4), torch.zeros(2, 2, 2, dtype=torch.uint8)
ROW = torch.zeros(2, 1, dtype=torch.uint8)


@needs_native
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    "run",
    [
        lambda: bnn.max_pool2d_choices(randn(2, 40, 30, 31), PoolWindow.of(3, stride=2, padding=1)),
        lambda: bnn.conv2d_max_pool2d(BITS, [2, 5, 3, 3], BITS[:1, :3], [1, 5, 2, 2], Window.of(padding=1), HALVING),
    ],
    ids=["max_pool2d_choices", "conv2d_max_pool2d"],
)
def test_the_number_of_threads_changes_nothing(run: Any) -> None:
    results: list[tuple[Tensor, Tensor]] = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append(run())
    same(results[1], results[0])
    same(results[2], results[0])


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("max_pool2d_choices", (IMAGE, PoolWindow.of((17, 16), stride=1)), "1 to 256 values"),
        ("max_pool2d_choices", (IMAGE, PoolWindow.of(2, dilation=2)), "no dilation"),
        ("max_pool2d_choices", (IMAGE, PoolWindow.of(2, stride=(0, 1))), "must be positive"),
        ("max_pool2d_choices", (IMAGE, PoolWindow.of(2, padding=(1, 2))), "more than half the kernel"),
        ("max_pool2d_choices", (IMAGE, PoolWindow.of((5, 2), stride=2)), "does not fit an image"),
        (
            "conv2d_max_pool2d",
            (BITS, [2, 5, 3, 3], BITS[:1], [1, 5, 9, 1], Window.of(padding=1), HALVING),
            "does not fit an",
        ),
        ("max_pool2d_scatter", (IMAGE, CHOICES, [2, 4, 4, 4], HALVING), "grad must be"),
        ("max_pool2d_scatter", (IMAGE[:, :, :2, :2], CHOICES[:1], [2, 4, 4, 4], HALVING), "choices must be"),
    ],
)
def test_wrong_arguments_are_told(name: str, args: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(bnn, name)(*args)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("max_pool2d", (torch.zeros(2, 12, dtype=torch.uint8), [2, 6, 4, 4], PoolWindow.of(2, padding=2)), "than half"),
        (
            "max_pool2d_backward",
            (torch.zeros(2, 6, 3, 2), torch.zeros(2, 12, dtype=torch.uint8), [2, 6, 4, 4], HALVING),
            "grad must be",
        ),
        ("conv2d_max_pool2d", (ROW, [2, 4, 4, 4], ROW, [2, 4, 2, 2], Window.of(padding=1), HALVING), "8 bytes a row"),
        ("conv2d_max_pool2d", (ROW, [2, 4, 4, 4], ROW, [2, 3, 2, 2], Window.of(), HALVING), "does not fit an input"),
    ],
)
def test_native_arguments_are_checked_before_memory_is_touched(
    isa: str, name: str, args: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(bnn, name)(*args)
