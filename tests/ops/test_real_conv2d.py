"""Convolutions of real images: the kernels against torch in float64, within the rounding of their sums."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bnn.ops import Window, packed_bytes
from bnn.ops.packing import pack
from bnn.ops.product_gradients import float_conv2d_backward_input, real_conv2d_backward_weight
from bnn.ops.products import float_conv2d, real_conv2d
from tests.contracts import randn
from tests.ops.comparison import of_set

bnn = torch.ops.bnn


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[list[int], list[int], Window]:
    """Shapes of image and weight, and a window that fits."""
    groups = draw(st.sampled_from([1, 1, 1, 2]))
    channels, outputs = groups * draw(st.integers(1, 5)), groups * draw(st.integers(1, 40))
    kernel, stride, dilation = ([draw(st.integers(1, high)) for _ in range(2)] for high in (3, 2, 2))
    padding = [draw(st.integers(0, 3)) for _ in range(2)]
    size = [d * (k - 1) + 1 + draw(st.integers(0, 6)) for d, k in zip(dilation, kernel, strict=True)]
    image = [draw(st.integers(0, 3)), channels, *size]
    window = Window.of(stride=stride, padding=padding, dilation=dilation, groups=groups)
    return image, [outputs, channels // groups, *kernel], window


def operands(shape: list[int], weight_shape: list[int], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A real image, packed weights and these as a dense tensor."""
    outputs, channels, height, width = weight_shape
    rows = randn(outputs, height * width * channels, seed=seed)
    dense = rows.sign().view(outputs, height, width, channels).permute(0, 3, 1, 2)
    return randn(*shape, seed=seed + 1), pack(rows), dense


@given(conv=convolutions(), seed=st.integers(0, 2**31 - 1))
@settings(max_examples=60, deadline=None)
def test_product(isa: str, conv: tuple[list[int], list[int], Window], seed: int) -> None:
    shape, weight_shape, window = conv
    x, packed, dense = operands(shape, weight_shape, seed)
    out = bnn.real_conv2d(x, packed, weight_shape, window, torch.float32)
    expected = F.conv2d(x.double(), dense.double(), None, *window.for_torch)
    assert out.shape == expected.shape
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    half = bnn.real_conv2d(x, packed, weight_shape, window, torch.float16)
    torch.testing.assert_close(half, out.half(), rtol=2e-3, atol=1e-5)
    wide = real_conv2d(x.double(), packed, weight_shape, window, torch.float64)
    torch.testing.assert_close(wide, expected)


@given(conv=convolutions(), seed=st.integers(0, 2**31 - 1))
@settings(max_examples=60, deadline=None)
def test_product_and_gradient_of_a_real_weight(isa: str, conv: tuple[list[int], list[int], Window], seed: int) -> None:
    shape, weight_shape, window = conv
    x, weight = randn(*shape, seed=seed), randn(*weight_shape, seed=seed + 1)
    wide = weight.double().requires_grad_()
    expected = F.conv2d(x.double(), wide, None, *window.for_torch)
    out = bnn.float_conv2d(x, weight, window, torch.float32)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out.double(), expected.detach(), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(bnn.float_conv2d(x, weight, window, torch.float16), out.half(), rtol=2e-3, atol=1e-4)
    torch.testing.assert_close(float_conv2d(x.double(), weight.double(), window, torch.float64), expected.detach())
    grad = randn(*out.shape, seed=seed + 2)
    (of_weight,) = torch.autograd.grad(expected, wide, grad.double())
    got = bnn.real_conv2d_backward_weight(grad, x, weight_shape, window)
    assert got.shape == of_weight.shape
    torch.testing.assert_close(got.double(), of_weight, rtol=1e-4, atol=1e-3)


@given(conv=convolutions(), seed=st.integers(0, 2**31 - 1))
@settings(max_examples=60, deadline=None)
def test_gradient_of_the_weight(isa: str, conv: tuple[list[int], list[int], Window], seed: int) -> None:
    shape, weight_shape, window = conv
    x, _, dense = operands(shape, weight_shape, seed)
    weight = dense.double().requires_grad_()
    out = F.conv2d(x.double(), weight, None, *window.for_torch)
    q = (randn(*out.shape, seed=seed + 2) * 50).clamp(-127, 127).to(torch.int8)
    (expected,) = torch.autograd.grad(out, weight, q.double())
    got = bnn.real_conv2d_backward_weight(q, x, weight_shape, window)
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=2e-2)
    wide = real_conv2d_backward_weight(q, x.double(), weight_shape, window)
    torch.testing.assert_close(wide, expected)


@given(conv=convolutions(), seed=st.integers(0, 2**31 - 1))
@settings(max_examples=30, deadline=None)
def test_every_instruction_set_gives_the_same_bits(
    isa: str, conv: tuple[list[int], list[int], Window], seed: int
) -> None:
    shape, weight_shape, window = conv
    x, weight = randn(*shape, seed=seed), randn(*weight_shape, seed=seed + 1)

    def results() -> list[Tensor]:
        out = bnn.float_conv2d(x, weight, window, torch.float32)
        narrow = bnn.float_conv2d(x.bfloat16(), weight, window, torch.float16)
        return [out, narrow, bnn.real_conv2d_backward_weight(out, x, weight_shape, window)]

    if window.groups == 1:  # the others are torch's
        assert all(map(torch.equal, results(), of_set("generic", results)))


def test_a_product_is_added_in_one_rounding(isa: str) -> None:
    """Of (1 + 2^-12)^2 = 1 + 2^-11 + 2^-24 a float32 loses the last term; of numbers near the smallest one, too."""
    x = torch.tensor([1.0, 1 + 2.0**-12, 0.0, 2.0**-70]).view(1, 4, 1, 1)
    weight = torch.tensor([-(1 + 2.0**-11), 1 + 2.0**-12, 1.0, 2.0**-70]).view(1, 4, 1, 1)
    for order in (slice(0, 2), slice(0, 4)):
        out = bnn.float_conv2d(x[:, order], weight[:, order], Window.of(), torch.float32)
        assert out.item() == 2.0**-24
    odd = torch.tensor([1.0, 1 + 2.0**-23, 1.0]).view(1, 3, 1, 1)
    of_odd = torch.tensor([2.0**-24, 1.0, 2.0**-60]).view(1, 3, 1, 1)
    # 1 + 2^-23 + 2^-24 is halfway between two floats, and goes to the even one; the last term comes too late for it.
    assert bnn.float_conv2d(odd, of_odd, Window.of(), torch.float32).item() == 1 + 2.0**-22
    grad = torch.tensor([1.0, 1 + 2.0**-12]).view(1, 1, 1, 2)
    image = torch.tensor([-(1 + 2.0**-11), 1 + 2.0**-12]).view(1, 1, 1, 2)
    assert bnn.real_conv2d_backward_weight(grad, image, [1, 1, 1, 1], Window.of()).item() == 2.0**-24


def test_no_result_depends_on_the_threads(isa: str, threads: None) -> None:
    x, packed, _ = operands([20, 3, 17, 15], [37, 3, 3, 3], 0)
    window = Window.of(padding=1)
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        out = bnn.real_conv2d(x, packed, [37, 3, 3, 3], window, torch.float32)
        q = (out * 20).clamp(-127, 127).to(torch.int8)
        gradients = (bnn.real_conv2d_backward_weight(grad, x, [37, 3, 3, 3], window) for grad in (q, out))
        by_weight = bnn.float_conv2d(x, randn(37, 3, 3, 3), window, torch.float32)
        results.append((out, by_weight, *gradients))
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


def test_a_weight_too_large_for_the_native_sums_is_worked_off_all_the_same() -> None:
    x, shape = randn(2, 40, 6, 6), [800, 40, 3, 3]
    q = (randn(2, 800, 4, 4, seed=1) * 50).clamp(-127, 127).to(torch.int8)
    window = Window.of()
    got = bnn.real_conv2d_backward_weight(q, x, shape, window)
    torch.testing.assert_close(got, real_conv2d_backward_weight(q, x, shape, window))


@pytest.mark.parametrize(
    ("channels", "window"), [(80, Window.of()), (60, Window.of(padding=1)), (80, Window.of(stride=2))]
)
@pytest.mark.parametrize("last", [False, True])
def test_a_kernel_of_one_pixel_is_a_product_of_matrices(channels: int, window: Window, last: bool) -> None:
    """With more weights than the native sums take, and in front of them."""
    x, weight = randn(3, channels, 7, 5), randn(64, channels, 1, 1, seed=1)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    wide, of = (tensor.double().requires_grad_() for tensor in (x, weight))
    expected = F.conv2d(wide, of, None, *window.for_torch)
    out = bnn.float_conv2d(x, weight, window, torch.float32)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out.double(), expected.detach(), rtol=1e-5, atol=1e-4)
    grad = randn(*out.shape, seed=2)
    of_x, of_weight = torch.autograd.grad(expected, (wide, of), grad.double())
    got = bnn.real_conv2d_backward_weight(grad, x, weight.shape, window)
    torch.testing.assert_close(got.double(), of_weight, rtol=1e-4, atol=1e-3)
    got = float_conv2d_backward_input(grad, x, weight, window)
    torch.testing.assert_close(got.double(), of_x, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 4, 7, 6)}, "does not fit"),
        ({"packed": torch.zeros(5, packed_bytes(18) + 1, dtype=torch.uint8)}, "bytes a row"),
    ],
)
def test_operands_that_do_not_fit_are_refused(isa: str, change: dict[str, Tensor], message: str) -> None:
    x, packed, _ = operands([2, 3, 7, 6], [5, 3, 3, 2], 0)
    x, packed = change.get("x", x), change.get("packed", packed)
    with pytest.raises(ValueError, match=message):
        bnn.real_conv2d(x, packed, [5, 3, 3, 2], Window.of(), torch.float32)


def test_a_gradient_of_another_shape_is_refused(isa: str) -> None:
    q = torch.zeros(2, 5, 4, 4, dtype=torch.int8)
    with pytest.raises(ValueError, match="q must be int8"):
        bnn.real_conv2d_backward_weight(q, randn(2, 3, 7, 6), [5, 3, 3, 2], Window.of())
