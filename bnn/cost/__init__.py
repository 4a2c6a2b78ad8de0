"""What a network consists of, counted from shapes; what that costs is in memory/ and energy/, of a run in meters/."""

from bnn.cost.count import NetworkCount, count_layers, count_network
from bnn.cost.layer_count import LayerCount
from bnn.cost.storage import Storage, storage

__all__ = ["LayerCount", "NetworkCount", "Storage", "count_layers", "count_network", "storage"]
