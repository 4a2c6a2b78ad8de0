"""The compressed model file, `.bnnz`: what inference needs of a trained network, in few bits."""

from bnn.codec.inference import Guess, Model, described, load
from bnn.codec.model import load_into, load_tensors, save
from bnn.weights import FrozenStore

__all__ = ["FrozenStore", "Guess", "Model", "described", "load", "load_into", "load_tensors", "save"]
