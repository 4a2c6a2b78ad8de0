"""Sweeps that need no training: the probability of switching by model, and the law of each write scheme."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch

from hwsim.devices import llg, named
from hwsim.devices.base import DeviceModel
from hwsim.devices.mtj import MTJ
from hwsim.devices.values import Real, require_positive
from hwsim.nonidealities import NonIdealities
from hwsim.studies.tables import Table
from hwsim.write_schemes import SchemeName, options_of, scheme_named

Quantity = Literal["pulse-width-s", "overdrive", "voltage-V", "temperature-K"]

SIMULATION = "llg"
"""Name of `hwsim.devices.llg`, beside those of the laws."""

STANDARD_ERROR = f"{SIMULATION}_standard_error"
"""Name of a column."""

_SEED_OF_SPREAD = 0


def switching(
    device: MTJ,
    over: Quantity,
    values: Sequence[float],
    *,
    models: Sequence[str] = ("fokker-planck",),
    antiparallel: bool = False,
    overdrive: float = 3.0,
    voltage_V: float | None = None,
    pulse_width_s: float | None = None,
    trajectories: int = 2_000,
    seed: int = 0,
) -> Table:
    """Probability that a pulse switches a junction, where one quantity of it is swept.

    Args:
        device: the junction; the law of its own is not used.
        over: what is swept.
        values: of it.
        models: names of laws, see `hwsim.devices.named`, and "llg" for the simulation.
        antiparallel: the state before.
        overdrive: current over the critical current, where it is not swept.
        voltage_V: in place of the overdrive; positive drives out of parallel.
        pulse_width_s: 0 or more; needed where it is not swept.
        trajectories: of the simulation.
        seed: of the simulation.

    Returns:
        The values, and the probabilities by each model. The simulation's have a column of standard errors beside them.

    Raises:
        ValueError: a quantity is missing or out of its range, or the simulation would take too long.
    """
    if over != "pulse-width-s" and pulse_width_s is None:
        raise ValueError(f"a sweep over {over} needs a pulse_width_s")
    require_positive("the number of trajectories", trajectories)

    given_width_s = pulse_width_s or 0.0

    def point(value: float) -> tuple[float, float, float]:
        """Thermal stability, overdrive and reduced time."""
        at_V = value if over == "voltage-V" else voltage_V
        junction = device.at_temperature(value) if over == "temperature-K" else device
        junction = junction if at_V is None else junction.at_voltage(at_V)
        if over == "overdrive":
            current: Real = value
        else:
            current = overdrive if at_V is None else junction.overdrive(antiparallel, voltage_V=at_V)
        width_s = value if over == "pulse-width-s" else given_width_s
        return float(junction.thermal_stability), float(current), float(width_s / junction.time_unit_s)

    points = torch.tensor([point(value) for value in values], dtype=torch.float64).view(-1, 3)
    table: dict[str, list[float]] = {over: list(values)}
    laws = named.laws()
    for name in models:
        if name == SIMULATION:
            fraction = _simulated(points, float(device.damping), trajectories, seed)
            table[name] = fraction.tolist()
            table[STANDARD_ERROR] = (fraction * (1 - fraction) / trajectories).sqrt().tolist()
        else:
            table[name] = laws[name]().probability(*points.T).tolist()
    return table


def _simulated(points: torch.Tensor, damping: float, trajectories: int, seed: int) -> torch.Tensor:
    """Fractions of simulated junctions; points that differ in time alone are of the same junctions."""
    fraction = torch.empty(len(points), dtype=torch.float64)
    conditions, which = torch.unique(points[:, :2], dim=0, return_inverse=True)
    for number, (delta, overdrive) in enumerate(conditions.tolist()):
        fraction[which == number] = llg.switched(
            delta,
            overdrive,
            points[which == number, 2],
            generator=torch.Generator().manual_seed(seed + number),
            damping=damping,
            trajectories=trajectories,
        )
    return fraction


def schemes(
    device: DeviceModel,
    names: Sequence[SchemeName],
    *,
    antiparallel: bool = False,
    m: float | None = 3.0,
    overdrive: float = 3.0,
    options: Mapping[str, float] | None = None,
    nonidealities: NonIdealities | None = None,
    points: int = 41,
    junctions: int = 2_000,
) -> Table:
    """Probability of a transition against the size of a step, as wanted and by the pulses of each write scheme.

    Args:
        device: the nominal junction, for which pulses are made.
        names: of the schemes.
        antiparallel: the state before.
        m: steepness of the tanh that is wanted; None wants v itself.
        overdrive: current over the critical current.
        options: of the schemes, such as gain or gate, by their names; a scheme takes those that it has.
        nonidealities: of junctions and pulses; the probability is then the mean over them. Faults and what happens
            between writes are no part of it.
        points: number of steps in 0..1; as many more are spaced evenly in the logarithm, from 1e-4.
        junctions: number of those that differ, or whose pulses do.

    Returns:
        `v`, rising; `wanted`; and a column for each scheme.

    Raises:
        ValueError: a quantity is out of its range.
    """
    if m is not None:
        require_positive("m", m)
    options, nonidealities = options or {}, nonidealities or NonIdealities()
    if unused := set(options).difference(*map(options_of, names)):
        raise ValueError(f"none of the schemes {', '.join(names)} has {unused.pop()}")
    shape = (1, junctions if nonidealities.varies or nonidealities.noisy else 1)
    if nonidealities.varies:
        junction = nonidealities.array(device, shape, _SEED_OF_SPREAD)
    else:
        junction = nonidealities.junction(device)
    even = torch.linspace(0, 1, points, dtype=torch.float64)
    v = torch.unique(torch.cat([even, torch.logspace(-4, 0, points, dtype=torch.float64)]))
    wanted = v if m is None else torch.tanh(m * v)
    table = {"v": v.tolist(), "wanted": wanted.tolist()}
    for name in names:
        own = {option: value for option, value in options.items() if option in options_of(name)}
        scheme = scheme_named(name, m=m, overdrive=overdrive, **own)
        p = scheme.gated(wanted)[:, None]
        width_s = nonidealities.on_clock(
            scheme.width_s(device, antiparallel, p), scheme.full_width_s(device, antiparallel)
        ).expand(-1, shape[1])
        voltage_V, arriving_s = nonidealities.with_noise(
            scheme.voltages_V(device, antiparallel, p), width_s, torch.Generator().manual_seed(_SEED_OF_SPREAD)
        )
        actual = junction.switch_probability(
            antiparallel, voltage_V=voltage_V, pulse_width_s=torch.where(p > 0, arriving_s, 0.0)
        )
        table[name] = (actual.mean(dim=1) * (1 - nonidealities.write_error)).tolist()
    return table
