"""Training: a `Run` says what to train, the `Trainer` trains it, callbacks add the rest."""

from bnn.training.callback import Callback
from bnn.training.gradient_scaling import AdaptiveGradientScaling
from bnn.training.latents import ClipLatents, ProjectLatents
from bnn.training.run import Precision, Run
from bnn.training.schedules import TauSchedule, one_then, recu_tau, warmup_cosine
from bnn.training.silence_decay import SilenceAwareDecay
from bnn.training.start import start_from
from bnn.training.trainer import Trainer

__all__ = [
    "AdaptiveGradientScaling",
    "Callback",
    "ClipLatents",
    "Precision",
    "ProjectLatents",
    "Run",
    "SilenceAwareDecay",
    "TauSchedule",
    "Trainer",
    "one_then",
    "recu_tau",
    "start_from",
    "warmup_cosine",
]
