"""`bnn budget --mode exact`: what this package takes on the CPU, and what is measured of it."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from functools import cache, partial
from typing import Any

from rich.console import Console

from bnn.cli.budget.arguments import MIB, REFERENCE, print_json, refuse_budget
from bnn.cli.budget.measure import measure
from bnn.cli.budget.networks import Network
from bnn.cli.budget.steps import Way, check_way, step_on_meta, ways
from bnn.cost.memory.budget import slice_sizes, steps_that_fit
from bnn.cost.memory.predicted import StepMemory, predict_step
from bnn.errors import UsageError
from bnn.reports.budget import print_budget, print_fits, print_measured

_CAPTION = "Tensors of one step on the CPU at the moment when they take most, predicted: see docs/accounting.md."


class Exact:
    """The step of one network, predicted and measured.

    Raises:
        UsageError: an option has a value that there is not, or does not go with the others.
    """

    def __init__(self, network: Network, options: argparse.Namespace) -> None:
        check_way(network, options.preset, options.optimizer)
        if options.fit is not None and (options.slice or options.measure):
            raise UsageError("--fit looks for slices itself and predicts: leave out --slice and --measure")
        self._network = network
        self._options = options

    def show_budget(self) -> None:
        """Prints the variables of a preset beside those of `standard`, and the measured step where asked."""
        options = self._options
        preset = options.preset or ("edge" if self._network.takes_presets else REFERENCE)
        optimizer = options.optimizer or "adam"
        check_way(self._network, preset, optimizer)
        # A preset whose optimizer is its own has no namesake in `standard` but Adam.
        own = {name: Way(name, optimizer, options.batch, options.slice) for name in dict.fromkeys((REFERENCE, preset))}
        predicted = {name: self._predict(way) for name, way in own.items()}
        measured = {name: measure(self._network, way) for name, way in own.items()} if options.measure else {}
        first, last = predicted[REFERENCE].table.total_bytes, predicted[preset].table.total_bytes
        if options.json:
            content = {name: _as_json(step, measured.get(name)) for name, step in predicted.items()}
            print_json(options, optimizer=optimizer, slice=options.slice, presets=content, ratio=first / last)
            return
        console = Console()
        title = f"{options.model}, batch of {options.batch}, {optimizer}; MiB"
        saved = {"saved for backward": [step.saved_bytes for step in predicted.values()]}
        tables = {name: step.table for name, step in predicted.items()}
        print_budget(console, tables, title=title, caption=_CAPTION, others=saved)
        if measured:
            rows = {name: (predicted[name], figures) for name, figures in measured.items()}
            print_measured(console, rows)

    def show_fits(self) -> None:
        """Prints what fits: the whole batch, or its largest slices, or the largest smaller batch.

        Raises:
            RunError: nothing fits.
        """
        options = self._options
        chosen = [
            way
            for way in ways(self._network)
            if options.preset in (None, way[0]) and options.optimizer in (None, way[1])
        ]
        totals = {way: cache(partial(self._total_bytes, way)) for way in chosen}
        fits = steps_that_fit(totals, options.fit, batch_size=options.batch)
        if not fits:
            smallest = slice_sizes(options.batch)[0]
            least, way = min((total(smallest, smallest), way) for way, total in totals.items())
            raise refuse_budget(options, least, *way, f"a batch of {smallest}")
        if options.json:
            print_json(options, budget_bytes=options.fit, fits=[asdict(fit) for fit in fits])
        else:
            title = f"{options.model} in {options.fit / MIB:,.2f} MiB, batch of up to {options.batch}"
            print_fits(Console(), fits, title=title, caption=_CAPTION)

    def _predict(self, way: Way) -> StepMemory:
        return predict_step(
            step_on_meta(self._network, way), input_shape=self._network.input_shape, batch_size=way.batch_size
        )

    def _total_bytes(self, way: tuple[str, str], batch_size: int, slice_size: int) -> float:
        return self._predict(Way(*way, batch_size, slice_size)).table.total_bytes


def _as_json(step: StepMemory, measured: dict[str, int | None] | None) -> dict[str, Any]:
    content = {**step.table.as_json(), "saved_bytes": step.saved_bytes}
    return content if measured is None else {**content, "measured": measured}
