"""Trainings of a fraction of a second: every preset and optimizer, and what a training must end in."""

import math
import tempfile
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bnn import optim
from bnn.layers import BinaryBlock, BinaryConv2d, BinaryLinear, MaxPool2d
from bnn.models import initialize, mlp
from bnn.optim.dst import DST
from bnn.presets import prepare
from bnn.quantizers import Sign
from bnn.training import Callback, Run, Trainer, warmup_cosine
from bnn.training.directory import MODEL, read_json, read_metrics
from bnn.weights import DiscreteStore, LatentStore
from hwsim.store import DeviceStore
from tests.training import tiny_runs
from tests.training.tiny_runs import tiny_dataset

INPUT = (1, 6, 6)
BATCH = 12
# Of the machine's speed and memory, and of nothing else.
_CLOCKS = ("wall_s", "images_per_s", "peak_rss_mib", "beside_float")


def convolutions() -> nn.Sequential:
    """Blocks with real input, pooling and a shortcut-free end, as the networks of the package have them."""
    first = BinaryConv2d(1, 6, 3, padding=1, input_quantizer=None)
    return nn.Sequential(
        BinaryBlock(first, nn.BatchNorm2d(6), activation=Sign()),
        BinaryBlock(BinaryConv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), pool=MaxPool2d(2)),
        nn.Flatten(),
        BinaryBlock(BinaryLinear(72, 4), nn.BatchNorm1d(4)),
    )


def preset_run(preset: str, *, build: Callable[[], nn.Module] = convolutions, **options: Any) -> Run:
    """A run of a preset; batches of `edge-min` are cut into slices."""
    step = prepare(preset, build, input_shape=INPUT, seed=4)
    step.slice_size = step.slice_size and 5
    return _run(vars(step), **options)


def optimizer_run(optimizer: str, dtype: torch.dtype = torch.float32, **options: Any) -> Run:
    """A run of one of the package's optimizers with state of some dtype."""
    store = partial(LatentStore, limit=1.0)
    model = mlp(input_shape=INPUT, classes=4, hidden=(16,), store=store)
    initialize(model, generator=torch.Generator().manual_seed(1))
    weights = [parameter for name, parameter in model.named_parameters() if "store" in name]
    others = [parameter for name, parameter in model.named_parameters() if "store" not in name]
    made: Any = {
        "Adam": lambda: optim.Adam([*weights, *others], lr=0.01, state_dtype=dtype, seed=2),
        "SGD": lambda: optim.SGD([*weights, *others], lr=0.05, momentum=0.9, state_dtype=dtype, seed=2),
        "Bop": lambda: optim.Bop([*weights, *others], lr=1e-2, state_dtype=dtype, seed=2),
    }[optimizer]()
    return _run({"model": model, "optimizer": made}, **options)


def transition_run(store: Callable[..., Any], **options: Any) -> Run:
    """A run of ternary weights that step from level to level, ideal ones or simulated junctions."""
    model = mlp(input_shape=INPUT, classes=4, hidden=(16,), store=store)
    initialize(model, generator=torch.Generator().manual_seed(1))
    adam = optim.Adam(model.parameters(), lr=0.05, seed=2)
    return _run({"model": model, "optimizer": DST(adam)}, **options)


def _run(step: dict[str, Any], **options: Any) -> Run:
    epochs = options.get("epochs", tiny_runs.EPOCHS)
    defaults: dict[str, Any] = {"epochs": epochs, "seed": 3, "validation": 0.2, "schedule": warmup_cosine(epochs)}
    return Run(**step, data=tiny_dataset(), batch_size=BATCH, **{**defaults, **options})


PRESETS = {
    f"{preset}, {name}": partial(preset_run, preset, build=build)
    for preset in ("standard", "edge", "edge-min")
    for name, build in (
        ("convolutions", convolutions),
        ("perceptron", partial(mlp, input_shape=INPUT, classes=4, hidden=(16,))),
    )
}
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int8)
RUNS: dict[str, Callable[..., Run]] = {
    **tiny_runs.RUNS,
    **PRESETS,
    **{
        f"{name} of {str(dtype).removeprefix('torch.')}": partial(optimizer_run, name, dtype)
        for name in ("Adam", "SGD", "Bop")
        for dtype in DTYPES
    },
    "ternary levels": partial(transition_run, DiscreteStore),
    "junctions": partial(transition_run, DeviceStore),
}
"""Every one of them makes a run anew."""


def devices() -> list[str]:
    """What torch can train on here."""
    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@cache
def whole(name: str, device: str = "cpu") -> dict[str, Any]:
    """What a run of `RUNS` ends in when nothing happens."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "run")
        Trainer(RUNS[name](), out, device=device).fit()
        return results(out)


def results(out: Path) -> dict[str, Any]:
    """What a complete run has come to, without the times that it took."""
    tensors = max(path.name for path in (out / "checkpoints").glob("*.safetensors"))
    return {
        "metrics": [_without_clocks(record) for record in read_metrics(out)],
        "summary": _without_clocks(read_json(out / "summary.json")),
        "state": tensors,  # the name carries the hash of weights, optimizer and generators
        "model": (out / MODEL).read_bytes(),
    }


def difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """Which parts of some results differ; empty where none does."""
    return ", ".join(name for name, value in expected.items() if found[name] != value)


def _without_clocks(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in _CLOCKS}


def not_finite(tensors: dict[str, Tensor]) -> Sequence[str]:
    """The names of floating tensors that hold what is not finite."""
    return [name for name, x in tensors.items() if x.is_floating_point() and not bool(x.isfinite().all())]


class Pause(Callback):
    """Takes a while over every step."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        """Waits."""
        import time

        assert math.isfinite(loss)
        time.sleep(self._seconds)
