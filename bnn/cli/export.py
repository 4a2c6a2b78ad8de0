"""`bnn export`: a trained network for where there is no Python."""

from __future__ import annotations

from argparse import Namespace
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bnn.cli.arguments import ArgumentParser, parse_shape, parse_size
from bnn.cli.trainer import add_recipe_option, model_of
from bnn.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from bnn.codec import Model
    from bnn.training import TrainingStep

_BATCH_SIZE = 16


def export(arguments: list[str]) -> None:
    """Writes a model as C or ONNX."""
    parser = ArgumentParser(
        prog="bnn export", description="Writes a run's newest model, or one in a file, as C99 or ONNX."
    )
    parser.add_argument("model", metavar="RUN|FILE", type=Path, help="directory of a run, or a model file (.bnnz)")
    parser.add_argument("--format", choices=("c", "onnx"), required=True, help="what to write")
    parser.add_argument("-o", "--out", metavar="DIR", type=Path, required=True, help="an empty or new directory")
    parser.add_argument("--name", default="network", help="of the files and of C's names (default: %(default)s)")
    parser.add_argument("--example", action="store_true", help="of C: write a program and a Makefile, too")
    parser.add_argument(
        "--input-shape", metavar="SHAPE", type=parse_shape, help="of one example, where the model does not say it"
    )
    parser.add_argument("--fit", metavar="SIZE", type=parse_size, help="of C: RAM that it may take, such as 64KiB")
    parser.add_argument("--train", action="store_true", help="of C: write a network that learns, as by edge-min")
    parser.add_argument("--batch-size", type=int, help=f"with --train: the most examples of a step ({_BATCH_SIZE})")
    parser.add_argument("--learning-rate", type=float, help="with --train: of the weights, by default edge-min's own")
    parser.add_argument("--seed", type=int, help="with --train: of every random rounding (0)")
    add_recipe_option(parser)
    options = parser.parse_args(arguments)
    _check(options)
    model = model_of(options.model, options.recipe)
    print(f"{options.out}: {_exported(model, options)}")


def _check(options: Namespace) -> None:
    """Refuses options that have no meaning together."""
    for name in ("example", "fit", "train"):
        if vars(options)[name] and options.format != "c":
            raise UsageError(f"--{name} is for --format c")
    for name in ("batch-size", "learning-rate", "seed"):
        if vars(options)[name.replace("-", "_")] is not None and not options.train:
            raise UsageError(f"--{name} is for --train")
    if options.seed is not None and not 0 <= options.seed < 1 << 32:
        raise UsageError(f"--seed is 0 or more and below 2^32, got {options.seed}")


def _exported(model: Model, options: Namespace) -> str:
    """A line on what it takes."""
    from bnn.export import commands

    common = {"name": options.name, "input_shape": options.input_shape}
    if options.format == "onnx":
        return commands.export_onnx(model, options.out, **common)
    common["fit"] = options.fit
    if not options.train:
        return commands.export_c(model, options.out, example=options.example, **common)
    step = _training_step(model, options)
    return commands.export_c_training(
        model,
        step.optimizer,  # type: ignore[arg-type]  # that of edge-min
        options.out,
        batch_size=_BATCH_SIZE if options.batch_size is None else options.batch_size,
        largest_batch=step.slice_size,
        example=options.example,
        **common,
    )


def _training_step(model: Model, options: Namespace) -> TrainingStep:
    """The step of `edge-min` for the model's network, which becomes one of accumulators.

    They are those of the newest checkpoint where the model is that of a run of `edge-min`. Elsewhere they begin with
    the signs of the weights, all of the magnitude that drawn ones have.
    """
    from bnn.export.errors import ExportError
    from bnn.export.lowering import NO_SHAPE
    from bnn.layers.base import BinaryLayer
    from bnn.presets import prepare
    from bnn.training.checkpoint import load
    from bnn.training.directory import CHECKPOINTS
    from bnn.training.snapshot import restore_module
    from bnn.weights import LatentStore

    shape = options.input_shape if model.preprocessing is None else model.preprocessing.image_shape
    if shape is None:
        raise ExportError(NO_SHAPE)
    for layer in model.network.modules():
        if isinstance(layer, BinaryLayer) and layer.store.is_binary:
            latent = LatentStore(layer.store.shape)
            latent.assign(layer.store.read())
            layer.store = latent
    step = prepare(
        "edge-min",
        lambda: model.network,
        input_shape=shape,
        learning_rate=options.learning_rate,
        seed=options.seed or 0,
        keep_weights=True,
    )
    if options.model.is_dir():
        tensors = load(options.model / CHECKPOINTS).tensors
        of_model = {name.removeprefix("model."): x for name, x in tensors.items() if name.startswith("model.")}
        with suppress(CheckpointError):  # of another preset
            restore_module(step.model, of_model)
    return step
