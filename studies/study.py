"""What a study gives: predictions beside measurements, and the curves of its figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_POINTS = 200  # of a curve that are drawn


@dataclass(frozen=True)
class Finding:
    """A prediction beside its measurement.

    Attributes:
        prediction: a sentence.
        measured: the number that it is about.
        low: the least number that agrees with it.
        high: the largest.
    """

    prediction: str
    measured: float
    low: float = -math.inf
    high: float = math.inf

    @property
    def holds(self) -> bool:
        """Whether the measurement lies where the prediction says."""
        return self.low <= self.measured <= self.high

    def __str__(self) -> str:
        bounds = {
            (True, True): f"{self.low:.3g} to {self.high:.3g}",
            (True, False): f"at least {self.low:.3g}",
            (False, True): f"at most {self.high:.3g}",
            (False, False): "any number",
        }[math.isfinite(self.low), math.isfinite(self.high)]
        verdict = "holds" if self.holds else "does NOT hold"
        return f"{self.prediction}: {self.measured:.3g} ({bounds}), {verdict}"


@dataclass(frozen=True)
class Curve:
    """A line of the figure; with `dashed`, what theory says it to be."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False


@dataclass(frozen=True)
class Measured:
    """The outcome of a study; `log` names the axes that are logarithmic, such as "xy"."""

    title: str
    x_label: str
    y_label: str
    findings: Sequence[Finding]
    curves: Sequence[Curve]
    log: str = ""


def draw(measured: Measured, path: Path) -> None:
    """Writes the figure, SVG or PNG by the ending of its name."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for curve in measured.curves:
        every = max(1, len(curve.x) // _POINTS)
        axes.plot(curve.x[::every], curve.y[::every], "--" if curve.dashed else "-", label=curve.label)
    axes.set(title=measured.title, xlabel=measured.x_label, ylabel=measured.y_label)
    for axis in measured.log:
        axes.set(**{f"{axis}scale": "log"})
    axes.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
