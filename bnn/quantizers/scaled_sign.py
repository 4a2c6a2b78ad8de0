"""Sign with XNOR-Net's analytic scale."""

from torch import Tensor

from bnn.quantizers.sign import Sign


class ScaledSign(Sign):
    """`Sign` whose product is multiplied by alpha = mean|w| of each output channel.

    alpha minimises the squared error of alpha * sign(w) against w. Its own gradient flows to the latent weights.
    Source: Rastegari et al. 2016 (XNOR-Net), arXiv 1603.05279, eq. 6. For weights only: an input has no channel
    of outputs.
    """

    def scale(self, weight: Tensor) -> Tensor:
        """mean|w| of each output channel, [out]."""
        return weight.abs().flatten(1).mean(dim=1)
