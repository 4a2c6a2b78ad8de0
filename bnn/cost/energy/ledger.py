"""Counts of events, which follow from shapes and widths, and price tables, which turn them into joules."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

Op = Literal["multiply-accumulate", "read", "write"]
Phase = Literal["forward", "backward", "update"]
_Key = TypeVar("_Key", bound=Hashable)

INTEGER_BITS = 8
"""Operands up to this width are integers, as levels and 8-bit gradients are; wider ones are floats."""
LEVEL_BITS = 2
"""Operands up to this width are -1, 0 and +1."""


@dataclass(frozen=True)
class Event:
    """Something that hardware does, at one place of the network and of the training step."""

    op: Op
    bits: tuple[int, ...]
    """Widths of a product's two operands, narrower first, and of its accumulator; or of the element that is moved."""
    where: str
    """Name of the layer."""
    phase: Phase


def accumulator_bits(operand_bits: tuple[int, int], terms: int) -> int:
    """Width that holds every sum of products exactly.

    Of integers up to a and b in magnitude, a sum of K products takes one of 2Kab + 1 values, ceil(log2(2Kab + 1))
    bits; of ±1, ceil(log2(2K + 1)). A sum with floats is kept as wide as the wider operand, and rounded.

    Args:
        operand_bits: widths of the two operands.
        terms: K, at least 1.
    """
    if max(operand_bits) > INTEGER_BITS:
        return max(operand_bits)
    low, high = (1 if bits <= LEVEL_BITS else (1 << (bits - 1)) - 1 for bits in operand_bits)
    return (2 * terms * low * high).bit_length()


@dataclass
class Ledger:
    """How often each event happened."""

    counts: Counter[Event] = field(default_factory=Counter)

    def multiply_accumulates(
        self, where: str, phase: Phase, operand_bits: tuple[int, int], count: int, *, terms: int
    ) -> None:
        """Adds products whose operands have these widths, summed up `terms` at a time."""
        low, high = sorted(operand_bits)
        bits = (low, high, accumulator_bits(operand_bits, terms))
        self.counts[Event("multiply-accumulate", bits, where, phase)] += count

    def moves(self, op: Literal["read", "write"], where: str, phase: Phase, bits: int, elements: int) -> None:
        """Adds elements of a width read from or written to memory."""
        self.counts[Event(op, (bits,), where, phase)] += elements

    def scaled(self, factor: int) -> "Ledger":
        """The same events, `factor` times."""
        return Ledger(Counter({event: count * factor for event, count in self.counts.items()}))

    def split(self, key: Callable[[Event], _Key]) -> dict[_Key, "Ledger"]:
        """The events by what `key` says of them, such as their layer, in the order of their first."""
        parts: dict[_Key, Ledger] = {}
        for event, count in self.counts.items():
            parts.setdefault(key(event), Ledger()).counts[event] += count
        return parts

    @property
    def products(self) -> int:
        """Multiply-accumulates of whatever width."""
        return sum(count for event, count in self.counts.items() if event.op == "multiply-accumulate")

    @property
    def moved_bytes(self) -> float:
        """Bytes read and written; bits are not rounded up to bytes."""
        return (
            sum(count * event.bits[0] for event, count in self.counts.items() if event.op != "multiply-accumulate") / 8
        )

    def energy_J(self, prices: "PriceTable") -> float:
        """Joules of all events under a price table."""
        return sum(count * prices.price_J(event) for event, count in self.counts.items())

    def to_rows(self) -> list[list[Any]]:
        """JSON values: op, bits, layer, phase and count of each event."""
        return [[event.op, list(event.bits), event.where, event.phase, n] for event, n in self.counts.items()]

    @staticmethod
    def from_rows(rows: Iterable[Iterable[Any]]) -> "Ledger":
        """The ledger that `to_rows` wrote.

        Raises:
            ValueError: these are not its rows.
            TypeError: these are not its rows.
        """
        ledger = Ledger()
        for op, bits, where, phase, count in rows:
            wide = 3 if op == "multiply-accumulate" else 1
            numbers = [count, *bits]
            if not all(type(number) is int and number >= 0 for number in numbers) or len(bits) != wide:
                raise ValueError(f"{op!r} of {str(bits)[:40]} bits, {str(count)[:40]} times")
            if op not in ("multiply-accumulate", "read", "write") or phase not in ("forward", "backward", "update"):
                raise ValueError(f"there is no event {str(op)[:40]!r} in {str(phase)[:40]!r}")
            ledger.counts[Event(op, tuple(bits), str(where), phase)] += count
        return ledger


@dataclass(frozen=True)
class PriceTable:
    """Joules for each event, from one source."""

    name: str
    source: str
    caveat: str
    price_J: Callable[[Event], float]
    """Joules of one event: a product with its accumulation, or one element moved."""
