"""The synapse: two junctions, of which the difference in conductance is a ternary weight.

    weight   first   second   code
      0_s      P        P       0
      -1       AP       P       1
      +1       P        AP      2
      0_w      AP       AP      3

A change upwards drives the first junction to parallel and the second to antiparallel, one downwards the other way
round. A junction that is there already stays. So the state has a weight of 0 in two forms, which need different
junctions to move, and whoever does not know the state has to pulse both. From an end that may take the weight through
both steps at once, which discrete state transitions forbid: with one probability p for both junctions -1 becomes 0
with 2p(1 - p), and +1 with p².
"""

from collections.abc import Callable

import torch
from torch import Tensor

STATES = ("0_s", "-1", "+1", "0_w")
"""Names by code: 1 if the first junction is antiparallel, and 2 more if the second is."""
WEIGHTS = (0, -1, 1, 0)
"""Weights by code."""

# The probability with which a pulse switches a junction: of (requested probability, antiparallel before).
SwitchProbability = Callable[[Tensor, Tensor], Tensor]


def junctions_of(codes: Tensor) -> Tensor:
    """Which junctions are antiparallel in cells of given codes: bool [2, ...]."""
    return torch.stack([(codes & 1) != 0, (codes & 2) != 0])


def source_states(steps: Tensor) -> Tensor:
    """The state that a change of the weights switches each junction from, true for antiparallel: bool [2, ...].

    Args:
        steps: float [...], the change that is wanted; where it is 0 there is no pulse.
    """
    up = steps > 0
    return torch.stack([up, ~up])


def requested_probabilities(antiparallel: Tensor, steps: Tensor, *, read_first: bool) -> Tensor:
    """The probability of switching that is requested of each junction's pulse.

    Of |steps| = k + p, with k whole and 0 <= p < 1, k steps are to be certain, which takes a full pulse each, and one
    more is to have the probability p. Without knowledge of the state p is requested of both junctions; a certain step
    is the first junction's, two are both's. That is too much at an end of the weight, and from 0 a certain step may
    be requested of the wrong junction.

    Where the state is read first, a junction is pulsed only if it is in the state that the pulse switches from, and of
    two such the one that goes to antiparallel comes first: only what goes beyond the first step is requested of the
    other one. Then every step is the ideal one, and the state 0_s, whose two large currents cancel, does not arise.

    Args:
        antiparallel: bool [2, ...].
        steps: float [...], the change of the weights that is wanted, of any size.
        read_first: whether the state is known.

    Returns:
        float [2, ...] in 0..1: 0 requests no pulse and 1 a full one.
    """
    size = steps.abs()
    if not read_first:
        whole = size.trunc()
        part = size - whole
        return torch.stack([torch.maximum(part, (whole - before).clamp(0, 1)) for before in (0, 1)])
    switchable = antiparallel == source_states(steps)
    later = switchable[0] & switchable[1] & antiparallel
    # Products and differences: torch.where takes longer than all the rest.
    return (size - _number(later, steps)).clamp_(0, 1).mul_(_number(switchable, steps))


def _number(truth: Tensor, like: Tensor) -> Tensor:
    return truth.int().to(like.dtype)


def transition_matrix(steps: float, *, read_first: bool, switch_probability: SwitchProbability | None = None) -> Tensor:
    """Probabilities of going from each state of the cell to each other one by one write.

    Args:
        steps: the change of the weight that is wanted.
        read_first: whether the state is known, see `requested_probabilities`.
        switch_probability: the probability with which a pulse switches a junction, of (requested probability, whether
            it is antiparallel before); by default the one that is requested.

    Returns:
        float64 [4, 4]: rows are the states before and columns those after, by code. Every row sums to 1.
    """
    before = junctions_of(torch.arange(4))
    change = torch.full((4,), steps, dtype=torch.float64)
    p = requested_probabilities(before, change, read_first=read_first)
    if switch_probability is not None:
        p = switch_probability(p, before)
    p = p * (before == source_states(change))
    # [2, from, to]: whether the junction has to switch for it.
    switches = before[:, :, None] != before[:, None, :]
    return torch.where(switches, p[:, :, None], 1 - p[:, :, None]).prod(dim=0)
