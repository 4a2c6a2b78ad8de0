"""`bnn budget --mode paper`: the published memory model."""

from __future__ import annotations

import argparse
import itertools
from dataclasses import asdict
from functools import partial

from rich.console import Console

from bnn.cli.budget.arguments import MIB, REFERENCE, print_json, refuse_budget, require_known
from bnn.cli.budget.networks import Network
from bnn.cli.budget.steps import PRESETS
from bnn.cost.memory.budget import LEAST_BATCH, ways_that_fit
from bnn.cost.memory.paper import MASK_QUIRKS, PAPER_OPTIMIZERS, PAPER_PRESETS, MaskQuirk, paper_table
from bnn.cost.memory.table import MemoryTable, network_shape
from bnn.errors import UsageError
from bnn.reports.budget import print_budget, print_fits

_CAPTION = "Memory model of Wang et al., arXiv 2102.04270, not what this package takes: see docs/accounting.md."


class Paper:
    """The tables of one network.

    Raises:
        UsageError: an option is of mode `exact`, or has a value that there is not.
        RunError: the network cannot be built or counted.
    """

    def __init__(self, network: Network, options: argparse.Namespace) -> None:
        if options.preset in PRESETS and options.preset not in PAPER_PRESETS:
            raise UsageError(f"{options.preset} is no preset of the published model: say --mode exact")
        require_known("preset", options.preset, PAPER_PRESETS)
        require_known("optimizer", options.optimizer, PAPER_OPTIMIZERS)
        for option in ("slice", "measure"):
            if getattr(options, option):
                raise UsageError(f"--{option} belongs to --mode exact: the published model does not know of it")
        # The library's networks are built without memory; a user's file may not be able to.
        is_own = ":" in network.name
        model = network.build() if is_own else network.build_on_meta(input_shape=network.input_shape)
        self._shape = network_shape(model, network.input_shape)
        self._quirk = MASK_QUIRKS.get(network.name, MaskQuirk())
        self._options = options

    def table(self, preset: str, optimizer: str, batch_size: int) -> MemoryTable:
        """The variables of a step."""
        widths, kept = PAPER_PRESETS[preset], PAPER_OPTIMIZERS[optimizer]
        return paper_table(self._shape, widths, kept, batch_size=batch_size, quirk=self._quirk)

    def show_budget(self) -> None:
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

    def show_fits(self) -> None:
        """Prints the largest batches that fit.

        Raises:
            RunError: nothing fits.
        """
        options = self._options
        presets = [options.preset] if options.preset else PAPER_PRESETS
        optimizers = [options.optimizer] if options.optimizer else PAPER_OPTIMIZERS
        totals = {way: partial(self._total_bytes, way) for way in itertools.product(presets, optimizers)}
        fits = ways_that_fit(totals, options.fit, batch_size=options.batch)
        if not fits:
            least, way = min((total(LEAST_BATCH), way) for way, total in totals.items())
            raise refuse_budget(options, least, *way, f"a batch of {LEAST_BATCH}")
        if options.json:
            print_json(options, budget_bytes=options.fit, fits=[asdict(fit) for fit in fits])
        else:
            title = f"{options.model} in {options.fit / MIB:,.2f} MiB, largest batch up to {options.batch}"
            print_fits(Console(), fits, title=title, caption=_CAPTION)

    def _total_bytes(self, way: tuple[str, str], batch_size: int) -> float:
        return self.table(*way, batch_size).total_bytes
