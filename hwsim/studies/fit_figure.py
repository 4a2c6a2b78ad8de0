"""The figure of a fit: data with the fitted law, measured against fitted, and the residuals."""

import warnings
from pathlib import Path

import torch
from matplotlib.axes import Axes

from hwsim.devices.base import ValidityWarning
from hwsim.devices.fit import JunctionFit
from hwsim.studies.figures import COLORS, INK, figure

_CURVES = len(COLORS)
_POINTS = 200


def draw(fit: JunctionFit, path: Path, *, title: str = "") -> None:
    """Draws three panels: probabilities over voltage for some widths; all of them against the fit; and residuals.

    Args:
        fit: with its measurements.
        path: of the file, .svg or .png.
        title: above.

    Raises:
        RunError: the file cannot be written.
    """
    with warnings.catch_warnings(), figure(path, title, panels=3) as (curves, agreement, residuals):
        warnings.simplefilter("ignore", ValidityWarning)  # the fit has given it
        _curves(curves, fit)
        p = fit.probability
        measured = torch.tensor([one.probability for one in fit.measurements])
        error = torch.tensor([one.trials for one in fit.measurements]).reciprocal().mul(p * (1 - p)).sqrt()
        agreement.errorbar(p, measured, yerr=2 * error, fmt="o", color=COLORS[0], markersize=3, elinewidth=0.8)
        agreement.plot([0, 1], [0, 1], color=INK, linewidth=1)
        agreement.set_xlabel("fitted probability")
        agreement.set_ylabel("measured fraction, ± 2 standard errors")
        voltage_V = [one.voltage_V for one in fit.measurements]
        residuals.plot(voltage_V, fit.residuals.clamp(-10, 10), "o", color=COLORS[1], markersize=3)
        residuals.axhspan(-2, 2, color=INK, alpha=0.08)
        residuals.set_xlabel("voltage (V), positive out of parallel")
        residuals.set_ylabel("residual, in standard errors")


def _curves(axes: Axes, fit: JunctionFit) -> None:
    """Data as points and the law as lines, for widths that are spread evenly over those measured."""
    widths = sorted({one.pulse_width_s for one in fit.measurements})
    chosen = [widths[k * (len(widths) - 1) // max(1, _CURVES - 1)] for k in range(min(_CURVES, len(widths)))]
    for color, width_s in zip(COLORS, dict.fromkeys(chosen), strict=False):
        label = f"{1e9 * width_s:.3g} ns"
        for sign in (1, -1):
            here = [one for one in fit.measurements if one.pulse_width_s == width_s and one.voltage_V * sign > 0]
            if here:
                sizes = [abs(one.voltage_V) for one in here]
                line_V = torch.linspace(min(sizes), max(sizes), _POINTS, dtype=torch.float64) * sign
                p = fit.junction.switch_probability(sign < 0, voltage_V=line_V, pulse_width_s=width_s)
                axes.plot(line_V, p, color=color, label=label)
                label = ""
                axes.plot(
                    [one.voltage_V for one in here], [one.probability for one in here], "o", color=color, markersize=3
                )
    axes.set_xlabel("voltage (V), positive out of parallel")
    axes.set_ylabel("probability of switching")
    axes.legend(fontsize=8)
