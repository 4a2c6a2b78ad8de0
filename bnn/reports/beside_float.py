"""What a run takes beside the same in float32, as people read it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bnn.reports.texts import energy, size


@dataclass(frozen=True)
class Comparison:
    """A figure of a run and of the same network in float32."""

    name: str
    how: str
    """How the figure is known: measured, predicted, estimated or counted."""
    this: float
    other: float
    """In float32."""
    text: Callable[[float], str]

    @property
    def ratio(self) -> str:
        """How many times less the run takes, as `12 times less`."""
        less = self.other / self.this
        if f"{less:.2g}" == "1":
            return "as much"
        return f"{less:.2g} times less" if less > 1 else f"{1 / less:.2g} times more"


_FIGURES: dict[str, tuple[str, str, Callable[[float], str]]] = {
    # Measured where its pair says so.
    "step_bytes": ("memory of a step", "predicted", size),
    "energy_j": ("energy of training", "estimated", energy),
    "network_bytes": ("trained network", "counted", size),
}


def comparisons(summary: Mapping[str, Any]) -> Iterator[Comparison]:
    """The figures of `bnn.cost.meters.FloatComparison` in a summary; those that are damaged are left out."""
    figures = summary.get("beside_float")
    for key, (name, how, text) in _FIGURES.items():
        pair = figures.get(key) if isinstance(figures, dict) else None
        values = [pair.get(part) for part in ("this", "float")] if isinstance(pair, dict) else []
        numbers = [value for value in values if isinstance(value, (int, float)) and 0 < value < 1e300]
        if len(numbers) == 2:
            this, other = numbers
            measured = isinstance(pair, dict) and pair.get("how") == "measured"
            yield Comparison(name, "measured" if measured else how, this, other, text)
