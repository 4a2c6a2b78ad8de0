"""The parts of a report that a run has for itself: memory, energy, layers, weights, device and choices."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from bnn.cost import LayerCount
from bnn.cost.energy import PRICE_TABLES, Ledger
from bnn.cost.energy.ledger import LEVEL_BITS
from bnn.cost.memory.table import Lifetime, MemoryTable
from bnn.reports.beside_float import comparisons
from bnn.reports.budget import variable_names
from bnn.reports.energy import KINDS, energy_by_kind, energy_by_layer, operations
from bnn.reports.figures import bars, over_time, paired_bars, shares
from bnn.reports.findings import figure_of
from bnn.reports.memory import IN_FLOAT, MemoryFigures
from bnn.reports.run_record import RunRecord
from bnn.reports.texts import ABSENT, energy, engineering, number, size

_MIB = 2**20
_MAIN = PRICE_TABLES[0]
LIFETIMES = {lifetime: number for number, lifetime in enumerate(get_args(Lifetime), start=4)}
"""How long variables are kept, with the numbers of their colours, which follow those of two presets and of float."""
_THIS, _FLOAT = 7, 8  # colours
_UNITS = ("J", "s", "K", "V", "A", "m", "Ohm")


@dataclass(frozen=True)
class Table:
    """Cells of text under their heads."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Part:
    """One section."""

    title: str
    text: str = ""
    figures: Mapping[str, str] = field(default_factory=dict)
    """SVG elements by their captions."""
    legend: Mapping[str, int] = field(default_factory=dict)
    """Numbers of colours, by what they stand for."""
    table: Table | None = None
    folded: str = ""
    """Title of the table where it is folded away."""
    alert: str = ""


def run_sections(run: RunRecord) -> list[Part]:
    """The sections of a run that have anything to show."""
    parts = [
        _memory(run),
        _memory_over_time(run),
        _energy(run),
        _layers(run),
        _weight_state(run),
        *_device(run.summary.get("junctions")),
        *_diagnosis(run),
    ]
    return [part for part in parts if part is not None]


def _diagnosis(run: RunRecord) -> Iterator[Part]:
    """Each finding of `bnn diagnose`, with its advice and what it cannot say."""
    for finding in run.findings:
        yield Part(finding.title, finding.limit, {finding.title: figure_of(finding)}, alert=finding.advice)


def choices(runs: Sequence[RunRecord]) -> list[tuple[str, list[str], bool]]:
    """The quantization cards side by side: name, each run's choice, and whether they differ."""
    names = dict.fromkeys(name for run in runs for name in run.network.card)
    rows = [(name, [run.network.card.get(name, ABSENT) for run in runs]) for name in names]
    return [(name, texts, len(set(texts)) > 1) for name, texts in rows]


def other_energies(run: RunRecord, table_name: str) -> Iterator[str]:
    """The energy of the run's counts under every table but the named one."""
    if run.ledger is not None:
        for table in PRICE_TABLES:
            if table.name != table_name:
                yield f"{energy(run.ledger.energy_J(table))} under {table.name}"


def _memory(run: RunRecord) -> Part | None:
    memory, note = run.network.memory, run.network.memory_note
    if memory is None:
        return Part("Memory of a step", alert=f"No memory is predicted: {note}") if note else None
    tables = {name: step.table for name, step in memory.predicted.items()}
    totals = ", ".join(
        f"{size(table.total_bytes)} {'' if name == IN_FLOAT else 'with '}{name}" for name, table in tables.items()
    )
    text = f"Tensors of one step on the CPU at the moment when they take most: {totals}. {_how_known(memory)}"
    resident = run.summary.get("peak_rss_mib")
    if resident is not None:
        text += (
            f" The whole process of training, with Python, torch and the data, took {resident:,.0f} MiB at its peak."
        )
    figures = {
        "Predicted, by variable": _memory_bars(tables),
        "Predicted, by how long it is kept": _memory_shares(tables),
    }
    presets = dict(zip(tables, range(1, len(tables) + 1), strict=True)) if len(tables) > 1 else {}
    return Part("Memory of a step", text, figures, {**presets, **LIFETIMES}, _memory_table(memory))


def _memory_over_time(run: RunRecord) -> Part | None:
    if not run.memory_profile:
        return None
    seconds, mib = zip(*run.memory_profile, strict=True)
    text = (
        f"Resident memory of the whole process, with Python, torch and the data, sampled while it trained: from"
        f" {min(mib):,.0f} to {max(mib):,.0f} MiB."
    )
    return Part("Memory over time", text, {"Measured": over_time(seconds, mib, label="MiB resident")})


def _how_known(memory: MemoryFigures) -> str:
    """How the memory was predicted and measured; names only what is not the default."""
    is_float32 = memory.precision == "float32"
    text = "Predicted on shapes alone" + ("" if is_float32 else ", for products of float32")
    if memory.measured is not None:
        text += ", and measured while the report was made, in a step with random data"
        if memory.loss != "cross_entropy":
            text += f" and the loss {memory.loss}"
        if not is_float32:
            text += f", with the run's products of {memory.precision}"
    return f"{text}."


def _memory_bars(tables: Mapping[str, MemoryTable]) -> str:
    variables = variable_names(tables.values())
    names = [name for name, _ in variables]
    sizes = [[sum(v.bytes for v in table.variables if v.name == name) for name in names] for table in tables.values()]
    labels = [[size(n) for n in lengths] for lengths in sizes]
    if len(tables) > 1:
        return paired_bars(names, sizes, labels, salt="memory")
    return bars(names, sizes, labels[0], salt="memory", colors=[LIFETIMES[lifetime] for _, lifetime in variables])


def _memory_shares(tables: Mapping[str, MemoryTable]) -> str:
    def bytes_of(table: MemoryTable, lifetime: str) -> float:
        return sum(variable.bytes for variable in table.variables if variable.lifetime == lifetime)

    parts = [[bytes_of(table, lifetime) for table in tables.values()] for lifetime in LIFETIMES]
    totals = [size(table.total_bytes) for table in tables.values()]
    return shares(list(tables), parts, totals, salt="lifetimes", first_color=min(LIFETIMES.values()))


def _memory_table(memory: MemoryFigures) -> Table:
    measured, steps = memory.measured, memory.predicted
    measured_run = next(iter(steps))
    return Table(
        ["", f"{measured_run}, measured", *(f"{name}, predicted" for name in steps)],
        [
            [
                "saved for backward",
                size(measured.saved_bytes) if measured else ABSENT,
                *(size(step.saved_bytes) for step in steps.values()),
            ],
            [
                "peak of live tensors",
                size(measured.peak_live_bytes) if measured else ABSENT,
                *(size(step.table.total_bytes) for step in steps.values()),
            ],
        ],
    )


def _energy(run: RunRecord) -> Part | None:
    ledger = run.ledger
    if ledger is None:
        return None
    totals = [ledger.energy_J(table) for table in PRICE_TABLES]
    kinds = list(zip(*(energy_by_kind(ledger, table) for table in PRICE_TABLES), strict=True))
    uncounted = run.summary.get("uncounted") or ()
    return Part(
        "Energy of training",
        f"Counted: {engineering(ledger.products).strip()} multiply-accumulates and {engineering(ledger.moved_bytes)}B"
        " moved. The counts are facts of shapes and widths; the joules are what each price table makes of them.",
        {
            **_beside_float(run),
            "By operation, under each price table": shares(
                [table.name for table in PRICE_TABLES], kinds, [energy(total) for total in totals], salt="kinds"
            ),
            f"By layer, prices of {_MAIN.name}": _layer_energy(ledger, run.network.layers),
        },
        {name: number for number, name in enumerate(KINDS, start=1)},
        Table(
            ["operation", "phase", "count", *(table.name for table in PRICE_TABLES)],
            [
                [row.name, row.phase, f"{engineering(row.count)}{row.unit}".strip(), *map(energy, row.energy_J)]
                for row in operations(ledger, PRICE_TABLES)
            ],
        ),
        folded="Counts and joules of each operation",
        alert=f"Not counted, since it is not known what they compute: {', '.join(map(str, uncounted))}."
        if uncounted
        else "",
    )


def _beside_float(run: RunRecord) -> dict[str, str]:
    found = [figure for figure in comparisons(run.summary) if figure.name == "energy of training"]
    return {
        f"Beside the same in float32, prices of {_MAIN.name}": bars(
            ["this run", "in float32"],
            [[figure.this, figure.other]],
            [figure.text(figure.this), figure.text(figure.other)],
            salt="float",
            colors=(_THIS, _FLOAT),
        )
        for figure in found
    }


def _layer_energy(ledger: Ledger, layers: Sequence[LayerCount]) -> str:
    parts_J = energy_by_layer(ledger, _MAIN)
    names = {layer.name: _name(layer) for layer in layers}
    kinds = list(zip(*parts_J.values(), strict=True))
    labels = [energy(sum(of_kinds)) for of_kinds in parts_J.values()]
    return bars([names.get(place, place) for place in parts_J], kinds, labels, salt="layers")


def _name(layer: LayerCount) -> str:
    """Layers of `nn.Sequential` have numbers for names, which say little."""
    return f"{layer.name} {layer.kind}"


def _layers(run: RunRecord) -> Part | None:
    layers, note = run.network.layers, run.network.note
    if not layers:
        return Part("Layers", alert=f"No layers are shown: {note}") if note else None
    weighted = [layer for layer in layers if layer.weights]
    wide = any(layer.weight_bits > LEVEL_BITS for layer in weighted)
    return Part(
        "Layers",
        "",
        _layer_bars(weighted),
        {"weights of 1 or 2 bits": 1, **({"wider weights": 2} if wide else {})} if weighted else {},
        Table(
            ["layer", "kind", "weights", "bits each", "bits in all", "other parameters", "input bits", "MAC"],
            [_layer_cells(layer) for layer in layers],
        ),
        folded="Layers with parameters; MAC: multiply-accumulates of one example's forward pass",
        alert=note,
    )


def _layer_cells(layer: LayerCount) -> list[str]:
    cells = [
        layer.weights,
        layer.weight_bits if layer.weights else 0,
        layer.weights * layer.weight_bits,
        layer.other_parameters,
        layer.input_bits,
        layer.multiply_accumulates,
    ]
    return [layer.name, layer.kind, *(f"{cell:,}" if cell else "" for cell in cells)]


def _layer_bars(layers: Sequence[LayerCount]) -> dict[str, str]:
    if not layers:
        return {}
    names, colors = list(map(_name, layers)), [1 if layer.weight_bits <= LEVEL_BITS else 2 for layer in layers]
    stored = [layer.weights * layer.weight_bits / 8 for layer in layers]
    work = [layer.multiply_accumulates for layer in layers]
    return {
        "Trained weights": bars(names, [stored], [size(n) for n in stored], salt="storage", colors=colors),
        "Multiply-accumulates of an example": bars(
            names, [work], [engineering(n).strip() for n in work], salt="work", colors=colors
        ),
    }


def _weight_state(run: RunRecord) -> Part | None:
    layers = run.summary.get("weight_state")
    if not isinstance(layers, dict) or not all(isinstance(values, dict) for values in layers.values()) or not layers:
        return None
    columns = list(dict.fromkeys(name for values in layers.values() for name in values))
    rows = [[name, *(_plain(values.get(column)) for column in columns)] for name, values in layers.items()]
    return Part("Weights, layer by layer", "At the end of training.", table=Table(["layer", *columns], rows))


def _device(device: Any) -> Iterator[Part]:
    """The figures of a simulated device: names with numbers or texts, and rows of energy."""
    if not isinstance(device, dict):
        return
    priced = [row for row in device.get("energy", ()) if isinstance(row, dict)] if "energy" in device else []
    facts = [list(row) for row in device_rows(device)]
    if facts:
        yield Part("Junctions", "Since the start of training.", table=Table(["figure", "value"], facts))
    if priced:
        rows = [[str(row.get("name")), _plain(row.get("joule"), "J"), str(row.get("table"))] for row in priced]
        yield Part("Energy of the junctions", table=Table(["operation", "energy", "prices"], rows))


def device_rows(device: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The figures of a simulated device in words: `write_energy_J` becomes `write energy`, in joules."""
    for name, value in device.items():
        if not isinstance(value, (dict, list)):
            words, _, unit = name.rpartition("_")
            if name == "fraction_in_0_s":  # no seconds: of the synapses that are 0
                yield "fraction of synapses at 0", _plain(value)
            elif unit in _UNITS:
                yield words.replace("_", " "), _plain(value, unit)
            else:
                yield name.replace("_", " "), _plain(value)


def _plain(value: Any, unit: str = "") -> str:
    if value is None:
        return ABSENT
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if unit:
        return f"{engineering(value)}{unit}"
    return number(value, "," if isinstance(value, int) else ".4g")
