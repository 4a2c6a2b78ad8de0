"""Price tables. Every constant says where it is from; what a table had to assume is its caveat."""

from dataclasses import replace

from bnn.cost.energy.ledger import PriceTable
from bnn.cost.energy.price_rule import Constants

_PICOJOULE = 1e-12
_ONCE = "every operand of a layer is taken to move between {memory} and the arithmetic once, without caches"

# Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, 45 nm at 0.9 V.
_HOROWITZ = Constants(
    integer_add_per_bit_J=0.1 * _PICOJOULE / 32,
    int8_multiply_J=0.2 * _PICOJOULE,
    float_add_J=(0.4 * _PICOJOULE, 0.9 * _PICOJOULE),
    float_multiply_J=(1.1 * _PICOJOULE, 3.7 * _PICOJOULE),
    # 1.3 to 2.6 nJ for a 64-bit access; the middle.
    memory_per_bit_J=1950 * _PICOJOULE / 64,
)

# Jouppi et al., "Ten lessons from three generations shaped Google's TPUv4i", ISCA 2021, table 2, column "7 nm".
_JOUPPI = Constants(
    integer_add_per_bit_J=0.03 * _PICOJOULE / 32,
    int8_multiply_J=0.07 * _PICOJOULE,
    float_add_J=(0.16 * _PICOJOULE, 0.38 * _PICOJOULE),
    float_multiply_J=(0.34 * _PICOJOULE, 1.31 * _PICOJOULE),
    # A 64-bit access to DDR4; the table has 250 to 450 pJ for HBM2 and 350 to 480 pJ for GDDR6.
    memory_per_bit_J=1300 * _PICOJOULE / 64,
)
# A 64-bit access to 1 MB of on-chip memory.
_JOUPPI_ON_CHIP = replace(_JOUPPI, memory_per_bit_J=14 * _PICOJOULE / 64)
_JOUPPI_SOURCE = (
    "N. P. Jouppi et al., Ten lessons from three generations shaped Google's TPUv4i, ISCA 2021,"
    " doi 10.1109/ISCA52012.2021.00010, table 2"
)

HOROWITZ_45NM = PriceTable(
    name="Horowitz 2014, 45 nm",
    source="M. Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014, figure 1.1.9",
    caveat=_ONCE.format(memory="DRAM"),
    price_J=_HOROWITZ.price_J,
)

JOUPPI_7NM = PriceTable(
    name="Jouppi 2021, 7 nm",
    source=_JOUPPI_SOURCE,
    caveat=_ONCE.format(memory="DDR4") + "; in HBM2, which the source lists too, a move costs 3 to 5 times less",
    price_J=_JOUPPI.price_J,
)

JOUPPI_7NM_ON_CHIP = PriceTable(
    name="Jouppi 2021, 7 nm, all on chip",
    source=_JOUPPI_SOURCE,
    caveat=_ONCE.format(memory="1 MB of SRAM")
    + ", as if all of training fitted: a bound that no large network reaches",
    price_J=_JOUPPI_ON_CHIP.price_J,
)

PRICE_TABLES = (HOROWITZ_45NM, JOUPPI_7NM, JOUPPI_7NM_ON_CHIP)
"""The first is the one that headlines name."""
