"""Accounting: what a network and its training cost in storage, memory and energy."""

from bnn.cost.count import NetworkCount, count_layers, count_network
from bnn.cost.energy.ledger import Event, Ledger, PriceTable
from bnn.cost.energy.prices import HOROWITZ_45NM, PRICE_TABLES
from bnn.cost.energy.step import count_step
from bnn.cost.layer_count import LayerCount
from bnn.cost.memory.resident import peak_device_bytes, peak_rss_bytes
from bnn.cost.meters import EnergyMeter, MemoryMeter, StorageMeter
from bnn.cost.storage import Storage, storage
from bnn.cost.weight_meter import WeightMeter

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
