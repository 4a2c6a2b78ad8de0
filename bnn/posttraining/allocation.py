"""Which width each part of a network gets under a cap, by integer programming.

Source: Hubara et al. 2020, arXiv 2006.10518, sec. 4: min sum loss[l, b] z[l, b], one b for each l, sum of sizes at
most the cap. The solver is HiGHS, through scipy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bnn.errors import RunError


class Choice(NamedTuple):
    """What a width does to a part."""

    size_bytes: int
    loss: float
    """What it costs the network, at least 0; it is taken to add up over the parts."""


def allocate(parts: Sequence[Sequence[Choice]], cap_bytes: int) -> list[int] | None:
    """The choice of each part for which the losses together are least and the sizes fit.

    Args:
        parts: of each the choices, at least one.
        cap_bytes: what the sizes may be together.

    Returns:
        Places in the choices; None where even the smallest do not fit.

    Raises:
        RunError: scipy is missing.
    """
    try:
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array
    except ModuleNotFoundError as error:
        raise RunError(f"widths cannot be chosen ({error}): pip install 'bnn-edge[data]'") from None
    if sum(min(choice.size_bytes for choice in choices) for choices in parts) > cap_bytes:
        return None
    flat = [choice for choices in parts for choice in choices]
    if not flat:
        return []
    losses = np.array([choice.loss for choice in flat])
    owner = np.repeat(np.arange(len(parts)), [len(choices) for choices in parts])
    one_each = csr_array((np.ones(len(flat)), (owner, np.arange(len(flat)))))
    found = milp(
        losses / (losses.max() or 1.0),
        integrality=np.ones(len(flat)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(np.array([[choice.size_bytes for choice in flat]]), -np.inf, cap_bytes),
        ],
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        return None
    taken = np.flatnonzero(found.x > 0.5)
    firsts = np.cumsum([0, *(len(choices) for choices in parts)])[:-1]
    return [int(place - first) for place, first in zip(taken, firsts, strict=True)]
