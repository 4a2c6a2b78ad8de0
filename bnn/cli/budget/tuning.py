"""`bnn budget --start RUN`: which layers of a trained network may learn in so much memory, beside how many samples."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from bnn.cli.budget.output import MIB, print_json
from bnn.cli.trainer import model_of
from bnn.codec import Model
from bnn.codec.network import build, describe
from bnn.cost.memory.of_run import predict_existing
from bnn.errors import RunError, UsageError
from bnn.layers import Graph
from bnn.models import initialize
from bnn.models.freezing import freeze, places_to_freeze
from bnn.presets import prepare
from bnn.reports.budget import print_tunings
from bnn.training.replay import row_bytes_of, sample_bytes


@dataclass(frozen=True)
class Tuning:
    """A training of the last layers."""

    freeze: str
    """The last layer that does not learn."""
    layers: int
    """With parameters that learn."""
    weights: int
    """That learn, in all layers."""
    step_bytes: float
    """Needed by the process for a step, beside Python and torch."""
    bits: int
    """Of a sample."""
    samples: int | None
    """That fit besides; None where no size was given."""


def show_tunings(start: Path, options: argparse.Namespace) -> None:
    """Prints each number of last layers that may learn.

    Raises:
        UsageError: an option does not go with a start.
        RunError: there is no such run, or nothing may learn in the memory that there is.
    """
    for option in ("model", "input", "optimizer", "slice", "measure"):
        if getattr(options, option) not in (None, False):
            raise UsageError(f"--start brings its own network and predicts its steps: leave out {_shown(option)}")
    model = model_of(start, None)
    if model.preprocessing is None:
        raise RunError(f"{start} does not say the shape of its input")
    preset = options.preset or "edge-min"
    places = places_to_freeze(model.network, input_shape=model.preprocessing.image_shape)
    if not places:
        raise RunError(f"the first layers of {start} cannot be frozen: between its layers more than one value goes on")
    with Console(stderr=True).status("predicting"):
        found = [_tuning(model, place, preset, options) for place in places]
    fitting = [tuning for tuning in found if options.fit is None or tuning.step_bytes <= options.fit]
    if not fitting:
        least = min(found, key=lambda tuning: tuning.step_bytes)
        raise RunError(
            f"nothing may learn in {options.fit / MIB:,.2f} MiB: the layers behind {least.freeze} alone take"
            f" {least.step_bytes / MIB:,.2f} MiB, batch of {options.batch}, {preset}; give more or a smaller --batch"
        )
    if options.json:
        rows = [asdict(tuning) for tuning in fitting]
        print_json(options, start=str(start), preset=preset, budget_bytes=options.fit, tunings=rows)
        return
    where = "" if options.fit is None else f" in {options.fit / MIB:,.2f} MiB"
    title = f"What of {start} may learn{where}, batch of {options.batch}, {preset}"
    print_tunings(Console(), [asdict(tuning) for tuning in fitting], title=title)


def _frozen(model: Model, place: str, shape: tuple[int, ...]) -> nn.Module:
    """The network with weights to train, drawn."""
    made = build(describe(model.network))
    initialize(made, generator=torch.Generator().manual_seed(0))
    return freeze(made, place, input_shape=shape, hands_on_bits=True)


def _shown(option: str) -> str:
    return "the network's name" if option == "model" else f"--{option}"


def _tuning(model: Model, place: str, preset: str, options: argparse.Namespace) -> Tuning:
    assert model.preprocessing is not None
    shape = model.preprocessing.image_shape
    step = prepare(preset, partial(_frozen, model, place, shape), input_shape=shape, keep_weights=True)
    network = step.model
    assert isinstance(network, Graph)
    row_bytes = row_bytes_of(network, shape)
    needed = predict_existing(step, input_shape=shape, batch_size=options.batch).process_bytes
    trained = {id(p): p for group in step.optimizer.param_groups for p in group["params"]}
    layers = [call for call in network.calls[network.frozen :] if call.kind == "part"]
    return Tuning(
        freeze=place,
        layers=sum(any(True for _ in network.get_submodule(call.target).parameters()) for call in layers),
        weights=sum(p.numel() for p in trained.values()),
        step_bytes=needed,
        bits=8 * row_bytes,
        samples=None if options.fit is None else max(0, int((options.fit - needed) // sample_bytes(row_bytes))),
    )
