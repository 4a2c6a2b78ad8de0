"""Output that both modes of `bnn budget` share."""

from __future__ import annotations

import argparse
import json
from typing import Any

from bnn.errors import RunError

MIB = 2**20


def nothing_fits(options: argparse.Namespace, least_bytes: float, preset: str, optimizer: str, batch: int) -> RunError:
    """The error where nothing fits into the memory that there is.

    Args:
        options: `model` and `fit` among them.
        least_bytes: what the most frugal configuration takes.
        preset: of this configuration.
        optimizer: of this configuration.
        batch: its examples.
    """
    return RunError(
        f"no way to train {options.model} fits into {options.fit / MIB:,.2f} MiB: the least is"
        f" {least_bytes / MIB:,.2f} MiB, of {preset} with {optimizer} and a batch of {batch}"
    )


def print_json(options: argparse.Namespace, **content: Any) -> None:
    """Prints what was asked and what was found."""
    asked = {"model": options.model, "input": options.input, "mode": options.mode, "batch": options.batch}
    print(json.dumps({**asked, **content}, indent=1))
