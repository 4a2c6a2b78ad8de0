"""Price tables. Every constant says where it is from; what a table had to assume is its caveat."""

from bnn.accounting.ledger import PriceTable
from bnn.accounting.price_rule import Constants

_PICOJOULE = 1e-12

# Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, 45 nm at 0.9 V.
_CONSTANTS = Constants(
    integer_add_per_bit_J=0.1 * _PICOJOULE / 32,
    float_add_J=(0.4 * _PICOJOULE, 0.9 * _PICOJOULE),
    float_multiply_J=(1.1 * _PICOJOULE, 3.7 * _PICOJOULE),
    # 1.3 to 2.6 nJ for a 64-bit access; the middle.
    dram_per_bit_J=1950 * _PICOJOULE / 64,
)

HOROWITZ_45NM = PriceTable(
    name="Horowitz 2014, 45 nm",
    source="M. Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014, figure 1.1.9",
    caveat=(
        "every operand of a layer is taken to move between DRAM and the arithmetic once, without caches; a product of"
        " ±1 is priced as a 16-bit integer addition in proportion to its bits, which the source does not list"
    ),
    price_J=_CONSTANTS.price_J,
)
