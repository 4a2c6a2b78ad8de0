"""The line with which a training begins."""

from pathlib import Path

from bnn.cost import storage
from bnn.training import Trainer
from bnn.weights import named_stores


def start_line(trainer: Trainer) -> str:
    """Which network is trained on which data, where, by which preset, and into which folder."""
    run, stored = trainer.run, storage(trainer.run.model)
    recipe = Path(str(trainer.configuration.get("recipe", "run"))).stem
    preset = trainer.configuration.get("arguments", {}).get("preset")
    widths = {store.storage_bits for _, store in named_stores(run.model)}
    kind = {frozenset({1}): "binary", frozenset({2}): "ternary"}.get(frozenset(widths), "low-bit")
    others = stored.weights - stored.discrete_weights + stored.other_parameters
    held_out = round(run.validation * len(run.data.train))
    examples = {"training": len(run.data.train) - held_out, "validation": held_out, "test": len(run.data.test)}
    parts = [
        f"{recipe}: {stored.discrete_weights:,} {kind} weights and {others:,} float parameters",
        f"{run.data.source}: " + ", ".join(f"{count:,} {part}" for part, count in examples.items()) + " examples",
        str(trainer.device),
        *([f"preset {preset}"] if preset else []),
        str(trainer.out),
    ]
    return "; ".join(parts)
