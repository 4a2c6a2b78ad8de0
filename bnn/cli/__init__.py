"""The command line. What is slow to import is imported by the command that needs it: `--help` answers at once."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from bnn.errors import BnnError, RecipeError, RunError, UsageError

if TYPE_CHECKING:
    import torch

    from bnn.training import Trainer
    from bnn.training.recipe import Recipe

_HELP = """usage: bnn COMMAND ...

Train binary and ternary neural networks in little memory.

commands:
  bnn train RECIPE [options]   train a recipe, such as recipes/digits.py
  bnn train RECIPE --help      the options of a recipe, with their defaults
  bnn train --resume RUN       go on with an interrupted run
  bnn eval RUN                 accuracy of a run's newest checkpoint on the test split
  bnn budget MODEL             memory of a training step, or what fits into so much with --fit 64MiB
  bnn report RUN [RUN ...]     a page of a run's results and costs, or one that compares several
  bnn models                   networks with their weights, bits and multiply-accumulates
  bnn compress RUN -o FILE     what inference needs of a run's network, in a small file (.bnnz)
  bnn decompress FILE -o DIR   the tensors of such a file, as safetensors and JSON
  bnn inspect FILE             its tensors, with their bits and entropies
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: the words after `bnn`; by default the process's own.

    Returns:
        The exit status: 0 for success, 2 for a command line that cannot be understood, 128 + n after signal n, 1 for
        other errors.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words in (["-h"], ["--help"]):
        print(_HELP, end="")
        return 0 if words else 2
    commands: dict[str, Callable[[list[str]], None]] = {
        "train": _train,
        "eval": _eval,
        "budget": _budget,
        "report": _report,
        "models": _models,
        "compress": _compress,
        "decompress": _decompress,
        "inspect": _inspect,
    }
    try:
        if words[0] not in commands:
            raise UsageError(f"there is no command {words[0]!r}; see `bnn --help`")
        with _one_line_warnings():
            commands[words[0]](words[1:])
    except BnnError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; a run's newest checkpoint is as it was", 130)
    except MemoryError:
        return _fail("out of memory: a smaller batch needs less; checkpoints are untouched", 1)
    return 0


class _ArgumentParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")


def _fail(message: str, code: int) -> int:
    print("bnn:", " ".join(message.split()), file=sys.stderr)
    return code


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print("bnn: warning:", " ".join(str(message).split()), file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


# --- train ----------------------------------------------------------------------------------------------------------


def _train(words: list[str]) -> None:
    if words in (["-h"], ["--help"]):
        print(_HELP, end="")
    elif words and not words[0].startswith("-"):
        _start(words[0], words[1:])
    elif any(word.partition("=")[0] == "--resume" for word in words):
        _resume(words)
    else:
        raise UsageError("name a recipe first, as in `bnn train recipes/digits.py --epochs 5`; see `bnn --help`")


def _start(recipe_path: str, words: list[str]) -> None:
    from datetime import datetime

    from bnn.training.recipe import load_recipe, parse_words, recipe_parser, values_to_json

    recipe = load_recipe(Path(recipe_path))
    parser = recipe_parser(recipe, prog=f"bnn train {recipe_path}")
    group = parser.add_argument_group("options of every run")
    try:
        group.add_argument("--out", type=str, help="the run's directory (default: runs/RECIPE-TIME)")
        group.add_argument("--device", type=str, default="auto", help="cpu, cuda, mps, or auto: cuda if there is one")
        group.add_argument("--tensorboard", action="store_true", help="write a TensorBoard log as well")
    except (ValueError, argparse.ArgumentError) as error:
        raise RecipeError(f"{recipe.path} has a parameter of the name of an option of every run: {error}") from None
    values = parse_words(parser, words)
    out, device, tensorboard = values.pop("out"), values.pop("device"), values.pop("tensorboard")
    directory = Path(out or f"runs/{recipe.path.stem}-{datetime.now():%Y%m%d-%H%M%S}")
    trainer = _trainer(recipe, values, directory, device, tensorboard=tensorboard)
    trainer.configuration = {
        "recipe": str(recipe.path),
        "recipe_sha256": recipe.sha256,
        "arguments": values_to_json(values),
        "device": device,
    }
    _finish(trainer, trainer.fit)


def _resume(words: list[str]) -> None:
    parser = _ArgumentParser(prog="bnn train", description="Goes on with an interrupted run.", allow_abbrev=False)
    parser.add_argument("--resume", metavar="RUN", required=True, help="directory of the run")
    parser.add_argument("--tensorboard", action="store_true", help="write a TensorBoard log as well")
    trainer = _trainer_of_run(parser, words, "resume")
    _finish(trainer, trainer.resume)


def _finish(trainer: Trainer, train: Callable[[], dict[str, Any]]) -> None:
    from rich.console import Console

    from bnn.reports.summary import print_summary

    print_summary(Console(), train(), trainer.out)


def _trainer(
    recipe: Recipe, values: dict[str, Any], directory: Path, device: str, *, tensorboard: bool = False
) -> Trainer:
    from rich.console import Console

    from bnn.cost import EnergyMeter, MemoryMeter, StorageMeter
    from bnn.reports.progress import ProgressBar
    from bnn.reports.tensorboard import TensorBoard
    from bnn.training import Callback, Trainer
    from bnn.training.recipe import build

    callbacks: list[Callback] = [StorageMeter(), MemoryMeter(), EnergyMeter(), ProgressBar(Console())]
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


# --- runs that exist ------------------------------------------------------------------------------------------------


def _eval(words: list[str]) -> None:
    parser = _ArgumentParser(prog="bnn eval", description="Tests a run's newest checkpoint.", allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="directory of the run")
    trainer = _trainer_of_run(parser, words, "run")
    trainer.load()
    loss, accuracy = trainer.test()
    print(
        f"test accuracy {100 * accuracy:.2f} %, loss {loss:.4f}, after {trainer.epoch} of {trainer.run.epochs} epochs"
    )


def _trainer_of_run(parser: _ArgumentParser, words: list[str], name: str) -> Trainer:
    """The trainer of a run that exists, from its configuration. `name` is the parser's argument with its directory."""
    parser.add_argument("--recipe", metavar="PATH", help="the recipe's file, where it has been moved")
    parser.add_argument("--device", help="cpu, cuda, mps or auto (default: as the run began)")
    options = parser.parse_args(words)
    from bnn.training.directory import CONFIGURATION, read_json
    from bnn.training.recipe import load_recipe, values_from_json

    directory = Path(getattr(options, name))
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
    return _trainer(
        recipe,
        values_from_json(recipe, arguments),
        directory,
        device,
        tensorboard=getattr(options, "tensorboard", False),
    )


def _report(words: list[str]) -> None:
    parser = _ArgumentParser(
        prog="bnn report",
        description="Writes an HTML page about a run, or one that compares several. Executes their recipes.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="directory of a run")
    parser.add_argument("-o", "--out", metavar="PAGE", type=Path, help="the page (default: RUN/report.html)")
    parser.add_argument("--strict", action="store_true", help="fail where a layer's operations cannot be counted")
    options = parser.parse_args(words)
    if options.out is None and len(options.runs) > 1:
        raise UsageError("say where the page that compares several runs goes, as in `-o page.html`")
    try:
        from bnn.reports.page import write_page
    except ModuleNotFoundError as error:
        raise RunError(f"a report cannot be made ({error}): pip install 'bnn-edge[report]'") from None
    page = options.out or options.runs[0] / "report.html"
    write_page(options.runs, page, strict=options.strict)
    print(f"page: {page}")


# --- models ---------------------------------------------------------------------------------------------------------


def _budget(words: list[str]) -> None:
    from bnn.cli.budget.command import budget

    budget(_ArgumentParser(prog="bnn budget", description="Memory of a training step.", allow_abbrev=False), words)


def _models(words: list[str]) -> None:
    _ArgumentParser(prog="bnn models", description="Lists the networks.", allow_abbrev=False).parse_args(words)
    from rich.console import Console

    from bnn.reports.models import print_models

    print_models(Console())


# --- model files ----------------------------------------------------------------------------------------------------


def _compress(words: list[str]) -> None:
    parser = _ArgumentParser(
        prog="bnn compress", description="Writes a run's newest network as a small file.", allow_abbrev=False
    )
    parser.add_argument("run", metavar="RUN", help="directory of the run")
    parser.add_argument("-o", "--out", metavar="FILE", type=Path, required=True, help="the file, such as model.bnnz")
    parser.add_argument("--floats", choices=("float16", "bfloat16"), help="narrow what is not binary or ternary")
    trainer = _trainer_of_run(parser, words, "run")
    options = parser.parse_args(words)
    import torch
    from rich.console import Console

    from bnn.codec import commands

    trainer.load()
    float_dtype = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(options.floats)
    commands.compress(Console(), trainer.run.model, options.out, float_dtype=float_dtype)


def _decompress(words: list[str]) -> None:
    parser = _ArgumentParser(
        prog="bnn decompress", description="Writes the tensors of a model file as safetensors.", allow_abbrev=False
    )
    parser.add_argument("-o", "--out", metavar="DIR", type=Path, required=True, help="an empty or new directory")
    options = _file_options(parser, words)
    from bnn.codec import commands

    commands.decompress(options.file, options.out, memory_limit_bytes=options.memory_mib << 20)
    print(f"tensors: {options.out / commands.TENSORS}")


def _inspect(words: list[str]) -> None:
    parser = _ArgumentParser(
        prog="bnn inspect", description="Lists the tensors of a model file with their bits.", allow_abbrev=False
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    options = _file_options(parser, words)
    from rich.console import Console

    from bnn.codec import commands

    commands.inspect(Console(), options.file, as_json=options.json, memory_limit_bytes=options.memory_mib << 20)


def _file_options(parser: _ArgumentParser, words: list[str]) -> argparse.Namespace:
    parser.add_argument("file", metavar="FILE", type=Path, help="a model file (.bnnz)")
    parser.add_argument("--memory-mib", type=int, default=1024, help="what its tensors may take (default: %(default)s)")
    return parser.parse_args(words)
