"""The compressed model file, `.bnnz`: what inference needs of a trained network, in few bits."""

from bnn.codec.frozen_store import FrozenStore
from bnn.codec.model import load_into, load_tensors, save

__all__ = ["FrozenStore", "load_into", "load_tensors", "save"]
