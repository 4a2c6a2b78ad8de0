"""Stochastic Landau-Lifshitz-Gilbert simulation of a macrospin: slow, and the judge of every other model.

The easy axis and the polariser lie along z. Times are s = γ μ0Hk t, fields are in units of Hk, and τ = αs/(1 + α²):

    (1 + α²) dm/ds = -m × b - α m × (m × b) - αi m × (m × p),    b = m_z z + h,  p = -z

with a thermal field h, white in the sense of Stratonovich, whose mean square for each component over a step ds is
α/(Δ ds). Source: W. F. Brown, Phys. Rev. 130, 1677 (1963), with the torque of J. C. Slonczewski, J. Magn. Magn. Mater.
159, L1 (1996).
"""

import math

import torch
from torch import Tensor

from hwsim.devices.values import require, require_positive

_MAX_STEPS = 1_000_000


def switched(
    delta: float,
    overdrive: float,
    tau: Tensor,
    *,
    generator: torch.Generator,
    damping: float = 0.02,
    trajectories: int = 10_000,
    step: float = 0.1,
) -> Tensor:
    """Share of simulated junctions with m_z < 0 at given times.

    Args:
        delta: thermal stability, above 0.
        overdrive: current over the critical current.
        tau: reduced times, 0 or more: float of any shape.
        generator: of the start and of the thermal field.
        damping: Gilbert's α.
        trajectories: number of junctions; the standard error of a share P is √(P(1 - P)/trajectories).
        step: ds, at most.

    Returns:
        float64 in the shape of `tau`.

    Raises:
        ValueError: a parameter is not physical, or the time would take more than a million steps.
    """
    for name, value in (
        ("delta", delta), ("damping", damping), ("the number of trajectories", trajectories), ("step", step)
    ):  # fmt: skip
        require_positive(name, value)
    require(torch.as_tensor(overdrive).isfinite(), "the overdrive is a finite number", torch.as_tensor(overdrive))
    require((tau >= 0) & tau.isfinite(), "a time is finite, 0 or more", tau)
    s = tau.to(torch.float64) * (1 + damping**2) / damping
    if not s.any():
        return torch.zeros_like(s)
    steps = math.ceil(float(s.max()) / step)
    if steps > _MAX_STEPS:
        raise ValueError(
            f"a simulation of {steps} steps takes too long: shorten the pulse to a tau of "
            f"{_MAX_STEPS * step * damping / (1 + damping**2):g}, or use the model fokker-planck"
        )
    ds = float(s.max()) / steps
    m = thermal_start(delta, trajectories, generator=generator)
    shares = [0.0]
    for _ in range(steps):
        field = thermal_field(m, ds, delta=delta, damping=damping, generator=generator)
        m = heun_step(m, ds, overdrive=overdrive, damping=damping, thermal_field=field)
        shares.append(float((m[2] < 0).double().mean()))
    position = s / ds
    before = position.long().clamp_max(steps - 1)
    shares_at = torch.tensor(shares, dtype=torch.float64)
    return torch.lerp(shares_at[before], shares_at[before + 1], position - before)


def thermal_start(delta: float, count: int, *, generator: torch.Generator) -> Tensor:
    """Directions in thermal equilibrium within the well of m_z > 0: density e^(Δ m_z²). float64 [3, count]."""
    # By rejection: 1 - m_z is drawn from e^(-Δx), which is never below e^(-Δx(2 - x)).
    accepted = torch.empty(0, dtype=torch.float64)
    while len(accepted) < count:
        x, uniform = torch.rand((2, 4 * count), generator=generator, dtype=torch.float64)
        x = -torch.log1p(x * math.expm1(-delta)) / delta
        accepted = torch.cat([accepted, x[uniform < torch.exp(-delta * x * (1 - x))]])
    z = 1 - accepted[:count]
    azimuth = 2 * math.pi * torch.rand(count, generator=generator, dtype=torch.float64)
    radius = (1 - z**2).sqrt()
    return torch.stack([radius * azimuth.cos(), radius * azimuth.sin(), z])


def thermal_field(m: Tensor, ds: float, *, delta: float, damping: float, generator: torch.Generator) -> Tensor:
    """The field of one step for the directions m [3, n]: mean square α/(Δ ds) for each component."""
    return torch.randn(m.shape, generator=generator, dtype=m.dtype) * math.sqrt(damping / (delta * ds))


def heun_step(
    m: Tensor,
    ds: float,
    *,
    overdrive: float,
    damping: float,
    thermal_field: Tensor | None = None,
    anisotropy: float = 1.0,
) -> Tensor:
    """One step of Heun's method, which converges to Stratonovich's sense, and back to length 1.

    Args:
        m: directions [3, n].
        ds: step of time.
        overdrive: current over the critical current.
        damping: Gilbert's α.
        thermal_field: [3, n], the same all through the step; none by default.
        anisotropy: factor of the anisotropy field; 0 leaves the noise and the torque.
    """

    def velocity(m: Tensor) -> Tensor:
        # Both cross products with the field, and that with p = -z, are m × (field + α m × (field + ip)).
        field = torch.zeros_like(m) if thermal_field is None else thermal_field.clone()
        field[2] += anisotropy * m[2]
        with_torque = field.clone()
        with_torque[2] -= overdrive
        inner = field + damping * torch.linalg.cross(m, with_torque, dim=0)
        velocity: Tensor = torch.linalg.cross(inner, m, dim=0) / (1 + damping**2)
        return velocity

    start = velocity(m)
    m = m + ds / 2 * (start + velocity(m + ds * start))
    return torch.nn.functional.normalize(m, dim=0)
