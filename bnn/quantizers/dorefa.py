"""Equally spaced levels between 0 and 1."""

from typing import Any

import torch
from torch import Tensor

from bnn.bits import BitTensor
from bnn.errors import NonFiniteError
from bnn.quantizers.base import Quantizer


class DoReFa(Quantizer):
    """q(x) = round(n x) / n of x clamped to [0, 1], with n = 2^bits - 1; the gradient passes where 0 <= x <= 1.

    Halves are rounded to the even level. For inputs. Source: Zhou et al. 2016 (DoReFa-Net), arXiv 1606.06160, eq. 5
    and sec. 2.5. Backward keeps one bit an element: whether it lies between 0 and 1.

    Args:
        bits: of a level, 1 to 8.
    """

    def __init__(self, *, bits: int = 2) -> None:
        super().__init__()
        if not 1 <= bits <= 8:
            raise ValueError(f"DoReFa takes 1 to 8 bits, got {bits}")
        self.bits = bits
        self.storage_bits = bits
        # As float32 has them.
        steps = torch.arange(2**bits, dtype=torch.float32, device="cpu")
        self.levels = tuple((steps / (2**bits - 1)).tolist())

    def forward(self, x: Tensor) -> Tensor:
        """Levels of a floating tensor, in its own dtype."""
        if not x.is_meta and x.isnan().any():
            raise NonFiniteError("cannot take a level of NaN: the tensor to quantize has NaN values")
        return _Levels.apply(x, 2**self.bits - 1)  # type: ignore[no-any-return, no-untyped-call]

    def extra_repr(self) -> str:  # noqa: D102
        return f"bits={self.bits}"


class _Levels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, steps: int) -> Tensor:
        ctx.save_for_backward(BitTensor.from_dense((x >= 0) & (x <= 1)))
        return x.clamp(0, 1).mul_(steps).round_().div_(steps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside.dense(torch.bool), None
