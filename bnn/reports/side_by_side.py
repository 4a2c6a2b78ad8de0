"""The parts of a page that compares runs: their figures in the same bars and tables."""

from collections.abc import Iterator, Sequence
from typing import Any

from bnn.cost.energy import PRICE_TABLES
from bnn.reports.energy import KINDS, energy_by_kind
from bnn.reports.figures import bars
from bnn.reports.groups import MEASURES, Group, Measure, paired, seed_of, signed_text, spread, spread_text, values
from bnn.reports.run_record import RunRecord
from bnn.reports.sections import Part, Table, device_rows
from bnn.reports.texts import ABSENT, energy

_BARS = {
    "step_bytes": "Memory of a step, measured or predicted",
    "peak_rss_mib": "Peak memory of the process, measured",
    "images_per_s": "Images a second, measured",
}

_ROOM = 30


def compared(runs: Sequence[RunRecord], groups: Sequence[Group]) -> list[Part]:
    """The sections that have anything to show."""
    parts = [_costs(runs, groups), _energy(runs, groups), _seeds(runs, groups), _devices(runs, groups)]
    return [part for part in parts if part is not None]


def difference(runs: Sequence[RunRecord], group: Group, base: Group, measure: Measure) -> str:
    """`+0.31 % ± 0.10 % from the first, over 3 seeds`, or nothing where there are no two pairs."""
    found = paired(runs, group, base, measure)
    if found is None or found.count < 2:
        return ""
    return f"{signed_text(found, measure)} from {base.name}, over {found.count} seeds"


def _costs(runs: Sequence[RunRecord], groups: Sequence[Group]) -> Part | None:
    figures = {}
    for key, caption in _BARS.items():
        spreads = [spread(values(runs, group, MEASURES[key])) for group in groups]
        if any(spreads):
            lengths = [found.mean if found else 0.0 for found in spreads]
            labels = [spread_text(found, MEASURES[key]) for found in spreads]
            names, colors = [_short(group.name) for group in groups], range(1, len(groups) + 1)
            figures[caption] = bars(names, [lengths], labels, salt=key, colors=colors)
    return Part("Memory and speed", figures=figures) if figures else None


def _short(name: str) -> str:
    """The end of a name, such as a path, for which a figure has no room."""
    return name if len(name) <= _ROOM else f"…{name[1 - _ROOM :]}"


def _energy(runs: Sequence[RunRecord], groups: Sequence[Group]) -> Part | None:
    ledgers = {_short(group.name): runs[group.members[0]].ledger for group in groups}
    priced = {name: energy_by_kind(ledger, PRICE_TABLES[0]) for name, ledger in ledgers.items() if ledger}
    if not priced:
        return None
    labels = [energy(sum(joules)) for joules in priced.values()]
    figure = bars(list(priced), list(zip(*priced.values(), strict=True)), labels, salt="energies")
    return Part(
        "Energy of training",
        "Counted events times listed prices, of the first run of each kind.",
        {f"By operation, prices of {PRICE_TABLES[0].name}": figure},
        {name: number for number, name in enumerate(KINDS, start=1)},
    )


def _seeds(runs: Sequence[RunRecord], groups: Sequence[Group]) -> Part | None:
    """Every run of a group of several."""
    if all(len(group.members) == 1 for group in groups):
        return None
    accuracy, validation = MEASURES["test_accuracy"], MEASURES["validation_accuracy"]
    rows = [
        [group.name, str(seed_of(run)), *(m.text(m.read(run.summary)) for m in (accuracy, validation)), run.label]
        for group in groups
        for run in (runs[member] for member in group.members)
    ]
    heads = ["runs", "seed", "test accuracy", "validation accuracy", "directory"]
    return Part("Seed by seed", table=Table(heads, rows), folded="Accuracy of every run")


def _devices(runs: Sequence[RunRecord], groups: Sequence[Group]) -> Part | None:
    tables = [dict(_device_texts(runs[group.members[0]])) for group in groups]
    names = dict.fromkeys(name for table in tables for name in table)
    if not names:
        return None
    rows = [[name, *(table.get(name, ABSENT) for table in tables)] for name in names]
    return Part("Junctions", "Of the first run of each kind.", table=Table(["", *(g.name for g in groups)], rows))


def _device_texts(run: RunRecord) -> Iterator[tuple[str, str]]:
    device: Any = run.summary.get("junctions")
    if isinstance(device, dict):
        yield from device_rows(device)
