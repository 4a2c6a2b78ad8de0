import math
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st

import bnn.ops
from bnn.errors import NonFiniteError
from bnn.ops import packed_bytes, reference, window_outputs
from tests.contracts import randn, signs


def packed_rows(x: torch.Tensor) -> torch.Tensor:
    """Bits of an image [N, C, H, W] in (H, W, C) order, packed by numpy."""
    rows = (x.permute(0, 2, 3, 1).flatten(1) >= 0).numpy()
    return torch.from_numpy(np.packbits(rows, axis=1, bitorder="little"))


def popcount_dot(a: torch.Tensor, b: torch.Tensor, k: int) -> torch.Tensor:
    """K - 2 popcount(a xor b) of each pair of packed rows, by numpy."""
    different = np.bitwise_xor(a.numpy()[:, None], b.numpy()[None])
    return torch.from_numpy(k - 2 * np.unpackbits(different, axis=-1).sum(-1, dtype=np.int64)).float()


class TestPack:
    @given(rows=st.integers(0, 5), n=st.integers(0, 40))
    def test_equals_numpy(self, rows, n):
        x = randn(rows, n)
        expected = np.packbits((x >= 0).numpy(), axis=1, bitorder="little")
        assert np.array_equal(reference.pack(x).numpy(), expected.reshape(rows, math.ceil(n / 8)))
        assert torch.equal(reference.pack(x >= 0), reference.pack(x))

    @given(rows=st.integers(0, 5), n=st.integers(0, 40))
    def test_unpack_is_its_inverse(self, rows, n):
        x = randn(rows, n)
        for dtype in (torch.float32, torch.float16, torch.float64, torch.int8):
            assert torch.equal(reference.unpack(reference.pack(x), n, dtype), signs(x).to(dtype))
        assert torch.equal(reference.unpack(reference.pack(x), n, torch.bool), x >= 0)

    def test_lowest_bit_comes_first_and_the_rest_of_the_last_byte_is_clear(self):
        x = torch.full((1, 10), -1.0)
        x[0, 1] = x[0, 9] = 1
        assert reference.pack(x).tolist() == [[0b10, 0b10]]
        assert reference.pack(torch.ones(1, 9)).tolist() == [[255, 1]]

    def test_every_byte_is_packed_and_unpacked(self):
        packed = torch.arange(256, dtype=torch.uint8).view(-1, 1)
        assert torch.equal(reference.pack(reference.unpack(packed, 8, torch.float32)), packed)

    def test_takes_any_strides_and_offset(self):
        x = randn(19, 8)
        assert torch.equal(reference.pack(x.t()), reference.pack(x.t().contiguous()))
        mask = (x >= 0).flatten()[3:19].view(2, 8)
        assert torch.equal(reference.pack(mask), reference.pack(mask.clone()))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
    def test_edge_values(self, dtype):
        values = torch.tensor([[0.0, -0.0, math.inf, -math.inf]], dtype=dtype)
        assert reference.pack(values).item() == 0b0111
        with pytest.raises(NonFiniteError, match="NaN"):
            reference.pack(torch.tensor([[1.0, math.nan]], dtype=dtype))


class TestLinear:
    @given(n=st.integers(0, 4), k=st.integers(0, 70), out=st.integers(1, 4))
    def test_equals_the_popcount_of_the_difference(self, n, k, out):
        a, b = reference.pack(randn(n, k)), reference.pack(randn(out, k, seed=1))
        result = reference.linear(a, b, k)
        assert torch.equal(result, popcount_dot(a, b, k))
        assert not ((result - k) % 2).any(), "a product of K signs has the parity of K"
        assert result.abs().le(k).all()

    def test_extremes(self):
        ones = reference.pack(torch.ones(1, 1001))
        assert reference.linear(ones, ones, 1001).item() == 1001
        assert reference.linear(ones, reference.pack(-torch.ones(1, 1001)), 1001).item() == -1001

    def test_refuses_what_float32_cannot_count(self):
        a = torch.zeros((1, 1), dtype=torch.uint8)
        with pytest.raises(ValueError, match=r"2\*\*24"):
            reference.linear(a, a, 2**24)


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
        x, w = randn(2, groups * channels, *size), randn(2 * groups, channels, *kernel, seed=1)
        result = reference.conv2d(packed_rows(x), x.shape, packed_rows(w), w.shape, stride, padding, dilation, groups)
        expected = F.conv2d(signs(x).double(), signs(w).double(), None, stride, padding, dilation, groups)
        assert torch.equal(result, expected.float())
        assert result.is_contiguous(memory_format=torch.channels_last)

    def test_one_tap_is_a_linear_product(self):
        x, w = randn(1, 13, 2, 3), randn(4, 13, 1, 1, seed=1)
        result = reference.conv2d(packed_rows(x), x.shape, packed_rows(w), w.shape, (1, 1), (0, 0), (1, 1), 1)
        pixels = reference.pack(x.permute(0, 2, 3, 1).reshape(6, 13))
        assert torch.equal(result.permute(0, 2, 3, 1).reshape(6, 4), popcount_dot(pixels, packed_rows(w), 13))

    def test_a_window_of_padding_alone_is_zero(self):
        x = w = torch.ones(1, 1, 1, 1)
        result = reference.conv2d(packed_rows(x), x.shape, packed_rows(w), w.shape, (1, 1), (2, 2), (1, 1), 1)
        assert torch.equal(result[0, 0], F.pad(torch.ones(1, 1), (2, 2, 2, 2)))

    def test_refuses_what_float32_cannot_count(self):
        a = torch.zeros((1, 1), dtype=torch.uint8)
        shape = (1, 2**24, 1, 1)
        with pytest.raises(ValueError, match=r"2\*\*24"):
            reference.conv2d(a, shape, a, shape, (1, 1), (0, 0), (1, 1), 1)


class TestMaxPool2d:
    WINDOW = st.fixed_dictionaries(
        {
            "kernel_size": st.tuples(st.integers(2, 3), st.integers(2, 3)),
            "stride": st.tuples(st.integers(1, 3), st.integers(1, 3)),
            "padding": st.tuples(st.integers(0, 1), st.integers(0, 1)),
            "dilation": st.just((1, 1)),
        }
    )

    @given(window=WINDOW, channels=st.sampled_from([1, 3, 8]))
    def test_forward_is_an_or_and_backward_goes_to_the_first_maximum(self, window, channels):
        x = randn(2, channels, 5, 6)
        image = signs(x).double().requires_grad_()
        pooled = F.max_pool2d(image, **window)
        assert torch.equal(reference.max_pool2d(packed_rows(x), x.shape, **window), packed_rows(pooled.detach()))
        grad = randn(*pooled.shape, seed=1).double()
        pooled.backward(grad)
        assert torch.equal(reference.max_pool2d_backward(grad, packed_rows(x), x.shape, **window), image.grad)

    def test_ties_go_to_the_first_in_row_order(self):
        x = torch.tensor([[[[-1.0, 1, -1, -1], [1, 1, -1, -1]]]])
        grad = reference.max_pool2d_backward(
            torch.tensor([[[[5.0, 7.0]]]]), packed_rows(x), x.shape, (2, 2), (2, 2), (0, 0), (1, 1)
        )
        assert grad.tolist() == [[[[0, 5, 7, 0], [0, 0, 0, 0]]]]


class TestSchemas:
    """`torch.library.opcheck` compares the shape rule with the real result: shape, dtype, strides, aliasing."""

    X, W = packed_rows(randn(2, 4, 5, 6)), packed_rows(randn(6, 2, 3, 2, seed=1))
    SAMPLES: ClassVar = {
        "pack": (randn(3, 13),),
        "unpack": (torch.arange(6, dtype=torch.uint8).view(3, 2), 13, torch.float16),
        "linear": (
            torch.arange(6, dtype=torch.uint8).view(3, 2),
            torch.arange(4, dtype=torch.uint8).view(2, 2),
            16,
        ),
        "conv2d": (X, [2, 4, 5, 6], W, [6, 2, 3, 2], [2, 1], [1, 2], [1, 2], 2),
        "max_pool2d": (X, [2, 4, 5, 6], [2, 3], [2, 1], [1, 1], [1, 2]),
        "max_pool2d_backward": (randn(2, 4, 3, 4), X, [2, 4, 5, 6], [2, 3], [2, 1], [1, 1], [1, 2]),
    }

    def test_every_operation_has_a_sample(self):
        assert self.SAMPLES.keys() == bnn.ops.SCHEMAS.keys()

    @pytest.mark.parametrize("name", bnn.ops.SCHEMAS)
    def test_schema_and_shape_rule_hold(self, name):
        operation = getattr(torch.ops.bnn, name).default
        torch.library.opcheck(operation, self.SAMPLES[name], test_utils=("test_schema", "test_faketensor"))

    @pytest.mark.parametrize("name", bnn.ops.SCHEMAS)
    def test_the_reference_serves_where_no_kernel_does(self, name):
        sample = self.SAMPLES[name]
        result, expected = getattr(reference, name)(*sample), getattr(torch.ops.bnn, name)(*sample)
        assert torch.equal(result, expected)
        assert (result.dtype, result.stride()) == (expected.dtype, expected.stride())


class TestShapes:
    @given(n=st.integers(0, 100))
    def test_packed_bytes(self, n):
        assert packed_bytes(n) == math.ceil(n / 8)

    @given(
        size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
        kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
        stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
        padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
        dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    )
    def test_window_outputs_equal_torch(self, size, kernel, stride, padding, dilation):
        image, weight = torch.empty(1, 1, *size, device="meta"), torch.empty(1, 1, *kernel, device="meta")
        if all(size[i] + 2 * padding[i] > dilation[i] * (kernel[i] - 1) for i in (0, 1)):
            expected = F.conv2d(image, weight, None, stride, padding, dilation).shape[2:]
            assert window_outputs(size, kernel, stride, padding, dilation) == tuple(expected)
        else:
            with pytest.raises(ValueError, match="does not fit"):
                window_outputs(size, kernel, stride, padding, dilation)
