"""The store of a weight that is trained real, then made ternary, and trained on with its zeros fixed."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bnn.errors import NonFiniteError
from bnn.weights.base import WeightStore

_REAL_BITS, _TERNARY_BITS = 32, 2


class SparseStore(WeightStore):
    """A real weight, until `ternarize_`; from then on -a, 0 and a, with one magnitude a for the layer.

    While it is real, it is read as it is. When it is ternary, a is the mean |w| of the weights that are kept; a kept
    weight is read as a sign(w), every other one as 0. The real weight gets the gradient of what is read, whether it is
    kept or not: a weight that is read as 0 learns as well, and may be kept at the next choice. Where all are kept, the
    weight is binary. State dicts tell which of the two it is.

    Args:
        shape: [out, in] of a linear layer or [out, in / groups, kh, kw] of a convolution.

    Attributes:
        weight: the real weight, float32.
        kept: bool, of the weight's shape: which weights may differ from 0.
        is_ternary: whether `ternarize_` has been called.
    """

    training_bits = _REAL_BITS + 8
    kept: Tensor
    _is_ternary: Tensor

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        memory_format = torch.channels_last if len(self.shape) == 4 else torch.contiguous_format
        self.weight = nn.Parameter(torch.empty(self.shape, memory_format=memory_format))
        self.register_buffer("kept", torch.ones_like(self.weight, dtype=torch.bool))
        # In the state dict; `is_ternary` is what is asked at each step.
        self.register_buffer("_is_ternary", torch.tensor(False))
        self._set_ternary(False)
        self.initialize()

    def ternarize_(self, kept: Tensor) -> None:
        """Makes the weight ternary, for good; or chooses anew what is kept.

        Args:
            kept: bool, of the weight's shape.
        """
        self.kept.copy_(kept)
        self._is_ternary.fill_(True)
        self._set_ternary(True)

    def read(self) -> Tensor:
        """The weight, or its levels -a, 0 and a, float32.

        Raises:
            NonFiniteError: a weight that is to have a sign is NaN.
        """
        if not self.is_ternary:
            return self.weight
        return _KeptSign.apply(self.weight, self.kept)  # type: ignore[no-any-return, no-untyped-call]

    @property
    def levels(self) -> tuple[float, ...]:  # type: ignore[override]
        """Empty while the weight is real; then -a, 0 and a."""
        if not self.is_ternary:
            return ()
        magnitude = float(_magnitude(self.weight.detach(), self.kept))
        return -magnitude, 0.0, magnitude

    @property
    def is_binary(self) -> bool:
        """False: a layer of which all weights are kept has a magnitude all the same."""
        return False

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Draws from a normal distribution of standard deviation 1 / sqrt(fan-in)."""
        nn.init.normal_(self.weight, std=1 / math.sqrt(math.prod(self.shape[1:])), generator=generator)

    def _set_ternary(self, is_ternary: bool) -> None:
        self.is_ternary = is_ternary
        self.storage_bits = _TERNARY_BITS if is_ternary else _REAL_BITS

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._set_ternary(bool(self._is_ternary))


def _magnitude(weight: Tensor, kept: Tensor) -> Tensor:
    """The mean |w| of the weights that are kept."""
    return (weight.abs() * kept).sum() / kept.sum().clamp_min(1)


class _KeptSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, kept: Tensor) -> Tensor:
        if not weight.is_meta and weight.isnan().any():
            raise NonFiniteError("cannot take the sign of NaN: a weight has become NaN")
        magnitude = _magnitude(weight, kept)
        return torch.where(weight >= 0, magnitude, -magnitude) * kept

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0], None
