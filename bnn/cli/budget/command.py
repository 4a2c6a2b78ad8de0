"""`bnn budget`: the memory of a training step, and what can be trained in so much memory."""

from __future__ import annotations

import argparse
from pathlib import Path

from bnn.cli.arguments import ArgumentParser, parse_shape, parse_size, require_choice
from bnn.errors import UsageError

MODES = ("exact", "paper")

_MOST_EXAMPLES = 2**31


def budget(arguments: list[str]) -> None:
    """Runs the command.

    Raises:
        UsageError: a name, number, shape or size cannot be understood.
        RunError: the network cannot be built or counted, or nothing fits.
    """
    parser = ArgumentParser(prog="bnn budget", description="Memory of a training step.")
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="a network of `bnn models`, torchvision:NAME, or path/to/file.py:NAME of a function, class or module",
    )
    parser.add_argument(
        "--start",
        metavar="RUN|FILE",
        type=Path,
        help="in place of MODEL, a trained network: which of its last layers may learn, and with --fit beside how many"
        " samples to replay",
    )
    parser.add_argument("--input", type=parse_shape, metavar="C,H,W", help="shape of one example")
    parser.add_argument("--batch", type=int, default=100, metavar="N", help="examples a step (default 100)")
    parser.add_argument(
        "--preset",
        help="standard, edge or, but for --mode paper, edge-min or edge-signs (default edge; with --fit the first 3)",
    )
    parser.add_argument("--optimizer", help="adam, sgd or bop (default adam; with --fit all)")
    parser.add_argument(
        "--mode",
        default="exact",
        help="exact: what this package takes on the CPU (default); paper: the published model of Wang et al.",
    )
    parser.add_argument("--fit", type=parse_size, metavar="SIZE", help="list what fits into SIZE, as 64MiB, best first")
    parser.add_argument("--slice", type=int, metavar="N", help="most examples at once (--mode exact)")
    parser.add_argument(
        "--epoch", type=int, default=50_000, metavar="N", help="examples of an epoch (--mode exact; default 50,000)"
    )
    parser.add_argument(
        "--measure",
        action=argparse.BooleanOptionalAction,
        help="take steps and measure memory and time; with --fit, the memory that is needed (default, but for --fit and"
        " --mode paper)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)

    from bnn.cli.budget.configurations import PRESETS
    from bnn.cli.budget.networks import find_network
    from bnn.cli.budget.predicted import PredictedBudget
    from bnn.cli.budget.published import PublishedBudget
    from bnn.cost.memory.budget import MIN_BATCH_SIZE

    require_choice("mode", options.mode, MODES)
    for option in ("batch", "slice"):
        value = getattr(options, option)
        if value is not None and value < MIN_BATCH_SIZE:
            raise UsageError(f"--{option} is at least {MIN_BATCH_SIZE}: batch norm needs two values a channel")
        if value is not None and value > _MOST_EXAMPLES:
            raise UsageError(f"--{option} is at most {_MOST_EXAMPLES:,}, got {value}")
    if options.epoch < options.batch:
        raise UsageError(f"an epoch has at least a batch of {options.batch} examples, got --epoch {options.epoch}")
    if options.start is not None:
        from bnn.cli.budget.tuning import show_tunings

        require_choice("preset", options.preset, PRESETS)
        show_tunings(options.start, options)
        return
    if options.model is None:
        raise UsageError("name a network of `bnn models`, or with --start a run")
    network = find_network(options.model, options.input)
    options.input = network.input_shape
    shown = PublishedBudget(network, options) if options.mode == "paper" else PredictedBudget(network, options)
    if options.fit is None:
        shown.show_step()
    else:
        shown.show_candidates()
