"""Runs that differ in their seed alone, as one group: means, deviations and paired differences."""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Protocol

from bnn.reports.texts import ABSENT, duration, energy, number, percent, size

_SEED = "seed"
# Where something lies does not tell one experiment from another.
_PLACES = ("data_dir", "download")

Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Measure:
    """A figure that runs are compared by."""

    name: str
    text: Callable[[float | None], str]
    read: Callable[[Figures], Any]
    """From a run's summary."""


def _of(key: str) -> Callable[[Figures], Any]:
    return lambda summary: summary.get(key)


def _step_bytes(summary: Figures) -> Any:
    beside = summary.get("beside_float")
    pair = beside.get("step_bytes") if isinstance(beside, dict) else None
    return pair.get("this") if isinstance(pair, dict) else None


MEASURES = {
    "test_accuracy": Measure("Test accuracy, measured", percent, _of("test_accuracy")),
    "validation_accuracy": Measure("Validation accuracy, measured", percent, _of("validation_accuracy")),
    "step_bytes": Measure(
        "Memory of a step, measured or predicted", lambda v: ABSENT if v is None else size(v), _step_bytes
    ),
    "peak_rss_mib": Measure("Peak memory, measured", lambda v: number(v, ",.0f", " MiB"), _of("peak_rss_mib")),
    "energy_j": Measure("Energy of training, estimated", energy, _of("energy_j")),
    "bits_per_weight": Measure("Bits a weight, counted", lambda v: number(v, ".3g"), _of("bits_per_weight")),
    "images_per_s": Measure("Images a second, measured", lambda v: number(v, ",.0f"), _of("images_per_s")),
    "wall_s": Measure("Time, measured", duration, _of("wall_s")),
}
"""By the name of its column in a CSV file."""


class AnyRun(Protocol):
    """What is asked of a run."""

    @property
    def label(self) -> str:
        """Its name."""

    @property
    def configuration(self) -> Figures:
        """As in `config.json`."""

    @property
    def summary(self) -> Figures:
        """As in `summary.json`; empty where the run is not complete."""


@dataclass(frozen=True)
class Spread:
    """Mean and sample deviation of some values."""

    mean: float
    deviation: float | None
    """None of a single value."""
    count: int


@dataclass(frozen=True)
class Group:
    """Runs of the same options but for the seed."""

    name: str
    """The options in which it differs from other groups, or the run's own name."""
    members: tuple[int, ...]
    """Positions of its runs."""


def grouped(runs: Sequence[AnyRun]) -> list[Group]:
    """The groups of some runs, in the order of their first ones."""
    found: dict[str, list[int]] = {}
    seen: Counter[str] = Counter()
    for position, run in enumerate(runs):
        choices = json.dumps([_recipe(run), _choices(run)], sort_keys=True)
        # A seed that is there twice is no second sample, but another run to look at.
        repeated = f"{choices} {seed_of(run)}"
        found.setdefault(f"{choices} {seen[repeated]}", []).append(position)
        seen[repeated] += 1
    firsts = [runs[members[0]] for members in found.values()]
    names = [_name(run, firsts) for run in firsts]
    alone = len(found) == len(runs)
    return [
        Group(runs[members[0]].label if alone or names.count(name) > 1 else name, tuple(members))
        for name, members in zip(names, found.values(), strict=True)
    ]


def seed_of(run: AnyRun) -> Any:
    """The run's seed, or None."""
    return _arguments(run).get(_SEED)


def values(runs: Sequence[AnyRun], group: Group, measure: Measure) -> list[float]:
    """What the runs of a group have of a measure."""
    found = [measure.read(runs[member].summary) for member in group.members]
    return [float(value) for value in found if _is_number(value)]


def spread(found: Sequence[float]) -> Spread | None:
    """Of some values; None of none."""
    if not found:
        return None
    return Spread(fmean(found), stdev(found) if len(found) > 1 else None, len(found))


def spread_text(found: Spread | None, measure: Measure) -> str:
    """`96.1 % ± 0.2 %`, or the mean alone where there is no deviation."""
    if found is None:
        return ABSENT
    mean = measure.text(found.mean)
    if found.deviation is None or measure.text(found.deviation) == measure.text(0.0):
        return mean
    return f"{mean} ± {measure.text(found.deviation)}"


def signed_text(found: Spread, measure: Measure) -> str:
    """`+0.31 % ± 0.10 %`, of a difference."""
    sign = "+" if found.mean >= 0 else "-"
    deviation = "" if found.deviation is None else f" ± {measure.text(found.deviation)}"
    return f"{sign}{measure.text(abs(found.mean))}{deviation}"


def paired(runs: Sequence[AnyRun], group: Group, base: Group, measure: Measure) -> Spread | None:
    """Differences from another group, run by run of the same seed; None where they share no seed."""
    of_base = {seed_of(runs[member]): measure.read(runs[member].summary) for member in base.members}
    pairs = [
        (measure.read(runs[member].summary), of_base[seed_of(runs[member])])
        for member in group.members
        if seed_of(runs[member]) in of_base
    ]
    return spread([one - other for one, other in pairs if _is_number(one) and _is_number(other)])


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _arguments(run: AnyRun) -> dict[str, Any]:
    arguments = run.configuration.get("arguments")
    return arguments if isinstance(arguments, dict) else {}


def _choices(run: AnyRun) -> dict[str, Any]:
    return {name: value for name, value in _arguments(run).items() if name not in (_SEED, *_PLACES)}


def _recipe(run: AnyRun) -> str:
    return Path(str(run.configuration.get("recipe", ""))).stem


def _name(run: AnyRun, others: Sequence[AnyRun]) -> str:
    parts = [_recipe(run)] if len({_recipe(other) for other in others}) > 1 else []
    for name, value in _choices(run).items():
        if any(_choices(other).get(name) != value for other in others):
            parts.append(f"{name.replace('_', '-')} {value}")
    return ", ".join(parts) or _recipe(run) or run.label
