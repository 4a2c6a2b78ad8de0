"""Where the weight of a binary layer lives, one way a file."""

from bnn.weights.accumulator import Accumulator, AccumulatorStore
from bnn.weights.base import StoreFactory, WeightStore, named_stores
from bnn.weights.discrete import DiscreteStore, ProgrammableStore, ProgrammedWeight
from bnn.weights.frozen import FrozenStore
from bnn.weights.latent import LatentStore
from bnn.weights.sparse import SparseStore

__all__ = [
    "Accumulator",
    "AccumulatorStore",
    "DiscreteStore",
    "FrozenStore",
    "LatentStore",
    "ProgrammableStore",
    "ProgrammedWeight",
    "SparseStore",
    "StoreFactory",
    "WeightStore",
    "named_stores",
]
