"""`bnn quantize`: what becomes of a network that has been trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bnn.cli.arguments import ArgumentParser, parse_size
from bnn.cli.examples import add_model_options, drawn, examples_of, place_beside
from bnn.cli.trainer import model_of
from bnn.errors import UsageError

if TYPE_CHECKING:
    from bnn.codec import Model
    from bnn.data import Split


def quantize(arguments: list[str]) -> None:
    """Writes a trained network as a file of at most a given size."""
    parser = ArgumentParser(
        prog="bnn quantize", description="Fits a trained network into a file by giving each layer a width."
    )
    add_model_options(parser)
    parser.add_argument("--fit", metavar="SIZE", type=parse_size, required=True, help="of the file, such as 200kB")
    parser.add_argument("-o", "--out", metavar="FILE", type=Path, help="the file (default: RUN-quantized.bnnz)")
    parser.add_argument("--steps", type=int, default=200, help="of tuning biases (default: 200)")
    parser.add_argument("--nearest", action="store_true", help="calibrate nothing: round to the nearest levels")
    options = parser.parse_args(arguments)
    if options.steps < 0:
        raise UsageError(f"--steps is at least 0, got {options.steps}")
    out = place_beside(options.model, options.out, "-quantized.bnnz")
    model = model_of(options.model, options.recipe)
    examples = examples_of(options, model)
    x, _ = drawn(model, examples.train, options.examples)
    from rich.console import Console

    from bnn.posttraining.quantization import quantize as quantized
    from bnn.reports.quantization import print_quantized

    found = quantized(model, x, fit_bytes=options.fit, steps=options.steps, calibrate=not options.nearest)
    found.save(out)
    print_quantized(Console(), found)
    print(f"{out}: {found.size_bytes:,} bytes of {options.fit:,}")
    _print_accuracies({"before": model, "now": found.model}, examples.test)


def _print_accuracies(models: dict[str, Model], test: Split | None) -> None:
    from bnn.training.evaluation import evaluate

    if test is not None:
        found = {name: evaluate(model, test) for name, model in models.items()}
        texts = [f"{100 * figures.accuracy:.2f} % {name}" for name, figures in found.items()]
        print(f"test accuracy: {', '.join(texts)}; {len(test):,} examples")
