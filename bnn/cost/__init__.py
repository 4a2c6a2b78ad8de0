"""Layers, operations and weights of a network, counted from shapes; their cost is in memory/, energy/ and meters/."""

from bnn.cost.count import NetworkCount, count_layers, count_network
from bnn.cost.layer_count import LayerCount
from bnn.cost.storage import Storage, storage

__all__ = ["LayerCount", "NetworkCount", "Storage", "count_layers", "count_network", "storage"]
