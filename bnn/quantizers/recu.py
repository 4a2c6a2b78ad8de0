"""ReCU: the rectified clamp unit for the latent weights of a binary layer."""

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from bnn.bits import BitTensor
from bnn.quantizers.base import Quantizer

Tail = Literal["zero", "pass", "project"]
Quantile = Literal["laplace", "empirical"]
Scope = Literal["layer", "filter"]
Scale = Literal["none", "mean"]

# Standard deviation that standardised filters get: a Laplace distribution then has b = mean|w| = 2.
_STANDARD_DEVIATION = 2 * math.sqrt(2)
_EPSILON = 1e-5


class ReCU(Quantizer):
    """Standardises each filter, clamps it to its tau-quantile and takes the sign; the sign passes its gradient.

    Source: Xu et al. 2021 (ReCU), arXiv 2103.12369, eq. 5, and its public code for the standardisation. The options
    are readings of the method that the paper and the code do not share.

    Args:
        tau: quantile that bounds the weights, in (0.5, 1]; 1 does not clamp. Training raises it with a schedule.
        tail: what becomes of weights beyond the bound; one on the bound is within. `zero`: they get no gradient (the
            public code; with it the clamp changes neither the forward pass nor the tail's own gradient). `pass`: the
            clamp passes the gradient unchanged. `project`: as `pass`, and after each step the latent weights themselves
            are moved to the bound.
        quantile: `laplace` is the paper's estimate -mean|w| ln(2 - 2 tau); `empirical` is the true quantile.
        scope: whether the bound is one of the whole layer (the public code) or one of each filter.
        scale: `mean` multiplies a layer's product by the mean of |clamped weight| of each filter (the paper's
            analytic factor); `none` leaves that to a learned scale or a batch norm.
        standardize: whether filters are brought to mean 0 and standard deviation 2 sqrt(2) first.
    """

    levels = (-1.0, 1.0)
    storage_bits = 1

    def __init__(
        self,
        *,
        tau: float = 0.85,
        tail: Tail = "zero",
        quantile: Quantile = "laplace",
        scope: Scope = "layer",
        scale: Scale = "none",
        standardize: bool = True,
    ) -> None:
        super().__init__()
        for name, value, choices in (
            ("tail", tail, Tail),
            ("quantile", quantile, Quantile),
            ("scope", scope, Scope),
            ("scale", scale, Scale),
        ):
            if value not in get_args(choices):
                raise ValueError(f"ReCU {name} is one of {', '.join(get_args(choices))}, got {value!r}")
        self.tau = tau
        self.tail = tail
        self.quantile = quantile
        self.scope = scope
        self.scale_by = scale
        self.standardize = standardize

    @property
    def tau(self) -> float:
        """The quantile in force; a schedule may change it between steps."""
        return self._tau

    @tau.setter
    def tau(self, value: float) -> None:
        if not 0.5 < value <= 1:
            raise ValueError(f"ReCU tau lies in (0.5, 1], got {value}")
        self._tau = value

    @property
    def is_sign(self) -> bool:
        """Where filters are not standardised, but of a subclass with another `forward`."""
        return not self.standardize and type(self).forward is ReCU.forward

    @property
    def centers(self) -> bool:
        """Where filters are standardised, but of a subclass with another `forward`."""
        return self.standardize and type(self).forward is ReCU.forward

    @property
    def serves_accumulators(self) -> bool:
        """Not with a projection to empirical quantiles, which need all weights at once."""
        return super().serves_accumulators and (self.tail != "project" or self.quantile == "laplace")

    @property
    def projects(self) -> bool:
        """Where `tail` is `project` and there is a bound."""
        return self.tail == "project" and self.tau < 1

    @property
    def scales(self) -> bool:
        """Whether there is a factor: where `scale` is not none."""
        return self.scale_by != "none"

    def forward(self, x: Tensor) -> Tensor:
        """Signs of the clamped weight, as a `BitTensor`. `x` is [out, ...] with at least one element a filter."""
        return _IdentitySign.apply(self.clamped(x))  # type: ignore[no-any-return, no-untyped-call]

    def clamped(self, weight: Tensor) -> Tensor:
        """The standardised weight between its bounds, [out, ...]: what the paper calls ReCU(w)."""
        standard = self._standardized(weight)
        bound = self.bound(standard)
        if self.tail == "zero":
            # Not torch.clamp, whose gradient on the bound differs between releases of torch.
            return torch.where(standard.abs() > bound, bound.copysign(standard.detach()), standard)
        return _PassingClamp.apply(standard, bound)  # type: ignore[no-any-return, no-untyped-call]

    def is_clipped(self, weight: Tensor) -> Tensor:
        """Truth values, [out, ...]: which weights lie beyond the bound."""
        standard = self._standardized(weight)
        return standard.abs() > self.bound(standard)

    def bound(self, standard: Tensor) -> Tensor:
        """Q_tau of a weight that has been standardised: a scalar tensor or, per filter, [out, 1, ...].

        Without gradient.
        """
        magnitude = standard.detach().abs()
        magnitude = magnitude.flatten() if self.scope == "layer" else magnitude.flatten(1)
        if self.quantile == "laplace":
            mean = magnitude.mean(dim=-1)
            bound = -mean * math.log(2 - 2 * self.tau) if self.tau < 1 else torch.full_like(mean, math.inf)
        else:
            # For a symmetric distribution the tau-quantile of w is the (2 tau - 1)-quantile of |w|.
            bound = torch.quantile(magnitude, 2 * self.tau - 1, dim=-1)
        return bound if self.scope == "layer" else bound.view(-1, *(1 for _ in standard.shape[1:]))

    def scale(self, weight: Tensor) -> Tensor | None:
        """mean|ReCU(w)| of each filter, [out], or None."""
        return self.clamped(weight).abs().flatten(1).mean(dim=1) if self.scale_by == "mean" else None

    def project_(self, weight: Tensor) -> None:
        """Moves latent weights beyond the bound to it, in place, where `tail` is `project`."""
        if self.tail != "project":
            return
        with torch.no_grad():
            mean, deviation = self._moments(weight)
            standard = self._standardized(weight)
            bound = self.bound(standard)
            moved = standard.clamp(-bound, bound) * deviation / _STANDARD_DEVIATION + mean
            weight.copy_(torch.where(standard.abs() > bound, moved, weight))

    def reach(self, variance: Tensor, magnitude: Tensor) -> Tensor:
        """The Laplace bound in units of the latent weight."""
        unit = (variance + _EPSILON).sqrt() if self.standardize else torch.ones_like(variance)
        relative = magnitude / unit
        if self.scope == "layer":
            relative = relative.mean()
        return -relative * math.log(2 - 2 * self.tau) * unit

    def _standardized(self, weight: Tensor) -> Tensor:
        if not self.standardize:
            return weight
        mean, deviation = self._moments(weight)
        return (weight - mean) / deviation * _STANDARD_DEVIATION

    def _moments(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        if not self.standardize:
            return weight.new_zeros(()), weight.new_tensor(_STANDARD_DEVIATION)
        dims = list(range(1, weight.dim()))
        variance, mean = torch.var_mean(weight, dims, correction=0, keepdim=True)
        return mean, (variance + _EPSILON).sqrt()

    def extra_repr(self) -> str:  # noqa: D102
        return (
            f"tau={self.tau:.4g}, tail={self.tail}, quantile={self.quantile}, scope={self.scope},"
            f" scale={self.scale_by}, standardize={self.standardize}"
        )


class _IdentitySign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return BitTensor.from_dense(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0]


class _PassingClamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: Tensor) -> Tensor:
        return x.clamp(-bound, bound)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0], None
