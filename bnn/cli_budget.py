"""`bnn budget`: the memory of a training step, and which ways to train fit into so much."""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import inspect
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn.errors import BnnError, RunError, UsageError

if TYPE_CHECKING:
    from torch import nn

    from bnn.accounting.memory_model import MemoryTable

    Tables = Callable[[str, str, int], MemoryTable]
    """The memory of a step, by preset, optimizer and batch size."""

_MIB = 2**20
_UNITS = {"b": 1, "kb": 10**3, "kib": 2**10, "mb": 10**6, "mib": 2**20, "gb": 10**9, "gib": 2**30}
# What a preset is compared with.
_REFERENCE = "standard"
_CAPTION = "Memory model of Wang et al., arXiv 2102.04270, not what this package takes: see docs/accounting.md."


def budget(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Runs the command.

    Args:
        parser: without arguments yet.
        words: those after `bnn budget`.

    Raises:
        UsageError: a name, number, shape or size cannot be understood.
        RunError: the network cannot be built or counted, or nothing fits.
    """
    parser.add_argument("model", metavar="MODEL", help="a network of `bnn models`, or path/to/file.py:function")
    parser.add_argument("--input", type=parse_shape, metavar="C,H,W", help="shape of one example")
    parser.add_argument("--batch", type=int, default=100, metavar="N", help="examples a step (default 100)")
    parser.add_argument("--preset", help="standard or edge (default edge; with --fit both)")
    parser.add_argument("--optimizer", help="adam, sgd or bop (default adam; with --fit all)")
    parser.add_argument("--mode", default="paper", help="paper: the published model of Wang et al. (default)")
    parser.add_argument("--fit", type=parse_size, metavar="SIZE", help="list what fits into SIZE, as 64MiB, best first")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(words)

    from bnn.accounting.fit import LEAST_BATCH
    from bnn.accounting.memory_model import network_shape
    from bnn.accounting.paper_model import MASK_QUIRKS, PAPER_OPTIMIZERS, PAPER_PRESETS, MaskQuirk, paper_table

    require_known("mode", options.mode, ["paper"])
    require_known("preset", options.preset, PAPER_PRESETS)
    require_known("optimizer", options.optimizer, PAPER_OPTIMIZERS)
    if options.batch < LEAST_BATCH:
        raise UsageError(f"--batch is at least {LEAST_BATCH}: batch norm needs two values a channel")
    model, options.input = build_network(options.model, options.input)
    shape, quirk = network_shape(model, options.input), MASK_QUIRKS.get(options.model, MaskQuirk())

    def table(preset: str, optimizer: str, batch_size: int) -> MemoryTable:
        widths, kept = PAPER_PRESETS[preset], PAPER_OPTIMIZERS[optimizer]
        return paper_table(shape, widths, kept, batch_size=batch_size, quirk=quirk)

    if options.fit is None:
        _show_budget(options, table)
    else:
        presets = [options.preset] if options.preset else PAPER_PRESETS
        optimizers = [options.optimizer] if options.optimizer else PAPER_OPTIMIZERS
        _show_fits(options, table, itertools.product(presets, optimizers))


def _show_budget(options: argparse.Namespace, table: Tables) -> None:
    from rich.console import Console

    from bnn.reports.budget import print_budget

    preset, optimizer = options.preset or "edge", options.optimizer or "adam"
    tables = {name: table(name, optimizer, options.batch) for name in dict.fromkeys((_REFERENCE, preset))}
    if options.json:
        content = {
            name: {
                "total_mib": of.total_bytes / _MIB,
                "variables": [{**asdict(variable), "bytes": variable.bytes} for variable in of.variables],
            }
            for name, of in tables.items()
        }
        ratio = tables[_REFERENCE].total_bytes / tables[preset].total_bytes
        _print_json(options, optimizer=optimizer, presets=content, ratio=ratio)
    else:
        title = f"{options.model}, batch of {options.batch}, {optimizer}; MiB"
        print_budget(Console(), tables, title=title, caption=_CAPTION)


def _show_fits(options: argparse.Namespace, table: Tables, ways: Iterable[tuple[str, str]]) -> None:
    from rich.console import Console

    from bnn.accounting.fit import LEAST_BATCH, ways_that_fit
    from bnn.reports.budget import print_fits

    def total_bytes(way: tuple[str, str], batch_size: int) -> float:
        return table(*way, batch_size).total_bytes

    totals = {way: partial(total_bytes, way) for way in ways}
    fits = ways_that_fit(totals, options.fit, batch_size=options.batch)
    if not fits:
        least, (preset, optimizer) = min((total(LEAST_BATCH), way) for way, total in totals.items())
        raise RunError(
            f"no way to train {options.model} fits into {options.fit / _MIB:,.2f} MiB: the least is"
            f" {least / _MIB:,.2f} MiB, of {preset} with {optimizer} and a batch of {LEAST_BATCH}"
        )
    if options.json:
        _print_json(options, budget_bytes=options.fit, fits=[asdict(fit) for fit in fits])
    else:
        title = f"{options.model} in {options.fit / _MIB:,.2f} MiB, largest batch up to {options.batch}"
        print_fits(Console(), fits, title=title, caption=_CAPTION)


def _print_json(options: argparse.Namespace, **content: Any) -> None:
    asked = {"model": options.model, "input": options.input, "mode": options.mode, "batch": options.batch}
    print(json.dumps({**asked, **content}, indent=1))


# --- what is typed --------------------------------------------------------------------------------------------------


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


def require_known(kind: str, name: str | None, known: Iterable[str]) -> None:
    """Refuses a name that is neither known nor None, and says which one is near.

    Raises:
        UsageError: there is no such name.
    """
    known = list(known)
    if name is not None and name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f", but there is {near[0]!r}" if near else ""
        raise UsageError(f"there is no {kind} {name!r}{hint}; there are: {', '.join(known)}")


# --- networks -------------------------------------------------------------------------------------------------------


def build_network(name: str, input_shape: tuple[int, ...] | None) -> tuple[nn.Module, tuple[int, ...]]:
    """Builds a network of `bnn.models` without memory, or one of the user's file.

    Args:
        name: of the function, or path/to/file.py:function. The file is executed, and the function called without
            arguments.
        input_shape: of one example; a network of `bnn.models` has one by default.

    Returns:
        The network and the shape of its input.

    Raises:
        UsageError: there is no such network, or the shape is missing.
        RunError: the file or the function fails, or does not give a network.
    """
    import torch

    import bnn.models

    path, colon, function_name = name.rpartition(":")
    if colon:
        if input_shape is None:
            raise UsageError(f"say what {name} takes: --input with the shape of one example, as in --input 3,32,32")
        return _call(name, _function_of_file(Path(path), function_name)), input_shape
    builders = {
        known: build
        for known, build in inspect.getmembers(bnn.models, inspect.isfunction)
        if "input_shape" in inspect.signature(build).parameters
    }
    require_known("network", name, [*builders, "path/to/file.py:function"])
    shape = input_shape or inspect.signature(builders[name]).parameters["input_shape"].default
    with torch.device("meta"):
        return _call(name, lambda: builders[name](input_shape=shape)), shape


def _call(name: str, build: Callable[[], Any]) -> nn.Module:
    from torch import nn

    try:
        model = build()
    except (BnnError, MemoryError):
        raise
    except Exception as error:  # a user's function may raise anything
        raise RunError(f"{name} cannot be built: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise RunError(f"{name} must return a torch.nn.Module, not {type(model).__name__}")
    return model


def _function_of_file(path: Path, name: str) -> Callable[[], Any]:
    if path.suffix != ".py" or not path.is_file():
        raise UsageError(f"{path} is not a Python file: name one and its function, as in my_model.py:build")
    spec = importlib.util.spec_from_file_location(f"network_{path.stem}", path)
    assert spec is not None  # so for every file that ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and annotations look their module up there.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise RunError(f"{path} cannot be executed: {type(error).__name__}: {error}") from error
    callables = {key: value for key, value in vars(module).items() if callable(value) and not key.startswith("_")}
    require_known(f"function in {path}", name, callables)
    function: Callable[[], Any] = callables[name]
    return function
