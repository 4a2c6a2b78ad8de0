"""Tensors come back as they were, to the bit, in the bytes that their coding promises."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.bits import BitTensor
from bnn.codec.coding import (
    DTYPES,
    Coding,
    Entry,
    decode,
    digits_per_byte,
    encode_discrete,
    encode_values,
    symbols,
)
from bnn.codec.container import from_bytes, to_bytes
from bnn.codec.errors import CodecError, FormatError

SHAPES = [(), (0,), (7,), (3, 0, 2), (4, 5), (2, 3, 3, 3)]


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    one, other = one.contiguous(), other.contiguous()
    same = one.reshape(-1).view(torch.uint8).equal(other.reshape(-1).view(torch.uint8))
    return same and (one.shape, one.dtype) == (other.shape, other.dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_of_every_dtype_and_shape_come_back(dtype, shape, generator):
    values = torch.randint(0, 2 if dtype is torch.bool else 100, shape, generator=generator).to(dtype)
    entry = encode_values("x", values)
    assert entry.levels == ()
    assert entry.decoded_bytes == values.numel() * values.element_size()
    assert same_bits(decode(entry), values)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_special_values_come_back_to_the_bit(dtype):
    values = torch.tensor([math.nan, -math.nan, math.inf, -math.inf, -0.0, 0.0, 1e-7]).to(dtype)
    assert same_bits(decode(encode_values("x", values)), values)


def test_the_shorter_coding_is_taken(generator):
    noise = torch.randint(0, 256, (1000,), generator=generator).to(torch.uint8)
    assert encode_values("x", noise).coding is Coding.RAW
    assert encode_values("x", torch.zeros(1000)).coding is Coding.DEFLATED
    # Floats of similar size share their high bytes, which the planes bring together.
    entry = encode_values("x", torch.rand(4000, generator=generator) + 1)
    assert entry.coding is Coding.DEFLATED
    assert len(entry.payload) < 0.85 * entry.decoded_bytes


def test_tensors_in_another_memory_order_come_back(generator):
    values = torch.randn((4, 6, 3, 3), generator=generator)
    for view in (values.contiguous(memory_format=torch.channels_last), values.transpose(0, 1), values[:, ::2]):
        assert same_bits(decode(encode_values("x", view)), view)
        ternary = view.sign() * (view.abs() > 1)
        assert torch.equal(decode(encode_discrete("x", ternary)), ternary)
        bits = BitTensor.from_dense(view)
        assert torch.equal(decode(encode_discrete("x", bits)), bits.dense())


def test_a_dtype_that_cannot_be_stored_is_refused():
    with pytest.raises(CodecError, match=r"x cannot be stored: its dtype is .*complex64"):
        encode_values("x", torch.zeros(2, dtype=torch.complex64))


@given(st.integers(1, 256), st.integers(0, 400), st.integers(0, 2**32))
def test_weights_of_any_number_of_levels_come_back(levels, size, seed):
    random = np.random.default_rng(seed)
    values = np.sort(random.choice(10_000, levels, replace=False)).astype(np.float32) / 7
    weight = torch.from_numpy(random.choice(values, size)).reshape(1, -1)
    entry = encode_discrete("w", weight)
    assert same_bits(decode(entry), weight)
    distinct = len(weight.unique())
    if distinct:
        assert entry.levels[:distinct] == tuple(weight.unique().tolist())
        assert np.array_equal(weight[0].numpy(), np.array(entry.levels, np.float32)[symbols(entry)])


def test_packed_weights_take_as_many_digits_a_byte_as_fit():
    assert [digits_per_byte(levels) for levels in (2, 3, 4, 5, 6, 7, 16, 17, 256)] == [8, 5, 4, 3, 3, 2, 2, 1, 1]
    assert all(levels ** digits_per_byte(levels) <= 256 for levels in range(2, 257))


def test_noise_is_packed_and_structure_is_modelled(generator):
    noise = BitTensor.from_dense(torch.randn((64, 128), generator=generator))
    entry = encode_discrete("w", noise)
    assert (entry.coding, len(entry.payload)) == (Coding.PACKED, 64 * 128 // 8)
    assert entry.levels == (-1.0, 1.0)
    # The first element is the lowest bit.
    assert entry.payload[0] & 1 == (noise.dense()[0, 0] > 0)
    sparse = (torch.rand((64, 128), generator=generator) < 0.05).float()
    entry = encode_discrete("w", sparse)
    assert entry.coding is Coding.CONTEXT
    assert 8 * len(entry.payload) < 0.35 * sparse.numel()


def test_a_constant_weight_takes_a_few_bytes():
    for value in (0.0, -1.5, 1e20):
        entry = encode_discrete("w", torch.full((30, 40), value))
        assert len(entry.payload) < 20
        assert from_bytes(to_bytes([entry])) == [entry]
        assert decode(entry).unique().tolist() == [torch.tensor(value).item()]


def test_minus_zero_is_the_level_zero():
    entry = encode_discrete("w", torch.tensor([-1.0, -0.0, 1.0]))
    assert str(entry.levels) == "(-1.0, 0.0, 1.0)"
    assert str(decode(entry).tolist()) == "[-1.0, 0.0, 1.0]"


@pytest.mark.parametrize("shape", [(0, 5), (3, 0)])
def test_a_weight_without_elements(shape):
    for weight in (torch.zeros(shape), BitTensor.from_dense(torch.zeros(shape))):
        entry = encode_discrete("w", weight)
        assert entry.payload == b""
        assert same_bits(decode(entry), torch.zeros(shape))


def test_many_or_infinite_levels_are_kept_as_values():
    many = torch.arange(257.0)
    for weight in (many, torch.tensor([math.inf, 1.0]), torch.tensor([math.nan, 1.0])):
        entry = encode_discrete("w", weight)
        assert entry.levels == ()
        assert same_bits(decode(entry), weight)


PACKED = Entry("w", (4, 3), torch.float32, Coding.PACKED, (-1.0, 0.0, 1.0), bytes([242, 242, 8]))
RAW = Entry("x", (2,), torch.float32, Coding.RAW, (), bytes(8))
DEFLATED = encode_values("x", torch.zeros(100))


@pytest.mark.parametrize(
    ("entry", "changes", "message"),
    [
        (PACKED, {"payload": bytes(2)}, "w: a tensor of .4, 3. takes 3 bytes, not 2"),
        (PACKED, {"payload": bytes([243, 0, 0])}, "w: a byte holds no digits of base 3"),
        (PACKED, {"payload": bytes([0, 0, 9])}, "w: there are digits past its end"),
        (PACKED, {"coding": Coding.CONTEXT}, "w: "),
        (RAW, {"payload": bytes(9)}, "x: a tensor of .2. takes 8 bytes, not 9"),
        (RAW, {"dtype": torch.bool, "payload": b"\1\2"}, "x: a truth value is neither 0 nor 1"),
        (DEFLATED, {"shape": (1 << 30,)}, "x: .* cannot inflate to 4294967296"),
        (DEFLATED, {"shape": (99,)}, "x: the deflated bytes do not end"),
        (DEFLATED, {"shape": (101,)}, "x: a tensor of .101. takes 404 bytes, not 400"),
        (DEFLATED, {"payload": DEFLATED.payload[:-1]}, "x: the deflated bytes do not end"),
        (DEFLATED, {"payload": DEFLATED.payload + b"\0"}, "x: the deflated bytes do not end"),
        (DEFLATED, {"payload": bytes(20)}, "x: Error"),
    ],
)
def test_payloads_that_do_not_fit_are_refused(entry, changes, message):
    decode(entry)
    with pytest.raises(FormatError, match=message):
        decode(dataclasses.replace(entry, **changes))
