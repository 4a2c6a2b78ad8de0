"""Whether the values of a training state, or of a model, are finite."""

from collections.abc import Collection, Mapping

from torch import Tensor

from bnn.optim.finite import is_finite


def first_not_finite(tensors: Mapping[str, Tensor], *, but: Collection[str] = ()) -> str | None:
    """The name of the first floating tensor that has a NaN or an infinite value; None where there is none.

    Args:
        tensors: of any dtypes.
        but: names of tensors that are not looked at.
    """
    for name, x in tensors.items():
        if name not in but and x.is_floating_point() and not is_finite(x):
            return name
    return None
