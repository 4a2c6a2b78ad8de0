"""How the constants of a process become the price of an event. The same for every table, so that tables compare."""

from dataclasses import dataclass

from bnn.cost.energy.ledger import INTEGER_BITS, LEVEL_BITS, Event


@dataclass(frozen=True)
class Constants:
    """Joules of the operations that sources list.

    A product is a multiplication and an addition to an accumulator. A factor of -1, 0 or +1 needs no multiplier: the
    other operand is added or subtracted. Integers, up to 8 bits wide, are added at the width of their accumulator and
    multiplied as 8 bits. Other products are priced as those of floats, of 16 bits up to this width and of 32 above.
    """

    integer_add_per_bit_J: float
    """Joules for each bit of the accumulator."""
    int8_multiply_J: float
    float_add_J: tuple[float, float]
    """16 and 32 bits."""
    float_multiply_J: tuple[float, float]
    """16 and 32 bits."""
    memory_per_bit_J: float
    """Read or written; every move is taken to be one of the same memory."""

    def price_J(self, event: Event) -> float:
        """Joules of one event: a product with its accumulation, or one element moved."""
        if event.op != "multiply-accumulate":
            return event.bits[0] * self.memory_per_bit_J
        narrow, wide, accumulator = event.bits
        multiplied = narrow > LEVEL_BITS
        if wide <= INTEGER_BITS:
            return accumulator * self.integer_add_per_bit_J + (self.int8_multiply_J if multiplied else 0.0)
        width = 0 if wide <= 16 else 1
        return self.float_add_J[width] + (self.float_multiply_J[width] if multiplied else 0.0)
