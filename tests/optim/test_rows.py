import pytest
import torch

from bnn.bits import BitTensor
from bnn.optim.rows import float_rows, row_chunks, rows_of


@pytest.mark.parametrize(("shape", "rows"), [((), 1), ((7,), 1), ((5, 3), 5), ((4, 2, 3, 3), 4)])
def test_a_vector_and_a_scalar_are_one_row(shape, rows):
    x = torch.zeros(shape)
    assert len(rows_of(x)) == rows
    assert rows_of(x).numel() == x.numel()


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((1, 7), [1]),
        ((3, 2**16), [2, 1]),
        ((4, 2**16), [2, 2]),
        ((3, 2**16 + 1), [1, 1, 1]),
        ((2, 2**18), [1, 1]),
        ((5, 0), [5]),
        ((0, 5), []),
    ],
)
def test_chunks_have_2_to_the_17_elements_or_one_row(shape, sizes):
    x = torch.empty(shape, device="meta")
    assert [len(x[rows]) for rows in row_chunks(x)] == sizes
    assert sum(sizes) == shape[0]


def test_rows_are_read_as_float32(generator):
    x = torch.randn(4, 9, generator=generator)
    rows = slice(1, 3)
    assert float_rows(x, rows).data_ptr() == x[rows].data_ptr()
    assert torch.equal(float_rows(x.half(), rows), x.half()[rows].float())
    of_bits = float_rows(BitTensor.from_dense(x.bfloat16()), rows)
    assert of_bits.dtype is torch.float32
    assert torch.equal(of_bits, torch.where(x[rows] >= 0, 1.0, -1.0))
