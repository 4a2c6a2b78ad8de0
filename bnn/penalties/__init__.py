"""Terms of a loss that make weights cheap to store, and what makes such weights ternary."""

from bnn.penalties.base import Penalty, Scope
from bnn.penalties.compressibility import Compressibility
from bnn.penalties.hoyer_square import HoyerSquare
from bnn.penalties.penalized_loss import PenalizedLoss, PenaltySchedule, weights_of
from bnn.penalties.schedules import trapezoid
from bnn.penalties.sparse_store import SparseStore
from bnn.penalties.ternarize import Ternarize, keep_largest

__all__ = [
    "Compressibility",
    "HoyerSquare",
    "PenalizedLoss",
    "Penalty",
    "PenaltySchedule",
    "Scope",
    "SparseStore",
    "Ternarize",
    "keep_largest",
    "trapezoid",
    "weights_of",
]
