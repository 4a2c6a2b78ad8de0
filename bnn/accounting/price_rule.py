"""How the constants of a process become the price of an event. The same for every table, so that tables compare."""

from dataclasses import dataclass

from bnn.accounting.ledger import Event

# An exact sum of ±1 products needs at most 16 bits up to 32,767 terms.
_ACCUMULATOR_BITS = 16


@dataclass(frozen=True)
class Constants:
    """Joules of the operations that sources list.

    A product is a multiplication and an addition. A factor of -1, 0 or +1 needs no multiplier: the other operand is
    added or subtracted. A product of two such factors is an addition to a 16-bit integer, in proportion to its bits.
    Other products are priced as those of floats, of 16 bits up to this width and of 32 above.
    """

    integer_add_per_bit_J: float
    float_add_J: tuple[float, float]
    """16 and 32 bits."""
    float_multiply_J: tuple[float, float]
    """16 and 32 bits."""
    dram_per_bit_J: float
    """Read or written; every move is taken to be one of DRAM."""

    def price_J(self, event: Event) -> float:
        """Joules of one event: a product with its accumulation, or one element moved."""
        if event.op != "multiply-accumulate":
            return event.bits[0] * self.dram_per_bit_J
        narrow, wide = event.bits
        if wide <= 2:
            return _ACCUMULATOR_BITS * self.integer_add_per_bit_J
        width = 0 if wide <= 16 else 1
        return self.float_add_J[width] + (self.float_multiply_J[width] if narrow > 2 else 0.0)
