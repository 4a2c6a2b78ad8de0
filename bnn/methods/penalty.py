"""`Penalty`: what every penalty provides."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

Scope = Literal["layer", "network"]


class Penalty:
    """A differentiable function of weights; the smaller it is, the cheaper the weights are to store.

    Args:
        scope: `layer` adds up the penalties of the single weights; `network` takes all of them as one vector, so that
            layers compete for what is left.
    """

    def __init__(self, *, scope: Scope = "layer") -> None:
        if scope not in get_args(Scope):
            raise ValueError(f"the scope of a penalty is one of {', '.join(get_args(Scope))}, got {scope!r}")
        self.scope = scope

    def __call__(self, weights: Sequence[Tensor]) -> Tensor:
        """The penalty, a scalar of float32 or wider.

        Args:
            weights: floating, of any shapes; at least one.
        """
        flat = [weight.flatten().to(torch.promote_types(weight.dtype, torch.float32)) for weight in weights]
        if self.scope == "network":
            return self.vector_penalty(torch.cat(flat))
        return torch.stack([self.vector_penalty(vector) for vector in flat]).sum()

    def vector_penalty(self, w: Tensor) -> Tensor:
        """The penalty of one vector, [n]; 0, with gradient 0, where all of `w` is 0."""
        raise NotImplementedError
