"""Solves the Fokker-Planck equation of an axially symmetric macrospin, in Legendre polynomials.

With u = cos θ, which starts near 1, and in the reduced units of `SwitchingModel`,

    ∂p/∂τ = -∂/∂u [(1 - u²)(u - i) p] + 1/(2Δ) ∂/∂u [(1 - u²) ∂p/∂u],    p(u, 0) ∝ e^(Δu²) for u > 0.

The density is a vector of coefficients of the normalised polynomials φ_n = √(n + ½) P_n, the equation a matrix that
couples neighbours, and its solution e^(τL) p. Coefficients fall as e^(-n²/4Δ): about a hundred are exact to rounding.
"""

import math

import torch
from torch import Tensor

_FIRST_TAU = 2.0**-9  # before anything switches
_STEPS = 64  # an octave of time; a power of two


def switched(delta: float, overdrive: float, tau: Tensor, *, modes: int = 192) -> Tensor:
    """Probability of u < 0 at given times, to 1e-6 for Δ in 18..90 and overdrives in 0..6.

    Args:
        delta: thermal stability.
        overdrive: current over the critical current.
        tau: reduced times, float64 of any shape.
        modes: number of polynomials.
    """
    parameters = torch.tensor([[delta], [overdrive]], dtype=torch.float64)
    matrix = _matrix(parameters[0], parameters[1], modes)[0]
    start, (below, _) = _start(delta, modes), _halves(modes)
    times = tau.to(torch.float64).flatten()
    return torch.stack([below @ torch.matrix_exp(matrix * time) @ start for time in times]).view(tau.shape)


def log_quantiles(delta: Tensor, overdrive: Tensor, logits: Tensor, *, modes: int = 96) -> Tensor:
    """ln τ at which logit P = ln(P / (1 - P)) reaches given levels.

    What has switched for good is taken out by a sink near u = -1, where a hundred polynomials could not resolve the
    narrow peak that forms. Time doubles with each squaring of the propagator, so slow switching costs little more.

    Args:
        delta: thermal stability, 18 or more: float64 [n].
        overdrive: from where nothing comes back, that is P reaches 1: float64 [n].
        logits: within ±14: float64 [k].
        modes: number of polynomials.

    Returns:
        float64 [n, k], ascending along the second dimension.
    """
    identity = torch.eye(modes, dtype=torch.float64)
    # The rate is 2000 at u = -1 and 5e-7 at the equator.
    sink = 2000 * torch.linalg.matrix_power((identity - _multiply_by_u(modes)) / 2, 32)
    matrices = _matrix(delta, overdrive, modes) - sink
    densities = torch.stack([_start(value, modes) for value in delta.tolist()])[:, :, None]
    _, above = _halves(modes)

    tau = _FIRST_TAU
    propagators = [torch.matrix_exp(matrices * (tau / _STEPS))]  # over τ/64, τ/32, ..., τ
    for _ in range(_STEPS.bit_length() - 1):
        propagators.append(propagators[-1] @ propagators[-1])
    densities = propagators[-1] @ densities
    times: list[Tensor] = []
    left: list[Tensor] = []
    while not left or float(left[-1][:, -1].max()) > math.exp(-float(logits[-1]) - 1):
        octave = densities
        for propagator in propagators[:-1]:
            octave = torch.cat([octave, propagator @ octave], dim=2)
        times.append(tau * (1 + torch.arange(_STEPS, dtype=torch.float64) / _STEPS))
        left.append(above @ octave)
        densities = propagators[-1] @ densities
        propagators = [*propagators[1:], propagators[-1] @ propagators[-1]]
        tau *= 2
    return _crossings(torch.cat(times).log(), torch.cat(left, dim=1), logits)


def _crossings(log_tau: Tensor, left: Tensor, logits: Tensor) -> Tensor:
    """Where logit(1 - left) reaches the levels, between the points of a grid: [t], [n, t], [k] -> [n, k]."""
    # What is left is known to about 1e-15; beyond, rounding would make the curve turn.
    curves = torch.logit(1 - left.clamp(1e-10, 1 - 1e-10)).cummax(dim=1).values
    upper = torch.searchsorted(curves, logits.expand(len(curves), -1).contiguous()).clamp(1, len(log_tau) - 1)
    low, high = curves.gather(1, upper - 1), curves.gather(1, upper)
    return torch.lerp(log_tau[upper - 1], log_tau[upper], (logits - low) / (high - low))


def _multiply_by_u(modes: int) -> Tensor:
    """Matrix of f -> u f: also the Jacobi matrix, whose eigenvalues are the nodes of Gauss-Legendre quadrature."""
    n = torch.arange(1, modes, dtype=torch.float64)
    off_diagonal = n / (4 * n**2 - 1).sqrt()
    return off_diagonal.diag(1) + off_diagonal.diag(-1)


def _matrix(delta: Tensor, overdrive: Tensor, modes: int) -> Tensor:
    """Right-hand side of the equation for each pair of parameters: float64 [n], [n] -> float64 [n, modes, modes]."""
    n = torch.arange(modes, dtype=torch.float64)
    # <φ_m, -∂/∂u (1 - u²) f> = <(1 - u²) φ_m', f>, and (1 - u²) φ_m' is a combination of φ_(m-1) and φ_(m+1).
    m = n[1:]
    coupling = m / (4 * m**2 - 1).sqrt()
    drift = ((m + 1) * coupling).diag(-1) - ((m - 1) * coupling).diag(1)
    diffusion = (n * (n + 1)).diag()
    shifted = _multiply_by_u(modes) - overdrive[:, None, None] * torch.eye(modes, dtype=torch.float64)
    return drift @ shifted - diffusion / (2 * delta[:, None, None])


def _polynomials(u: Tensor, modes: int) -> Tensor:
    """φ_0 ... φ_(modes - 1) at the points u: float64 [k] -> [modes, k]."""
    p = [torch.ones_like(u), u]
    for n in range(1, modes - 1):
        p.append(((2 * n + 1) * u * p[n] - n * p[n - 1]) / (n + 1))
    norms = (torch.arange(modes, dtype=torch.float64) + 0.5).sqrt()
    return torch.stack(p) * norms[:, None]


def _start(delta: float, modes: int) -> Tensor:
    """Coefficients of thermal equilibrium in the well of u > 0: float64 [modes]."""
    nodes: Tensor
    vectors: Tensor
    nodes, vectors = torch.linalg.eigh(_multiply_by_u(256))
    u = (nodes + 1) / 2
    weight = vectors[0] ** 2 * torch.exp(-delta * (1 - u**2))
    return torch.mv(_polynomials(u, modes), weight / weight.sum())


def _halves(modes: int) -> tuple[Tensor, Tensor]:
    """Integral of each polynomial over u < 0, and over u > 0: float64 [modes] each."""
    n = torch.arange(modes, dtype=torch.float64)
    at_zero = _polynomials(torch.zeros(1, dtype=torch.float64), modes + 1)[:, 0]
    p_zero = at_zero / (torch.arange(modes + 1, dtype=torch.float64) + 0.5).sqrt()
    below = torch.ones(modes, dtype=torch.float64)
    below[1:] = (p_zero[2:] - p_zero[:-2]) / (2 * n[1:] + 1)
    below *= (n + 0.5).sqrt()
    whole = torch.zeros(modes, dtype=torch.float64)
    whole[0] = math.sqrt(2)
    return below, whole - below
