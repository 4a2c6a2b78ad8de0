"""Random integers that are a pure function of a counter, so that they depend on no state, batch, device or order."""

import torch
from torch import Tensor

# SplitMix64: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014; the constants of
# its finaliser are David Stafford's variant 13. torch multiplies and adds int64 modulo 2**64; the unsigned constants
# are written as the signed integers of the same bits.
_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9 - 2**64
_MULTIPLIER_2 = 0x94D049BB133111EB - 2**64
_WORD = 2**64 - 1


def random_integers(counters: Tensor, *key: int) -> Tensor:
    """Hashes each counter together with a key.

    Args:
        counters: int64 [n].
        *key: integers in 0..2**63-1, such as a seed and an epoch.

    Returns:
        int64 [n], uniform in 0..2**63-1.
    """
    state = torch.zeros_like(counters)
    for part in key:
        state = _splitmix64(state + part)
    return _splitmix64(state + counters) & (2**63 - 1)


def random_integer(counter: int, *key: int) -> int:
    """The element of `random_integers` for one counter."""
    state = 0
    for part in (*key, counter):
        state = _splitmix64_of_integer(state + part)
    return state & (2**63 - 1)


def shuffled(n: int, *key: int, device: torch.device | str = "cpu") -> Tensor:
    """A permutation of 0..n-1 that depends on `n` and the key alone: int64 [n]."""
    return random_integers(torch.arange(n, device=device), *key).argsort(stable=True)


def _splitmix64(state: Tensor) -> Tensor:
    z = state + _GAMMA
    z = (z ^ _logical_shift(z, 30)) * _MULTIPLIER_1
    z = (z ^ _logical_shift(z, 27)) * _MULTIPLIER_2
    return z ^ _logical_shift(z, 31)


def _splitmix64_of_integer(state: int) -> int:
    z = state + _GAMMA & _WORD
    z = (z ^ z >> 30) * _MULTIPLIER_1 & _WORD
    z = (z ^ z >> 27) * _MULTIPLIER_2 & _WORD
    return z ^ z >> 31


def _logical_shift(z: Tensor, bits: int) -> Tensor:
    return (z >> bits) & ((1 << (64 - bits)) - 1)
