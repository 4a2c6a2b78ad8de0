"""Training: a `TrainingStep` steps a model, a `Run` says how long, the `Trainer` trains it, callbacks add the rest."""

from bnn.layers.precision import Precision
from bnn.training.callback import Callback
from bnn.training.run import Run
from bnn.training.schedules import sequential, trapezoid, warmup_cosine
from bnn.training.start import start_from
from bnn.training.step import Loss, StepResult, TrainingStep
from bnn.training.trainer import Trainer

__all__ = [
    "Callback",
    "Loss",
    "Precision",
    "Run",
    "StepResult",
    "Trainer",
    "TrainingStep",
    "sequential",
    "start_from",
    "trapezoid",
    "warmup_cosine",
]
