"""Figures of a report: inline SVG in the colours of the page around it, so that one figure fits light and dark."""

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

SERIES = 8
"""Colours to tell runs apart, `--series-1` and on in the page's style sheet."""

# matplotlib knows no CSS: it draws in colours that occur nowhere else, which are then replaced.
_INK = "#000001"
_SERIES = [f"#0000{number:02x}" for number in range(0x10, 0x10 + SERIES)]
_CSS = {_INK: "currentColor"} | {color: f"var(--series-{number})" for number, color in enumerate(_SERIES, start=1)}

_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": _INK,
    "axes.grid": True,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.alpha": 0.15,
    "grid.color": _INK,
    "savefig.transparent": True,
    "svg.fonttype": "none",
    "text.color": _INK,
    "text.parse_math": False,
    "xtick.color": _INK,
    "xtick.major.width": 0.6,
    "ytick.color": _INK,
    "ytick.major.width": 0.6,
}
_WIDTH_INCHES = 4.6
_ROW_INCHES = 0.24
_MARKED_EPOCHS = 30
# Room beside the longest bar for its label, in parts of its length.
_LABEL_ROOM = 0.28


def learning_curves(
    runs: Sequence[Sequence[Mapping[str, Any]]],
    columns: Sequence[str],
    *,
    label: str,
    factor: float = 1,
    from_zero: bool = False,
    colors: Sequence[int] = (),
) -> str:
    """Draws columns of the metrics over the epochs, of two the first dashed and with hollow points.

    Args:
        runs: for each run the lines of its metrics. A null leaves a gap.
        columns: one or two of their names.
        label: of the axis.
        factor: what the values are multiplied with.
        from_zero: whether the axis begins there, so that what hardly changes looks so.
        colors: the number of each run's colour; by default each of at most `SERIES` runs has its own.

    Returns:
        An SVG element.
    """
    with _figure(3.0, salt=" ".join(columns)) as (axes, done):
        numbers = colors or range(1, SERIES + 1)
        for metrics, color in zip(runs, (_SERIES[number - 1] for number in numbers), strict=False):
            epochs = [record["epoch"] + 1 for record in metrics]
            # A single epoch has no line to see.
            marker = "o" if len(epochs) <= _MARKED_EPOCHS else ""
            for column, style in zip(columns, ("--", "-")[-len(columns) :], strict=True):
                values = [record.get(column) for record in metrics]
                heights = [math.nan if value is None else factor * value for value in values]
                fill = "none" if style == "--" else color
                looks: dict[str, Any] = {"linestyle": style, "marker": marker, "markersize": 4, "markerfacecolor": fill}
                axes.plot(epochs, heights, color=color, linewidth=1.5, **looks)
                if len(runs) == len(epochs) == 1 and math.isfinite(heights[0]):
                    text = f"{column.partition('_')[0]} {heights[0]:.4g}"
                    axes.annotate(text, (epochs[0], heights[0]), (8, 0), textcoords="offset points", va="center")
        axes.ticklabel_format(axis="y", useOffset=False)
        if from_zero:
            axes.set_ylim(0, 1.08 * axes.dataLim.y1 if axes.dataLim.y1 > 0 else 1)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
    return done[0]


def over_time(seconds: Sequence[float], values: Sequence[float], *, label: str) -> str:
    """Draws values over the seconds of a training, in an SVG element.

    Args:
        seconds: rising.
        values: one for each.
        label: of the axis of values, which begins at 0, so that what hardly changes looks so.
    """
    with _figure(2.4, salt=f"time {label}") as (axes, done):
        axes.plot(seconds, values, color=_SERIES[0], linewidth=1.2)
        axes.set_ylim(0, 1.08 * max(values, default=0) or 1)
        axes.set_xlabel("seconds of training")
        axes.set_ylabel(label)
    return done[0]


def bars(
    names: Sequence[str],
    parts: Sequence[Sequence[float]],
    labels: Sequence[str],
    *,
    salt: str,
    colors: Sequence[int] = (),
) -> str:
    """Draws a horizontal bar for each name, of one or more parts end to end, with a label at its end.

    Args:
        names: of the bars, from the top.
        parts: lengths, at least 0; for each part those of all bars.
        labels: what stands at the ends.
        salt: tells the figure from others of the page.
        colors: for bars of one part, the number of each bar's colour; by default each part has its own.

    Returns:
        An SVG element.
    """
    with _figure(0.15 + _ROW_INCHES * len(names), salt=salt) as (axes, done):
        rows, starts = range(len(names)), [0.0] * len(names)
        for lengths, color in zip(parts, _SERIES, strict=False):
            fill = [_SERIES[number - 1] for number in colors] if colors else color
            axes.barh(rows, lengths, left=starts, color=fill, height=0.72)
            starts = [start + length for start, length in zip(starts, lengths, strict=True)]
        longest = max(starts, default=0) or 1.0
        for row, (end, label) in enumerate(zip(starts, labels, strict=True)):
            axes.text(end + 0.012 * longest, row, label, va="center", fontsize=8)
        _label_bars(axes, names, longest)
    return done[0]


def paired_bars(
    names: Sequence[str], series: Sequence[Sequence[float]], labels: Sequence[Sequence[str]], *, salt: str
) -> str:
    """Draws for each name a horizontal bar of each series, one below the other, each with a label at its end.

    Args:
        names: of the groups, from the top.
        series: lengths, at least 0; for each series those of all groups.
        labels: what stands at the ends, in the same order.
        salt: tells the figure from others of the page.

    Returns:
        An SVG element.
    """
    height = 0.8 / len(series)
    with _figure(0.15 + _ROW_INCHES * len(names) * max(1.0, 0.8 * len(series)), salt=salt) as (axes, done):
        longest = max((length for lengths in series for length in lengths), default=0) or 1.0
        for number, (lengths, ends) in enumerate(zip(series, labels, strict=True)):
            rows = [row + height * (number - (len(series) - 1) / 2) for row in range(len(names))]
            axes.barh(rows, lengths, color=_SERIES[number], height=0.86 * height)
            for row, length, label in zip(rows, lengths, ends, strict=True):
                axes.text(length + 0.012 * longest, row, label, va="center", fontsize=8 if len(series) < 3 else 7)
        _label_bars(axes, names, longest)
    return done[0]


def shares(
    names: Sequence[str], parts: Sequence[Sequence[float]], labels: Sequence[str], *, salt: str, first_color: int = 1
) -> str:
    """Draws a bar of full width for each name, cut into the shares of its parts, with its name and label above it.

    Args:
        names: of the bars, from the top.
        parts: amounts, at least 0; for each part those of all bars.
        labels: what stands at the right.
        salt: tells the figure from others of the page.
        first_color: number of the first part's colour.

    Returns:
        An SVG element.
    """
    totals = [sum(amounts) or 1.0 for amounts in zip(*parts, strict=True)]
    with _figure(0.1 + 0.56 * len(names), salt=salt) as (axes, done):
        rows, starts = range(len(names)), [0.0] * len(names)
        for amounts, color in zip(parts, _SERIES[first_color - 1 :], strict=False):
            lengths = [amount / total for amount, total in zip(amounts, totals, strict=True)]
            axes.barh(rows, lengths, left=starts, color=color, height=0.4)
            starts = [start + length for start, length in zip(starts, lengths, strict=True)]
        for row, (name, label) in enumerate(zip(names, labels, strict=True)):
            axes.text(0, row - 0.27, name, va="bottom", fontsize=8.5)
            axes.text(1, row - 0.27, label, va="bottom", ha="right", fontsize=8.5, fontweight="bold")
        axes.set_xlim(0, 1)
        axes.set_ylim(len(names) - 0.75, -0.65)
        axes.set_axis_off()
    return done[0]


def _label_bars(axes: Axes, names: Sequence[str], longest: float) -> None:
    """Names at the left, and no axis below: the labels say the lengths."""
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, longest * (1 + _LABEL_ROOM))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(left=False, bottom=False, labelbottom=False)
    axes.spines["bottom"].set_visible(False)
    axes.grid(visible=False)


@contextmanager
def _figure(height_inches: float, *, salt: str) -> Iterator[tuple[Axes, list[str]]]:
    """Axes to draw on; the list holds the SVG afterwards."""
    done: list[str] = []
    with matplotlib.style.context(["default", _STYLE]):
        figure = Figure(figsize=(_WIDTH_INCHES, height_inches))
        yield figure.subplots(), done
        done.append(_svg(figure, salt=salt))


def _svg(figure: Figure, *, salt: str) -> str:
    """The element alone, without what only a file of its own needs, and with names that no other figure has."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    for color, css in _CSS.items():
        svg = svg.replace(color, css)
    return svg
