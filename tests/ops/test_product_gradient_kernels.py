"""The integer gradients: every native kernel against the specification."""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.ops import Window
from bnn.ops.packing import pack
from tests.ops.comparison import (
    check,
    convolutions,
    examples,
    generator,
    random_bits,
    random_codes,
    random_integers,
    seeds,
)

result_dtypes = st.sampled_from([torch.float32, torch.bfloat16])


def check_linear(rows: int, outputs: int, features: int, seed: int, dtype: torch.dtype = torch.float32) -> None:
    q, scale = random_integers(rows, outputs, seed=seed), torch.rand((), generator=generator(seed + 1))
    x, weight = random_bits(rows, features, seed + 2), random_bits(outputs, features, seed + 3)
    check("linear_backward_input", q, scale, weight, features, dtype)
    check("linear_backward_weight", q, scale, x, features, dtype)
    check("linear_backward_weight_sign", q % 2, x, features, seed, seed % 5)  # small: many sums are 0
    for largest in (15, 63):
        small = random_integers(rows, outputs, seed=seed, largest=largest)
        check("linear_backward_input", small, scale, weight, features, dtype)
        check("linear_backward_weight", small, scale, x, features, dtype)


def check_conv2d(
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    window: Window,
    seed: int,
    dtype: torch.dtype = torch.float32,
) -> None:
    q = random_integers(*window.output_shape(x_shape, weight_shape), seed=seed)
    scale = torch.rand((), generator=generator(seed + 1))
    x = random_bits(x_shape[0], x_shape[1] * x_shape[2] * x_shape[3], seed + 2)
    weight = random_bits(weight_shape[0], weight_shape[1] * weight_shape[2] * weight_shape[3], seed + 3)
    check("conv2d_backward_input", q, scale, weight, weight_shape, x_shape, window, dtype)
    check("conv2d_backward_weight", q, scale, x, x_shape, weight_shape, window, dtype)
    check("conv2d_backward_weight_sign", q % 2, x, x_shape, weight_shape, window, seed, seed % 5)
    check("conv2d_backward_weight_ternary", q, scale, x, x_shape, weight_shape, window, seed, dtype)
    for largest in (15, 63):
        small = random_integers(*q.shape, seed=seed, largest=largest)
        check("conv2d_backward_input", small, scale, weight, weight_shape, x_shape, window, dtype)
        check("conv2d_backward_weight", small, scale, x, x_shape, weight_shape, window, dtype)


SLOPES = [[0.0, 1.0], [1.75, -0.0, 0.3, -2.5]]


def check_slopes(
    x_shape: Sequence[int], weight_shape: Sequence[int], window: Window, seed: int, dtype: torch.dtype
) -> None:
    q = random_integers(*window.output_shape(x_shape, weight_shape), seed=seed)
    weight = random_bits(weight_shape[0], math.prod(weight_shape[1:]), seed + 1)
    base = torch.randn(x_shape, generator=generator(seed + 2)).to(dtype) * 100
    args = (q, torch.tensor(0.37), weight, weight_shape, x_shape, window)
    for slopes in SLOPES:
        codes = random_codes(len(slopes) // 2, x_shape[0], math.prod(x_shape[1:]), seed + 3)
        for added in (None, base, base.contiguous(memory_format=torch.channels_last)):
            check("conv2d_backward_input_slopes", *args, codes, slopes, added, dtype)


@pytest.mark.usefixtures("isa")
class TestNativeProducts:
    @given(
        rows=st.integers(0, 70),
        outputs=st.integers(1, 70),
        features=st.integers(1, 200),
        dtype=result_dtypes,
        seed=seeds,
    )
    @examples
    def test_linear(self, rows: int, outputs: int, features: int, dtype: torch.dtype, seed: int) -> None:
        check_linear(rows, outputs, features, seed, dtype)

    @given(
        images=st.integers(0, 3),
        channels=st.integers(1, 70),
        outputs=st.integers(1, 70),
        groups=st.integers(1, 4),
        conv=convolutions(),
        dtype=result_dtypes,
        seed=seeds,
    )
    @examples
    def test_conv2d(
        self,
        images: int,
        channels: int,
        outputs: int,
        groups: int,
        conv: tuple[Sequence[int], Sequence[int], Window],
        dtype: torch.dtype,
        seed: int,
    ) -> None:
        size, kernel, window = conv
        channels, outputs = -(-channels // groups), -(-outputs // groups)
        x_shape, weight_shape = [images, channels * groups, *size], [outputs * groups, channels, *kernel]
        check_conv2d(x_shape, weight_shape, window._replace(groups=groups), seed, dtype)

    @pytest.mark.parametrize(
        ("channels", "outputs", "side", "kernel", "padding", "groups"),
        [
            (64, 64, 32, 3, 1, 1),  # several blocks of pixels, of which a panel holds one
            (40, 1100, 3, 3, 1, 1),  # deeper than one block; outputs that limit it
            (64, 64, 6, 3, 1, 64),  # depthwise
            (33, 7, 5, 1, 0, 1),
            (16, 3, 2, 3, 7, 1),  # more padding than image: windows without any tap
        ],
    )
    def test_conv2d_of_usual_and_odd_shapes(
        self, channels: int, outputs: int, side: int, kernel: int, padding: int, groups: int
    ) -> None:
        x_shape, weight_shape = [2, channels, side, side], [outputs, channels // groups, kernel, kernel]
        check_conv2d(x_shape, weight_shape, Window.of(padding=padding, groups=groups), seed=0)

    @given(
        images=st.integers(0, 3),
        channels=st.integers(1, 70),
        outputs=st.integers(1, 40),
        groups=st.integers(1, 3),
        conv=convolutions(),
        dtype=result_dtypes,
        seed=seeds,
    )
    @examples
    def test_slopes(
        self,
        images: int,
        channels: int,
        outputs: int,
        groups: int,
        conv: tuple[Sequence[int], Sequence[int], Window],
        dtype: torch.dtype,
        seed: int,
    ) -> None:
        size, kernel, window = conv
        channels, outputs = -(-channels // groups), -(-outputs // groups)
        x_shape, weight_shape = [images, channels * groups, *size], [outputs * groups, channels, *kernel]
        check_slopes(x_shape, weight_shape, window._replace(groups=groups), seed, dtype)

    def test_slopes_of_groups_that_begin_within_a_byte(self) -> None:
        for channels in (33, 12):  # whole bytes of all groups together
            window = Window.of(padding=1, groups=8)
            check_slopes([2, 8 * channels, 5, 5], [16, channels, 3, 3], window, 0, torch.bfloat16)

    @pytest.mark.parametrize("features", [64, 77])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_slopes_of_a_fully_connected_layer(self, features: int, dtype: torch.dtype) -> None:
        q, weight = random_integers(9, 40, seed=0), random_bits(40, features, 1)
        for slopes in SLOPES:
            codes = random_codes(len(slopes) // 2, 9, features, 2)
            for base in (None, torch.randn(9, features, generator=generator(4)).to(dtype)):
                args = (q, torch.tensor(0.37), weight, features, codes, slopes, base, dtype)
                check("linear_backward_input_slopes", *args)

    def test_linear_that_needs_the_weights_in_two_portions(self) -> None:
        check_linear(40, 1030, 1_100, seed=0)

    @pytest.mark.parametrize("rows", [1, 4, 5, 8, 9, 12, 13, 16, 17, 21, 24, 25])
    def test_linear_of_any_rest_of_a_tile(self, rows: int) -> None:
        check_linear(rows, 36, 16, seed=0)  # half a panel of channels, an odd number of quads in depth
        check_linear(rows, 40, 17, seed=0)

    @pytest.mark.usefixtures("threads")
    def test_the_number_of_threads_changes_nothing(self) -> None:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            check_conv2d([3, 20, 9, 9], [70, 20, 3, 3], Window.of(padding=1), seed=0)
            check_conv2d([9, 16, 12, 13], [20, 16, 3, 3], Window.of(padding=1), seed=0)
            check_linear(150, 33, 300, seed=1)

    @pytest.mark.parametrize("size", [(12, 12), (3, 222), (3, 223), (3, 224), (40, 1)])
    @pytest.mark.parametrize(("kernel", "dilation"), [((3, 3), 1), ((1, 5), 1), ((3, 3), 2)])
    def test_weights_of_channels_in_whole_bytes(
        self, size: tuple[int, int], kernel: tuple[int, int], dilation: int
    ) -> None:
        padding = [dilation * (k // 2) for k in kernel]
        window = Window.of(padding=padding, dilation=dilation)
        check_conv2d([5, 40, *size], [18, 40, *kernel], window, seed=0)

    @pytest.mark.parametrize(
        ("images", "channels", "outputs", "size", "window"),
        [
            (21, 16, 20, (8, 8), Window.of(padding=1)),  # all chunks of pixels begin with an image
            (3, 48, 16, (32, 32), Window.of(padding=1)),  # every other one does
            (11, 40, 33, (14, 10), Window.of(padding=1)),  # they repeat later than there are any
            (70, 24, 12, (4, 4), Window.of(padding=(2, 1))),
            (20, 32, 130, (9, 8), Window.of(stride=2, padding=1)),  # no line of pixels, more outputs than a task has
            (2, 70, 64, (60, 40), Window.of(padding=2, dilation=2)),  # several bands of an image's rows
            (130, 40, 70, (5, 3), Window.of()),
        ],
    )
    def test_blocks_and_chunks_of_images(
        self, images: int, channels: int, outputs: int, size: tuple[int, int], window: Window
    ) -> None:
        check_conv2d([images, channels, *size], [outputs, channels, 3, 3], window, seed=0)

    def test_tables_of_many_outputs_in_bands_of_rows(self) -> None:
        check_conv2d([1, 16, 40, 30], [600, 16, 3, 3], Window.of(padding=1), seed=0)

    def test_sums_reach_the_extremes_exactly(self) -> None:
        for sign in (-127, 127, -128, 15, -15, 16, -16, 63, -63, 64, -64):
            q, ones = torch.full((130, 96), sign, dtype=torch.int8), pack(torch.ones(130, 70))
            for x in (ones, 255 - ones):
                images = (q.view(130, 96, 1, 1), torch.tensor(1.0), x, [130, 70, 1, 1], [96, 70, 1, 1], Window.of())
                check("conv2d_backward_weight_ternary", *images, 1)
                check("linear_backward_weight", q, torch.tensor(1.0), x, 70)
                check("linear_backward_input", q, torch.tensor(1.0), x[:96], 70, torch.float32)
            # More rows than the shorts of tables hold at once: 2,184 within ±15.
            deep, bits = torch.full((2300, 290), sign, dtype=torch.int8), pack(torch.ones(2300, 40))
            for x in (bits, 255 - bits):
                check("linear_backward_weight", deep, torch.tensor(1.0), x, 40)
                check("linear_backward_input", deep, torch.tensor(1.0), x[:290], 40, torch.float32)

    @pytest.mark.parametrize(
        ("images", "channels", "outputs", "size", "kernel", "window"),
        [
            (9, 16, 16, (8, 8), (3, 3), Window.of(padding=1)),
            (1, 20, 10, (33, 37), (3, 3), Window.of(padding=1)),  # outputs of no whole quad, a row wider than a vector
            (3, 9, 33, (19, 23), (3, 3), Window.of()),
            (40, 5, 3, (4, 5), (3, 3), Window.of(padding=2)),
            (2, 8, 6, (17, 40), (5, 5), Window.of(padding=2, dilation=2)),
            (30, 4, 7, (1, 40), (1, 4), Window.of(padding=(0, 3))),
            (14, 24, 20, (40, 1), (3, 1), Window.of(padding=(5, 0))),  # more padding than the kernel reaches
            (6, 24, 20, (9, 10), (2, 2), Window.of(padding=2)),
            (5, 31, 40, (15, 18), (3, 3), Window.of(stride=2, padding=1)),  # phases that read beyond the last sums
            (9, 17, 12, (9, 11), (3, 3), Window.of(stride=(1, 3), padding=(0, 1))),
            (9, 16, 12, (13, 10), (2, 2), Window.of(stride=(3, 1))),  # phases without a tap
            (3, 100, 250, (16, 16), (3, 3), Window.of(padding=1)),  # more sums than shorts hold
            (2, 8, 24, (20, 20), (11, 11), Window.of(padding=5)),
            (2, 8, 24, (20, 20), (12, 12), Window.of(padding=6)),  # more taps than shorts hold the sums of
            (1, 3, 4, (30, 200), (5, 2), Window.of(padding=2)),  # rows as long as 16 bits hold their offsets
            (1, 3, 4, (30, 260), (5, 2), Window.of(padding=2)),
        ],
    )
    @pytest.mark.parametrize("largest", [15, 63, 127])
    def test_gradients_by_tables_that_taps_share(
        self,
        largest: int,
        images: int,
        channels: int,
        outputs: int,
        size: tuple[int, int],
        kernel: tuple[int, int],
        window: Window,
    ) -> None:
        x_shape, weight_shape = [images, channels, *size], [outputs, channels, *kernel]
        q = random_integers(*window.output_shape(x_shape, weight_shape), seed=0, largest=largest)
        weight, scale = random_bits(outputs, math.prod(weight_shape[1:]), 1), torch.tensor(0.37)
        ones = pack(torch.ones(outputs, math.prod(weight_shape[1:])))
        base = torch.randn(x_shape, generator=generator(2)).bfloat16()
        codes = random_codes(2, images, math.prod(x_shape[1:]), 3)
        args = (weight_shape, x_shape, window)
        check("conv2d_backward_input", q, scale, weight, *args, torch.float32)
        for sign in (-largest, largest):
            check("conv2d_backward_input", torch.full_like(q, sign), scale, ones, *args, torch.float32)
        for outside in (None, codes[1]):
            more = (codes, SLOPES[1], base, torch.bfloat16, outside)
            check("conv2d_backward_input_slopes", q, scale, weight, *args, *more)

    @pytest.mark.parametrize("largest", [15, 63])
    def test_one_gradient_beyond_those_of_fewer_bits(self, largest: int) -> None:
        q, window = random_integers(1, 40, 60, 60, seed=0, largest=largest), Window.of(padding=1)
        x, weight = random_bits(1, 16 * 60 * 60, 1), random_bits(40, 16 * 9, 2)
        for place in (0, 70_000, q.numel() - 1):
            for value in (largest + 1, -largest - 1, -128):
                one = q.clone().contiguous(memory_format=torch.channels_last)
                one.permute(0, 2, 3, 1).view(-1)[place] = value
                args = (one, torch.tensor(1.0))
                check("conv2d_backward_weight", *args, x, [1, 16, 60, 60], [40, 16, 3, 3], window)
                check("conv2d_backward_input", *args, weight, [40, 16, 3, 3], [1, 16, 60, 60], window, torch.float32)

    def test_large_and_small_scales(self) -> None:
        q, weight = random_integers(9, 40, seed=0), random_bits(40, 33, 1)
        for scale in (0.0, 1e-44, 3e38):
            for dtype in (torch.float32, torch.bfloat16):
                check("linear_backward_input", q, torch.tensor(scale), weight, 33, dtype)

    def test_other_strides_and_bits_past_the_row(self) -> None:
        q, scale = random_integers(6, 5, 4, 3, seed=0), torch.tensor(0.1)
        args = ([6, 3, 4, 3], [5, 3, 1, 1], Window.of())
        x, weight = random_bits(12, 36, 1)[::2], random_bits(5, 3, 2) | 0xF8
        for gradient in (q, q.contiguous(memory_format=torch.channels_last), q.flip(0), q.transpose(2, 3).mT):
            check("conv2d_backward_weight", gradient, scale, x, *args)
            check("conv2d_backward_weight_ternary", gradient, scale, x, *args, 4)
            check("conv2d_backward_input", gradient, scale, weight, args[1], args[0], args[2], torch.float32)
