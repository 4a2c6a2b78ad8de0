"""`bnn eval`, `bnn predict` and `bnn report`: what a run has come to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn.cli.arguments import ArgumentParser
from bnn.cli.trainer import (
    add_recipe_option,
    arguments_of_run,
    device_named,
    model_of,
    moved_data,
    named_recipe,
    recipe_of_run,
)
from bnn.errors import RunError, UsageError

if TYPE_CHECKING:
    import argparse

    from bnn.codec import Model
    from bnn.codec.inference import Guess
    from bnn.data import Split


def evaluate(arguments: list[str]) -> None:
    """Tests a run's newest model, or one in a file."""
    parser = ArgumentParser(prog="bnn eval", description="Tests the newest model of a run, or one in a file.")
    parser.add_argument("model", metavar="RUN|FILE", type=Path, help="directory of a run, or a model file (.bnnz)")
    parser.add_argument("--data-dir", metavar="DIR", type=Path, help="where the data are now; of a model file, any")
    parser.add_argument("--confusion", action="store_true", help="print each class, and what was taken for what")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps, or auto: cuda if there is one")
    add_recipe_option(parser)
    options = parser.parse_args(arguments)
    model = model_of(options.model, options.recipe)
    split, epochs = _test_split(options, model)
    from bnn.reports.evaluation import evaluation_figures, print_evaluation
    from bnn.training.evaluation import evaluate

    found = evaluate(model, split, device=device_named(options.device))
    done = model.about.get("epochs")
    if options.json:
        print(json.dumps({**evaluation_figures(found), "epochs": done}, indent=2))
        return
    print_evaluation(found, f"after {done} of {epochs or done} epochs", confusion=options.confusion)


def _test_split(options: argparse.Namespace, model: Model) -> tuple[Split, int | None]:
    """The examples to test on, with the labels of the model; and the epochs that its run is to have, if it is known."""
    from bnn.data.folder import labelled_images
    from bnn.data.measurements import labelled_measurements
    from bnn.training.directory import read_configuration
    from bnn.training.evaluation import relabelled
    from bnn.training.recipe import load_data, values_from_json, values_to_json

    recipe = epochs = None
    if options.model.is_dir():
        configuration = read_configuration(options.model)
        recipe = recipe_of_run(options.model, configuration, options.recipe)
        if recipe is None and options.data_dir is None:
            recipe = named_recipe(options.model, configuration, None)
    if recipe is not None:
        given = arguments_of_run(options.model, configuration)
        epochs = given.get("epochs")
        if "download" in recipe.parameters:
            given = {**given, "download": False}
        if options.data_dir is not None:
            if "data_dir" not in recipe.parameters:
                raise UsageError(f"the recipe {recipe.name} has no option --data-dir")
            given = {**given, **values_to_json(moved_data(recipe, given, options.data_dir))}
        data = load_data(recipe, values_from_json(recipe, given))
        return relabelled(data.test, data.classes, model.classes), epochs
    if options.data_dir is None:
        raise UsageError(f"say what to test {options.model} on, as in `--data-dir FOLDER`")
    if model.preprocessing is None:
        raise RunError(f"{options.model} does not say how pictures become its input")
    if model.preprocessing.reads == "arrays":
        split, names = labelled_measurements(options.data_dir, model.preprocessing)
    else:
        split, names = labelled_images(options.data_dir, image_shape=model.preprocessing.image_shape)
    return relabelled(split, names, model.classes), None


def predict(arguments: list[str]) -> None:
    """Says what pictures show, or of which class the rows of tables are."""
    parser = ArgumentParser(
        prog="bnn predict",
        description="Says what pictures show, or of which class rows of tables are, by a run's model or one in a file.",
    )
    parser.add_argument("model", metavar="RUN|FILE", type=Path, help="directory of a run, or a model file (.bnnz)")
    parser.add_argument("files", metavar="FILE", type=Path, nargs="+", help="a picture; or a .csv, .npz or .npy file")
    parser.add_argument("--top", metavar="K", type=int, default=1, help="name the K likeliest classes (default: 1)")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    add_recipe_option(parser)
    options = parser.parse_args(arguments)
    if options.top < 1:
        raise UsageError(f"--top is at least 1, got {options.top}")
    model = model_of(options.model, options.recipe)
    of_arrays = model.preprocessing is not None and model.preprocessing.reads == "arrays"
    found = _rows(options, model) if of_arrays else _pictures(options, model)
    if options.json:
        rows = [{**what, "guesses": list(map(_as_json, guesses))} for what, guesses in found]
        print(json.dumps(rows, indent=2))
        return
    for what, guesses in found:
        name = " row ".join(map(str, what.values()))
        print(f"{name}: " + ", ".join(f"{guess.name} {100 * guess.probability:.1f} %" for guess in guesses))


def _pictures(options: argparse.Namespace, model: Model) -> list[tuple[dict[str, Any], list[Guess]]]:
    guesses = model.predict(options.files, top=options.top)
    return [({"picture": str(path)}, of_one) for path, of_one in zip(options.files, guesses, strict=True)]


def _rows(options: argparse.Namespace, model: Model) -> list[tuple[dict[str, Any], list[Guess]]]:
    return [
        ({"file": str(path), "row": row}, of_one)
        for path in options.files
        for row, of_one in enumerate(model.predict([path], top=options.top), start=1)
    ]


def _as_json(guess: Guess) -> dict[str, Any]:
    return {"class": guess.name, "probability": guess.probability}


def report(arguments: list[str]) -> None:
    """Writes the page of one run, or one that compares several."""
    parser = ArgumentParser(
        prog="bnn report",
        description="Writes an HTML page about a run, or one that compares several.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="directory of a run")
    parser.add_argument("-o", "--out", metavar="PAGE", type=Path, help="the page (default: RUN/report.html)")
    parser.add_argument("--strict", action="store_true", help="fail where a layer's operations cannot be counted")
    add_recipe_option(parser)
    options = parser.parse_args(arguments)
    if options.out is None and len(options.runs) > 1:
        raise UsageError("say where the page that compares several runs goes, as in `-o page.html`")
    try:
        from bnn.reports.page import write_page
    except ModuleNotFoundError as error:
        raise RunError(f"a report cannot be made ({error}): pip install 'bnn-edge[report]'") from None
    page = options.out or options.runs[0] / "report.html"
    recipe = None if options.recipe is None else Path(options.recipe)
    write_page(options.runs, page, strict=options.strict, recipe=recipe)
    print(f"page: {page}")
