"""The hash of the roundings in kernels against its published form, in integers."""

import pytest
import torch

from bnn.random.lowbias32 import hash_key, random_bits

N = 100_000
CPU = torch.device("cpu")


def lowbias32(x: int) -> int:
    """As published by C. Wellons: shifts by 16, 15 and 16, and two odd factors."""
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    return x ^ x >> 16


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32, 12345678901234567, 2**63 - 1])
def test_equals_integer_arithmetic(seed):
    key = lowbias32(seed % 2**32 ^ lowbias32(seed // 2**32 % 2**32))
    assert hash_key(seed) == key
    expected = [lowbias32(i * 2654435769 % 2**32 ^ key) for i in range(50)]
    assert random_bits(seed, 50, CPU).tolist() == expected


def test_is_a_bijection_of_words_and_uniform():
    bits = random_bits(3, N, CPU)
    assert len(bits.unique()) == N
    assert 0 <= bits.min() < 2**20
    assert 2**32 - 2**20 < bits.max() < 2**32
    for place in range(32):
        assert abs((bits >> place & 1).double().mean() - 0.5) < 4.5 * 0.5 / N**0.5


def test_is_made_on_its_device():
    assert random_bits(3, 5, torch.device("meta")).is_meta
