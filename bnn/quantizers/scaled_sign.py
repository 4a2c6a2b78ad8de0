"""Sign with XNOR-Net's analytic scale."""

from typing import Literal, get_args

from torch import Tensor

from bnn.quantizers.sign import Sign

ScaleScope = Literal["filter", "layer"]


class ScaledSign(Sign):
    """`Sign` whose product is multiplied by alpha = mean|w| of each output channel.

    alpha minimises the squared error of alpha * sign(w) against w. Its own gradient flows to the latent weights.
    Source: Rastegari et al. 2016 (XNOR-Net), arXiv 1603.05279, eq. 6. For weights only: an input has no channel
    of outputs.

    Args:
        window: see `Sign`.
        scope: whether the mean is that of each filter or, as in DoReFa-Net (arXiv 1606.06160), of the whole layer.
        constant: whether the mean is a constant to the gradient, as in Bi-Real Net (arXiv 1808.00278).
        clip: |w| beyond it counts as much; None for no bound.
    """

    def __init__(
        self,
        *,
        window: float = 1.0,
        scope: ScaleScope = "filter",
        constant: bool = False,
        clip: float | None = None,
    ) -> None:
        super().__init__(window=window)
        if scope not in get_args(ScaleScope):
            raise ValueError(f"the scope of a scale is one of {', '.join(get_args(ScaleScope))}, got {scope!r}")
        if clip is not None and not clip > 0:
            raise ValueError(f"the clip of a scale is above 0, got {clip}")
        self.scope = scope
        self.constant = constant
        self.clip = clip

    def scale(self, weight: Tensor) -> Tensor:
        """mean|w| of each output channel, [out]."""
        magnitude = (weight.detach() if self.constant else weight).abs()
        if self.clip is not None:
            magnitude = magnitude.clamp(max=self.clip)
        means = magnitude.flatten(1).mean(dim=1)
        return means if self.scope == "filter" else means.mean().expand(len(means))

    def extra_repr(self) -> str:  # noqa: D102
        return f"{super().extra_repr()}, scope={self.scope}, constant={self.constant}, clip={self.clip}"
