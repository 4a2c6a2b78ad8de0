"""NaN, infinity and huge numbers at random places of a training: none comes into a checkpoint."""

import json
import math
import warnings
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.torture.runs import PRESETS, RUNS, not_finite
from benchmarks.torture.trials import Kind, one_line, require, require_one_line
from bnn.errors import BnnError
from bnn.training import Callback, Run, Trainer
from tests.training.tiny_runs import EPOCHS, STEPS_AN_EPOCH

_VALUES = (math.nan, math.inf, -math.inf, 1e30, -1e30, 3e38)
_PLACES = ("weight", "buffer", "moment", "gradient", "input", "learning rate")
_LASTING = ("weight", "buffer", "moment", "learning rate")
_NAMES = [*PRESETS, "adam", "recu", "ternary levels", *(name for name in RUNS if " of " in name)]


class Poison(Callback):
    """Puts a value into one place from a step on, at a moment of that step."""

    def __init__(self, place: str, value: float, step: int, steps: int, chance: Random) -> None:
        self._place, self._value, self._chance = place, value, chance
        self._steps = range(step, step + steps)

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Takes hold of the inputs."""
        trainer.run.model.register_forward_pre_hook(lambda module, inputs: self._in(trainer, module, inputs))

    def on_gradients(self, trainer: Trainer) -> None:
        """Poisons gradients."""
        if self._place == "gradient" and trainer.step in self._steps:
            gradients = [p.grad for p in trainer.run.model.parameters() if p.grad is not None]
            self._poison([x for x in gradients if type(x) is Tensor])

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        """Poisons what lasts, once a step has been taken."""
        if trainer.step not in self._steps:
            return
        if self._place == "weight":
            self._poison([parameter.data for parameter in trainer.run.model.parameters()])
        elif self._place == "buffer":
            self._poison(list(trainer.run.model.buffers()))
        elif self._place == "moment":
            self._poison([x for x in trainer.run.states() if x.dim()])  # not torch's count of steps
        elif self._place == "learning rate":
            for group in trainer.run.optimizer.param_groups:
                group["lr"] = self._value

    def _in(self, trainer: Trainer, module: nn.Module, inputs: Any) -> Any:
        if self._place == "input" and module.training and trainer.step in self._steps:
            inputs = tuple(x.clone() for x in inputs)
            self._poison(list(inputs))
        return inputs

    def _poison(self, tensors: list[Tensor]) -> None:
        floating = [x for x in tensors if x.is_floating_point() and x.numel()]
        if floating:
            chosen = self._chance.choice(floating)
            with torch.no_grad():
                chosen[tuple(self._chance.randrange(size) for size in chosen.shape)] = self._value


def trial(chance: Random, folder: Path) -> None:
    """Trains with poison, then goes on without."""
    name, place, value = chance.choice(_NAMES), chance.choice(_PLACES), chance.choice(_VALUES)
    step, steps = chance.randrange(EPOCHS * STEPS_AN_EPOCH), chance.choice([1, 1, 2, 5])
    poison = Poison(place, value, step, steps, chance)
    what = f"{name}, {value} in a {place} at step {step}"
    out, every_s = folder / "run", chance.choice([0.0, 1e9])
    failed = _fit(Trainer(RUNS[name](), out, callbacks=[poison], checkpoint_every_s=every_s), what)
    checkpoints = sorted((out / "checkpoints").glob("*.safetensors"))
    require(checkpoints, f"{what}: no checkpoint is left")
    for path in checkpoints:
        bad = not_finite(load_file(path))
        require(not bad, f"{what}: {path.name} holds {bad[:1]} that is not finite")
    if failed is None:
        return
    failed = _fit(Trainer(RUNS[name](), out), what, resumes=True)
    if failed is not None and math.isfinite(value) and place in _LASTING:  # a number, as it may lie in a checkpoint
        require("does not hold" not in failed, f"{what}: a checkpoint that was written is refused: {failed}")
        return
    require(failed is None, f"{what}: the run does not go on: {failed}")
    summary = json.loads((out / "summary.json").read_text())
    for figure in ("test_loss", "test_accuracy"):
        require(
            isinstance(summary[figure], float), f"{what}: the {figure} of the run that went on is {summary[figure]}"
        )


def _fit(trainer: Trainer, what: str, *, resumes: bool = False) -> str | None:
    """Trains; gives the line of the error that ended it, or None."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            trainer.resume() if resumes else trainer.fit()
        except BnnError as error:
            require_one_line(error)
            return one_line(str(error))
    run: Run = trainer.run
    bad = not_finite(run.model.state_dict()) or [str(x.shape) for x in run.states() if not _finite(x)]
    require(not bad, f"{what}: a training ends well with {bad[:1]} that is not finite")
    return None


def _finite(x: Tensor) -> bool:
    return not x.is_floating_point() or bool(x.isfinite().all())


KINDS = (
    Kind(
        "nans",
        "NaN, infinity and 1e30 in a weight, statistic, moment, gradient, input or rate at a random step, every preset",
        trial,
        short=10,
        long=1000,
    ),
)
