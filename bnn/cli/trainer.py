"""The trainer of a run, new or from its directory, as several commands need it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn.cli.arguments import ArgumentParser
from bnn.errors import RunError

if TYPE_CHECKING:
    import argparse

    import torch

    from bnn.training import Trainer
    from bnn.training.recipe import Recipe


def add_run_options(parser: ArgumentParser) -> None:
    """The options by which `trainer_of_run` finds what a run needs besides its directory."""
    parser.add_argument("--recipe", metavar="PATH", help="the recipe's file, where it has been moved")
    parser.add_argument("--device", help="cpu, cuda, mps or auto (default: as the run began)")


def trainer_of_run(directory: Path, options: argparse.Namespace, *, tensorboard: bool = False) -> Trainer:
    """The trainer of a run that exists, from its configuration.

    Args:
        directory: of the run.
        options: those of `add_run_options`.
        tensorboard: whether to write a TensorBoard log as well.

    Raises:
        RunError: the configuration is damaged, the recipe is gone, or the device cannot be used.
    """
    from bnn.training.directory import CONFIGURATION, read_json
    from bnn.training.recipe import load_recipe, values_from_json

    configuration = read_json(directory / CONFIGURATION)
    try:
        path, sha256 = Path(options.recipe or configuration["recipe"]), configuration["recipe_sha256"]
        arguments, device = configuration["arguments"], options.device or configuration["device"]
    except (KeyError, TypeError):
        raise RunError(f"{directory / CONFIGURATION} is not the configuration of a run") from None
    if not path.is_file():
        raise RunError(f"the recipe {path} of this run is gone: say where it is with --recipe PATH")
    recipe = load_recipe(path)
    if recipe.sha256 != sha256:
        warnings.warn(f"{path} has changed since the run began; it is used as it is now", stacklevel=2)
    trainer = make_trainer(recipe, values_from_json(recipe, arguments), directory, device, tensorboard=tensorboard)
    trainer.configuration = configuration
    return trainer


def make_trainer(
    recipe: Recipe, values: dict[str, Any], directory: Path, device: str, *, tensorboard: bool = False
) -> Trainer:
    """The trainer of a recipe, with the meters and the progress bar of the command line.

    Args:
        recipe: what to train.
        values: its arguments.
        directory: of the run.
        device: cpu, cuda, mps or another of torch's; or auto: cuda if there is one.
        tensorboard: whether to write a TensorBoard log as well.

    Raises:
        RunError: the device cannot be used.
    """
    from rich.console import Console

    from bnn.cost.meters import EnergyMeter, FloatComparison, MemoryMeter, SpeedMeter, StorageMeter
    from bnn.reports.progress import ProgressBar
    from bnn.reports.tensorboard import TensorBoard
    from bnn.training import Callback, Trainer
    from bnn.training.recipe import build

    meters: list[Callback] = [StorageMeter(), MemoryMeter(), EnergyMeter(), SpeedMeter(), FloatComparison()]
    callbacks = [*meters, ProgressBar(Console())]
    if tensorboard:
        callbacks.append(TensorBoard())
    return Trainer(build(recipe, values), directory, device=_device(device), callbacks=callbacks)


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError, TypeError) as error:
        raise RunError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return device
