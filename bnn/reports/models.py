"""The table of networks."""

import inspect

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bnn.cost import count_layers, storage
from bnn.models import networks
from bnn.models.mean_field import depth_note


def print_models(console: Console) -> None:
    """Prints every network with its weights, bits and the multiply-accumulates of one image's forward pass."""
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption="Weights and multiply-accumulates (MAC) of one image's forward pass in millions; "
        "±1 MAC: those of ±1 with ±1 among them; bits: of storage a weight.",
    )
    table.add_column("model", no_wrap=True)
    for column in ("input", "weights", "binary", "bits", "MAC", "±1 MAC"):
        table.add_column(column, justify="right", no_wrap=True)
    notes = []
    for name, build in networks().items():
        shape = inspect.signature(build).parameters["input_shape"]
        with torch.device("meta"):
            model = build()
        stored, layers = storage(model), count_layers(model, shape.default)
        macs = sum(layer.multiply_accumulates for layer in layers)
        binary = sum(layer.multiply_accumulates for layer in layers if layer.input_bits == layer.weight_bits == 1)
        table.add_row(
            name,
            "x".join(map(str, shape.default)),
            f"{stored.weights / 1e6:.3f}",
            f"{stored.discrete_weights / 1e6:.3f}",
            f"{stored.bits_per_weight:.2f}",
            f"{macs / 1e6:,.1f}",
            f"{binary / 1e6:,.1f}",
        )
        if (note := depth_note(model)) is not None:
            notes.append(f"{name}: {note}")
    console.print(table)
    for note in notes:
        console.print(note)
