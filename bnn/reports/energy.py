"""The figures that a report shows of a ledger: counts by operation, and their energy under each price table."""

from collections.abc import Sequence
from dataclasses import dataclass

from bnn.cost.energy import Event, Ledger, PriceTable

KINDS = ("products, forward", "products, backward", "moves, forward", "moves, backward", "moves, update")
"""Kinds of events, in the order in which figures show them."""
_MIN_SHARE = 0.01


@dataclass(frozen=True)
class Operation:
    """Events of the same operation, widths and phase."""

    name: str
    phase: str
    count: float
    """Products, or bytes moved."""
    unit: str
    energy_J: tuple[float, ...]
    """Under each price table."""


def kind(event: Event) -> str:
    """Which one of `KINDS` an event is of."""
    return f"{'products' if event.op == 'multiply-accumulate' else 'moves'}, {event.phase}"


def energy_by_kind(ledger: Ledger, prices: PriceTable) -> list[float]:
    """Joules of each of `KINDS`."""
    parts = ledger.split(kind)
    return [parts[name].energy_J(prices) if name in parts else 0.0 for name in KINDS]


def energy_by_layer(ledger: Ledger, prices: PriceTable) -> dict[str, list[float]]:
    """Joules of each layer by `KINDS`. Layers below a hundredth of the whole are summed up as `others`."""
    least = _MIN_SHARE * ledger.energy_J(prices)
    layers: dict[str, list[float]] = {}
    others = [0.0] * len(KINDS)
    for name, events in ledger.split(lambda event: event.where).items():
        parts_J = energy_by_kind(events, prices)
        if sum(parts_J) < least:
            others = [x + y for x, y in zip(others, parts_J, strict=True)]
        else:
            layers[name] = parts_J
    return {**layers, "others": others} if any(others) else layers


def operations(ledger: Ledger, tables: Sequence[PriceTable]) -> list[Operation]:
    """Every operation with its count and its joules; phases in their order, products first."""
    found = []
    for (phase, is_move, widths), events in ledger.split(_operation).items():
        count = events.moved_bytes if is_move else events.products
        energy_J = tuple(events.energy_J(table) for table in tables)
        found.append((phase, is_move, widths, count, energy_J))
    order = ("forward", "backward", "update")
    return [
        Operation(_name(is_move, widths), phase, count, "B" if is_move else "", energy_J)
        for phase, is_move, widths, count, energy_J in sorted(found, key=lambda row: (order.index(row[0]), *row[1:3]))
    ]


def _operation(event: Event) -> tuple[str, bool, tuple[int, ...]]:
    is_move = event.op != "multiply-accumulate"
    return event.phase, is_move, () if is_move else event.bits[:2]


def _name(is_move: bool, widths: tuple[int, ...]) -> str:
    if is_move:
        return "moved"
    narrow, wide = widths
    if wide == 1:
        return "±1 x ±1: XNOR, count"
    return f"{_operand(narrow)} x {_operand(wide)}"


def _operand(bits: int) -> str:
    names = {1: "±1", 2: "-1, 0, +1"}
    return names.get(bits, f"int{bits}" if bits <= 8 else f"float{bits}")
