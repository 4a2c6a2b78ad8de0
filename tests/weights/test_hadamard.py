import pytest
import torch

from bnn.weights import HadamardStore


@pytest.mark.parametrize(("classes", "inputs"), [(10, 64), (7, 8), (63, 64)])
def test_rows_are_orthogonal_and_balanced(classes, inputs):
    rows = HadamardStore((classes, inputs)).read().dense()
    assert torch.equal(rows @ rows.t(), inputs * torch.eye(classes))
    assert not rows.sum(1).any()  # without row 0, which is all ones


def test_of_other_widths_it_is_cut():
    assert torch.equal(HadamardStore((10, 50)).read().dense(), HadamardStore((10, 64)).read().dense()[:, :50])


def test_nothing_is_trained():
    store = HadamardStore((10, 64))
    before = store.read().dense()
    store.initialize(torch.Generator().manual_seed(1))
    assert torch.equal(store.read().dense(), before)
    assert not list(store.parameters())
    assert store.storage_bits == store.training_bits == 1


@pytest.mark.parametrize(("classes", "inputs", "most"), [(8, 8, 7), (100, 50, 63), (1, 1, 0), (1, 0, 0)])
def test_more_classes_than_rows_are_refused(classes, inputs, most):
    with pytest.raises(
        ValueError, match=rf"for {inputs} inputs tells at most {most} classes apart, got {classes}: widen"
    ):
        HadamardStore((classes, inputs))
