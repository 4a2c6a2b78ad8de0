"""Whether gradients and states of an optimizer are finite."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from bnn.bits import BitTensor
from bnn.errors import NonFiniteError
from bnn.ops.layout import in_memory_order
from bnn.optim.rows import rows_of

_ROWS_LOOKED_AT = 4
_LARGEST = 2.0**63.5  # whose square float32 holds


def check_finite(numbered: Iterable[tuple[int, Tensor]]) -> None:
    """Refuses gradients that are not finite; each with the number of its parameter."""
    dense = [(index, gradient) for index, gradient in numbered if not isinstance(gradient, BitTensor)]
    if all_finite(gradient for _, gradient in dense):
        return
    raise non_finite_gradient(*next((index, gradient) for index, gradient in dense if not all_finite([gradient])))


def non_finite_gradient(index: int, gradient: Tensor) -> NonFiniteError:
    """The error of a gradient, with the number of its parameter."""
    return NonFiniteError(
        f"the gradient of the optimizer's parameter {index}, of shape {list(gradient.shape)}, is not finite:"
        " skip this step or lower the learning rate"
    )


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every element of some tensors is finite, and so small that a sum of their squares is.

    A larger one, above 1.8e19, would leave a mean square infinite for good. Whole numbers always are.
    """
    filled = [x for x in tensors if x.numel() and x.is_floating_point()]
    narrow = [in_memory_order(x)[1] for x in filled if x.dtype is torch.bfloat16]  # a norm would copy them
    # One pass, and no tensor of truth values.
    others = [x for x in filled if x.dtype is not torch.bfloat16]
    norms = list(torch._foreach_norm(others, dtype=torch.float32)) if others else []
    small = all(-_LARGEST < float(end) < _LARGEST for x in narrow for end in torch.aminmax(x))
    return small and (not norms or bool(torch.isfinite(torch.stack(norms)).all()))


def few_rows(x: Tensor) -> Tensor:
    """Some rows of a parameter, or all of a vector."""
    rows = rows_of(x)
    return rows[:: max(1, len(rows) // _ROWS_LOOKED_AT)]


def is_finite(x: Tensor) -> bool:
    """Whether every element of a floating tensor is finite; in one pass, without a tensor of truth values."""
    return not x.numel() or all(math.isfinite(end) for end in torch.aminmax(x))
