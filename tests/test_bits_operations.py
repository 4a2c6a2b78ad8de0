"""Which operations keep a `BitTensor` packed, and that all others see its dense value."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from bnn.bits import BitTensor
from tests.contracts import CHANNELS_LAST, bits_of, dense, randn

# --- operations that stay bits -------------------------------------------------------------------------------------

STAYS = {
    "view": lambda x: x.contiguous().view(-1, *x.shape[2:]),
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

    def test_what_inference_asks_of_bits_takes_no_walk_through_arguments(self, monkeypatch):
        bits = bits_of(2, 3, 4, 4)
        monkeypatch.setattr("bnn.bits.tree_map_only", None)
        with torch.inference_mode():
            asked = (bits.dim(), bits.numel(), bits.dtype, bits.device, bits.requires_grad, bits.is_floating_point())
            assert asked == (4, 96, torch.float32, torch.device("cpu"), False, True)
            assert bits.is_contiguous()

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
    "torch.max_pool2d ceil_mode": lambda x: torch.max_pool2d(x, 3, 2, 0, 1, True),
    "max_pool2d ceil_mode by keyword": lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "max_pool2d indices": lambda x: F.max_pool2d(x, 2, return_indices=True),
    "max_pool2d without batch": lambda x: F.max_pool2d(x.flatten(0, 1), 2),
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
