"""Windows answer for their output's size as torch does, and refuse what does not fit."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from bnn.ops import PoolWindow, Window

pairs = lambda least, most: st.tuples(st.integers(least, most), st.integers(least, most))  # noqa: E731


@given(
    size=pairs(1, 9),
    kernel=pairs(1, 4),
    stride=pairs(1, 3),
    padding=pairs(0, 2),
    dilation=pairs(1, 3),
    groups=st.integers(1, 2),
)
def test_outputs_of_a_convolution_equal_torch_s(size, kernel, stride, padding, dilation, groups):
    image, weight = torch.empty(3, 2, *size, device="meta"), torch.empty(6, 2 // groups, *kernel, device="meta")
    window = Window.of(stride=stride, padding=padding, dilation=dilation, groups=groups)
    if all(size[i] + 2 * padding[i] > dilation[i] * (kernel[i] - 1) for i in (0, 1)):
        expected = F.conv2d(image, weight, None, *window.for_torch).shape
        assert window.outputs(size, kernel) == expected[2:]
        assert window.output_shape(image.shape, weight.shape) == expected
    else:
        with pytest.raises(ValueError, match="does not fit an image"):
            window.outputs(size, kernel)


@given(size=pairs(1, 9), kernel=pairs(1, 4), stride=pairs(1, 3), padding=pairs(0, 2), dilation=pairs(1, 2))
def test_outputs_of_a_pooling_equal_torch_s(size, kernel, stride, padding, dilation):
    pool = PoolWindow.of(kernel, stride=stride, padding=padding, dilation=dilation)
    if any(2 * pad > taps for taps, pad in zip(kernel, padding, strict=True)):
        with pytest.raises(ValueError, match="more than half the kernel"):
            pool.outputs(size)
    elif all(size[i] + 2 * padding[i] > dilation[i] * (kernel[i] - 1) for i in (0, 1)):
        expected = F.max_pool2d(torch.empty(3, 2, *size), *pool.for_torch).shape
        assert pool.output_shape((3, 2, *size)) == expected
    else:
        with pytest.raises(ValueError, match="does not fit an image"):
            pool.outputs(size)


def test_one_number_serves_both_dimensions():
    assert Window.of() == (1, 1, 0, 0, 1, 1, 1)
    assert Window.of(stride=2, padding=[1], dilation=(3, 4), groups=5) == (2, 2, 1, 1, 3, 4, 5)
    assert PoolWindow.of(2) == (2, 2, 2, 2, 0, 0, 1, 1)
    assert PoolWindow.of((2, 3), stride=1, padding=1, dilation=2) == (2, 3, 1, 1, 1, 1, 2, 2)


@pytest.mark.parametrize(
    ("pool", "overlaps"),
    [
        (PoolWindow.of(2), False),
        (PoolWindow.of(2, stride=3), False),
        (PoolWindow.of((2, 3), stride=2), True),
        (PoolWindow.of(2, dilation=2), True),
    ],
)
def test_windows_overlap_if_they_extend_further_than_their_stride(pool, overlaps):
    assert pool.overlaps is overlaps


@pytest.mark.parametrize(
    ("window", "message"),
    [
        (Window.of(stride=(0, 1)), "must be positive"),
        (Window.of(dilation=0), "must be positive"),
        (Window.of(padding=-1), "padding not negative"),
        (Window.of(groups=2), "in 2 groups does not fit an input"),
        (Window.of(groups=0), "in 0 groups"),
        (Window.of(dilation=3), "does not fit an image"),
    ],
)
def test_a_convolution_that_cannot_be_is_refused(window, message):
    with pytest.raises(ValueError, match=message):
        window.output_shape((2, 6, 4, 4), (4, 6, 3, 3))


@pytest.mark.parametrize("pool", [PoolWindow.of(2, stride=(1, 0), padding=0), PoolWindow.of(2, padding=-1)])
def test_a_pooling_that_cannot_be_is_refused(pool):
    with pytest.raises(ValueError, match="must be positive"):
        pool.output_shape((2, 6, 4, 4))
