"""`bnn budget --mode paper`: the published memory model."""

from __future__ import annotations

import argparse
import itertools
from dataclasses import asdict
from functools import partial

from rich.console import Console

from bnn.cli.arguments import require_choice
from bnn.cli.budget.configurations import PRESETS, REFERENCE
from bnn.cli.budget.networks import NetworkBuilder
from bnn.cli.budget.output import MIB, nothing_fits, print_json
from bnn.cost.memory.budget import MIN_BATCH_SIZE, largest_batches
from bnn.cost.memory.paper import MASK_QUIRKS, PAPER_OPTIMIZERS, PAPER_PRESETS, MaskQuirk, paper_table
from bnn.cost.memory.table import MemoryTable, network_shape
from bnn.errors import UsageError
from bnn.reports.budget import print_budget, print_candidates

_CAPTION = "Memory model of Wang et al., arXiv 2102.04270, not what this package takes: see docs/cost.md."


class PublishedBudget:
    """The step of one network, as the published model has it.

    Raises:
        UsageError: an option is of mode `exact`, or has a value that there is not.
        RunError: the network cannot be built or counted.
    """

    def __init__(self, network: NetworkBuilder, options: argparse.Namespace) -> None:
        if options.preset in PRESETS and options.preset not in PAPER_PRESETS:
            raise UsageError(f"{options.preset} is no preset of the published model: leave out --mode paper")
        require_choice("preset", options.preset, PAPER_PRESETS)
        require_choice("optimizer", options.optimizer, PAPER_OPTIMIZERS)
        for option in ("slice", "measure"):
            if getattr(options, option):
                raise UsageError(f"--{option} has no place in --mode paper: the published model does not know of it")
        # The library's networks are built without memory; a user's file may not be able to.
        is_of_user = ":" in network.name
        model = network.build() if is_of_user else network.build_on_meta()
        self._shape = network_shape(model, network.input_shape)
        self._quirk = MASK_QUIRKS.get(network.name, MaskQuirk())
        self._options = options

    def table(self, preset: str, optimizer: str, batch_size: int) -> MemoryTable:
        """The variables of a step."""
        widths, state = PAPER_PRESETS[preset], PAPER_OPTIMIZERS[optimizer]
        return paper_table(self._shape, widths, state, batch_size=batch_size, quirk=self._quirk)

    def show_step(self) -> None:
        """Prints the variables of a preset beside those of `standard`."""
        options = self._options
        preset, optimizer = options.preset or "edge", options.optimizer or "adam"
        tables = {name: self.table(name, optimizer, options.batch) for name in dict.fromkeys((REFERENCE, preset))}
        if options.json:
            content = {name: table.as_json() for name, table in tables.items()}
            ratio = tables[REFERENCE].total_bytes / tables[preset].total_bytes
            print_json(options, optimizer=optimizer, presets=content, ratio=ratio)
        else:
            title = f"{options.model}, batch of {options.batch}, {optimizer}; MiB"
            print_budget(Console(), tables, title=title, caption=_CAPTION)

    def show_candidates(self) -> None:
        """Prints the largest batches that fit.

        Raises:
            RunError: nothing fits.
        """
        options = self._options
        presets = [options.preset] if options.preset else PAPER_PRESETS
        optimizers = [options.optimizer] if options.optimizer else PAPER_OPTIMIZERS
        totals = {pair: partial(self._total_bytes, pair) for pair in itertools.product(presets, optimizers)}
        candidates = largest_batches(totals, options.fit, batch_size=options.batch)
        if not candidates:
            least_bytes, pair = min((total(MIN_BATCH_SIZE), pair) for pair, total in totals.items())
            raise nothing_fits(options, least_bytes, *pair, MIN_BATCH_SIZE)
        if options.json:
            print_json(options, budget_bytes=options.fit, candidates=[asdict(candidate) for candidate in candidates])
        else:
            title = f"{options.model} in {options.fit / MIB:,.2f} MiB, largest batch up to {options.batch}"
            print_candidates(Console(), candidates, title=title, caption=_CAPTION)

    def _total_bytes(self, pair: tuple[str, str], batch_size: int) -> float:
        return self.table(*pair, batch_size).total_bytes
