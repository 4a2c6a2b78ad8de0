"""Every native kernel against the reference, under each instruction set that this CPU has."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bnn.errors import NonFiniteError
from bnn.ops import cpu, packed_bytes, reference

examples = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**31 - 1)
sizes = st.integers(1, 70)
dtypes = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16])


pytestmark = pytest.mark.usefixtures("isa")


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_bits(rows: int, n: int, seed: int) -> Tensor:
    return reference.pack(torch.rand(rows, n, generator=generator(seed)) < 0.5)


def check(name: str, *args: Any) -> None:
    """Compares the registered kernel to the reference: values, dtype, shape and strides."""
    got, expected = getattr(torch.ops.bnn, name)(*args), getattr(reference, name)(*args)
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    assert got.is_contiguous(memory_format=torch.channels_last if got.dim() == 4 else torch.contiguous_format)
    assert torch.equal(got, expected)
    # torch.equal takes -0.0 for 0.0
    assert torch.equal(torch.signbit(got), torch.signbit(expected))


@st.composite
def windows(draw: st.DrawFn, *, pooling: bool = False) -> tuple[list[int], list[list[int]]]:
    """(height, width) of an image, and the kernel, stride, padding and dilation of a window that fits it."""
    size, kernel, stride, padding, dilation = [], [], [], [], []
    for _ in range(2):
        kernel.append(draw(st.integers(1, 4)))
        dilation.append(draw(st.integers(1, 3)))
        stride.append(draw(st.integers(1, 3)))
        extent = dilation[-1] * (kernel[-1] - 1) + 1
        padding.append(draw(st.integers(0, kernel[-1] // 2 if pooling else 6)))
        # A pooling window always has a tap inside: torch leaves one that is all padding undefined.
        least = extent if pooling else max(1, extent - 2 * padding[-1])
        size.append(draw(st.integers(least, least + 8)))
    return size, [kernel, stride, padding, dilation]


# --- pack and unpack -----------------------------------------------------------------------------------------------


@given(rows=st.integers(0, 9), n=st.integers(0, 200), dtype=dtypes, seed=seeds)
@examples
def test_pack_equals_the_reference(rows: int, n: int, dtype: torch.dtype, seed: int) -> None:
    x = torch.randn(rows, n, generator=generator(seed)).to(dtype)
    special = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.finfo(dtype).tiny], dtype=dtype)
    at_random = torch.randint(0, 10, x.shape, generator=generator(seed + 1))
    x = torch.where(at_random < 5, special[at_random % 5], x)
    check("pack", x)
    check("pack", x < 0)
    check("pack", (x * 2).nan_to_num().clamp(-9, 9).to(torch.int8))


@pytest.mark.parametrize("shape", [(1, 100_003), (3, 40_008), (20_000, 3), (300, 64)])
def test_pack_and_unpack_of_many_chunks(shape: tuple[int, int]) -> None:
    x = torch.randn(shape, generator=generator(0))
    check("pack", x)
    check("unpack", reference.pack(x), shape[1], torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_pack_finds_one_nan_anywhere(dtype: torch.dtype, sign: float) -> None:
    nan = torch.copysign(torch.tensor(torch.nan), torch.tensor(sign)).to(dtype)
    for position in (0, 5, 4_200, 9_998):
        x = torch.ones(1, 9_999, dtype=dtype)
        x[0, position] = nan
        with pytest.raises(NonFiniteError, match="NaN"):
            torch.ops.bnn.pack(x)


def test_pack_takes_any_strides() -> None:
    x = torch.randn(6, 14, 10, generator=generator(1))
    check("pack", x[:, :, 3])
    check("pack", x[:, 3].t())
    check("pack", x[0, :1].expand(7, 10))


@given(rows=st.integers(0, 9), n=st.integers(0, 200), seed=seeds)
@examples
@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int32, torch.bool],
)
def test_unpack_equals_the_reference(dtype: torch.dtype, rows: int, n: int, seed: int) -> None:
    check("unpack", random_bits(rows, n, seed), n, dtype)


def test_unpack_ignores_what_lies_past_the_row() -> None:
    check("unpack", torch.full((3, 2), 255, dtype=torch.uint8), 11, torch.float32)
    check("unpack", random_bits(9, 64, 0)[::2, 1:4], 20, torch.float32)


# --- products ------------------------------------------------------------------------------------------------------


@given(rows=sizes, outputs=sizes, features=st.integers(1, 400), seed=seeds)
@examples
def test_linear_equals_the_reference(rows: int, outputs: int, features: int, seed: int) -> None:
    check("linear", random_bits(rows, features, seed), random_bits(outputs, features, seed + 1), features)


@pytest.mark.parametrize("features", [1, 7, 8, 63, 64, 65, 128, 129, 4_608])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_linear_of_all_ones_and_any_number_of_threads(features: int, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        ones, bits = reference.pack(torch.ones(150, features)), random_bits(33, features, 0)
        check("linear", ones, ones[:20], features)
        check("linear", bits, ones[:20], features)
        check("linear", ones, bits, features)
    finally:
        torch.set_num_threads(before)


def test_linear_of_nothing_and_of_other_strides() -> None:
    x, weight = random_bits(12, 100, 0), random_bits(6, 100, 1)
    check("linear", x[:0], weight, 100)
    check("linear", x, weight[:0], 100)
    check("linear", x[:, :0], weight[:, :0], 0)
    check("linear", x[::2], weight[::3], 100)
    check("linear", x[:, 2:], weight[:, :-2], 88)


def test_linear_ignores_what_lies_past_the_row() -> None:
    x, weight = torch.full((3, 2), 255, dtype=torch.uint8), torch.full((4, 2), 254, dtype=torch.uint8)
    check("linear", x, weight, 11)


@given(
    images=st.integers(0, 3),
    channels=st.integers(1, 70),
    outputs=st.integers(1, 20),
    groups=st.integers(1, 4),
    window=windows(),
    seed=seeds,
)
@examples
def test_conv2d_equals_the_reference(
    images: int,
    channels: int,
    outputs: int,
    groups: int,
    window: tuple[list[int], list[list[int]]],
    seed: int,
) -> None:
    size, (kernel, stride, padding, dilation) = window
    group_channels = -(-channels // groups)
    x_shape = [images, group_channels * groups, *size]
    weight_shape = [outputs * groups, group_channels, *kernel]
    x = random_bits(images, x_shape[1] * size[0] * size[1], seed)
    weight = random_bits(weight_shape[0], group_channels * kernel[0] * kernel[1], seed + 1)
    check("conv2d", x, x_shape, weight, weight_shape, stride, padding, dilation, groups)


@pytest.mark.parametrize(
    ("channels", "outputs", "side", "kernel", "padding", "groups"),
    [
        (64, 64, 32, 3, 1, 1),  # more than one band of rows an image
        (128, 32, 9, 3, 1, 1),
        (40, 24, 70, 5, 2, 1),  # rows wider than a block
        (64, 64, 6, 3, 1, 64),  # depthwise
        (33, 7, 5, 1, 0, 1),
        (16, 3, 2, 3, 7, 1),  # more padding than image: windows without any tap
    ],
)
def test_conv2d_of_usual_and_odd_shapes(
    channels: int, outputs: int, side: int, kernel: int, padding: int, groups: int
) -> None:
    x_shape, weight_shape = [2, channels, side, side], [outputs, channels // groups, kernel, kernel]
    weight = random_bits(outputs, channels // groups * kernel**2, 1)
    for x in (random_bits(2, channels * side**2, 0), reference.pack(torch.ones(2, channels * side**2))):
        check("conv2d", x, x_shape, weight, weight_shape, [1, 1], [padding] * 2, [1, 1], groups)


# --- pooling -------------------------------------------------------------------------------------------------------


@given(
    images=st.integers(1, 3),
    channels=st.integers(1, 70),
    window=windows(pooling=True),
    dtype=dtypes,
    ones=st.floats(0, 1),
    seed=seeds,
)
@examples
def test_max_pool2d_and_its_gradient_equal_the_reference(
    images: int,
    channels: int,
    window: tuple[list[int], list[list[int]]],
    dtype: torch.dtype,
    ones: float,
    seed: int,
) -> None:
    size, geometry = window
    x = reference.pack(torch.rand(images, channels * size[0] * size[1], generator=generator(seed)) < ones)
    x_shape = [images, channels, *size]
    check("max_pool2d", x, x_shape, *geometry)

    height, width = cpu.window_outputs(*([tuple(size)] + [tuple(pair) for pair in geometry]))  # type: ignore[arg-type]
    grad = torch.randn(images, channels, height, width, generator=generator(seed + 1)).to(dtype)
    check("max_pool2d_backward", grad, x, x_shape, *geometry)
    channels_last = grad.contiguous(memory_format=torch.channels_last)
    check("max_pool2d_backward", channels_last, x, x_shape, *geometry)


def test_max_pool2d_of_no_image() -> None:
    x = torch.empty(0, packed_bytes(3 * 16), dtype=torch.uint8)
    geometry = ([2, 2], [2, 2], [0, 0], [1, 1])
    assert torch.ops.bnn.max_pool2d(x, [0, 3, 4, 4], *geometry).shape == (0, 2)
    grad = torch.ops.bnn.max_pool2d_backward(torch.empty(0, 3, 2, 2), x, [0, 3, 4, 4], *geometry)
    assert grad.shape == (0, 3, 4, 4)


def test_the_gradient_keeps_nan_and_infinity() -> None:
    x = reference.pack(torch.tensor([[False, True, True, True]]))
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        for value in (torch.nan, torch.inf, -torch.inf):
            # Two windows overlap in the element that is the first maximum of both.
            grad = torch.full((1, 1, 1, 2), value, dtype=dtype)
            args = (x, [1, 1, 1, 4], [1, 3], [1, 1], [0, 0], [1, 1])
            got = torch.ops.bnn.max_pool2d_backward(grad, *args)
            assert torch.equal(got.nan_to_num(7.0), reference.max_pool2d_backward(grad, *args).nan_to_num(7.0))


# --- wrong arguments -----------------------------------------------------------------------------------------------

IMAGE, WEIGHT = torch.zeros(2, 12, dtype=torch.uint8), torch.zeros(4, 9, dtype=torch.uint8)
CONV = ([2, 6, 4, 4], WEIGHT, [4, 6, 3, 4], [1, 1], [1, 1], [1, 1], 1)
POOL = ([2, 6, 4, 4], [2, 2], [2, 2], [0, 0], [1, 1])


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("pack", (torch.zeros(3),), "x must be a matrix"),
        ("unpack", (IMAGE, 97, torch.float32), "13 bytes a row for 97 elements"),
        ("unpack", (IMAGE.float(), 96, torch.float32), "is float32"),
        ("linear", (IMAGE, WEIGHT, 96), "weight must be uint8 with 12 bytes"),
        ("linear", (IMAGE, IMAGE, 2**24), "not exact"),
        ("conv2d", (IMAGE, *CONV[:-1], 2), "in 2 groups does not fit"),
        ("conv2d", (IMAGE[:1], *CONV), "cannot be packed as"),
        ("conv2d", (IMAGE, *CONV[:3], [0, 1], *CONV[4:]), "must be positive"),
        ("conv2d", (IMAGE, *CONV[:3], [1, 1], [0, 0], [2, 2], 1), "does not fit an image"),
        ("max_pool2d", (IMAGE, *POOL[:3], [2, 2], [1, 1]), "more than half"),
        ("max_pool2d_backward", (torch.zeros(2, 6, 3, 2), IMAGE, *POOL), "grad must be"),
    ],
)
def test_wrong_arguments_are_told(name: str, args: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(torch.ops.bnn, name)(*args)
