"""Batch norm without a factor."""

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class OffsetBatchNorm(_BatchNorm):
    """torch's batch norm of [N, C] or [N, C, H, W] with an offset that is trained, but no factor: in front of a sign a
    positive one changes nothing.

    Args:
        num_features: channels.
        eps: added to the variance.
        momentum: weight of a batch in the running statistics.
    """

    def __init__(self, num_features: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(num_features, eps, momentum)
        self.register_parameter("weight", None)

    def reset_parameters(self) -> None:
        """Starts the running statistics anew, and the offset at 0."""
        self.reset_running_stats()
        nn.init.zeros_(self.bias)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() not in (2, 4):
            raise ValueError(f"the norm takes [N, C] or [N, C, H, W], got a tensor of {tuple(input.shape)}")
