"""Products of bits: the specification against torch and numpy, and every native kernel against the specification."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st

from bnn.ops import Window
from bnn.ops.packing import pack
from bnn.ops.products import conv2d, linear
from tests.contracts import randn, signs
from tests.ops.comparison import check, convolutions, examples, random_bits, rows_of, seeds

sizes = st.integers(1, 70)


def popcount_dot(a: torch.Tensor, b: torch.Tensor, k: int) -> torch.Tensor:
    """K - 2 popcount(a xor b) of each pair of packed rows, by numpy."""
    different = np.bitwise_xor(a.numpy()[:, None], b.numpy()[None])
    return torch.from_numpy(k - 2 * np.unpackbits(different, axis=-1).sum(-1, dtype=np.int64)).float()


class TestLinear:
    @given(n=st.integers(0, 4), k=st.integers(0, 70), out=st.integers(1, 4))
    def test_equals_the_popcount_of_the_difference(self, n, k, out):
        a, b = pack(randn(n, k)), pack(randn(out, k, seed=1))
        result = linear(a, b, k)
        assert torch.equal(result, popcount_dot(a, b, k))
        assert not ((result - k) % 2).any(), "a product of K signs has the parity of K"
        assert result.abs().le(k).all()

    @pytest.mark.parametrize("k", [1001, 62 * 64, 64 * 64, 64 * 64 + 63, 125 * 64, 8192])
    def test_extremes(self, k):
        """Longer rows than bytes can count the differing bits of."""
        ones, opposite = pack(torch.ones(5, k)), pack(-torch.ones(9, k))
        assert linear(ones, ones, k).eq(k).all()
        assert linear(ones, opposite, k).eq(-k).all()
        check("linear", ones, opposite, k)

    def test_refuses_what_float32_cannot_count(self):
        a = torch.zeros((1, 1), dtype=torch.uint8)
        with pytest.raises(ValueError, match=r"2\*\*24"):
            linear(a, a, 2**24)


class TestConv2d:
    @given(
        size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
        kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
        channels=st.sampled_from([1, 2, 9]),
        groups=st.integers(1, 3),
        stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
        padding=st.tuples(st.integers(0, 6), st.integers(0, 6)),
        dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    )
    def test_equals_a_convolution_padded_with_zeros(self, size, kernel, channels, groups, stride, padding, dilation):
        assume(all(size[i] + 2 * padding[i] > dilation[i] * (kernel[i] - 1) for i in (0, 1)))
        window = Window.of(stride=stride, padding=padding, dilation=dilation, groups=groups)
        x, w = randn(2, groups * channels, *size), randn(2 * groups, channels, *kernel, seed=1)
        result = conv2d(rows_of(x), x.shape, rows_of(w), w.shape, window)
        expected = F.conv2d(signs(x).double(), signs(w).double(), None, *window.for_torch)
        assert torch.equal(result, expected.float())
        assert result.is_contiguous(memory_format=torch.channels_last)

    def test_one_tap_is_a_linear_product(self):
        x, w = randn(1, 13, 2, 3), randn(4, 13, 1, 1, seed=1)
        result = conv2d(rows_of(x), x.shape, rows_of(w), w.shape, Window.of())
        pixels = pack(x.permute(0, 2, 3, 1).reshape(6, 13))
        assert torch.equal(result.permute(0, 2, 3, 1).reshape(6, 4), popcount_dot(pixels, rows_of(w), 13))

    def test_a_window_of_padding_alone_is_zero(self):
        x = w = torch.ones(1, 1, 1, 1)
        result = conv2d(rows_of(x), x.shape, rows_of(w), w.shape, Window.of(padding=2))
        assert torch.equal(result[0, 0], F.pad(torch.ones(1, 1), (2, 2, 2, 2)))

    def test_refuses_what_float32_cannot_count(self):
        a = torch.zeros((1, 1), dtype=torch.uint8)
        shape = (1, 2**24, 1, 1)
        with pytest.raises(ValueError, match=r"2\*\*24"):
            conv2d(a, shape, a, shape, Window.of())


@given(rows=sizes, outputs=sizes, features=st.integers(1, 400), seed=seeds)
@examples
@pytest.mark.usefixtures("isa")
def test_linear_equals_the_reference(rows: int, outputs: int, features: int, seed: int) -> None:
    check("linear", random_bits(rows, features, seed), random_bits(outputs, features, seed + 1), features)


@pytest.mark.parametrize("features", [1, 7, 8, 63, 64, 65, 128, 129, 4_608])
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.usefixtures("isa")
def test_linear_of_all_ones_and_any_number_of_threads(threads: None, features: int, count: int) -> None:
    torch.set_num_threads(count)
    ones, bits = pack(torch.ones(150, features)), random_bits(33, features, 0)
    check("linear", ones, ones[:20], features)
    check("linear", bits, ones[:20], features)
    check("linear", ones, bits, features)


@pytest.mark.usefixtures("isa")
def test_linear_of_nothing_and_of_other_strides() -> None:
    x, weight = random_bits(12, 100, 0), random_bits(6, 100, 1)
    check("linear", x[:0], weight, 100)
    check("linear", x, weight[:0], 100)
    check("linear", x[:, :0], weight[:, :0], 0)
    check("linear", x[::2], weight[::3], 100)
    check("linear", x[:, 2:], weight[:, :-2], 88)


@pytest.mark.usefixtures("isa")
def test_linear_ignores_what_lies_past_the_row() -> None:
    x, weight = torch.full((3, 2), 255, dtype=torch.uint8), torch.full((4, 2), 254, dtype=torch.uint8)
    check("linear", x, weight, 11)


@given(
    images=st.integers(0, 3),
    channels=st.integers(1, 70),
    outputs=st.integers(1, 20),
    groups=st.integers(1, 4),
    conv=convolutions(),
    seed=seeds,
)
@examples
@pytest.mark.usefixtures("isa")
def test_conv2d_equals_the_reference(
    images: int,
    channels: int,
    outputs: int,
    groups: int,
    conv: tuple[Sequence[int], Sequence[int], Window],
    seed: int,
) -> None:
    size, kernel, window = conv
    group_channels = -(-channels // groups)
    x_shape = [images, group_channels * groups, *size]
    weight_shape = [outputs * groups, group_channels, *kernel]
    x = random_bits(images, x_shape[1] * size[0] * size[1], seed)
    weight = random_bits(weight_shape[0], group_channels * kernel[0] * kernel[1], seed + 1)
    check("conv2d", x, x_shape, weight, weight_shape, window._replace(groups=groups))


@pytest.mark.parametrize(
    ("channels", "outputs", "side", "kernel", "padding", "groups"),
    [
        (64, 64, 32, 3, 1, 1),  # more than one band of rows an image
        (128, 32, 9, 3, 1, 1),
        (40, 24, 70, 5, 2, 1),  # rows wider than a block
        (80, 5, 6, 3, 1, 1),  # a kernel row of 30 bytes, copied at once; the next of 15
        (40, 5, 6, 3, 1, 1),
        (64, 64, 6, 3, 1, 64),  # depthwise
        (33, 7, 5, 1, 0, 1),
        (16, 3, 2, 3, 7, 1),  # more padding than image: windows without any tap
    ],
)
@pytest.mark.usefixtures("isa")
def test_conv2d_of_usual_and_odd_shapes(
    channels: int, outputs: int, side: int, kernel: int, padding: int, groups: int
) -> None:
    x_shape, weight_shape = [2, channels, side, side], [outputs, channels // groups, kernel, kernel]
    weight = random_bits(outputs, channels // groups * kernel**2, 1)
    for x in (random_bits(2, channels * side**2, 0), pack(torch.ones(2, channels * side**2))):
        check("conv2d", x, x_shape, weight, weight_shape, Window.of(padding=padding, groups=groups))


@given(
    images=st.integers(1, 2),
    bytes_a_pixel=st.sampled_from([1, 2, 3, 4, 6, 8]),
    outputs=st.integers(1, 34),
    size=st.tuples(st.integers(1, 9), st.integers(1, 40)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    dtype=st.sampled_from([torch.float16, torch.float32]),
    seed=seeds,
)
@examples
@pytest.mark.usefixtures("isa")
def test_conv2d_of_whole_bytes_equals_the_reference(
    images: int,
    bytes_a_pixel: int,
    outputs: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    dtype: torch.dtype,
    seed: int,
) -> None:
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    assume(all(n + 2 * p >= r for n, p, r in zip(size, padding, reach, strict=True)))
    x_shape, weight_shape = [images, 8 * bytes_a_pixel, *size], [outputs, 8 * bytes_a_pixel, *kernel]
    x = random_bits(images, x_shape[1] * size[0] * size[1], seed)
    weight = random_bits(outputs, x_shape[1] * kernel[0] * kernel[1], seed + 1)
    check(
        "conv2d", x, x_shape, weight, weight_shape, Window.of(stride=stride, padding=padding, dilation=dilation), dtype
    )


@pytest.mark.parametrize("channels", [16, 64, 256])
@pytest.mark.usefixtures("isa")
def test_conv2d_of_bits_that_all_differ(channels: int) -> None:
    x, weight = pack(torch.ones(1, channels * 16 * 16)), pack(-torch.ones(17, channels * 9))
    check("conv2d", x, [1, channels, 16, 16], weight, [17, channels, 3, 3], Window.of(padding=1))


IMAGE, WEIGHT = torch.zeros(2, 12, dtype=torch.uint8), torch.zeros(4, 9, dtype=torch.uint8)
CONVOLUTION = ([2, 6, 4, 4], WEIGHT, [4, 6, 3, 4])


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("linear", (IMAGE, WEIGHT, 96), "weight must be uint8 with 12 bytes"),
        ("linear", (IMAGE, IMAGE, 2**24), "not exact"),
        ("conv2d", (IMAGE, *CONVOLUTION, Window.of(groups=2)), "in 2 groups does not fit"),
        ("conv2d", (IMAGE[:1], *CONVOLUTION, Window.of()), "cannot be packed as"),
        ("conv2d", (IMAGE, *CONVOLUTION, Window.of(stride=(0, 1))), "must be positive"),
        ("conv2d", (IMAGE, *CONVOLUTION, Window.of(dilation=2)), "does not fit an image"),
    ],
)
def test_wrong_arguments_are_told(isa: str, name: str, args: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(torch.ops.bnn, name)(*args)
