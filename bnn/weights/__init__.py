"""Where the weight of a binary layer lives, one kind of store a file."""

from bnn.weights.accumulator import Accumulator, AccumulatorStore, is_accumulator
from bnn.weights.base import StoreFactory, WeightStore, named_stores
from bnn.weights.default import default_store, make_store
from bnn.weights.discrete import DiscreteStore, ProgrammableStore, ProgrammedWeight, store_behind
from bnn.weights.frozen import FrozenStore
from bnn.weights.hadamard import HadamardStore
from bnn.weights.latent import LatentStore
from bnn.weights.sparse import SparseStore

__all__ = [
    "Accumulator",
    "AccumulatorStore",
    "DiscreteStore",
    "FrozenStore",
    "HadamardStore",
    "LatentStore",
    "ProgrammableStore",
    "ProgrammedWeight",
    "SparseStore",
    "StoreFactory",
    "WeightStore",
    "default_store",
    "is_accumulator",
    "make_store",
    "named_stores",
    "store_behind",
]
