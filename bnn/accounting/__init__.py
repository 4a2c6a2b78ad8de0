"""Accounting: what a network and its training cost in storage, memory and energy."""

from bnn.accounting.count import LayerCount, count_layers, count_step
from bnn.accounting.ledger import Event, Ledger, PriceTable
from bnn.accounting.memory import peak_device_bytes, peak_rss_bytes
from bnn.accounting.meters import EnergyMeter, MemoryMeter, StorageMeter
from bnn.accounting.prices import HOROWITZ_45NM
from bnn.accounting.storage import Storage, storage

__all__ = [
    "HOROWITZ_45NM",
    "EnergyMeter",
    "Event",
    "LayerCount",
    "Ledger",
    "MemoryMeter",
    "PriceTable",
    "Storage",
    "StorageMeter",
    "count_layers",
    "count_step",
    "peak_device_bytes",
    "peak_rss_bytes",
    "storage",
]
