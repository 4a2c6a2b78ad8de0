"""Price tables. Every constant says where it is from; what a table had to assume is its caveat."""

from bnn.accounting.ledger import Event, PriceTable

_PICOJOULE = 1e-12

# Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, 45 nm at 0.9 V.
_INTEGER_ADD_PER_BIT_J = 0.1 * _PICOJOULE / 32
_FLOAT_ADD_J = {16: 0.4 * _PICOJOULE, 32: 0.9 * _PICOJOULE}
_FLOAT_MULTIPLY_J = {16: 1.1 * _PICOJOULE, 32: 3.7 * _PICOJOULE}
# 1.3 to 2.6 nJ for a 64-bit access; the middle.
_DRAM_PER_BIT_J = 1950 * _PICOJOULE / 64
# Not in the source: an exact sum of ±1 products needs at most 16 bits up to 32,767 terms.
_ACCUMULATOR_BITS = 16


def _horowitz_price_J(event: Event) -> float:
    if event.op != "multiply-accumulate":
        return event.bits[0] * _DRAM_PER_BIT_J
    narrow, wide = event.bits
    if wide <= 2:
        return _ACCUMULATOR_BITS * _INTEGER_ADD_PER_BIT_J
    width = 16 if wide <= 16 else 32
    # A factor of -1, 0 or +1 needs no multiplier: the other operand is added or subtracted.
    return _FLOAT_ADD_J[width] + (_FLOAT_MULTIPLY_J[width] if narrow > 2 else 0.0)


HOROWITZ_45NM = PriceTable(
    name="Horowitz 2014, 45 nm",
    source="M. Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014, figure 1.1.9",
    caveat=(
        "every operand of a layer is taken to move between DRAM and the arithmetic once, without caches; a product of"
        " ±1 is priced as a 16-bit integer addition in proportion to its bits, which the source does not list"
    ),
    price_J=_horowitz_price_J,
)
