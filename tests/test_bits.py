import copy
import math

import pytest
import torch
import torch.nn.functional as F
from contracts import PackSigns, dense, saved_bytes, signs
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from bnn.bits import BitTensor
from bnn.errors import NonFiniteError

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
CHANNELS_LAST = torch.channels_last


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def bits_of(*shape: int, seed: int = 0) -> BitTensor:
    return BitTensor.from_dense(randn(*shape, seed=seed))


class TestPacking:
    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("shape", [(), (1,), (7,), (8,), (3, 5), (4, 8), (2, 3, 5, 7), (0, 3), (3, 0), (0,)])
    def test_keeps_signs_shape_and_dtype(self, shape, dtype):
        x = randn(*shape).to(dtype)
        bits = BitTensor.from_dense(x)
        assert (bits.shape, bits.dtype, bits.stride()) == (x.shape, dtype, x.stride())
        assert torch.equal(bits.dense(), signs(x))
        assert bits.dense().dtype == dtype

    def test_zero_and_negative_zero_are_plus_one_and_inf_has_a_sign(self):
        x = torch.tensor([0.0, -0.0, -1e-45, 1e-45, math.inf, -math.inf])
        assert torch.equal(BitTensor.from_dense(x).dense(), torch.tensor([1.0, 1, -1, 1, 1, -1]))

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_nan_is_refused_wherever_it_is(self, dtype):
        x = torch.ones(3, 9, dtype=dtype)
        x[2, 8] = -math.nan
        with pytest.raises(NonFiniteError, match="NaN"):
            BitTensor.from_dense(x)

    def test_truth_values_are_taken_as_bits(self):
        bits = BitTensor.from_dense(torch.tensor([True, False, True]))
        assert torch.equal(bits.dense(), torch.tensor([1.0, -1, 1]))
        assert torch.equal(bits.dense(torch.bool), torch.tensor([True, False, True]))

    @pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.complex64])
    def test_other_dtypes_are_refused(self, dtype):
        with pytest.raises(TypeError, match="floating"):
            BitTensor.from_dense(torch.ones(3, dtype=dtype))

    @pytest.mark.parametrize(
        "x",
        [
            randn(2, 3, 5, 7).contiguous(memory_format=CHANNELS_LAST),
            randn(2, 3, 5, 7).permute(2, 0, 3, 1),
            randn(5, 9).t(),
            randn(4, 3, 1, 2).permute(2, 3, 0, 1),
        ],
        ids=["channels_last", "permuted", "transposed", "size 1 in the middle"],
    )
    def test_dense_memory_formats_are_kept(self, x):
        bits = BitTensor.from_dense(x)
        assert bits.stride() == x.stride()
        assert bits.dense().stride() == x.stride()
        assert torch.equal(bits.dense(), signs(x))

    @pytest.mark.parametrize(
        "x",
        [
            randn(4, 9)[:, 1:6],
            randn(4, 9)[::2, ::3],
            randn(1, 9).expand(4, 9),
            randn(3, 1, 5).expand(3, 4, 5),
        ],
        ids=["sliced", "strided", "expanded", "expanded in the middle"],
    )
    def test_other_strides_become_contiguous(self, x):
        bits = BitTensor.from_dense(x)
        assert bits.is_contiguous()
        assert torch.equal(bits.dense(), signs(x))

    @given(st.lists(st.integers(1, 9), max_size=4))
    def test_takes_one_bit_an_element_rounded_up_to_bytes_a_row(self, shape):
        bits = bits_of(*shape)
        rows = shape[0] if len(shape) > 1 else 1
        assert bits.storage_bytes == rows * math.ceil(math.prod(shape) / rows / 8)
        assert bits.packed.untyped_storage().nbytes() == bits.storage_bytes

    def test_the_result_shares_no_memory_with_its_source(self):
        x = randn(3, 5)
        bits, expected = BitTensor.from_dense(x), signs(x)
        x.neg_()
        assert torch.equal(bits.dense(), expected)

    def test_packing_ends_a_gradient(self):
        assert not BitTensor.from_dense(randn(3, 5).requires_grad_()).requires_grad

    def test_repacking_bits_changes_nothing(self):
        bits = bits_of(3, 5)
        assert torch.equal(BitTensor.from_dense(bits).packed, bits.packed)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int8, torch.bool])
    def test_dense_in_another_dtype(self, dtype):
        x = randn(3, 5)
        expected = x >= 0 if dtype is torch.bool else signs(x).to(dtype)
        assert torch.equal(BitTensor.from_dense(x).dense(dtype), expected)

    def test_repr_shows_values_and_bytes(self):
        text = repr(BitTensor.from_dense(torch.tensor([1.0, -2.0])))
        assert text == "BitTensor(tensor([ 1., -1.]), storage_bytes=1)"

    def test_meta_device(self):
        bits = BitTensor.from_dense(torch.empty(2, 3, 5, 5, device="meta"))
        weight = BitTensor.from_dense(torch.empty(4, 3, 3, 3, device="meta"))
        assert bits.storage_bytes == 2 * 10
        assert F.conv2d(F.max_pool2d(bits, 2), weight, padding=1).shape == (2, 4, 2, 2)
        assert bits.dense().device.type == "meta"
        assert bits_of(3, 5).to("meta").packed.device.type == "meta"


# --- operations that stay bits -------------------------------------------------------------------------------------

STAYS = {
    "view": lambda x: x.view(-1, *x.shape[2:]) if x.is_contiguous() else x.view(x.shape),
    "flatten": lambda x: x.flatten(1),
    "flatten all": lambda x: x.flatten(),
    "reshape": lambda x: x.reshape(-1, x.shape[0]),
    "transpose": lambda x: x.transpose(0, -1),
    "permute": lambda x: x.permute(*reversed(range(x.dim()))),
    "permute and flatten": lambda x: x.permute(*reversed(range(x.dim()))).flatten(1),
    "unsqueeze": lambda x: x.unsqueeze(1),
    "squeeze": lambda x: x.unsqueeze(1).squeeze(1),
    "clone": lambda x: x.clone(),
    "contiguous": lambda x: x.transpose(0, 1).contiguous(),
    "clone contiguous": lambda x: x.transpose(0, 1).clone(memory_format=torch.contiguous_format),
    "to half": lambda x: x.to(torch.float16),
    "to copy": lambda x: x.to("cpu", copy=True),
    "double": lambda x: x.double(),
    "type_as": lambda x: x.type_as(torch.zeros((), dtype=torch.bfloat16)),
    "detach": lambda x: x.detach(),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}
STAYS_WITH_CONTIGUOUS_ROWS = {
    "slice": lambda x: x[1:3],
    "slice from the end": lambda x: x[-2:],
    "slice past the end": lambda x: x[1:100],
    "empty slice": lambda x: x[:0],
    "slice with step": lambda x: x[::2],
    "narrow": lambda x: x.narrow(0, 0, 1),
    "split": lambda x: x.split(2)[-1],
    "chunk": lambda x: x.chunk(2)[0],
    "index_select": lambda x: x.index_select(0, torch.tensor([0, -1 % len(x), 0])),
    "slice of the last dimension, transposed": lambda x: x.transpose(0, -1)[..., :1],
}
STAYS_IMAGE = {
    "t": lambda x: x.flatten(1).t(),
    "channels last": lambda x: x.contiguous(memory_format=CHANNELS_LAST),
    "to channels last": lambda x: x.to(memory_format=CHANNELS_LAST),
    "to half channels last": lambda x: x.to(torch.float16, memory_format=CHANNELS_LAST),
    "and back": lambda x: x.contiguous(memory_format=CHANNELS_LAST).contiguous(),
    "channels last and flatten": lambda x: x.contiguous(memory_format=CHANNELS_LAST).flatten(1),
    "pool": lambda x: F.max_pool2d(x, 2, 1, 1),
    "pool and flatten": lambda x: F.max_pool2d(x, 1).flatten(1),
    "nn.Flatten": nn.Flatten(),
    "nn.MaxPool2d": nn.MaxPool2d(3, 2, 1),
    "pool by keywords": lambda x: F.max_pool2d(input=x, kernel_size=1, stride=2),
    "torch.max_pool2d": lambda x: torch.max_pool2d(input=x, kernel_size=1),
}

shapes = st.lists(st.integers(1, 5), min_size=2, max_size=4)


def assert_equals_dense(operation, bits: BitTensor, *, stays: bool) -> None:
    result, expected = operation(bits), operation(bits.dense())
    assert isinstance(result, BitTensor) == stays
    assert result.dtype == expected.dtype
    assert torch.equal(dense(result), expected)


class TestOperationsOnBits:
    @pytest.mark.parametrize("operation", STAYS.values(), ids=STAYS.keys())
    @settings(max_examples=25)
    @given(shape=shapes)
    def test_layout(self, operation, shape):
        assert_equals_dense(operation, bits_of(*shape), stays=True)

    @pytest.mark.parametrize("operation", STAYS_WITH_CONTIGUOUS_ROWS.values(), ids=STAYS_WITH_CONTIGUOUS_ROWS.keys())
    @settings(max_examples=25)
    @given(shape=shapes)
    def test_rows(self, operation, shape):
        bits = bits_of(2 + shape[0], 2 + shape[1], *shape[2:])
        assert_equals_dense(operation, bits, stays=True)

    @pytest.mark.parametrize("operation", STAYS_IMAGE.values(), ids=STAYS_IMAGE.keys())
    @settings(max_examples=25)
    @given(shape=st.tuples(*[st.integers(2, 5)] * 4))
    def test_image(self, operation, shape):
        assert_equals_dense(operation, bits_of(*shape), stays=True)
        channels_last = bits_of(*shape).contiguous(memory_format=CHANNELS_LAST)
        assert_equals_dense(operation, channels_last, stays=True)

    @given(
        shape=st.tuples(*[st.integers(1, 4)] * 4),
        names=st.lists(st.sampled_from([*STAYS, *STAYS_WITH_CONTIGUOUS_ROWS]), min_size=2, max_size=5),
    )
    def test_chains(self, shape, names):
        result: torch.Tensor = bits_of(*shape)
        expected = result.dense()
        for name in names:
            operation = (STAYS | STAYS_WITH_CONTIGUOUS_ROWS)[name]
            assume(expected.dim() > 1 and expected.shape[0] > 0)
            result, expected = operation(result), operation(expected)
            assert torch.equal(dense(result), expected)

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_without_gradient_they_stay_bits_as_well(self, mode):
        bits = bits_of(4, 3, 4, 4)
        with mode():
            for operation in (STAYS | STAYS_WITH_CONTIGUOUS_ROWS | STAYS_IMAGE).values():
                assert_equals_dense(operation, bits, stays=True)
                assert_equals_dense(operation, bits_of(4, 3, 4, 4), stays=True)

    def test_empty_batch(self):
        bits = bits_of(0, 3, 4, 4)
        assert bits.flatten(1).shape == (0, 48)
        assert bits.view(-1).shape == (0,)
        assert F.max_pool2d(bits, 2).shape == (0, 3, 2, 2)
        assert F.conv2d(bits, bits_of(5, 3, 3, 3)).shape == (0, 5, 2, 2)
        assert F.linear(bits.flatten(1), bits_of(5, 48)).shape == (0, 5)

    def test_rows_that_end_inside_a_byte_are_repacked(self):
        assert bits_of(3, 5).storage_bytes == 3
        assert bits_of(3, 5).flatten().storage_bytes == 2
        assert bits_of(15).view(3, 5).storage_bytes == 3

    def test_whole_byte_views_share_memory(self):
        bits = bits_of(4, 16)
        assert bits.view(8, 8).packed.data_ptr() == bits.packed.data_ptr()
        assert bits[1:3].packed.data_ptr() == bits.packed.data_ptr() + 2

    def test_a_copy_has_its_own_memory(self):
        bits = bits_of(4, 16)
        for other in (bits.clone(), copy.deepcopy(bits), bits.to("cpu", copy=True)):
            assert other.packed.data_ptr() != bits.packed.data_ptr()


# --- operations that see the dense value ---------------------------------------------------------------------------

SEES_DENSE = {
    "add": lambda x: x + 1,
    "reflected": lambda x: 2 * x,
    "multiply": lambda x: x * x,
    "negate": lambda x: -x,
    "compare": lambda x: x > 0,
    "equal": lambda x: torch.equal(x, x),
    "sum": lambda x: x.sum(),
    "mean of a dimension": lambda x: x.mean(1),
    "var": lambda x: x.var((0, 2, 3)),
    "max": lambda x: x.max(1),
    "sort": lambda x: x.sort(),
    "argmax": lambda x: x.argmax(),
    "cumsum": lambda x: x.cumsum(0),
    "flip": lambda x: x.flip(0),
    "roll": lambda x: x.roll(1, 2),
    "one row": lambda x: x[1],
    "last element": lambda x: x[-1, -1, -1, -1].item(),
    "columns": lambda x: x[:, 1:2],
    "split of channels": lambda x: x.split(2, dim=1)[0],
    "index": lambda x: x[torch.tensor([1, 0])],
    "mask": lambda x: x[x > 0],
    "None and ellipsis": lambda x: x[None, ..., 0],
    "cat": lambda x: torch.cat([x, x.flip(1)]),
    "cat with dense": lambda x: torch.cat([x, torch.zeros(x.shape)]),
    "stack": lambda x: torch.stack([x, x]),
    "expand": lambda x: x[:1].expand(3, -1, -1, -1),
    "repeat": lambda x: x.repeat(2, 1, 1, 1),
    "where": lambda x: torch.where(x > 0, x, 0),
    "einsum": lambda x: torch.einsum("nchw,nchw->nc", x, x),
    "matmul with float": lambda x: x @ torch.arange(12.0).view(4, 3),
    "linear with float": lambda x: F.linear(x, torch.arange(8.0).view(2, 4)),
    "conv with float": lambda x: F.conv2d(x, torch.arange(27.0).view(1, 3, 3, 3)),
    "conv_transpose": lambda x: F.conv_transpose2d(x, BitTensor.from_dense(torch.ones(3, 2, 3, 3))),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 1),
    "max_pool2d ceil_mode": lambda x: F.max_pool2d(x, 3, 2, 0, 1, True),
    "max_pool2d ceil_mode by keyword": lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "max_pool2d indices": lambda x: F.max_pool2d(x, 2, return_indices=True),
    "max_pool2d without batch": lambda x: F.max_pool2d(x[0], 2),
    "batch_norm": lambda x: F.batch_norm(x, None, None, training=True),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[1:]),
    "hardtanh": F.hardtanh,
    "softmax": lambda x: F.softmax(x, 1),
    "unfold": lambda x: F.unfold(x, 2),
    "pad": lambda x: F.pad(x, (1, 1)),
    "interpolate": lambda x: F.interpolate(x, scale_factor=2.0),
    "to int": lambda x: x.to(torch.int32),
    "ones_like": torch.ones_like,
    "iterate": lambda x: [row.sum() for row in x],
}


@pytest.mark.parametrize("operation", SEES_DENSE.values(), ids=SEES_DENSE.keys())
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_every_other_operation_sees_the_dense_value(operation, mode):
    def flat(result):
        return [result] if isinstance(result, torch.Tensor | float | bool) else list(result)

    x = randn(4, 3, 4, 4)
    for bits in (BitTensor.from_dense(x), BitTensor.from_dense(x.contiguous(memory_format=CHANNELS_LAST))):
        with mode():
            results, expected = flat(operation(bits)), flat(operation(bits.dense()))
        assert len(results) == len(expected)
        for one, other in zip(results, expected, strict=True):
            assert type(one) is type(other)
            assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


class TestReadOnly:
    @pytest.mark.parametrize(
        "change",
        [
            lambda x: x.add_(1),
            lambda x: x.zero_(),
            lambda x: x.copy_(torch.zeros(3, 5)),
            lambda x: x.t_(),
            lambda x: x.flatten().neg_(),
            lambda x: x.normal_(),
            lambda x: F.relu(x, inplace=True),
            lambda x: torch.add(torch.ones(3, 5), 1, out=x),
            lambda x: torch._foreach_add_([x], 1),
            lambda x: x.__setitem__(0, 1.0),
            lambda x: x.__setitem__((slice(None), 2), 1.0),
        ],
    )
    def test_changing_bits_is_a_clear_error(self, change):
        bits = bits_of(3, 5)
        before = bits.dense()
        with pytest.raises(TypeError, match=r"read-only: use \.dense\(\) first"):
            change(bits)
        assert torch.equal(bits.dense(), before)

    def test_a_dense_tensor_can_be_changed_by_bits(self):
        bits = bits_of(3, 5)
        x = torch.ones(3, 5)
        address = x.data_ptr()
        x += bits
        assert torch.equal(x, 1 + bits.dense())
        x.copy_(bits)
        x[0] = -bits[0]
        assert torch.equal(x, torch.cat([-bits.dense()[:1], bits.dense()[1:]]))
        assert x.data_ptr() == address

    def test_in_place_on_a_dense_tensor_passes_the_gradient(self):
        x = torch.zeros(3, 5, requires_grad=True)
        y = x * 2
        y.mul_(bits_of(3, 5))
        y.sum().backward()
        assert torch.equal(x.grad, 2 * bits_of(3, 5).dense())


# --- products ------------------------------------------------------------------------------------------------------

windows = st.fixed_dictionaries(
    {"stride": st.integers(1, 3), "padding": st.integers(0, 4), "dilation": st.integers(1, 2)}
)


class TestProducts:
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
        x, w, bias = bits_of(2, 11), bits_of(11, 3), randn(2, 3)
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
