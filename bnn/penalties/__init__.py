"""Terms of a loss that make weights cheap to store."""

from bnn.penalties.base import Penalty, Scope
from bnn.penalties.compressibility import Compressibility
from bnn.penalties.hoyer_square import HoyerSquare
from bnn.penalties.penalized_loss import PenalizedLoss, PenaltySchedule, weights_of
from bnn.penalties.schedules import trapezoid

__all__ = [
    "Compressibility",
    "HoyerSquare",
    "PenalizedLoss",
    "Penalty",
    "PenaltySchedule",
    "Scope",
    "trapezoid",
    "weights_of",
]
