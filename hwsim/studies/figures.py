"""Figures of the studies' tables: SVG or PNG, by the ending of the file's name."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from bnn.training.directory import writing
from hwsim.studies.accuracy import is_number, swept
from hwsim.studies.physics import SIMULATION, STANDARD_ERROR
from hwsim.studies.tables import Table

# Colours that the colour-blind tell apart, by M. Okabe and K. Ito; each with a stroke of its own.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9")
_STROKES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
INK = "#222222"
_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.dpi": 150,
    "font.size": 10,
    "grid.alpha": 0.2,
    "grid.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "hwsim",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
_LABELS = {
    "overdrive": "overdrive I/Ic0",
    "pulse-width-s": "pulse width",
    "temperature-K": "temperature",
    "voltage-V": "voltage",
}
_UNITS = {"pulse-width-s": "s", "temperature-K": "K", "voltage-V": "V"}
# Of accuracy, on the axis, so that chance does not look like a law.
_MIN_PERCENT = 3.0
# Points of a simulation that are drawn.
_MAX_MARKS = 20


def switching(table: Table, path: Path, *, title: str = "") -> None:
    """Draws probabilities of switching against what was swept; simulated ones with two standard errors.

    Args:
        table: as of `physics.switching`.
        path: of the file, .svg or .png.
        title: above.

    Raises:
        RunError: the file cannot be written.
    """
    over, *names = table
    with figure(path, title) as (axes,):
        for number, name in enumerate(name for name in names if name not in (SIMULATION, STANDARD_ERROR)):
            axes.plot(table[over], table[name], label=name, **_line(number))
        if SIMULATION in table:
            every = slice(None, None, -(-len(table[over]) // _MAX_MARKS))
            axes.errorbar(
                table[over][every],
                table[SIMULATION][every],
                yerr=[2 * error for error in table[STANDARD_ERROR][every]],
                fmt="o",
                label=f"{SIMULATION}, ± 2 standard errors",
                color=INK,
                markersize=3.5,
                elinewidth=1.2,
                capsize=2.5,
            )
        axes.set_ylim(-0.03, 1.03)
        axes.set_ylabel("probability of switching")
        _name_axis(axes, over)
        axes.legend()


def schemes(table: Table, path: Path, *, title: str = "") -> None:
    """Draws the laws of write schemes twice: over all steps, and over small ones in logarithms.

    Args:
        table: as of `physics.schemes`.
        path: of the file, .svg or .png.
        title: above.

    Raises:
        RunError: the file cannot be written.
    """
    with figure(path, title, panels=2) as panels:
        for axes in panels:
            axes.plot(table["v"], table["wanted"], color=INK, alpha=0.3, linewidth=5, label="wanted")
            for number, name in enumerate(name for name in table if name not in ("v", "wanted")):
                axes.plot(table["v"], table[name], label=name, **_line(number))
            axes.set_xlabel("size of the step v")
        everything, small = panels
        everything.set_ylim(-0.03, 1.03)
        everything.set_ylabel("probability of a transition")
        everything.legend()
        small.set(xscale="log", yscale="log", xlim=(1e-4, 1), ylim=(1e-4, 1.2))


def accuracy(table: Table, path: Path, *, title: str = "") -> None:
    """Draws test accuracy against the first option that was swept: a point for each run, and their means by lines.

    Args:
        table: as of `accuracy.results`, with a run at least.
        path: of the file, .svg or .png.
        title: above.

    Raises:
        RunError: the file cannot be written.
    """
    over, *others = swept(table)
    curves: dict[tuple[Any, ...], dict[Any, list[float]]] = {}
    for value, correct, *rest in zip(
        table[over], table["test_accuracy"], *(table[other] for other in others), strict=True
    ):
        curves.setdefault(tuple(rest), {}).setdefault(value, []).append(100 * correct)
    all_values = list(dict.fromkeys(table[over]))
    numbers = all(is_number(value) for value in all_values)
    place_of = {value: value if numbers else place for place, value in enumerate(all_values)}
    with figure(path, title) as (axes,):
        for number, (combination, by_value) in enumerate(curves.items()):
            line = _line(number)
            for value, percents in by_value.items():
                axes.plot([place_of[value]] * len(percents), percents, "o", color=line["color"], markersize=5)
            if numbers:
                means = [sum(percents) / len(percents) for percents in by_value.values()]
                label = ", ".join(f"{name} {value}" for name, value in zip(others, combination, strict=True))
                axes.plot(list(by_value), means, label=label, **line)
        if others and numbers:
            axes.legend()
        if numbers:
            _name_axis(axes, over)
        else:
            axes.set_xticks(list(place_of.values()), [str(value) for value in all_values])
            axes.margins(x=0.15)
            axes.set_xlabel(over)
        axes.set_ylabel("test accuracy (%)")
        axes.ticklabel_format(axis="y", useOffset=False)
        low, high = axes.get_ylim()
        if (missing := _MIN_PERCENT - (high - low)) > 0:
            axes.set_ylim(low - missing / 2, high + missing / 2)


def _line(number: int) -> dict[str, Any]:
    """Colour and stroke of the n-th curve, from 0."""
    return {
        "color": COLORS[number % len(COLORS)],
        "linestyle": _STROKES[(number + number // len(COLORS)) % len(_STROKES)],
    }


def _name_axis(axes: Axes, over: str) -> None:
    axes.set_xlabel(_LABELS.get(over, over))
    if over in _UNITS:
        axes.xaxis.set_major_formatter(EngFormatter(unit=_UNITS[over]))


@contextmanager
def figure(path: Path, title: str, *, panels: int = 1) -> Iterator[Sequence[Axes]]:
    """Axes to draw on, which are written to a file afterwards."""
    with matplotlib.style.context(["default", _STYLE]):
        drawing = Figure(figsize=(2.2 + 3.4 * panels, 3.4))
        if title:
            drawing.suptitle(title, fontsize=10)
        yield drawing.subplots(1, panels, squeeze=False)[0]
        with writing(path):
            drawing.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
