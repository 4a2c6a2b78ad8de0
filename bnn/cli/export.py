"""`bnn export`: a trained network for where there is no Python."""

from __future__ import annotations

from pathlib import Path

from bnn.cli.arguments import ArgumentParser, parse_shape
from bnn.cli.trainer import add_recipe_option, model_of
from bnn.errors import UsageError


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
    add_recipe_option(parser)
    options = parser.parse_args(arguments)
    if options.example and options.format != "c":
        raise UsageError("--example is for --format c")
    model = model_of(options.model, options.recipe)
    if options.format == "c":
        from bnn.export.commands import export_c

        taken = export_c(
            model, options.out, name=options.name, example=options.example, input_shape=options.input_shape
        )
    else:
        from bnn.export.commands import export_onnx

        taken = export_onnx(model, options.out, name=options.name, input_shape=options.input_shape)
    print(f"{options.out}: {taken}")
