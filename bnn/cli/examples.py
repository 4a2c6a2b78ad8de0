"""The data of a run, or of a folder, for what commands do with a network that has been trained."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bnn.cli.arguments import ArgumentParser
from bnn.cli.trainer import add_recipe_option, arguments_of_run, moved_data, named_recipe
from bnn.errors import RunError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from bnn.codec import Model
    from bnn.data import Split
    from bnn.training import Run
    from bnn.training.recipe import Recipe


class Examples(NamedTuple):
    """Labelled data for a model, its labels those of the model."""

    train: Split
    test: Split | None
    """None where there are none but those of `train`."""


def add_model_options(parser: ArgumentParser) -> None:
    """The model, and where its data are."""
    parser.add_argument("model", metavar="RUN|FILE", type=Path, help="directory of a run, or a model file (.bnnz)")
    parser.add_argument("--data-dir", metavar="DIR", type=Path, help="where the data are now; of a model file, any")
    parser.add_argument("--examples", metavar="N", type=int, default=512, help="how many to look at (default: 512)")
    add_recipe_option(parser)


def recipe_with_values(options: argparse.Namespace) -> tuple[Recipe, dict[str, Any]]:
    """The recipe of a run and its arguments, with the data where they are now.

    Args:
        options: of `add_model_options`.

    Raises:
        RunError: the run has no recipe that may be executed.
    """
    from bnn.training.directory import read_configuration
    from bnn.training.recipe import values_from_json, values_to_json

    configuration = read_configuration(options.model)
    recipe = named_recipe(options.model, configuration, options.recipe)
    given = arguments_of_run(options.model, configuration)
    if "download" in recipe.parameters:
        given = {**given, "download": False}
    if options.data_dir is not None:
        if "data_dir" not in recipe.parameters:
            raise UsageError(f"the recipe {recipe.name} has no option --data-dir")
        given = {**given, **values_to_json(moved_data(recipe, given, options.data_dir))}
    return recipe, values_from_json(recipe, given)


def examples_of(options: argparse.Namespace, model: Model, run: Run | None = None) -> Examples:
    """The data of a run, or those in `--data-dir` for a model file.

    Args:
        options: of `add_model_options`.
        model: the model.
        run: the run, where it has been made already; its data are taken.

    Raises:
        UsageError: a file is named without data.
        RunError: the model does not say what it takes.
        DataError: the data cannot be read, or are of other classes.
    """
    from bnn.data.folder import labelled_images
    from bnn.data.measurements import labelled_measurements
    from bnn.training.evaluation import relabelled
    from bnn.training.recipe import load_data

    takes = model.preprocessing
    if takes is None:
        raise RunError(f"{options.model} does not say how pictures become its input")
    if options.model.is_dir():
        data = load_data(*recipe_with_values(options)) if run is None else run.data
        if data.image_shape != takes.image_shape:
            raise RunError(
                f"the model takes images of {list(takes.image_shape)}, the data have {list(data.image_shape)}"
            )
        return Examples(*(relabelled(split, data.classes, model.classes) for split in (data.train, data.test)))
    if options.data_dir is None:
        raise UsageError(f"say what data {options.model} is for, as in `--data-dir FOLDER`")
    if takes.reads == "arrays":
        split, names = labelled_measurements(options.data_dir, takes)
    else:
        split, names = labelled_images(options.data_dir, image_shape=takes.image_shape)
    return Examples(relabelled(split, names, model.classes), None)


def drawn(model: Model, split: Split, number: int) -> tuple[Tensor, Tensor]:
    """Some examples of a split, drawn at random but always the same, as the network takes them; and their labels.

    Raises:
        UsageError: `number` is below 8.
    """
    import torch

    if number < 8:
        raise UsageError(f"--examples is at least 8, got {number}")
    assert model.preprocessing is not None
    rows = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:number]
    images, labels = split[rows]
    return model.preprocessing.normalized(images), labels


def place_beside(path: Path, out: Path | None, name: str) -> Path:
    """Where a command puts what it makes of a run or a file: a place that is not there yet.

    Args:
        path: of the run or file.
        out: what the user has named; None for none.
        name: what else it is called: this behind the name of the run or file.

    Raises:
        RunError: there is something already.
    """
    place = path.resolve().with_name(path.resolve().stem + name) if out is None else out
    if place.exists():
        raise RunError(f"{place} is there already: name another place with -o")
    return place
