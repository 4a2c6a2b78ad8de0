"""What is typed after `bnn budget`, and what both modes answer in the same words."""

from __future__ import annotations

import argparse
import difflib
import json
import re
from collections.abc import Iterable
from typing import Any

from bnn.errors import RunError, UsageError

MIB = 2**20
REFERENCE = "standard"
"""What a preset is compared with."""

_UNITS = {"b": 1, "kb": 10**3, "kib": 2**10, "mb": 10**6, "mib": 2**20, "gb": 10**9, "gib": 2**30}


def parse_size(text: str) -> int:
    """Bytes of a size such as 64MiB, 1.5 GiB or 500kB; the case of the unit does not matter.

    Raises:
        UsageError: it is not one.
    """
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([a-z]+)\s*", text.lower())
    size = int(float(match[1]) * _UNITS[match[2]]) if match and match[2] in _UNITS else 0
    if size < 1:
        raise UsageError(f"{text!r} is not a size: give a number and a unit, such as 64MiB, 1GiB or 500kB")
    return size


def parse_shape(text: str) -> tuple[int, ...]:
    """The shape of one example, such as 3,32,32 or 3x32x32.

    Raises:
        UsageError: it is not one.
    """
    if not re.fullmatch(r"[1-9]\d*([,x][1-9]\d*)*", text):
        raise UsageError(f"{text!r} is not the shape of an example: give positive numbers, such as 3,32,32")
    return tuple(int(size) for size in re.split("[,x]", text))


def require_known(kind: str, name: str | None, known: Iterable[str], *, where: str = "") -> None:
    """Refuses a name that is neither known nor None, and says which one is near.

    Args:
        kind: of what has the name.
        name: what was typed.
        known: the names that there are.
        where: words behind the name, such as " in FILE".

    Raises:
        UsageError: there is no such name.
    """
    known = list(known)
    if name is not None and name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f", but there is {near[0]!r}" if near else ""
        raise UsageError(f"there is no {kind} {name!r}{where}{hint}; there are: {', '.join(known)}")


def refuse_budget(options: argparse.Namespace, least_bytes: float, preset: str, optimizer: str, size: str) -> RunError:
    """The error where nothing fits.

    Args:
        options: `model` and `fit` among them.
        least_bytes: what the most frugal way takes.
        preset: of this way.
        optimizer: of this way.
        size: its batch, in words.
    """
    return RunError(
        f"no way to train {options.model} fits into {options.fit / MIB:,.2f} MiB: the least is"
        f" {least_bytes / MIB:,.2f} MiB, of {preset} with {optimizer} and {size}"
    )


def print_json(options: argparse.Namespace, **content: Any) -> None:
    """Prints what was asked and what was found."""
    asked = {"model": options.model, "input": options.input, "mode": options.mode, "batch": options.batch}
    print(json.dumps({**asked, **content}, indent=1))
