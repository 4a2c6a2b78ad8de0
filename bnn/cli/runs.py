"""`bnn eval` and `bnn report`: what a run has come to."""

from __future__ import annotations

from pathlib import Path

from bnn.cli.arguments import ArgumentParser
from bnn.cli.trainer import add_run_options, trainer_of_run
from bnn.errors import RunError, UsageError


def evaluate(arguments: list[str]) -> None:
    """Tests a run's newest checkpoint."""
    parser = ArgumentParser(prog="bnn eval", description="Tests a run's newest checkpoint.")
    parser.add_argument("run", metavar="RUN", type=Path, help="directory of the run")
    add_run_options(parser)
    options = parser.parse_args(arguments)
    trainer = trainer_of_run(options.run, options)
    trainer.load()
    loss, accuracy = trainer.test()
    print(
        f"test accuracy {100 * accuracy:.2f} %, loss {loss:.4f}, after {trainer.epoch} of {trainer.run.epochs} epochs"
    )


def report(arguments: list[str]) -> None:
    """Writes the page of one run, or one that compares several."""
    parser = ArgumentParser(
        prog="bnn report",
        description="Writes an HTML page about a run, or one that compares several. Executes their recipes.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="directory of a run")
    parser.add_argument("-o", "--out", metavar="PAGE", type=Path, help="the page (default: RUN/report.html)")
    parser.add_argument("--strict", action="store_true", help="fail where a layer's operations cannot be counted")
    options = parser.parse_args(arguments)
    if options.out is None and len(options.runs) > 1:
        raise UsageError("say where the page that compares several runs goes, as in `-o page.html`")
    try:
        from bnn.reports.page import write_page
    except ModuleNotFoundError as error:
        raise RunError(f"a report cannot be made ({error}): pip install 'bnn-edge[report]'") from None
    page = options.out or options.runs[0] / "report.html"
    write_page(options.runs, page, strict=options.strict)
    print(f"page: {page}")
