"""`bnn models`."""

from __future__ import annotations

from bnn.cli.arguments import ArgumentParser


def models(arguments: list[str]) -> None:
    """Lists the networks of the library."""
    ArgumentParser(prog="bnn models", description="Lists the networks.").parse_args(arguments)
    from rich.console import Console

    from bnn.reports.models import print_models

    print_models(Console())
