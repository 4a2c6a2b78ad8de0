"""Products and pooling of `BitTensor`s, their gradients, and what autograd keeps of them."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from bnn.bits import BitTensor
from tests.contracts import CHANNELS_LAST, PackSigns, bits_of, randn, saved_bytes, signs

windows = st.fixed_dictionaries(
    {"stride": st.integers(1, 3), "padding": st.integers(0, 4), "dilation": st.integers(1, 2)}
)


class TestProducts:
    @pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
    def test_are_formed_from_the_bits(self, mode, monkeypatch):
        x, w = bits_of(2, 3, 4, 4), bits_of(5, 3, 3, 3)
        rows, matrix, bias = x.flatten(1), bits_of(5, 48), torch.ones(5)
        x, w = (image.contiguous(memory_format=CHANNELS_LAST) for image in (x, w))
        monkeypatch.delattr(BitTensor, "dense")
        with mode():
            for product in (
                F.linear(rows, matrix),
                F.linear(rows, matrix, bias),
                rows @ matrix.t(),
                F.conv2d(x, w),
                F.conv2d(x, w, bias, padding=1),
            ):
                assert type(product) is torch.Tensor

    @given(n=st.integers(1, 6), k=st.integers(1, 70), out=st.integers(1, 6), bias=st.booleans())
    def test_linear(self, n, k, out, bias):
        x, w, b = bits_of(n, k), bits_of(out, k, seed=1), randn(out, seed=2) if bias else None
        result = F.linear(x, w, b)
        assert type(result) is torch.Tensor
        expected = F.linear(x.dense(torch.float64), w.dense(torch.float64)).float()
        assert torch.equal(result, expected if b is None else expected + b)

    def test_linear_over_several_leading_dimensions(self):
        x, w = bits_of(2, 3, 11), bits_of(5, 11, seed=1)
        assert torch.equal(F.linear(x, w), F.linear(x.dense(), w.dense()))
        assert torch.equal(F.linear(x, w, torch.ones(5)), F.linear(x.dense(), w.dense(), torch.ones(5)))

    @pytest.mark.parametrize("features", [12, 16, 17])
    def test_widths_that_do_not_fit_are_refused(self, features):
        with pytest.raises(RuntimeError, match="cannot be multiplied"):
            F.linear(bits_of(2, 11), bits_of(3, features))

    def test_addmm_with_factors(self):
        x, w, bias = bits_of(2, 11), bits_of(3, 11).t(), randn(2, 3)
        assert torch.equal(torch.addmm(bias, x, w, beta=2, alpha=0.5), 2 * bias + 0.5 * (x.dense() @ w.dense()))

    @given(
        groups=st.integers(1, 3),
        channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
        size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
        kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
        window=windows,
        channels_last=st.booleans(),
        bias=st.booleans(),
    )
    def test_conv2d(self, groups, channels, size, kernel, window, channels_last, bias):
        assume(all(s + 2 * window["padding"] > window["dilation"] * (k - 1) for s, k in zip(size, kernel, strict=True)))
        x = bits_of(2, groups * channels[0], *size)
        x = x.contiguous(memory_format=CHANNELS_LAST) if channels_last else x
        w = bits_of(groups * channels[1], channels[0], *kernel, seed=1)
        b = randn(len(w), seed=2) if bias else None
        result = F.conv2d(x, w, b, groups=groups, **window)
        assert type(result) is torch.Tensor
        expected = F.conv2d(x.dense(torch.float64), w.dense(torch.float64), groups=groups, **window).float()
        assert torch.equal(result, expected if b is None else expected + b.view(-1, 1, 1))

    def test_conv2d_of_an_image_whose_batch_of_one_is_not_the_slowest_dimension(self):
        x = BitTensor.from_dense(randn(4, 3, 1, 2).permute(2, 3, 0, 1))
        w = bits_of(5, 2, 3, 3)
        assert torch.equal(F.conv2d(x, w, padding=1), F.conv2d(x.dense(), w.dense(), padding=1))
        assert torch.equal(F.max_pool2d(x, 2).dense(), F.max_pool2d(x.dense(), 2))

    def test_conv2d_without_batch_and_in_one_dimension(self):
        x, w = bits_of(3, 6, 6), bits_of(4, 3, 3, 3)
        assert torch.equal(F.conv2d(x, w), F.conv2d(x.dense(), w.dense()))
        x, w = bits_of(2, 3, 6), bits_of(4, 3, 3)
        assert torch.equal(F.conv1d(x, w), F.conv1d(x.dense(), w.dense()))

    def test_products_have_the_dtype_of_the_bits(self):
        x, w = bits_of(2, 3, 4, 4).to(torch.float64), bits_of(5, 3, 3, 3).to(torch.float64)
        assert F.conv2d(x, w).dtype == torch.float64
        assert F.linear(x.flatten(1), w.flatten(1)[:, :1].expand(5, 48)).dtype == torch.float64
        assert F.linear(x.flatten(1), x.flatten(1)).dtype == torch.float64

    @given(
        size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
        kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
        stride=st.integers(1, 3),
        dilation=st.integers(1, 2),
        padded=st.booleans(),
    )
    def test_max_pool2d(self, size, kernel, stride, dilation, padded):
        padding = tuple(k // 2 if padded else 0 for k in kernel)
        assume(all(s + 2 * p > dilation * (k - 1) for s, p, k in zip(size, padding, kernel, strict=True)))
        x = bits_of(2, 3, *size)
        result = F.max_pool2d(x, kernel, stride, padding, dilation)
        assert isinstance(result, BitTensor)
        assert result.is_contiguous(memory_format=CHANNELS_LAST)
        expected = F.max_pool2d(x.dense(), kernel, stride, padding, dilation)
        assert torch.equal(result.dense(), expected.clamp(min=-1))  # torch gives -inf for a window of padding alone

    def test_max_pool2d_refuses_what_does_not_fit(self):
        with pytest.raises(ValueError, match="half the kernel"):
            F.max_pool2d(bits_of(1, 1, 4, 4), 2, padding=2)
        with pytest.raises(ValueError, match="does not fit"):
            F.max_pool2d(bits_of(1, 1, 4, 4), 5)


# --- autograd ------------------------------------------------------------------------------------------------------


def gradients(operation, *inputs: torch.Tensor, packed: bool) -> list[torch.Tensor]:
    """Gradients of a fixed random projection of `operation`, which sees the inputs' signs as bits or as floats."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    out = operation(*(PackSigns.apply(x) if packed else StraightSigns.apply(x) for x in leaves))
    out.backward(randn(*out.shape, seed=9).to(out.dtype))
    return [x.grad for x in leaves]


class StraightSigns(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return signs(x)

    @staticmethod
    def backward(ctx, grad):
        return grad


CONVOLUTIONS = [
    {},
    {"stride": 2, "padding": 1},
    {"dilation": 2, "padding": 3},
    {"groups": 2, "padding": 1},
    {"groups": 4, "stride": 2, "dilation": 2, "padding": 2},
]
POOLS = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (2, 3), "stride": (1, 2), "dilation": (2, 1)},
]


class TestAutograd:
    def test_bits_take_part_and_their_gradient_is_dense(self):
        x = randn(3, 5).requires_grad_()
        bits = PackSigns.apply(x)
        assert isinstance(bits, BitTensor)
        assert bits.requires_grad
        (bits.flatten() * torch.arange(15.0)).sum().backward()
        assert torch.equal(x.grad, torch.arange(15.0).view(3, 5))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_linear_gradients_equal_the_dense_ones(self, dtype):
        x, w, b = randn(6, 37).to(dtype), randn(5, 37, seed=1).to(dtype), randn(5, seed=2).to(dtype)
        for bias in (None, b):
            operation = lambda x, w: F.linear(x, w, bias)  # noqa: B023, E731
            packed = gradients(operation, x, w, packed=True)
            assert all(map(torch.equal, packed, gradients(operation, x, w, packed=False)))

    @pytest.mark.parametrize("window", CONVOLUTIONS)
    def test_conv2d_gradients_equal_the_dense_ones(self, window):
        x = randn(2, 4, 7, 6).contiguous(memory_format=CHANNELS_LAST)
        w = randn(8, 4 // window.get("groups", 1), 3, 3, seed=1).contiguous(memory_format=CHANNELS_LAST)
        operation = lambda x, w: F.conv2d(x, w, **window)  # noqa: E731
        packed = gradients(operation, x, w, packed=True)
        assert all(map(torch.equal, packed, gradients(operation, x, w, packed=False)))

    @pytest.mark.parametrize("window", POOLS)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_max_pool2d_gradient_goes_to_the_first_maximum(self, window, dtype):
        x = randn(2, 3, 7, 8).to(dtype)
        operation = lambda x: F.max_pool2d(x, **window) * 1  # noqa: E731
        packed = gradients(operation, x, packed=True)
        assert packed[0].dtype == dtype
        assert torch.equal(packed[0], gradients(operation, x, packed=False)[0])

    def test_layout_and_rows_pass_the_gradient(self):
        def operation(x):
            return x.transpose(0, 1).contiguous()[1:3].flatten(1).index_select(0, torch.tensor([1, 1]))

        x = randn(3, 4, 5)
        assert torch.equal(gradients(operation, x, packed=True)[0], gradients(operation, x, packed=False)[0])

    def test_users_modules_train_on_bits(self):
        torch.manual_seed(0)
        module = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 2))
        x = randn(2, 3, 6, 6)
        packed = gradients(module, x, packed=True)
        packed_weight = module[1].weight.grad.clone()
        module.zero_grad()
        assert torch.equal(packed[0], gradients(module, x, packed=False)[0])
        assert torch.equal(packed_weight, module[1].weight.grad)

    @pytest.mark.parametrize(
        ("operation", "shapes"),
        [
            (F.linear, [(16, 80), (24, 80)]),
            (lambda x, w: F.conv2d(x, w, padding=1), [(4, 16, 8, 8), (8, 16, 3, 3)]),
            (lambda x: F.max_pool2d(x, 2), [(4, 16, 8, 8)]),
            (lambda x: x * 2 + x.square(), [(16, 80)]),
        ],
        ids=["linear", "conv2d", "max_pool2d", "user's own"],
    )
    def test_autograd_saves_one_bit_an_element(self, operation, shapes):
        inputs = [
            PackSigns.apply(randn(*shape, seed=seed).requires_grad_()).clone() for seed, shape in enumerate(shapes)
        ]
        inputs = [x.contiguous(memory_format=CHANNELS_LAST) if x.dim() == 4 else x for x in inputs]
        with saved_bytes() as saved:
            operation(*inputs)
        assert 0 < sum(saved.values()) <= sum(math.prod(shape) // 8 for shape in shapes)
