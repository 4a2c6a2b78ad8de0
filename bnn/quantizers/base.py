"""`Quantizer`: what every quantizer provides."""

from typing import NamedTuple

from torch import Tensor, nn


class SlopeSteps(NamedTuple):
    """The factor of a sign's gradient as a function of |x| with few steps, so that a few bits stand for x in backward.

    Attributes:
        edges: one or three values of |x|, ascending, above 0.
        slopes: the factor up to the first edge, up to each one that follows, and beyond the last.
    """

    edges: tuple[float, ...]
    slopes: tuple[float, ...]


class Quantizer(nn.Module):
    """Maps a real tensor to a few levels and defines the gradient that passes through the step.

    The same type serves the inputs of a layer and its weights. A quantizer has no shape of its own, so one instance
    can be given to many layers as a pattern: a layer or store copies it.

    Attributes:
        levels: the values that `forward` can return, ascending.
        storage_bits: bits that one element takes when it is stored.
    """

    levels: tuple[float, ...]
    storage_bits: int

    def forward(self, x: Tensor) -> Tensor:
        """The quantized `x`, of the same shape; a `BitTensor` where the levels are -1 and +1."""
        raise NotImplementedError

    @property
    def is_sign(self) -> bool:
        """Whether `forward(x)` is just the signs of `x`, which a caller may then compute by itself."""
        return False

    @property
    def slope_steps(self) -> SlopeSteps | None:
        """Steps that stand for the gradient where blocks keep bits; None where there are none."""
        return None

    @property
    def centers(self) -> bool:
        """Whether `forward(x)` is just the signs of `x` about the mean of each filter, x[i]."""
        return False

    @property
    def serves_accumulators(self) -> bool:
        """Whether accumulators that are read as their signs can stand for latent weights behind this quantizer."""
        return self.levels == (-1.0, 1.0) and (self.is_sign or self.centers) and not self.scales

    @property
    def projects(self) -> bool:
        """Whether `reach` bounds the weights."""
        return False

    @property
    def scales(self) -> bool:
        """Whether `scale` gives a factor."""
        return type(self).scale is not Quantizer.scale

    def scale(self, weight: Tensor) -> Tensor | None:
        """Factor of each output channel, [out], by which a layer multiplies its product; None for none.

        Args:
            weight: latent weight, [out, ...]. The factor may carry a gradient to it.
        """
        return None

    def clamped(self, weight: Tensor) -> Tensor:
        """The latent weight just before it is quantized, of the same shape; by default unchanged."""
        return weight

    def is_clipped(self, weight: Tensor) -> Tensor | None:
        """Truth values of the weight's shape: which latent weights `clamped` bounds; None where there is no bound."""
        return None

    def project_(self, weight: Tensor) -> None:
        """Projects latent weights, in place, as the method requires. Called after every update."""

    def reach(self, variance: Tensor, magnitude: Tensor) -> Tensor:
        """How far from 0, or from the mean where it `centers` filters, weights may lie after `project_`.

        It is asked where the quantizer `projects`, for stores that project a few filters at a time.

        Args:
            variance: of each filter's weights, [out].
            magnitude: of each filter's weights, the mean distance from 0 or from the mean, [out].

        Returns:
            Of each filter, [out].
        """
        raise NotImplementedError
