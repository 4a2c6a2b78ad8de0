"""What a network and its training cost in storage, memory and energy."""

from bnn.cost.card import quantization_card
from bnn.cost.count import NetworkCount, count_layers, count_network
from bnn.cost.energy import HOROWITZ_45NM, PRICE_TABLES, Event, Ledger, PriceTable, count_step
from bnn.cost.gated_xnor import GatedXnorMeter
from bnn.cost.layer_count import LayerCount
from bnn.cost.memory import measure_step, peak_device_bytes, peak_rss_bytes, predict_step
from bnn.cost.meters import EnergyMeter, MemoryMeter, StorageMeter
from bnn.cost.storage import Storage, storage
from bnn.cost.weight_meter import WeightMeter

__all__ = [
    "HOROWITZ_45NM",
    "PRICE_TABLES",
    "EnergyMeter",
    "Event",
    "GatedXnorMeter",
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
    "measure_step",
    "peak_device_bytes",
    "peak_rss_bytes",
    "predict_step",
    "quantization_card",
    "storage",
]
