import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.random.hashing import random_integer, random_integers, shuffled


def splitmix64(state: int) -> int:
    """SplitMix64 in unbounded integers."""
    mask = 2**64 - 1
    z = (state + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_published_first_output_of_splitmix64() -> None:
    # The first number of the generator with seed 0.
    assert splitmix64(0) == 0xE220A8397B1DCDAF
    assert random_integers(torch.tensor([0])).item() == 0xE220A8397B1DCDAF & (2**63 - 1)


@given(counter=st.integers(0, 2**63 - 1), key=st.lists(st.integers(0, 2**63 - 1), max_size=3))
def test_equals_integer_arithmetic(counter: int, key: list[int]) -> None:
    state = 0
    for part in (*key, counter):
        state = splitmix64((state + part) & (2**64 - 1))
    assert random_integers(torch.tensor([counter]), *key).item() == state & (2**63 - 1)
    assert random_integer(counter, *key) == state & (2**63 - 1)


@pytest.mark.parametrize("modulus", [2, 9])
def test_is_uniform(modulus: int) -> None:
    n = 90_000
    values = random_integers(torch.arange(n), 1, 2)
    for draws in (values % modulus, (values >> 32) % modulus):
        counts = torch.bincount(draws, minlength=modulus).double()
        chi_squared = ((counts - n / modulus).square() / (n / modulus)).sum().item()
        assert chi_squared < 30  # 8 degrees of freedom: p = 0.0002


def test_neighbouring_keys_are_independent() -> None:
    bits = [random_integers(torch.arange(10_000), seed, epoch) % 2 for seed in (0, 1) for epoch in (0, 1)]
    for i in range(4):
        for j in range(i):
            assert abs((bits[i] == bits[j]).double().mean().item() - 0.5) < 0.025


@given(n=st.integers(0, 200), seed=st.integers(0, 2**63 - 1))
def test_shuffled_is_a_permutation(n: int, seed: int) -> None:
    assert shuffled(n, seed).sort().values.tolist() == list(range(n))
    assert torch.equal(shuffled(n, seed), shuffled(n, seed))


def test_shuffled_depends_on_each_part_of_the_key() -> None:
    orders = {tuple(shuffled(100, *key).tolist()) for key in [(0, 0), (0, 1), (1, 0)]}
    assert len(orders) == 3
