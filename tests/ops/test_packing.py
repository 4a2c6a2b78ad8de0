"""Packing of bits: the specification against numpy, and every native kernel against the specification."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.errors import NonFiniteError
from bnn.ops import packed_bytes
from bnn.ops.packing import pack, unpack
from tests.contracts import randn, signs
from tests.ops.comparison import check, examples, float_dtypes, generator, random_bits, seeds

bnn = torch.ops.bnn


@given(n=st.integers(0, 100))
def test_packed_bytes(n: int) -> None:
    assert packed_bytes(n) == math.ceil(n / 8)


class TestPack:
    @given(rows=st.integers(0, 5), n=st.integers(0, 40))
    def test_equals_numpy(self, rows, n):
        x = randn(rows, n)
        expected = np.packbits((x >= 0).numpy(), axis=1, bitorder="little")
        assert np.array_equal(pack(x).numpy(), expected.reshape(rows, math.ceil(n / 8)))
        assert torch.equal(pack(x >= 0), pack(x))

    @given(rows=st.integers(0, 5), n=st.integers(0, 40))
    def test_unpack_is_its_inverse(self, rows, n):
        x = randn(rows, n)
        for dtype in (torch.float32, torch.float16, torch.float64, torch.int8):
            assert torch.equal(unpack(pack(x), n, dtype), signs(x).to(dtype))
        assert torch.equal(unpack(pack(x), n, torch.bool), x >= 0)

    def test_lowest_bit_comes_first_and_the_rest_of_the_last_byte_is_clear(self):
        x = torch.full((1, 10), -1.0)
        x[0, 1] = x[0, 9] = 1
        assert pack(x).tolist() == [[0b10, 0b10]]
        assert pack(torch.ones(1, 9)).tolist() == [[255, 1]]

    def test_every_byte_is_packed_and_unpacked(self):
        packed = torch.arange(256, dtype=torch.uint8).view(-1, 1)
        assert torch.equal(pack(unpack(packed, 8, torch.float32)), packed)

    def test_takes_any_strides_and_offset(self):
        x = randn(19, 8)
        assert torch.equal(pack(x.t()), pack(x.t().contiguous()))
        mask = (x >= 0).flatten()[3:19].view(2, 8)
        assert torch.equal(pack(mask), pack(mask.clone()))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
    def test_edge_values(self, dtype):
        values = torch.tensor([[0.0, -0.0, math.inf, -math.inf]], dtype=dtype)
        assert pack(values).item() == 0b0111
        with pytest.raises(NonFiniteError, match="NaN"):
            pack(torch.tensor([[1.0, math.nan]], dtype=dtype))


@given(rows=st.integers(0, 9), n=st.integers(0, 200), dtype=float_dtypes, seed=seeds)
@examples
@pytest.mark.usefixtures("isa")
def test_pack_equals_the_reference(rows: int, n: int, dtype: torch.dtype, seed: int) -> None:
    x = torch.randn(rows, n, generator=generator(seed)).to(dtype)
    special = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.finfo(dtype).tiny], dtype=dtype)
    at_random = torch.randint(0, 10, x.shape, generator=generator(seed + 1))
    x = torch.where(at_random < 5, special[at_random % 5], x)
    check("pack", x)
    check("pack", x < 0)
    check("pack", (x * 2).nan_to_num().clamp(-9, 9).to(torch.int8))


@pytest.mark.parametrize("shape", [(1, 100_003), (3, 40_008), (20_000, 3), (300, 64)])
@pytest.mark.usefixtures("isa")
def test_pack_and_unpack_of_many_chunks(shape: tuple[int, int]) -> None:
    x = torch.randn(shape, generator=generator(0))
    check("pack", x)
    check("unpack", pack(x), shape[1], torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.usefixtures("isa")
def test_pack_finds_one_nan_anywhere(dtype: torch.dtype, sign: float) -> None:
    nan = torch.copysign(torch.tensor(torch.nan), torch.tensor(sign)).to(dtype)
    for position in (0, 5, 4_200, 9_998):
        x = torch.ones(1, 9_999, dtype=dtype)
        x[0, position] = nan
        with pytest.raises(NonFiniteError, match="NaN"):
            torch.ops.bnn.pack(x)


@pytest.mark.usefixtures("isa")
def test_pack_takes_any_strides() -> None:
    x = torch.randn(6, 14, 10, generator=generator(1))
    check("pack", x[:, :, 3])
    check("pack", x[:, 3].t())
    check("pack", x[0, :1].expand(7, 10))


@given(rows=st.integers(0, 9), n=st.integers(0, 200), seed=seeds)
@examples
@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int32, torch.bool],
)
@pytest.mark.usefixtures("isa")
def test_unpack_equals_the_reference(dtype: torch.dtype, rows: int, n: int, seed: int) -> None:
    check("unpack", random_bits(rows, n, seed), n, dtype)


@pytest.mark.usefixtures("isa")
def test_unpack_ignores_what_lies_past_the_row() -> None:
    check("unpack", torch.full((3, 2), 255, dtype=torch.uint8), 11, torch.float32)
    check("unpack", random_bits(9, 64, 0)[::2, 1:4], 20, torch.float32)


class TestSignWindow:
    @given(rows=st.integers(0, 9), n=st.integers(0, 200), window=st.sampled_from([0.1, 1.0, torch.inf]), seed=seeds)
    def test_are_the_comparisons(self, rows: int, n: int, window: float, seed: int) -> None:
        x = randn(rows, n, seed=seed)
        bits, inside = bnn.sign_window(x, window)
        assert torch.equal(bits, pack(x >= 0))
        assert torch.equal(inside, pack((x >= -window) & (x <= window)))
        assert torch.equal(bnn.mask(x, inside), x.clamp(-window, window) * (x.abs() <= window))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
    @given(rows=st.integers(0, 9), n=st.integers(0, 200), window=st.floats(0.0625, 4), seed=seeds)
    @examples
    def test_native_equals_the_reference(
        self, isa: str, dtype: torch.dtype, rows: int, n: int, window: float, seed: int
    ) -> None:
        x = randn(rows, n, seed=seed).to(dtype)
        edge = torch.tensor(window, dtype=dtype)
        beyond = torch.nextafter(edge, torch.tensor(torch.inf, dtype=dtype))
        special = torch.stack([edge, -edge, beyond, -beyond, edge * 0, -edge * 0, beyond * torch.inf])
        place = torch.randint(0, 14, x.shape, generator=generator(seed))
        x = torch.where(place < 7, special[place % 7], x)
        _, inside = check("sign_window", x, window)
        check("mask", x, inside)

    @pytest.mark.parametrize("shape", [(1, 100_003), (3, 40_008), (20_000, 3)])
    def test_native_of_many_chunks(self, isa: str, shape: tuple[int, int]) -> None:
        x = randn(*shape)
        _, inside = check("sign_window", x, 1.0)
        check("mask", x, inside)
        check("sign_window", x.t(), 1.0)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
    def test_nan_is_refused_and_masked(self, dtype: torch.dtype) -> None:
        x = torch.ones(1, 9_999, dtype=dtype)
        _, inside = bnn.sign_window(x * 2 - torch.arange(9_999).remainder(2).to(dtype), 1.0)
        x[0, 4_200] = torch.nan
        with pytest.raises(NonFiniteError, match="NaN"):
            bnn.sign_window(x, 1.0)
        assert (bnn.mask(x, inside) == 1).sum().item() == 4_999


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("pack", (torch.zeros(3),), "x must be a matrix"),
        ("unpack", (torch.zeros(2, 12, dtype=torch.uint8), 97, torch.float32), "13 bytes a row for 97 elements"),
        ("unpack", (torch.zeros(2, 12), 96, torch.float32), "is float32"),
        ("mask", (torch.zeros(2, 9), torch.zeros(2, 1, dtype=torch.uint8)), "2 bytes a row"),
        ("sign_window", (torch.zeros(3), 1.0), "x must be a matrix"),
    ],
)
def test_native_arguments_are_checked_before_memory_is_touched(
    isa: str, name: str, args: tuple[object, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(bnn, name)(*args)
