"""The command line. What is slow to import is imported by the command that needs it: `--help` answers at once."""

from __future__ import annotations

from collections.abc import Sequence

from bnn.cli.aftertraining import diagnose, quantize, shrink, synthesize
from bnn.cli.bench.command import bench
from bnn.cli.budget.command import budget
from bnn.cli.data import data
from bnn.cli.export import export
from bnn.cli.files import compress, decompress, inspect
from bnn.cli.models import models
from bnn.cli.program import run_program
from bnn.cli.recipes import recipes
from bnn.cli.replay import replay
from bnn.cli.runs import evaluate, predict, report
from bnn.cli.sweep import sweep
from bnn.cli.train import train
from bnn.cli.zoo import zoo

_HELP = """usage: bnn COMMAND ...

Train binary and ternary neural networks in little memory.

commands:
  bnn train RECIPE [options]   train a recipe: the name of one of `bnn recipes`, or a file
  bnn train RECIPE --help      the options of a recipe, with their defaults
  bnn train --resume RUN       go on with an interrupted run, or to more epochs with --epochs N
  bnn sweep RECIPE [options]   a recipe with several values of its options, as --seed 0,1,2
  bnn recipes [copy NAME]      the recipes, or a copy of one to edit
  bnn eval RUN                 accuracy of a run's model, or one in a file, on its test split or on --data-dir
  bnn predict RUN FILE ...     what pictures show, or rows of a table are, by a run's model or one in a file
  bnn replay RUN --fit 1MiB    samples of a run's classes, which a training of new classes sees again
  bnn budget MODEL             memory of a training step, or what fits into so much with --fit 64MiB
  bnn report RUN [RUN ...]     a page of a run's results and costs, or one that compares several
  bnn models                   networks with their weights, bits and multiply-accumulates
  bnn compress RUN -o FILE     what inference needs of a run's network, in a small file (.bnnz)
  bnn quantize RUN --fit 200kB a file of that size: a width for each layer, calibrated on examples
  bnn shrink RUN --keep 0.6    a new run with fewer channels, tuned again
  bnn diagnose RUN             a page of figures that explain a trained network, with advice
  bnn synthesize RUN -o DIR    pictures made of what a network's norms have kept of its data
  bnn decompress FILE -o DIR   the tensors of such a file, as safetensors and JSON
  bnn inspect FILE             its tensors, with their bits and entropies
  bnn bench RUN                time of an image here, beside plain torch, onnxruntime and C
  bnn export RUN -o DIR        a run's network, or one in a file, as --format c or onnx
  bnn zoo list|import|verify   the networks of larq-zoo, and their weights from its files
  bnn data shard|inspect       a large folder of pictures as shards, which training decodes as it goes
  bnn --version                the package's version
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: those behind `bnn`; by default the process's own.

    Returns:
        The exit status, see `run_program`.
    """
    return run_program(
        "bnn",
        {
            "train": train,
            "sweep": sweep,
            "recipes": recipes,
            "eval": evaluate,
            "predict": predict,
            "replay": replay,
            "budget": budget,
            "report": report,
            "models": models,
            "compress": compress,
            "quantize": quantize,
            "shrink": shrink,
            "diagnose": diagnose,
            "synthesize": synthesize,
            "decompress": decompress,
            "inspect": inspect,
            "export": export,
            "bench": bench,
            "zoo": zoo,
            "data": data,
        },
        arguments,
        help_text=_HELP,
        on_interrupt="interrupted; a run's newest checkpoint is as it was",
        on_memory="out of memory: a smaller batch needs less; checkpoints are untouched",
    )
