"""Parsing of arguments: the parser of a command, sizes, shapes and names."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterable
from typing import Any, NoReturn

from bnn.errors import UsageError, near_match, near_options

_MOST_VALUES = 2**28
_UNITS = {"b": 1, "kb": 10**3, "kib": 2**10, "mb": 10**6, "mib": 2**20, "gb": 10**9, "gib": 2**30}


class ArgumentParser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` that raises instead of ending the process; options cannot be abbreviated.

    Raises:
        UsageError: by `parse_args`, where the arguments cannot be understood.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:  # noqa: D102
        words = None if args is None else list(args)
        # Of `--` as the value of an option argparse makes an empty list, whatever the option's type.
        for word in words or ():
            if word.startswith("--") and word.endswith("=--"):
                self.error(f"argument {word[:-3]}: it has no value")
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:  # noqa: D102
        near = near_options(message, self._option_string_actions)
        raise UsageError(f"{message}{near}; see `{self.prog} --help`")


def parse_size(text: str) -> int:
    """Bytes of a size such as 64MiB, 1.5 GiB or 500kB; the case of the unit does not matter.

    Raises:
        UsageError: it is not one.
    """
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([a-z]+)\s*", text.lower())
    size = float(match[1]) * _UNITS[match[2]] if match and match[2] in _UNITS else 0.0
    if not 1 <= size < 2**63:
        raise UsageError(f"{text!r} is not a size: give a number and a unit, such as 64MiB, 1GiB or 500kB")
    return int(size)


def parse_shape(text: str) -> tuple[int, ...]:
    """The shape of one example, such as 3,32,32 or 3x32x32.

    Raises:
        UsageError: it is not one.
    """
    if not re.fullmatch(r"[1-9]\d*([,x][1-9]\d*)*", text):
        raise UsageError(f"{text!r} is not the shape of an example: give positive numbers, such as 3,32,32")
    shape = tuple(int(size) for size in re.split("[,x]", text))
    if math.prod(shape) > _MOST_VALUES:
        raise UsageError(f"an example has at most {_MOST_VALUES:,} values, those of {text[:40]!r} are more")
    return shape


def require_choice(kind: str, name: str | None, choices: Iterable[str], *, where: str = "") -> None:
    """Refuses a name that is neither one of the choices nor None, and says which one is near.

    Args:
        kind: of what has the name.
        name: what was typed.
        choices: the names that there are.
        where: text behind the name, such as " in FILE".

    Raises:
        UsageError: there is no such name.
    """
    choices = list(choices)
    if name is not None and name not in choices:
        near = near_match(name, choices)
        raise UsageError(f"there is no {kind} {name!r}{where}{near}; there are: {', '.join(choices)}")
