"""`bnn quantize`, `shrink`, `diagnose` and `synthesize`: what becomes of a network that has been trained."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bnn.cli.arguments import ArgumentParser, parse_size
from bnn.cli.examples import add_model_options, drawn, examples_of, place_beside, recipe_with_values
from bnn.cli.trainer import add_recipe_option, make_trainer, model_of
from bnn.errors import RunError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from bnn.codec import Model
    from bnn.data import Split
    from bnn.training import Run


def quantize(arguments: list[str]) -> None:
    """Writes a trained network as a file of at most a given size."""
    parser = ArgumentParser(
        prog="bnn quantize", description="Fits a trained network into a file by giving each layer a width."
    )
    add_model_options(parser)
    parser.add_argument("--fit", metavar="SIZE", type=parse_size, required=True, help="of the file, such as 200kB")
    parser.add_argument("-o", "--out", metavar="FILE", type=Path, help="the file (default: RUN-quantized.bnnz)")
    parser.add_argument("--steps", type=int, default=200, help="of tuning biases, and of --data-free (default: 200)")
    parser.add_argument("--nearest", action="store_true", help="calibrate nothing: round to the nearest levels")
    parser.add_argument("--data-free", action="store_true", help="calibrate on inputs made of the norms' statistics")
    options = parser.parse_args(arguments)
    if options.steps < 0:
        raise UsageError(f"--steps is at least 0, got {options.steps}")
    out = place_beside(options.model, options.out, "-quantized.bnnz")
    model = model_of(options.model, options.recipe)
    if options.data_free:
        x, test = _synthesized(options, model), None
    else:
        examples = examples_of(options, model)
        (x, _), test = drawn(model, examples.train, options.examples), examples.test
    from rich.console import Console

    from bnn.posttraining.quantization import quantize as quantized
    from bnn.reports.quantization import print_quantized

    found = quantized(model, x, fit_bytes=options.fit, steps=options.steps, calibrate=not options.nearest)
    found.save(out)
    print_quantized(Console(), found)
    print(f"{out}: {found.size_bytes:,} bytes of {options.fit:,}")
    _print_accuracies({"before": model, "now": found.model}, test)


def _synthesized(options: argparse.Namespace, model: Model) -> Tensor:
    """Inputs that need no data."""
    from bnn.posttraining.synthesis import synthesize as synthesized

    if model.preprocessing is None:
        raise RunError(f"{options.model} does not say of which shape its input is")
    return synthesized(model.network, model.preprocessing.image_shape, count=options.examples, steps=options.steps)


def synthesize(arguments: list[str]) -> None:
    """Writes pictures made of what a network's norms have kept of its data."""
    parser = ArgumentParser(
        prog="bnn synthesize", description="Makes inputs by which a network's norms see the statistics of its data."
    )
    parser.add_argument("model", metavar="RUN|FILE", type=Path, help="directory of a run, or a model file (.bnnz)")
    parser.add_argument("-o", "--out", metavar="DIR", type=Path, required=True, help="a new folder")
    parser.add_argument("--examples", metavar="N", type=int, default=64, help="how many (default: 64)")
    parser.add_argument("--steps", type=int, default=200, help="of making them (default: 200)")
    add_recipe_option(parser)
    options = parser.parse_args(arguments)
    model = model_of(options.model, options.recipe)
    if options.out.exists():
        raise RunError(f"{options.out} is there already: name another folder with -o")
    x = _synthesized(options, model)
    from bnn.posttraining.pictures import save_pictures

    save_pictures(x, model, options.out)
    print(f"{options.out}: {len(x)} inputs, and all of them in {options.out / 'sheet.png'}")


def shrink(arguments: list[str]) -> None:
    """Trains a run's network on with fewer channels, as a new run."""
    parser = ArgumentParser(
        prog="bnn shrink",
        description="Removes the channels of a run's network that matter least, and tunes what is left as a new run.",
    )
    add_model_options(parser)
    parser.add_argument("--keep", metavar="SHARE", type=float, required=True, help="of each layer's channels, as 0.6")
    parser.add_argument("--across", action="store_true", help="of the network's channels, wherever the least ones are")
    parser.add_argument("--epochs", type=int, default=10, help="of tuning, at least 1 (default: 10)")
    parser.add_argument("--learning-rate", type=float, help="at its start (default: the preset's own)")
    parser.add_argument("--preset", default="standard", help="how much memory it takes (default: standard)")
    parser.add_argument("-o", "--out", metavar="DIR", type=Path, help="the new run (default: RUN-shrunk)")
    options = parser.parse_args(arguments)
    if not 0 < options.keep < 1:
        raise UsageError(f"--keep is a share above 0 and below 1, got {options.keep}")
    if options.epochs < 1:
        raise UsageError(f"--epochs is at least 1, got {options.epochs}")
    if not options.model.is_dir():
        raise UsageError(f"{options.model} has no data to tune on: name the directory of a run")
    out = place_beside(options.model, options.out, "-shrunk")
    model = model_of(options.model, options.recipe)
    run = _untrained(options)
    from bnn.posttraining.products import with_network
    from bnn.posttraining.shrinking import require_latent, tuning_run
    from bnn.posttraining.shrinking import shrink as shrunk_of
    from bnn.training.directory import MODEL
    from bnn.training.start import weights_of

    require_latent(run.model, str(options.model))
    x, labels = drawn(model, examples_of(options, model, run).train, options.examples)
    latents = weights_of(options.model)
    shrunk = shrunk_of(model.network, x, labels, keep=options.keep, across=options.across, latents=latents)
    for name, (before, after) in shrunk.channels.items():
        print(f"{name}: {before} channels, now {after}")
    untuned = with_network(model, shrunk.network)
    _print_accuracies({"before": model, "without these channels": untuned}, run.data.test)
    made = tuning_run(shrunk, run, preset=options.preset, epochs=options.epochs, learning_rate=options.learning_rate)
    trainer = make_trainer(lambda: made, out, "cpu")
    trainer.configuration = {
        "shrunk_from": str(options.model.absolute()),
        "keep": options.keep,
        "across": options.across,
    }
    summary = trainer.fit()
    sizes = [(path / MODEL).stat().st_size for path in (options.model, out)]
    accuracy = 100 * summary["test_accuracy"]
    print(f"{out}: test accuracy {accuracy:.2f} %, model file {sizes[1]:,} bytes, before {sizes[0]:,}")


def _print_accuracies(models: dict[str, Model], test: Split | None) -> None:
    from bnn.training.evaluation import evaluate

    if test is not None:
        found = {name: evaluate(model, test) for name, model in models.items()}
        texts = [f"{100 * figures.accuracy:.2f} % {name}" for name, figures in found.items()]
        print(f"test accuracy: {', '.join(texts)}; {len(test):,} examples")


def diagnose(arguments: list[str]) -> None:
    """Writes a page that explains a trained network."""
    parser = ArgumentParser(
        prog="bnn diagnose", description="Writes a page of figures that explain a trained network, with advice."
    )
    add_model_options(parser)
    parser.add_argument("-o", "--out", metavar="PAGE", type=Path, help="the page (default: RUN/diagnosis.html)")
    options = parser.parse_args(arguments)
    model = model_of(options.model, options.recipe)
    from bnn.posttraining.diagnosis import diagnose as findings_of
    from bnn.posttraining.state import levels_by_layer

    is_run = options.model.is_dir()
    run = _untrained(options) if is_run else None
    examples = examples_of(options, model, run)
    x, labels = drawn(model, examples.train, options.examples)
    findings = findings_of(
        model,
        x,
        labels,
        start=None if run is None else levels_by_layer(run.model),
        never_flipped=_never_flipped(options.model) if is_run else None,
    )
    try:
        from bnn.reports.diagnosis import write_diagnosis
        from bnn.reports.findings import save_findings
    except ModuleNotFoundError as error:
        raise RunError(f"a page cannot be made ({error}): pip install 'bnn-edge[report]'") from None
    beside = options.model / "diagnosis.html" if is_run else options.model.with_suffix(".diagnosis.html")
    page = options.out or beside
    about = [
        f"Data: {model.about.get('data', options.data_dir)}; {len(labels):,} examples of them were looked at.",
        f"After {model.about.get('epochs', 'an unknown number of')} epochs.",
    ]
    write_diagnosis(findings, page, title=f"Diagnosis of {options.model.resolve().name}", about=about)
    if is_run:
        save_findings(findings, options.model)
    for finding in findings:
        print(f"{finding.title}: {finding.advice}")
    print(f"page: {page}")


def _untrained(options: argparse.Namespace) -> Run:
    """The run as its recipe makes it, before its first step."""
    from bnn.training.recipe import build

    return build(*recipe_with_values(options))


def _never_flipped(run: Path) -> dict[str, float] | None:
    """Of each layer the share of weights that never flipped, where the run has counted it."""
    from bnn.training.directory import SUMMARY, read_json

    summary = read_json(run / SUMMARY) if (run / SUMMARY).exists() else {}
    layers = summary.get("weight_state")
    if not isinstance(layers, dict) or not all(isinstance(figures, dict) for figures in layers.values()):
        return None
    found = {name: figures.get("never_flipped") for name, figures in layers.items()}
    return {name: float(share) for name, share in found.items() if isinstance(share, (int, float))} or None
