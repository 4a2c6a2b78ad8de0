"""The energy of training: counts of what hardware does, and price tables that turn them into joules."""

from bnn.cost.energy.ledger import Event, Ledger, PriceTable
from bnn.cost.energy.prices import HOROWITZ_45NM, JOUPPI_7NM, JOUPPI_7NM_ON_CHIP, PRICE_TABLES
from bnn.cost.energy.step import count_step

__all__ = [
    "HOROWITZ_45NM",
    "JOUPPI_7NM",
    "JOUPPI_7NM_ON_CHIP",
    "PRICE_TABLES",
    "Event",
    "Ledger",
    "PriceTable",
    "count_step",
]
