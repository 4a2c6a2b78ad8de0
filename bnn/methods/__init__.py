"""Published methods of training, one a file: callbacks, terms of the loss, training steps, optimizers."""

from bnn.methods.bep import MarginLoss, bep_step
from bnn.methods.bgd import BGD
from bnn.methods.boolean import boolean_step
from bnn.methods.compressibility import Compressibility
from bnn.methods.distillation import DistilledLoss, Teacher, torchvision_teacher, trained_teacher
from bnn.methods.foo_vb import FOOVB
from bnn.methods.gxnor import gxnor_augmentation, gxnor_step
from bnn.methods.hoyer_square import HoyerSquare
from bnn.methods.median_gradient import MedianGradient
from bnn.methods.ovsw import AdaptiveGradientScaling, SilenceAwareDecay
from bnn.methods.penalized_loss import PenalizedLoss, PenaltySchedule, weights_of
from bnn.methods.penalty import Penalty
from bnn.methods.recu import TauSchedule
from bnn.methods.spatial_contrast import LinearProbe, SpatialContrast
from bnn.methods.ternarize import Ternarize
from bnn.methods.transposable import Transposable

__all__ = [
    "BGD",
    "FOOVB",
    "AdaptiveGradientScaling",
    "Compressibility",
    "DistilledLoss",
    "HoyerSquare",
    "LinearProbe",
    "MarginLoss",
    "MedianGradient",
    "PenalizedLoss",
    "Penalty",
    "PenaltySchedule",
    "SilenceAwareDecay",
    "SpatialContrast",
    "TauSchedule",
    "Teacher",
    "Ternarize",
    "Transposable",
    "bep_step",
    "boolean_step",
    "gxnor_augmentation",
    "gxnor_step",
    "torchvision_teacher",
    "trained_teacher",
    "weights_of",
]
