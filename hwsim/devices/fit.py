"""The constants of a junction from counts of switching, by maximum likelihood, with their error bars."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hwsim.devices.measurements import Measurement
from hwsim.devices.mtj import MTJ

CONFIDENCE = 0.95
"""Probability with which the intervals of a fit hold all of its constants together."""

_STEP = 1e-3  # of the logarithm of a constant, for slopes
_LEAST_P = 1e-12
_MAX_STEPS = 200
_MAX_COUNTS_OF_GRID = 40
# Where the search begins: thermal stability, time unit in seconds, and critical over largest current.
_DELTAS = (25.0, 40.0, 60.0, 90.0)
_TIME_UNITS_S = tuple(10.0**exponent for exponent in (-10.5, -10.0, -9.5, -9.0, -8.5, -8.0))
_CURRENTS = tuple(10 ** (k / 8) for k in range(-8, 5))


@dataclass(frozen=True, kw_only=True, eq=False)
class JunctionFit:
    """A junction that makes measured counts most likely.

    Attributes:
        junction: with the fitted constants.
        fitted: names of these.
        covariance: of their logarithms, from the Fisher information: float64 [k, k]. Its roots are relative standard
            errors.
        measurements: the counts.
        probability: of the fit, for each of these: float64 [n].
    """

    junction: MTJ
    fitted: tuple[str, ...]
    covariance: Tensor
    measurements: Sequence[Measurement]
    probability: Tensor

    @property
    def relative_errors(self) -> dict[str, float]:
        """The standard error of each fitted constant, relative to it."""
        return dict(zip(self.fitted, self.covariance.diagonal().sqrt().tolist(), strict=True))

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Ranges that hold all fitted constants together with a probability of `CONFIDENCE` or more (Bonferroni)."""
        tail = torch.tensor(1 - (1 - CONFIDENCE) / (2 * len(self.fitted)), dtype=torch.float64)
        wide = float(torch.special.ndtri(tail))
        values = {name: float(self.junction.constant(name)) for name in self.fitted}
        errors = self.relative_errors
        return {
            name: (value * math.exp(-wide * errors[name]), value * math.exp(wide * errors[name]))
            for name, value in values.items()
        }

    @property
    def residuals(self) -> Tensor:
        """Measured less fitted fractions, in standard errors: float64 [n]."""
        measured, trials = _columns(self.measurements, "probability", "trials")
        p = self.probability
        return (measured - p) / (p * (1 - p) / trials).sqrt()

    @property
    def p_value(self) -> float:
        """Probability of residuals as large, were the law true; small where the junction does not follow it.

        By the sum of the squares of those residuals where one pulse at least is expected to switch and one not to; nan
        where these are not more than the constants.
        """
        (trials,) = _columns(self.measurements, "trials")
        told = trials * torch.minimum(self.probability, 1 - self.probability) >= 1
        free = int(told.sum()) - len(self.fitted)
        if free < 1:
            return math.nan
        half = (self.residuals[told] ** 2).sum() / 2
        return float(torch.special.gammaincc(torch.tensor(free / 2, dtype=torch.float64), half))


def fit_junction(measurements: Sequence[Measurement], start: MTJ, *, fit_pace: bool = True) -> JunctionFit:
    """Fits barrier, critical current of each direction, and pace.

    The counts are binomial with the probabilities of `start`'s law; Fisher scoring, damped, from the best point of a
    grid. The pace is the unit of time (1 + α²)/(αγB): it is fitted by the anisotropy field B, the damping stays.

    Args:
        measurements: voltages with their signs, positive out of parallel.
        start: has the constants that are not fitted, such as resistances, temperature and law.
        fit_pace: whether the anisotropy field is fitted; else it is that of `start`.

    Raises:
        ValueError: the counts do not tell the constants; the message says what to measure.
    """
    antiparallel = torch.tensor([one.voltage_V < 0 for one in measurements])
    fitted = ["energy_barrier_J", "critical_current_A"]
    if bool(antiparallel.any()) and not bool(antiparallel.all()):
        fitted.append("critical_current_ratio")
    if fit_pace:
        fitted.append("anisotropy_field_T")
    _refuse_what_tells_nothing(measurements, len(fitted), fit_pace)
    counts = _Counts(measurements, start, tuple(fitted))
    every = -(-len(measurements) // _MAX_COUNTS_OF_GRID)
    logs = _Counts(measurements[::every], start, tuple(fitted)).best_of_grid()
    now, damping = counts.likelihood(logs), 1e-3
    for _ in range(_MAX_STEPS):
        score, information = counts.slopes(logs)
        scale = information.diagonal().diag()
        step = torch.linalg.lstsq(information + damping * scale, score[:, None]).solution[:, 0].clamp(-0.5, 0.5)
        then = counts.likelihood(logs + step)
        if then >= now:
            logs, gain, now, damping = logs + step, then - now, then, damping / 10
            if gain < 1e-9 and float(step.abs().max()) < 1e-6:
                break
        elif (damping := damping * 10) > 1e9:
            break
    _, information = counts.slopes(logs)
    covariance = _inverse(information, fitted)
    junction = counts.junction(logs)
    # Warns where the law does not hold for it.
    junction.switch_probability(counts.antiparallel, voltage_V=counts.voltage_V, pulse_width_s=counts.width_s)
    return JunctionFit(
        junction=junction,
        fitted=tuple(fitted),
        covariance=covariance,
        measurements=measurements,
        probability=counts.probabilities(logs[None])[0],
    )


class _Counts:
    """Counts and the law that is to explain them, as functions of the logarithms of the fitted constants."""

    def __init__(self, measurements: Sequence[Measurement], start: MTJ, fitted: tuple[str, ...]) -> None:
        self.start, self.fitted = start, fitted
        self.voltage_V, self.width_s, self.y, self.trials = _columns(
            measurements, "voltage_V", "pulse_width_s", "probability", "trials"
        )
        self.antiparallel = self.voltage_V < 0

    def junction(self, logs: Tensor) -> MTJ:
        """That of some constants, [k]."""
        values = dict(zip(self.fitted, logs.exp().tolist(), strict=True))
        return replace(self.start, **values)

    def probabilities(self, logs: Tensor) -> Tensor:
        """Of switching, for several sets of constants [m, k]: [m, n]."""
        constants = {name: column[:, None] for name, column in zip(self.fitted, logs.exp().T, strict=True)}
        junction = replace(self.start, **constants)
        overdrive, tau = (
            torch.as_tensor(value)
            for value in (
                junction.overdrive(self.antiparallel, voltage_V=self.voltage_V),
                self.width_s / junction.time_unit_s,
            )
        )
        # The law as it is, without its warnings: the search passes through places where it does not hold.
        arguments = torch.broadcast_tensors(torch.as_tensor(junction.thermal_stability), overdrive, tau)  # type: ignore[no-untyped-call]
        p = junction.model._probability(*(argument.double() for argument in arguments))
        return p.clamp(_LEAST_P, 1 - _LEAST_P)

    def likelihood(self, logs: Tensor) -> float:
        """Its logarithm, but for a constant."""
        return float(self.likelihoods(logs[None])[0])

    def likelihoods(self, logs: Tensor) -> Tensor:
        """Of several sets of constants [m, k]: [m]."""
        p = self.probabilities(logs)
        return (self.trials * (self.y * p.log() + (1 - self.y) * torch.log1p(-p))).sum(dim=1)

    def slopes(self, logs: Tensor) -> tuple[Tensor, Tensor]:
        """Slope of the likelihood, [k], and Fisher's information, [k, k]."""
        k = len(logs)
        steps = _STEP * torch.eye(k, dtype=torch.float64)
        p = self.probabilities(torch.cat([logs[None], logs + steps, logs - steps]))
        slope = (p[1 : k + 1] - p[k + 1 :]) / (2 * _STEP)
        weight = self.trials / (p[0] * (1 - p[0]))
        return slope @ (weight * (self.y - p[0])), (slope * weight) @ slope.T

    def best_of_grid(self) -> Tensor:
        """Logarithms of the constants to begin with, [k]."""
        start = self.start
        unit_s = float(start.time_unit_s) * float(start.anisotropy_field_T)
        kT = float(start.energy_barrier_J) / float(start.thermal_stability)
        largest_A = (
            self.voltage_V / torch.as_tensor(start.resistance_ohm(self.antiparallel, voltage_V=self.voltage_V))
        ).abs()
        values = {
            "energy_barrier_J": [kT * delta for delta in _DELTAS],
            "critical_current_A": [float(largest_A.max()) * part for part in _CURRENTS],
            "critical_current_ratio": [0.5, 0.7, 1.0, 1.4, 2.0],
            "anisotropy_field_T": [unit_s / time_s for time_s in _TIME_UNITS_S],
        }
        axes = [torch.tensor(values[name], dtype=torch.float64).log() for name in self.fitted]
        grid = torch.cartesian_prod(*axes)
        return grid[int(self.likelihoods(grid).argmax())]


def _columns(measurements: Sequence[Measurement], *names: str) -> list[Tensor]:
    return [torch.tensor([getattr(one, name) for one in measurements], dtype=torch.float64) for name in names]


def _refuse_what_tells_nothing(measurements: Sequence[Measurement], constants: int, fit_pace: bool) -> None:
    """Raises a ValueError for counts that no constants follow from."""
    for state, sign in (("parallel", 1), ("antiparallel", -1)):
        fractions = [one.probability for one in measurements if one.voltage_V * sign > 0]
        if fractions and max(fractions) == 0:
            raise ValueError(f"no pulse out of {state} switched: measure stronger or longer ones")
        if fractions and min(fractions) == 1:
            raise ValueError(f"every pulse out of {state} switched: measure weaker or shorter ones, too")
    between = sum(0 < one.probability < 1 for one in measurements)
    if between < constants:
        raise ValueError(
            f"{between} of the pulses switched sometimes, neither never nor always: {constants} constants take"
            f" {constants} such voltages or widths at least"
        )
    if fit_pace and len({one.pulse_width_s for one in measurements}) < 2:
        raise ValueError(
            "pulses of one width do not tell the pace: measure another width, or give the anisotropy field"
        )


def _inverse(information: Tensor, fitted: Sequence[str]) -> Tensor:
    """The covariance of the constants' logarithms.

    Raises:
        ValueError: a constant is not told to within itself.
    """
    covariance: Tensor = torch.linalg.pinv(information, hermitian=True)
    unknown = [
        name
        for k, name in enumerate(fitted)
        if not 0 < float(covariance[k, k]) < 1 or float((covariance @ information)[k, k]) < 0.99
    ]
    if unknown:
        raise ValueError(
            f"these counts do not tell {', '.join(unknown)}: measure more voltages and widths, or give the anisotropy"
            " field"
        )
    return covariance
