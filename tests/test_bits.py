import io
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from bnn.bits import BitTensor
from bnn.errors import NonFiniteError
from bnn.layers import BinaryLinear
from tests.contracts import CHANNELS_LAST, bits_of, randn, signs

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


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


class TestAsOtherTensors:
    def test_numpy_and_lists_have_the_dense_value(self):
        bits = bits_of(3, 5)
        assert np.array_equal(bits.numpy(), bits.dense().numpy())
        assert np.array_equal(np.asarray(bits), bits.dense().numpy())
        assert bits.tolist() == bits.dense().tolist()
        assert bits_of().tolist() in (1.0, -1.0)

    def test_saves_its_bits_and_loads_as_data_alone(self):
        bits, file = bits_of(64, 1000), io.BytesIO()
        torch.save({"bits": bits}, file)
        assert file.tell() < 64 * 1000 / 8 + 4096
        file.seek(0)
        loaded = torch.load(file)["bits"]
        assert (type(loaded), loaded.shape, loaded.dtype) == (BitTensor, bits.shape, bits.dtype)
        assert torch.equal(loaded.dense(), bits.dense())

    def test_sharing_is_an_error_that_says_how(self):
        bits = bits_of(3, 5)
        with pytest.raises(TypeError, match=r"share its bits by \.packed"):
            bits.share_memory_()
        assert bits.packed.share_memory_().is_shared()

    def test_export_is_refused_in_one_line(self):
        with pytest.raises(NotImplementedError, match=r"^torch\.export cannot follow bits: [^\n]+$"):
            torch.export.export(torch.nn.Sequential(BinaryLinear(8, 4)).eval(), (torch.ones(2, 8),))


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
