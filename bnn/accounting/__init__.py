"""Accounting: what a network and its training cost in storage, memory and energy."""

from bnn.accounting.count import NetworkCount, count_layers, count_network
from bnn.accounting.layer_count import LayerCount
from bnn.accounting.ledger import Event, Ledger, PriceTable
from bnn.accounting.memory import peak_device_bytes, peak_rss_bytes
from bnn.accounting.meters import EnergyMeter, MemoryMeter, StorageMeter
from bnn.accounting.prices import HOROWITZ_45NM, PRICE_TABLES
from bnn.accounting.step import count_step
from bnn.accounting.storage import Storage, storage
from bnn.accounting.weight_meters import WeightMeter

__all__ = [
    "HOROWITZ_45NM",
    "PRICE_TABLES",
    "EnergyMeter",
    "Event",
    "LayerCount",
    "Ledger",
    "MemoryMeter",
    "NetworkCount",
    "PriceTable",
    "Storage",
    "StorageMeter",
    "WeightMeter",
    "count_layers",
    "count_network",
    "count_step",
    "peak_device_bytes",
    "peak_rss_bytes",
    "storage",
]
