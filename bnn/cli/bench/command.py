"""`bnn bench`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn.cli.arguments import ArgumentParser, parse_shape
from bnn.cli.trainer import add_recipe_option, model_file, model_of
from bnn.errors import BnnError, UsageError

if TYPE_CHECKING:
    import argparse

    from bnn.codec import Model


def bench(arguments: list[str]) -> None:
    """Times a model in every way that there is here."""
    parser = ArgumentParser(
        prog="bnn bench",
        description="Times a run's newest model, or one in a file: here, as plain torch in float32, in onnxruntime"
        " where it is installed, and as C where there is a compiler.",
    )
    parser.add_argument("model", metavar="RUN|FILE", type=Path, help="directory of a run, or a model file (.bnnz)")
    parser.add_argument("--batch-size", type=int, default=64, help="of the throughput (default: %(default)s)")
    parser.add_argument(
        "--threads", type=int, default=1, help="of each way but C, which has one (default: %(default)s)"
    )
    parser.add_argument(
        "--input-shape", metavar="SHAPE", type=parse_shape, help="of one example, where the model does not say it"
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    add_recipe_option(parser)
    options = parser.parse_args(arguments)
    if min(options.batch_size, options.threads) < 1:
        raise UsageError("a batch and the threads are at least 1")
    model = model_of(options.model, options.recipe)
    shape = options.input_shape if model.preprocessing is None else model.preprocessing.image_shape
    if shape is None:
        raise UsageError(f"{options.model} does not say the shape of its input: give it, as in --input-shape 3,32,32")
    rows: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for way, measure in _ways(options, model, shape):
        try:
            rows[way] = measure()
        except BnnError as error:
            left_out[way] = str(error)
    content = {
        "threads": options.threads,
        "batch_size": options.batch_size,
        "cores": os.cpu_count(),
        "ways": rows,
        "left_out": left_out,
    }
    if options.json:
        print(json.dumps(content, indent=2))
        return
    from rich.console import Console

    from bnn.reports.bench import print_bench

    print_bench(Console(), content)


def _ways(options: argparse.Namespace, model: Model, shape: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    import shutil
    import tempfile

    from bnn.cli.bench.measure import measured, measured_c
    from bnn.export import ExportError
    from bnn.export.commands import export_c, export_onnx

    of_all = {"shape": shape, "batch": options.batch_size, "threads": options.threads, "recipe": options.recipe}
    file = {"file": str(model_file(options.model)), "is_bytes": False}
    yield "bnn", lambda: measured("bnn", **file, **of_all)
    yield "torch, float32", lambda: measured("torch", **file, **of_all)

    def onnx() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            export_onnx(model, Path(folder) / "onnx", input_shape=shape)
            exported = {
                "file": str(Path(folder) / "onnx" / "network.onnx"),
                "is_bytes": model.preprocessing is not None,
            }
            return measured("onnxruntime", **exported, **of_all)

    def c() -> dict[str, Any]:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise ExportError("there is no C compiler here")
        with tempfile.TemporaryDirectory() as folder:
            export_c(model, Path(folder) / "c", example=True, input_shape=shape)
            element_bytes = 4 if model.preprocessing is None else 1
            return measured_c(Path(folder) / "c", compiler, element_bytes * math.prod(shape))

    yield "onnxruntime", onnx
    yield "C, one thread", c
