"""Rows in memory order: of every layout the elements in the order of their addresses."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.ops.layout import in_memory_order, memory_order, rows_of
from tests.contracts import randn


@given(shape=st.lists(st.integers(0, 4), max_size=4), data=st.data())
def test_a_tensor_without_gaps_is_viewed_in_the_order_of_its_addresses(shape, data):
    order = data.draw(st.permutations(range(len(shape))))
    x = randn(*shape).permute(order)
    same, rows = in_memory_order(x)
    assert same is x
    assert rows.is_contiguous()
    assert rows.data_ptr() == x.data_ptr()
    assert rows.flatten().tolist() == x.as_strided((x.numel(),), (1,)).tolist()
    assert rows.shape == rows_of(x.shape, memory_order(x.shape, x.stride()))


@given(step=st.integers(2, 3), rows=st.integers(2, 4))
def test_one_with_gaps_is_copied(step, rows):
    x = randn(rows, 4 * step)[:, ::step]
    copied, of_rows = in_memory_order(x)
    assert copied.is_contiguous()
    assert torch.equal(copied, x)
    assert torch.equal(of_rows, x)


def test_a_vector_is_one_row_and_a_stride_of_one_element_is_no_gap():
    assert in_memory_order(torch.ones(5))[1].shape == (1, 5)
    assert in_memory_order(torch.ones(()))[1].shape == (1, 1)
    x = torch.ones(6).as_strided((1, 6), (100, 1))
    assert in_memory_order(x)[0] is x


def test_an_expanded_tensor_is_copied():
    copied, rows = in_memory_order(torch.ones(3, 1).expand(3, 4))
    assert copied.is_contiguous()
    assert rows.shape == (3, 4)
