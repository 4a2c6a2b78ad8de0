"""What the directory of a run gives to several commands: its recipe, its trainer and its model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn.cli.arguments import ArgumentParser
from bnn.errors import RunError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bnn.codec import Model
    from bnn.training import Run, Trainer
    from bnn.training.recipe import Recipe


def add_recipe_option(parser: ArgumentParser) -> None:
    """The option by which a user says that a file may be executed."""
    parser.add_argument(
        "--recipe", metavar="PATH", help="execute this file as the run's recipe, where that is none of the package"
    )


def recipe_of_run(directory: Path, configuration: dict[str, Any], path: str | None) -> Recipe | None:
    """The recipe of a run. Nothing in the directory is executed: only recipes of the package, and what `path` names.

    Args:
        directory: of the run.
        configuration: the run's.
        path: a file that the user trusts; None for none.

    Returns:
        The recipe; None where the run has none, or one that the user would have to name.

    Raises:
        RecipeError: the file cannot be executed or is no recipe.
    """
    from bnn.training.directory import RECIPE
    from bnn.training.recipe import find_recipe, load_recipe

    name = configuration.get("recipe")
    file = Path(path) if path is not None else find_recipe(name) if isinstance(name, str) else None
    if file is None:
        return None
    recipe = load_recipe(file)
    if recipe.sha256 != configuration.get("recipe_sha256"):
        warnings.warn(
            f"{file} is not the recipe that the run began with, of which {directory / RECIPE} is a copy; it is used as"
            " it is now",
            stacklevel=2,
        )
    return recipe


def named_recipe(directory: Path, configuration: dict[str, Any], path: str | None) -> Recipe:
    """As `recipe_of_run`, where there has to be one.

    Raises:
        RunError: the run has none, or one that the user has to name.
    """
    from bnn.training.directory import RECIPE

    recipe = recipe_of_run(directory, configuration, path)
    if recipe is None and (directory / RECIPE).exists():
        raise RunError(
            f"the recipe of {directory} is not one of the package, and a file in it is only executed where you name it:"
            f" if you trust it, add --recipe {directory / RECIPE}"
        )
    if recipe is None:
        raise RunError(f"{directory} was made without a recipe: go on with it in Python, by Trainer(...).resume()")
    return recipe


def arguments_of_run(directory: Path, configuration: dict[str, Any]) -> dict[str, Any]:
    """The recipe's arguments in a configuration.

    Raises:
        RunError: there are none.
    """
    arguments = configuration.get("arguments")
    if not isinstance(arguments, dict):
        raise RunError(f"{directory / 'config.json'} is not the configuration of a run of a recipe")
    return arguments


def moved_data(recipe: Recipe, arguments: dict[str, Any], data_dir: Path) -> dict[str, Any]:
    """The recipe's arguments for data that lie elsewhere now: other files of data that lay beside them moved along.

    Args:
        recipe: the run's.
        arguments: of the run, from its configuration.
        data_dir: where the data are now.
    """
    old = Path(str(arguments.get("data_dir")))
    folders = {old: data_dir, old.parent: data_dir.parent}
    moved: dict[str, Any] = {"data_dir": data_dir}
    for name in recipe.data_parameters:
        value = arguments.get(name)
        path = Path(value) if isinstance(value, str) else Path()
        if name != "data_dir" and path.is_absolute() and path.parent in folders:
            moved[name] = folders[path.parent] / path.name
    return moved


def model_file(path: Path) -> Path:
    """The model file of a run's directory, as the network is after its last epoch, or the file that is named.

    Raises:
        RunError: the run has no model yet, or is of another version.
    """
    from bnn.training.directory import MODEL, read_configuration

    if path.is_file():
        return path
    if path.suffix and not path.exists():
        raise RunError(f"there is no {path}: name a model file, or the directory of a run")
    read_configuration(path)
    if not (path / MODEL).is_file():
        raise RunError(f"{path} has no model yet, its first epoch is not done: go on with `bnn train --resume {path}`")
    return path / MODEL


def model_of(path: Path, recipe_path: str | None) -> Model:
    """The model of a run's directory or of a model file.

    Args:
        path: of either.
        recipe_path: a file with classes of which the network has modules; it is executed.

    Raises:
        RunError: the run has no model yet, or one that is not finite.
        CodecError: the file cannot be read, or its network not be made.
    """
    import inspect

    from torch import nn

    from bnn.codec import load
    from bnn.training.execute import execute

    file = model_file(path)
    own = [] if recipe_path is None else vars(execute(Path(recipe_path))).values()
    model = load(file, classes=[cls for cls in own if inspect.isclass(cls) and issubclass(cls, nn.Module)])
    require_finite(model.network.state_dict(), file)
    return model


def require_finite(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Refuses a model that has diverged.

    Raises:
        RunError: a tensor has NaN or infinite values.
    """
    from bnn.training.finite import first_not_finite

    name = first_not_finite(tensors)
    if name is not None:
        raise RunError(f"{file} is of no use: its {name} is not finite; train anew with a lower learning rate")


def make_trainer(
    make_run: Callable[[], Run],
    directory: Path,
    device: str,
    *,
    tensorboard: bool = False,
    profile_memory: bool = False,
) -> Trainer:
    """The trainer of a run, with the meters and the progress bar of the command line.

    Args:
        make_run: makes what to train.
        directory: of the run.
        device: cpu, cuda, mps or another of torch's; or auto: cuda if there is one.
        tensorboard: whether to write a TensorBoard log as well.
        profile_memory: whether to keep the memory of the process over time.

    Raises:
        RunError: the device cannot be used, or the system does not tell the memory.
    """
    from rich.console import Console

    from bnn.cost.meters import (
        EnergyMeter,
        ExchangeMeter,
        FloatComparison,
        MemoryMeter,
        MemoryProfile,
        SpeedMeter,
        StorageMeter,
    )
    from bnn.reports.progress import ProgressBar
    from bnn.reports.tensorboard import TensorBoard
    from bnn.training import Callback, Trainer

    run = make_run()
    if run.exchange is not None and run.exchange.ranks.rank:  # the first speaks for all
        return Trainer(run, directory, device=device_named(device))
    meters: list[Callback] = [
        StorageMeter(),
        MemoryMeter(),
        EnergyMeter(),
        SpeedMeter(),
        FloatComparison(),
        ExchangeMeter(),
    ]
    callbacks = [*meters, ProgressBar(Console())]
    if tensorboard:
        callbacks.append(TensorBoard())
    if profile_memory:
        callbacks.append(MemoryProfile())
    return Trainer(run, directory, device=device_named(device), callbacks=callbacks)


@contextmanager
def new_folder(parent: Path, name: str) -> Iterator[Path]:
    """A folder that nobody else has, which goes again if it stays empty.

    Args:
        parent: made if missing.
        name: of the folder; with a number behind it if there is one of this name.

    Raises:
        RunError: it cannot be made.
    """
    from bnn.training.directory import writing

    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    with writing(parent):
        parent.mkdir(parents=True, exist_ok=True)
        folder = next(folder for folder in (parent / name for name in names) if _is_made(folder))
    try:
        yield folder
    finally:
        with suppress(OSError):
            folder.rmdir()


def _is_made(folder: Path) -> bool:
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def device_named(name: str) -> torch.device:
    """A device of torch's.

    Raises:
        RunError: it cannot be used.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError, TypeError, ValueError, OverflowError) as error:
        raise RunError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return device
