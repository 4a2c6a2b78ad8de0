"""N:M masks of rows and columns: the best of all legal ones, the greedy one's ratio, what training keeps of them."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.errors import RecipeError
from bnn.methods import Transposable
from bnn.methods.transposable import legal_masks
from bnn.training import Trainer
from tests.contracts import randn
from tests.methods.test_ternarize import sparse_run

HALVES = [rows for rows in itertools.product([0.0, 1.0], repeat=4) if sum(rows) == 2]
MASKS = torch.tensor([m for m in itertools.product(HALVES, repeat=4) if all(sum(c) == 2 for c in zip(*m, strict=True))])


def left(weight, mask):
    """Of each block of 4 x 4."""
    return (weight.abs() * mask).unflatten(0, (-1, 4)).unflatten(2, (-1, 4)).sum((1, 3)).flatten()


def test_legal_masks_are_counted():
    assert legal_masks(2, 4) == len(MASKS) == 90
    assert legal_masks(4, 8) == 116_963_796_250
    assert legal_masks(1, 5) == 120
    assert Transposable(4, 8).ternary_bits == pytest.approx(1.0745, abs=1e-4)


def test_the_best_is_that_of_all_masks_and_the_greedy_one_is_near():
    """Of normal weights the page's ratio at 2:4 is 0.984 on average."""
    weight, pattern = randn(96, 96), Transposable(2, 4)
    best, greedy = left(weight, pattern.optimal(weight)), left(weight, pattern.greedy(weight))
    blocks = weight.abs().unflatten(0, (-1, 4)).unflatten(2, (-1, 4)).transpose(1, 2).reshape(-1, 16)
    full = (blocks @ MASKS.flatten(1).T).amax(1)
    # A place may stay empty, which is now and then better than the worse of two ways to fill it.
    assert (best >= full - 1e-4).all()
    assert (best - full).mean() < 0.01 * full.mean()
    ratio = greedy / best
    assert 0.978 < ratio.mean() < 0.99
    assert 0.5 <= ratio.min() <= ratio.max() <= 1 + 1e-6


def test_the_ratio_of_4_of_8():
    weight, pattern = randn(128, 128), Transposable(4, 8)
    ratio = (weight.abs() * pattern.greedy(weight)).sum() / (weight.abs() * pattern.optimal(weight)).sum()
    assert 0.983 < ratio < 0.993


def test_the_worst_case_of_the_greedy_one_is_half():
    weight, pattern = torch.tensor([[1.0, 0.999], [0.999, 0.0]]), Transposable(1, 2)
    assert pattern.greedy(weight).tolist()[0] == [True, False]
    assert pattern.optimal(weight).tolist() == [[False, True], [True, False]]


@given(
    st.integers(0, 2**31),
    st.sampled_from([(9, 5), (8, 8), (3, 10, 3, 3), (1, 1)]),
    st.sampled_from(["1:2", "2:4", "3:4", "4:4", "2:5"]),
    st.sampled_from(["optimal", "greedy"]),
)
def test_no_row_or_column_of_a_block_keeps_more(seed, shape, text, way):
    pattern = Transposable.parse(text)
    mask = getattr(pattern, way)(randn(*shape, seed=seed))
    assert mask.shape == torch.Size(shape)
    places = mask.reshape(*shape[:2], -1).long()
    for block in itertools.chain(*(part.split(pattern.of, 1) for part in places.split(pattern.of))):
        assert block.sum(0).max() <= pattern.kept
        assert block.sum(1).max() <= pattern.kept
    if pattern.kept == pattern.of:
        assert mask.all()


def test_training_keeps_the_pattern(tmp_path):
    run = sparse_run(density=None, pattern=Transposable(2, 4), epoch=1, final_epoch=3)
    Trainer(run, tmp_path / "run").fit()
    for store in (run.model[1].store, run.model[4].store):
        assert store.is_ternary
        kept = (store.read() != 0).long()
        assert torch.equal(kept.bool(), store.kept)
        for block in itertools.chain(*(part.split(4, 1) for part in kept.split(4))):
            assert max(int(block.sum(0).max()), int(block.sum(1).max())) <= 2
        assert kept.float().mean() > 0.45


@pytest.mark.parametrize("text", ["", "4", "4:", ":8", "0:4", "5:4", "4:17", "-1:4", "4:8:8", "a:b", "٤:8x", "4:100"])
def test_what_is_no_pattern_is_refused(text):
    with pytest.raises(RecipeError, match=r"N:M|as 4:8"):
        Transposable.parse(text)
