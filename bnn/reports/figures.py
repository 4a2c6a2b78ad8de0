"""Figures of a report: inline SVG in the colours of the page around it, so that one figure fits light and dark."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib.style
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bnn.accounting import LayerCount

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
    "ytick.color": _INK,
}
_WIDTH_INCHES = 4.6
_MARKED_EPOCHS = 30


def learning_curves(runs: Sequence[Sequence[Mapping[str, Any]]], *, quantity: Literal["loss", "accuracy"]) -> str:
    """Draws a quantity over the epochs: validation solid, training dashed, a colour for each run.

    Args:
        runs: for each of at most `SERIES` runs the lines of its metrics. A null leaves a gap.
        quantity: which one; accuracy is drawn in percent.

    Returns:
        An SVG element.
    """
    factor, unit = (100, "accuracy, %") if quantity == "accuracy" else (1, "loss")
    with matplotlib.style.context(["default", _STYLE]):
        figure = Figure(figsize=(_WIDTH_INCHES, 3.0))
        axes = figure.subplots()
        for metrics, color in zip(runs, _SERIES, strict=False):
            epochs = [record["epoch"] + 1 for record in metrics]
            # A single epoch has no line to see.
            marker = "." if len(epochs) <= _MARKED_EPOCHS else ""
            for name, style in ((f"train_{quantity}", "--"), (f"validation_{quantity}", "-")):
                values = [record.get(name) for record in metrics]
                heights = [math.nan if value is None else factor * value for value in values]
                axes.plot(epochs, heights, linestyle=style, marker=marker, color=color, linewidth=1.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlabel("epoch")
        axes.set_ylabel(unit)
        return _svg(figure, salt=quantity)


def layer_bars(layers: Sequence[LayerCount], *, quantity: Literal["storage", "work"]) -> str:
    """Draws a bar for each layer: the first colour for weights of 1 or 2 bits, the second for wider ones.

    Args:
        layers: those with weights, in the order of their use.
        quantity: `storage`, the KiB that the trained weights take, or `work`, the million multiply-accumulates of
            one example's forward pass.

    Returns:
        An SVG element.
    """
    if quantity == "storage":
        label, lengths = "weights, KiB", [layer.weights * layer.weight_bits / 8 / 1024 for layer in layers]
    else:
        label, lengths = (
            "multiply-accumulates, million",
            [layer.multiply_accumulates / 1e6 for layer in layers],
        )
    with matplotlib.style.context(["default", _STYLE]):
        figure = Figure(figsize=(_WIDTH_INCHES, 0.7 + 0.22 * len(layers)))
        axes = figure.subplots()
        rows = range(len(layers))
        axes.barh(rows, lengths, color=[_SERIES[0] if layer.weight_bits <= 2 else _SERIES[1] for layer in layers])
        axes.set_yticks(rows, [layer.name for layer in layers])
        axes.margins(y=0.5 / len(layers))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(label)
        return _svg(figure, salt=quantity)


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
