"""Optimizers whose state takes few bits, one a file. Each steps one parameter at a time, some rows at a time."""

from bnn.optim.adam import Adam
from bnn.optim.base import LowBitOptimizer
from bnn.optim.boolean import Boolean
from bnn.optim.bop import Bop
from bnn.optim.dst import DST
from bnn.optim.in_backward import step_in_backward
from bnn.optim.sgd import SGD

__all__ = ["DST", "SGD", "Adam", "Boolean", "Bop", "LowBitOptimizer", "step_in_backward"]
