"""Every stream of random numbers: which key each purpose has.

A number is the hash of a key and a counter (`bnn.random.hashing`), so that streams of different keys are independent,
and nothing has to be kept between two numbers but the counter.

purpose                                          key                   counter
examples that are held out                       seed                  position in the split
order of an epoch                                0, seed, epoch        position in the split
augmentation k, from 0                           1 + k, seed, epoch    position in the split
roundings of a parameter's step                  seed, index           step
transitions of a discrete weight's step          seed, index, 1        step
draws of a slice, where ranks share a batch      step's, generator, 2  slice
coins of divided ranks                           step's, 0, 4          use in the step

A step seeds a generator, or an operation that is random by a hash, with its number; so it does no harm that keys of
steps can be those of examples, such as (0, 0, 1). Whoever changes a key changes the results of every training.

Initial weights and the roundings of gradients are drawn from torch's generators, which are given to whatever needs
them; such an operation takes its seed from one by `draw_seed`.
"""

import torch
from torch import Tensor

from bnn.random.hashing import random_integer, random_integers, shuffled

_ORDER = 0
_FIRST_AUGMENTATION = 1
_TRANSITIONS = 1
_SLICES = 2
_COINS = 4


def hold_out_order(n: int, *, seed: int) -> Tensor:
    """A random order of the positions of `n` examples, of which the first are held out: int64 [n]."""
    return shuffled(n, seed)


def epoch_order(n: int, *, seed: int, epoch: int, device: torch.device | str = "cpu") -> Tensor:
    """The positions of `n` examples in the order of an epoch: int64 [n]."""
    return shuffled(n, _ORDER, seed, epoch, device=device)


def augmentation_numbers(positions: Tensor, *, number: int, seed: int, epoch: int) -> Tensor:
    """The random numbers of an augmentation for some examples.

    Args:
        positions: int64 [B], of the examples in their split.
        number: of the augmentation among those of a training, from 0.
        seed: of the training.
        epoch: from 0.

    Returns:
        int64 [B], uniform in 0..2**63-1.
    """
    return random_integers(positions, _FIRST_AUGMENTATION + number, seed, epoch)


def rounding_seed(*, seed: int, index: int, step: int) -> int:
    """The seed, in 0..2**63-1, of the roundings in one step of one parameter.

    Args:
        seed: of the parameter's group.
        index: of the parameter among all of its optimizer, from 0.
        step: counts the steps of this parameter, from 1.
    """
    return random_integer(step, seed, index)


def transition_seed(*, seed: int, index: int, step: int) -> int:
    """The seed of the transitions in one step of one discrete weight; as `rounding_seed`."""
    return random_integer(step, seed, index, _TRANSITIONS)


def slice_seed(*, seed: int, generator: int, number: int) -> int:
    """The seed of a generator for a slice of a batch, whichever rank takes it.

    Args:
        seed: of the step.
        generator: which of the step's generators, from 0.
        number: of the slice in the batch, from 0.
    """
    return random_integer(number, seed, generator, _SLICES)


def coin_seed(*, seed: int, draw: int) -> int:
    """The seed of the coins where ranks are divided, by that of the step and the number of the draw in it."""
    return random_integer(draw, seed, 0, _COINS)


def generator_like(x: Tensor, seed: int) -> torch.Generator:
    """A generator of a seed on the device of `x`; for tensors without values that of the CPU."""
    return torch.Generator("cpu" if x.is_meta else x.device).manual_seed(seed)


def draw_seed(generator: torch.Generator) -> int:
    """A seed in 0..2**62-1 for an operation that is random by a hash."""
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))
