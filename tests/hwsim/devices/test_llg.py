"""The simulation against an exact trajectory, equilibrium, free diffusion and the Fokker-Planck equation."""

import math

import pytest
import torch

from hwsim.devices.fokker_planck import FokkerPlanck
from hwsim.devices.llg import heun_step, switched, thermal_field, thermal_start


def tau_of(s: float, damping: float) -> float:
    return damping * s / (1 + damping**2)


def time_to_the_equator(overdrive: float, damping: float, ds: float, u0: float) -> float:
    """τ at which the noise-free simulation from u0 crosses u = 0."""
    m = torch.tensor([[math.sqrt(1 - u0**2)], [0.0], [u0]], dtype=torch.float64)
    s = before = 0.0
    while m[2] > 0:
        before = float(m[2])
        m = heun_step(m, ds, overdrive=overdrive, damping=damping)
        s += ds
    return tau_of(s - ds * float(m[2]) / (float(m[2]) - before), damping)


@pytest.mark.parametrize(("overdrive", "damping"), [(1.5, 0.3), (3.0, 0.3), (6.0, 0.3), (3.0, 0.1)])
def test_noise_free_trajectory(overdrive, damping):
    i, u0 = overdrive, 0.99
    # ∫ du / ((1 - u²)(i - u)) from 0 to u0.
    exact = -math.log(1 - u0) / (2 * (i - 1)) + math.log(1 + u0) / (2 * (i + 1)) + math.log((i - u0) / i) / (i**2 - 1)
    coarse, fine = (time_to_the_equator(i, damping, ds, u0) - exact for ds in (0.04, 0.02))
    assert coarse / fine == pytest.approx(4, abs=0.5), "the method is of second order"
    assert time_to_the_equator(i, damping, 0.005, u0) == pytest.approx(exact, abs=1e-4)


def test_keeps_its_length_and_precesses_about_the_axis():
    m = torch.tensor([[0.6], [0.0], [0.8]], dtype=torch.float64)
    steps, ds = 100, 0.01
    for _ in range(steps):
        m = heun_step(m, ds, overdrive=0.0, damping=1e-9)
    # dm/ds = -m × m_z z turns by the angle m_z s, counter-clockwise.
    angle = 0.8 * steps * ds
    expected = torch.tensor([[0.6 * math.cos(angle)], [0.6 * math.sin(angle)], [0.8]], dtype=torch.float64)
    assert torch.allclose(m, expected, atol=1e-5)
    assert float(torch.linalg.vector_norm(m)) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("delta", [5.0, 60.0])
def test_thermal_start_has_the_density_of_equilibrium(delta, generator):
    n = 50_000
    m = thermal_start(delta, n, generator=generator)
    u = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    density = torch.exp(-delta * (1 - u**2))
    mean = float(torch.trapezoid(density * (1 - u**2), u) / torch.trapezoid(density, u))
    square = 1 - m[2] ** 2
    assert float(square.mean()) == pytest.approx(mean, abs=4 * float(square.std()) / math.sqrt(n))
    assert mean == pytest.approx(1 / delta, rel=1.5 / delta)
    assert bool((m[2] > 0).all())
    assert m[:2].mean(dim=1).abs().max() < 4 / math.sqrt(delta * n)


def test_equilibrium_lasts(generator):
    # Without a current ⟨1 - u²⟩ stays at about 1/Δ: noise and damping are in balance.
    delta, damping, ds, n = 60.0, 0.3, 0.1, 20_000
    m = thermal_start(delta, n, generator=generator)
    for _ in range(110):  # to τ = 3
        field = thermal_field(m, ds, delta=delta, damping=damping, generator=generator)
        m = heun_step(m, ds, overdrive=0.0, damping=damping, thermal_field=field)
    square = 1 - m[2] ** 2
    assert float(square.mean()) == pytest.approx(1 / delta * (1 + 0.5 / delta), abs=5 * float(square.std()) / n**0.5)


def test_free_diffusion_forgets_at_the_rate_of_the_noise(generator):
    # Without anisotropy ⟨u(0)u(τ)⟩/⟨u(0)²⟩ = e^(-τ/Δ), where Δ sets the noise alone.
    delta, damping, ds, n = 5.0, 0.4, 0.1, 20_000
    m = thermal_start(1e-6, n, generator=generator)
    u0, tau = m[2].clone(), 0.0
    for _ in range(120):
        field = thermal_field(m, ds, delta=delta, damping=damping, generator=generator)
        m = heun_step(m, ds, overdrive=0.0, damping=damping, thermal_field=field, anisotropy=0.0)
        tau += tau_of(ds, damping)
    kept = float((u0 * m[2]).mean() / (u0**2).mean())
    assert kept == pytest.approx(math.exp(-tau / delta), abs=4 * math.sqrt(1 / n))


@pytest.mark.parametrize(
    ("seed", "step"), [(0, 0.1), (1, 0.1), (2, 0.1), (3, 0.1), (4, 0.1), pytest.param(0, 0.05, marks=pytest.mark.slow)]
)
def test_judges_the_fokker_planck_table(seed, step):
    tau = torch.linspace(0.5, 2.5, 81, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    share = switched(60.0, 3.0, tau, generator=generator, damping=0.02, trajectories=2000, step=step)
    gap = (share - FokkerPlanck().probability(60.0, 3.0, tau)).abs().max()
    assert gap < 1.95 / math.sqrt(2000)  # the band of Kolmogorov and Smirnov, 99.9 %


@pytest.mark.slow
@pytest.mark.parametrize("overdrive", [0.9, 1.1, 2.0, 5.0])
def test_judges_the_table_near_and_far_from_the_critical_current(overdrive):
    tau = FokkerPlanck().quantile(60.0, overdrive, torch.linspace(0.05, 0.95, 37, dtype=torch.float64))
    generator = torch.Generator().manual_seed(7)
    share = switched(60.0, overdrive, tau, generator=generator, damping=0.05, trajectories=5000, step=0.1)
    assert (share - torch.linspace(0.05, 0.95, 37)).abs().max() < 1.95 / math.sqrt(5000)


def test_same_seed_same_share_and_none_before_the_pulse():
    def run(seed: int) -> torch.Tensor:
        tau = torch.tensor([[0.0, 1.2], [1.4, 0.7]])
        return switched(
            60.0, 3.0, tau, generator=torch.Generator().manual_seed(seed), damping=0.2, trajectories=500, step=0.2
        )

    share = run(1)
    assert share.shape == (2, 2)
    assert share[0, 0] == 0
    assert torch.equal(share, run(1))
    assert not torch.equal(share, run(2))
    assert not switched(60.0, 3.0, torch.zeros(3), generator=torch.Generator()).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"damping": 0.0}, "damping is a finite number above 0"),
        ({"delta": -1.0}, "delta is a finite number above 0"),
        ({"trajectories": 0}, "number of trajectories"),
        ({"step": math.nan}, "step is"),
        ({"overdrive": math.inf}, "overdrive is a finite number"),
        ({"tau": torch.tensor(-1.0)}, "a time is finite, 0 or more"),
        ({"tau": torch.tensor(math.inf)}, "a time is finite, 0 or more"),
        ({"tau": torch.tensor(1e6)}, "takes too long: shorten the pulse .* or use the model fokker-planck"),
    ],
)
def test_refuses_what_is_not_physical(arguments, message, generator):
    good = {"delta": 60.0, "overdrive": 3.0, "tau": torch.tensor(1.0)}
    with pytest.raises(ValueError, match=message):
        switched(**{**good, **arguments}, generator=generator)
