from hypothesis import given
from hypothesis import strategies as st

from bnn.cost.memory.budget import MIN_BATCH_SIZE, Candidate, largest_batches, largest_slices, slice_sizes

TOTALS = {
    ("standard", "adam"): lambda batch: 100 + 10 * batch,
    ("edge", "adam"): lambda batch: 50 + 5 * batch,
    ("edge", "bop"): lambda batch: 10 + 5 * batch,
}


def batches(budget: float, batch_size: int = 20) -> list[tuple[str, str, int, float]]:
    found = largest_batches(TOTALS, budget, batch_size=batch_size)
    return [(of.preset, of.optimizer, of.batch_size, of.total_bytes) for of in found]


def test_larger_batches_come_first_and_then_the_preferred_one():
    assert batches(1000) == [("standard", "adam", 20, 300), ("edge", "adam", 20, 150), ("edge", "bop", 20, 110)]
    assert batches(125) == [("edge", "bop", 20, 110), ("edge", "adam", 15, 125), ("standard", "adam", 2, 120)]


def test_a_batch_that_fills_the_budget_fits_and_one_byte_less_does_not():
    assert batches(60) == [("edge", "bop", 10, 60), ("edge", "adam", 2, 60)]
    assert batches(59) == [("edge", "bop", 9, 55)]
    assert batches(20) == [("edge", "bop", 2, 20)]
    assert batches(19) == []


def test_no_larger_batch_than_wanted():
    assert [of[2] for of in batches(1000, batch_size=3)] == [3, 3, 3]
    assert [of[2] for of in batches(1000, batch_size=MIN_BATCH_SIZE)] == [2, 2, 2]


@given(
    fixed=st.integers(0, 10**6), each=st.integers(0, 10**4), budget=st.integers(0, 10**7), wanted=st.integers(2, 999)
)
def test_batch_is_the_largest_that_fits(fixed, each, budget, wanted):
    def total(batch: int) -> float:
        return fixed + each * batch

    found = largest_batches({("a", "b"): total}, budget, batch_size=wanted)
    best = max((batch for batch in range(2, wanted + 1) if total(batch) <= budget), default=None)
    assert found == ([Candidate("a", "b", best, total(best))] if best else [])


def test_slices_are_the_batch_s_halves_of_which_none_is_too_small():
    assert slice_sizes(100) == [2, 4, 7, 13, 25, 50, 100]
    assert slice_sizes(2) == [2]
    assert slice_sizes(3) == [3]
    assert slice_sizes(5) == [3, 5]


@given(batch_size=st.integers(2, 5000))
def test_every_slice_has_two_examples(batch_size):
    sizes = slice_sizes(batch_size)
    assert sizes[-1] == batch_size
    assert sizes == sorted(set(sizes))
    for size in sizes:
        assert batch_size // -(-batch_size // size) >= MIN_BATCH_SIZE


STEPS = {
    ("standard", "adam"): lambda batch, size: 100 + batch + 10 * size,
    ("edge", "adam"): lambda batch, size: 50 + 5 * size + (200 if size < batch else 0),
    ("edge", "bop"): lambda batch, size: 10 + 5 * size,
}


def steps(budget: float) -> list[tuple[str, str, int, int | None, float]]:
    found = largest_slices(STEPS, budget, batch_size=100)
    return [(of.preset, of.optimizer, of.batch_size, of.slice_size, of.total_bytes) for of in found]


def test_whole_batches_come_first_then_the_largest_slices_then_smaller_batches():
    assert steps(1200) == [
        ("standard", "adam", 100, 100, 1200),
        ("edge", "adam", 100, 100, 550),
        ("edge", "bop", 100, 100, 510),
    ]
    assert steps(549) == [
        ("edge", "bop", 100, 100, 510),
        ("edge", "adam", 100, 50, 500),
        ("standard", "adam", 100, 25, 450),
    ]
    assert steps(199) == [
        ("edge", "bop", 100, 25, 135),
        ("edge", "adam", 25, 25, 175),
        ("standard", "adam", 7, 7, 177),
    ]
    assert steps(20) == [("edge", "bop", 100, 2, 20)]
    assert steps(19) == []
