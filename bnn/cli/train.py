"""`bnn train`: a recipe from its start, or an interrupted run from its checkpoint."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bnn
from bnn.cli.arguments import ArgumentParser
from bnn.cli.output import outlived_output
from bnn.cli.program import asks_for_help
from bnn.cli.ranks import add_exchange_options, is_first, is_one_of_several, joined, mode_of, own_directory
from bnn.cli.trainer import (
    add_recipe_option,
    arguments_of_run,
    device_named,
    make_trainer,
    moved_data,
    named_recipe,
    new_folder,
)
from bnn.errors import BnnError, RecipeError, UsageError

if TYPE_CHECKING:
    from bnn.training import Trainer


_HELP = """usage: bnn train RECIPE [options]
       bnn train --resume RUN [options]

Trains a recipe, or goes on with an interrupted run.

options of every run:
  --out DIR                    the run's directory (default: runs/RECIPE-TIME)
  --device DEVICE              cpu, cuda, mps, or auto: cuda if there is one (default)
  --tensorboard                write a TensorBoard log as well
  --profile-memory             keep the process's memory over time, for the report
  --exchange MODE              how processes that torchrun starts share each batch: exact, count (default) or vote
  --patience SECONDS           after which a process that does not answer is taken for lost (default: 20)
  -h, --help                   this text; behind a RECIPE: its own options, too

SIGTERM, SIGHUP and Ctrl-C save the state and leave; --resume goes on from there.
"""


def train(arguments: list[str]) -> None:
    """Runs the command."""
    if asks_for_help(arguments):
        print(_HELP, end="")
        return
    with outlived_output():
        if arguments and not arguments[0].startswith("-"):
            _start(arguments[0], arguments[1:])
        elif any(argument.partition("=")[0] == "--resume" for argument in arguments):
            _resume(arguments)
        else:
            raise UsageError(
                "name a recipe first, as in `bnn train digits --epochs 5`; `bnn recipes` lists them, see `bnn --help`"
            )


def _start(recipe_name: str, arguments: list[str]) -> None:
    _say_that_torch_is_loading()
    from bnn.training.recipe import (
        build,
        load_recipe,
        locate_recipe,
        parse_arguments,
        recipe_parser,
        values_from_json,
        values_to_json,
    )

    recipe = load_recipe(locate_recipe(recipe_name))
    parser = recipe_parser(recipe, prog=f"bnn train {recipe_name}")
    group = parser.add_argument_group("options of every run")
    try:
        group.add_argument("--out", type=str, help="the run's directory (default: runs/RECIPE-TIME)")
        group.add_argument("--device", type=str, default="auto", help="cpu, cuda, mps, or auto: cuda if there is one")
        group.add_argument("--tensorboard", action="store_true", help="write a TensorBoard log as well")
        group.add_argument("--profile-memory", action="store_true", help="keep the process's memory over time")
        add_exchange_options(group)
    except (ValueError, argparse.ArgumentError) as error:
        raise RecipeError(f"{recipe.path} has a parameter of the name of an option of every run: {error}") from None
    values = parse_arguments(parser, arguments)
    out, device = values.pop("out"), values.pop("device")
    meters = {name: values.pop(name) for name in ("tensorboard", "profile_memory")}
    mode, patience_s = mode_of(values.pop("exchange")), values.pop("patience")
    if out is None and is_one_of_several():
        raise UsageError("name the directory of a run that several processes train: --out DIR")
    kept = values_to_json(values)
    # From the values that a resumed run will have, whose paths are absolute.
    values = values_from_json(recipe, kept)
    name = f"{recipe.path.stem}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = nullcontext(Path(out)) if out is not None else new_folder(Path("runs"), name)
    with folder as directory, own_directory(directory) as place:
        trainer = make_trainer(
            lambda: joined(build(recipe, values), mode, patience_s, device_named(device)), place, device, **meters
        )
        trainer.recipe = recipe.content
        trainer.configuration = {
            "recipe": recipe.name,
            "recipe_sha256": recipe.sha256,
            "arguments": kept,
            "device": device,
            **({} if mode is None else {"exchange": mode}),
        }
        _finish(trainer, trainer.fit)


def _resume(arguments: list[str]) -> None:
    parser = ArgumentParser(prog="bnn train", description="Goes on with a run, as its recipe and its options say.")
    parser.add_argument("--resume", metavar="RUN", required=True, type=Path, help="directory of the run")
    parser.add_argument("--epochs", type=int, help="the number to end at, which may be more than the run began with")
    parser.add_argument("--data-dir", type=Path, help="where the data are now")
    parser.add_argument("--device", help="cpu, cuda, mps or auto (default: as the run began)")
    parser.add_argument("--tensorboard", action="store_true", help="write a TensorBoard log as well")
    parser.add_argument(
        "--allow-changes",
        action="store_true",
        help="go on with another release, torch, number of threads or instruction set, though results then differ",
    )
    parser.add_argument("--profile-memory", action="store_true", help="keep the process's memory over time")
    add_exchange_options(parser)
    add_recipe_option(parser)
    options = parser.parse_args(arguments)
    _say_that_torch_is_loading()
    from bnn.training.directory import read_configuration
    from bnn.training.lock import require_unlocked
    from bnn.training.recipe import build, values_from_json, values_to_json

    configuration = read_configuration(options.resume)
    require_unlocked(options.resume)
    if not options.allow_changes:
        _take_threads_of(configuration)
    recipe = named_recipe(options.resume, configuration, options.recipe)
    kept = arguments_of_run(options.resume, configuration)
    given = {} if options.epochs is None else {"epochs": options.epochs}
    given |= {} if options.data_dir is None else moved_data(recipe, kept, options.data_dir)
    changes = values_to_json(given)
    for name in changes.keys() - recipe.parameters.keys():
        raise UsageError(f"the recipe {recipe.name} has no option --{name.replace('_', '-')}")
    values = values_from_json(recipe, {**kept, **changes})
    device = options.device or configuration.get("device", "auto")
    meters = {"tensorboard": options.tensorboard, "profile_memory": options.profile_memory}
    mode = mode_of(options.exchange, kept=configuration.get("exchange"))
    with own_directory(options.resume, resumes=True) as place:
        trainer = make_trainer(
            lambda: joined(build(recipe, values), mode, options.patience, device_named(device)), place, device, **meters
        )
        trainer.recipe = recipe.content
        trainer.configuration = {**configuration, "arguments": {**kept, **changes}}
        if mode is not None:
            trainer.configuration["exchange"] = mode
        _finish(trainer, partial(trainer.resume, allow_changes=options.allow_changes))


def _take_threads_of(configuration: dict[str, Any]) -> None:
    """Goes on with the threads that a run began with: the bits of sums depend on their number."""
    import torch

    from bnn.training.changes import threads_of

    threads, here = threads_of(configuration), torch.get_num_threads()
    if threads is not None and threads != here:
        torch.set_num_threads(threads)
        print(f"threads: {threads}, as the run began; --allow-changes takes {here}, as this process would")


def _say_that_torch_is_loading() -> None:
    if "torch" not in sys.modules and is_first():
        print(f"bnn {bnn.__version__}: loading torch", flush=True)


def _finish(trainer: Trainer, take_all_steps: Callable[[], dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.text import Text

    from bnn.models.mean_field import depth_note
    from bnn.reports.log import RunLog
    from bnn.reports.start import start_line
    from bnn.reports.summary import print_summary

    if not is_first():
        take_all_steps()
        return
    log = RunLog()
    trainer.callbacks.append(log)
    note = depth_note(trainer.run.model)
    for line in (start_line(trainer), *trainer.run.notes, *([] if note is None else [note])):
        Console().print(Text(line), soft_wrap=True)
    try:
        summary = take_all_steps()
    except (BnnError, KeyboardInterrupt, MemoryError) as error:
        log.write(f"ended by {type(error).__name__}: {error}")
        raise
    print_summary(Console(), summary, trainer.out)
