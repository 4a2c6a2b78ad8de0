"""`bnn budget`, mode exact: what this package takes on the CPU, and what is measured of it."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from rich.console import Console

from bnn.cli.budget.configurations import (
    COMPARED,
    CONFIGURATIONS,
    REFERENCE,
    TrainingConfiguration,
    check_configuration,
    step_on_meta,
)
from bnn.cli.budget.measure import measure
from bnn.cli.budget.needed import NeededMemory
from bnn.cli.budget.networks import NetworkBuilder
from bnn.cli.budget.output import MIB, nothing_fits, print_json
from bnn.cost.memory.budget import largest_slices, slice_sizes
from bnn.cost.memory.predicted import StepMemory, predict_step
from bnn.cost.memory.resident import available_bytes
from bnn.errors import UsageError
from bnn.reports.budget import print_budget, print_candidates, print_measured

_CAPTION = "Tensors of one step on the CPU at the moment when they take most, predicted: see docs/cost.md."
_FIT_CAPTION = (
    "Needed by the process beside Python and torch, allocator and objects included: see docs/cost.md. * measured on one"
    " thread."
)


class PredictedBudget:
    """The step of one network, predicted and measured.

    Raises:
        UsageError: an option has a value that there is not, or does not go with the others.
    """

    def __init__(self, network: NetworkBuilder, options: argparse.Namespace) -> None:
        check_configuration(options.preset, options.optimizer)
        if options.fit is not None and options.slice:
            raise UsageError("--fit looks for slices itself: leave out --slice")
        self._network = network
        self._options = options

    def show_step(self) -> None:
        """Prints the variables of a preset beside those of `standard`, and the measured step where asked."""
        options = self._options
        preset, optimizer = options.preset or "edge", options.optimizer or "adam"
        # A preset whose optimizer is its own has no namesake in `standard` but Adam.
        compared = {
            name: TrainingConfiguration(name, optimizer, options.batch, options.slice)
            for name in dict.fromkeys((REFERENCE, preset))
        }
        predicted = {name: self._predict(configuration) for name, configuration in compared.items()}
        measured = self._measure(compared, predicted) if options.measure is not False else {}
        first, last = predicted[REFERENCE].table.total_bytes, predicted[preset].table.total_bytes
        if options.json:
            content = {name: _as_json(step, measured.get(name)) for name, step in predicted.items()}
            print_json(options, optimizer=optimizer, slice=options.slice, presets=content, ratio=first / last)
            return
        console = Console()
        title = f"{options.model}, batch of {options.batch}, {optimizer}; MiB"
        others: dict[str, list[float]] = {
            "saved for backward": [step.saved_bytes for step in predicted.values()],
            "needed by the process": [step.process_bytes for step in predicted.values()],
        }
        tables = {name: step.table for name, step in predicted.items()}
        print_budget(console, tables, title=title, caption=_CAPTION, others=others)
        if measured:
            rows = {name: (predicted[name], figures) for name, figures in measured.items()}
            print_measured(console, rows, batch_size=options.batch, epoch_size=options.epoch)

    def show_candidates(self) -> None:
        """Prints what fits: the whole batch, or its largest slices, or the largest smaller batch.

        Raises:
            RunError: nothing fits.
        """
        options = self._options
        needed = NeededMemory(self._network, is_measured=bool(options.measure))
        totals = {
            (preset, optimizer): partial(needed.total_bytes, preset, optimizer)
            for preset, optimizer in CONFIGURATIONS
            if preset in ((options.preset,) if options.preset else COMPARED) and options.optimizer in (None, optimizer)
        }
        find = partial(largest_slices, totals, options.fit, batch_size=options.batch)
        with Console(stderr=True).status("predicting and measuring" if options.measure else "predicting"):
            candidates = needed.checked(find)
        if not candidates:
            smallest = slice_sizes(options.batch)[0]
            least_bytes, pair = min((total(smallest, smallest), pair) for pair, total in totals.items())
            raise nothing_fits(options, least_bytes, *pair, smallest)
        if options.json:
            print_json(options, budget_bytes=options.fit, candidates=[asdict(candidate) for candidate in candidates])
        else:
            title = f"{options.model} in {options.fit / MIB:,.2f} MiB, batch of up to {options.batch}"
            print_candidates(Console(), candidates, title=title, caption=_FIT_CAPTION)

    def _measure(
        self, compared: Mapping[str, TrainingConfiguration], predicted: Mapping[str, StepMemory]
    ) -> dict[str, dict[str, float | None]]:
        """What is measured of each; nothing where one of them would not fit into this machine."""
        free_bytes = available_bytes()
        for name, step in predicted.items():
            if free_bytes is not None and step.table.total_bytes > free_bytes:
                warnings.warn(f"nothing is measured: {name} does not fit into the memory that is free", stacklevel=2)
                return {}
        with Console(stderr=True).status("measuring: a few steps of each preset; --no-measure leaves this out"):
            return {name: measure(self._network, configuration) for name, configuration in compared.items()}

    def _predict(self, configuration: TrainingConfiguration) -> StepMemory:
        step = step_on_meta(self._network, configuration)
        return predict_step(step, input_shape=self._network.input_shape, batch_size=configuration.batch_size)


def _as_json(step: StepMemory, measured: dict[str, float | None] | None) -> dict[str, Any]:
    content = {**step.table.as_json(), "saved_bytes": step.saved_bytes, "process_bytes": step.process_bytes}
    return content if measured is None else {**content, "measured": measured}
