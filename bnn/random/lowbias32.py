"""32 random bits for each element of a tensor, a pure function of a seed and of the element's index.

The hash is "lowbias32" of C. Wellons, a bijection of 32-bit words; bnn/native/random.h is the same.
"""

from typing import cast

import torch
from torch import Tensor

_MASK = 2**32 - 1


def hash_key(seed: int) -> int:
    """The 32-bit key, made of the lowest 64 bits of `seed`, of the hash of every element's index."""
    return cast(int, _mix(seed & _MASK ^ cast(int, _mix(seed >> 32 & _MASK))))


def random_bits(seed: int, count: int, device: torch.device) -> Tensor:
    """int64 [count] of 32 random bits; they repeat after 2**32 elements."""
    return random_bits_at(torch.arange(count, device=device), seed)


def random_bits_at(index: Tensor, seed: int) -> Tensor:
    """The elements of `random_bits` at int64 indices."""
    return cast(Tensor, _mix(index * 0x9E3779B9 & _MASK ^ hash_key(seed)))


def _mix(word: int | Tensor) -> int | Tensor:
    # Of 32 bits, held in more.
    word = (word ^ word >> 16) * 0x7FEB352D & _MASK
    word = (word ^ word >> 15) * 0x846CA68B & _MASK
    return word ^ word >> 16
