"""Means of windows: the specification against torch, and every native kernel against the specification."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.ops import averages, functions
from tests.contracts import randn
from tests.ops.comparison import check, examples, needs_native

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def images(shape, dtype, *, seed=0, last=True):
    x = randn(*shape, seed=seed).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if last else x


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
def test_means_and_their_gradient_are_torch_s(dtype):
    x = randn(2, 3, 4, 6).to(dtype).requires_grad_()
    expected = torch.nn.functional.avg_pool2d(x, (2, 3))
    assert torch.equal(averages.window_means(x.detach(), [2, 3]), expected.detach())
    grad = randn(2, 3, 2, 2, seed=1).to(dtype)
    expected.backward(grad)
    assert torch.equal(averages.window_means_backward(grad, [2, 3], None), x.grad)
    base = randn(2, 3, 4, 6, seed=2).to(dtype)
    assert torch.equal(averages.window_means_backward(grad, [2, 3], base), base + x.grad)


def test_a_mean_by_hand():
    x = torch.tensor([[[[1.0, 3.0, 0.0, 8.0]]]])
    assert averages.window_means(x, [1, 2]).flatten().tolist() == [2, 4]
    assert averages.window_means_backward(x, [1, 2], None).flatten().tolist() == [0.5, 0.5, 1.5, 1.5, 0, 0, 4, 4]


@needs_native
@examples
@given(
    count=st.integers(1, 3),
    channels=st.integers(1, 20),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    dtype=st.sampled_from(DTYPES),
    last=st.booleans(),
    has_base=st.booleans(),
    seed=st.integers(0, 99),
)
def test_kernels_equal_the_specification(isa, count, channels, size, kernel, dtype, last, has_base, seed):
    x = images((count, channels, size[0] * kernel[0], size[1] * kernel[1]), dtype, seed=seed, last=last)
    means = functions.window_means(x, kernel)
    torch.testing.assert_close(means, averages.window_means(x, kernel), rtol=1e-6, atol=1e-6)
    check(
        "window_means_backward", images(means.shape, dtype, seed=seed + 1, last=last), kernel, x if has_base else None
    )


@pytest.mark.parametrize("kernel", [[2, 2], [1, 0], [3]])
def test_windows_that_do_not_divide_the_image_are_refused(kernel):
    x = torch.zeros(1, 1, 3, 4)
    for mean in (functions.window_means, averages.window_means):
        with pytest.raises(ValueError, match="do not divide an image of"):
            mean(x, kernel)


@pytest.mark.parametrize("base", [torch.zeros(1, 1, 4, 2), torch.zeros(1, 1, 2, 4, dtype=torch.bfloat16)])
def test_a_base_of_another_image_is_refused(base):
    for backward in (functions.window_means_backward, averages.window_means_backward):
        with pytest.raises(ValueError, match=r"base must be torch\.float32"):
            backward(torch.zeros(1, 1, 1, 4), [2, 1], base)
