"""Counts and prices. Counts are facts; joules are one table's opinion of them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Op = Literal["multiply-accumulate", "read", "write"]
Phase = Literal["forward", "backward", "update"]


@dataclass(frozen=True)
class Event:
    """Something that hardware does, at one place of the network and of the training step."""

    op: Op
    bits: tuple[int, ...]
    """Widths of a product's two operands, narrower first; or the width of the element that is moved."""
    where: str
    """Name of the layer."""
    phase: Phase


@dataclass
class Ledger:
    """How often each event happened."""

    counts: Counter[Event] = field(default_factory=Counter)

    def multiply_accumulates(self, where: str, phase: Phase, operand_bits: tuple[int, int], count: int) -> None:
        """Adds products whose operands have these widths."""
        low, high = sorted(operand_bits)
        self.counts[Event("multiply-accumulate", (low, high), where, phase)] += count

    def moves(self, op: Literal["read", "write"], where: str, phase: Phase, bits: int, elements: int) -> None:
        """Adds elements of a width read from or written to memory."""
        self.counts[Event(op, (bits,), where, phase)] += elements

    def scaled(self, factor: int) -> "Ledger":
        """The same events, `factor` times."""
        return Ledger(Counter({event: count * factor for event, count in self.counts.items()}))

    def energy_J(self, prices: "PriceTable") -> float:
        """Joules of all events under a price table."""
        return sum(count * prices.price_J(event) for event, count in self.counts.items())


@dataclass(frozen=True)
class PriceTable:
    """Joules for each event, from one source."""

    name: str
    source: str
    caveat: str
    price_J: Callable[[Event], float]
    """Joules of one event: a product with its accumulation, or one element moved."""
