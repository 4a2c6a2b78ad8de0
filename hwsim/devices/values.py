"""Numbers and tensors as arguments: one value for all junctions, or one for each; checks of them, and batches."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

# A number, or one for each junction.
Real = float | Tensor
# Whether a junction is antiparallel, or which ones are: bool.
State = bool | Tensor

_BATCH = 2**16  # junctions


def require(condition: Tensor, rule: str, values: Tensor) -> None:
    """Raises a ValueError with the rule and the first value that breaks it."""
    if not bool(condition.all()):
        value = values.expand_as(condition)[~condition].flatten()[0].item()
        raise ValueError(f"{rule}, got {value:g}")


def require_positive(name: str, value: Real) -> None:
    """Raises a ValueError unless a quantity, of one junction or of many, is a finite number above 0."""
    tensor = torch.as_tensor(value)
    require((tensor > 0) & tensor.isfinite(), f"{name} is a finite number above 0", tensor)


def as_number(state: State) -> Real:
    """1 where a junction is antiparallel, else 0."""
    return state.to(torch.get_default_dtype()) if isinstance(state, Tensor) else float(state)


def tensors(*values: Real) -> list[Tensor]:
    """Tensors of one floating dtype on one device: those of the tensors with dimensions, else float64 on the CPU."""
    converted = [v if isinstance(v, Tensor) else torch.tensor(v, dtype=torch.float64) for v in values]
    arrays = [tensor for tensor in converted if tensor.dim()] or converted
    dtype = arrays[0].dtype
    for array in arrays[1:]:
        dtype = torch.promote_types(dtype, array.dtype)
    if not dtype.is_floating_point:
        dtype = torch.get_default_dtype()
    return [tensor.to(arrays[0].device, dtype) for tensor in converted]


def batches(whole: Tensor) -> Iterator[slice]:
    """Slices of a flattened tensor, on a CPU so small that the intermediate results stay in its cache."""
    size = _BATCH if whole.device.type == "cpu" else max(whole.numel(), 1)
    return (slice(start, start + size) for start in range(0, max(whole.numel(), 1), size))


def flat(value: Real, shape: torch.Size) -> Any:
    """A value for each junction of an array as a flat tensor; one value for all as it is."""
    return value.expand(shape).reshape(-1) if isinstance(value, Tensor) and value.numel() != 1 else value


def batch_of(value: Real, batch: slice) -> Any:
    """The values of a batch out of what `flat` gave."""
    return value[batch] if isinstance(value, Tensor) and value.numel() != 1 else value
