"""What tests of the command line share: how to call it, and what it may answer."""

import re
import sys
from pathlib import Path

from bnn.training.directory import read_json, read_metrics

ROOT = Path(__file__).parents[2]
DIGITS = str(ROOT / "recipes" / "digits.py")
BNN = (sys.executable, "-m", "bnn")
QUICK = ("--epochs", "2", "--width", "16", "--hidden-layers", "1", "--batch-size", "64")

HEAD = """
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from bnn.data import digits
from bnn.training import Callback, Run


def run(callbacks=(), data=None, model=None):
    model = model or nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    return Run(model=model, data=data or digits(), optimizer=torch.optim.SGD(model.parameters(), lr=0.1), epochs=2,
               batch_size=200, seed=0, callbacks=callbacks)

"""


def recipe(source: str, name: str = "mine.py") -> str:
    Path(name).write_text(HEAD + source)
    return name


def assert_one_line(result: tuple[int, str, str], *parts: str, code: int = 1) -> None:
    status, _, errors = result
    assert status == code
    assert re.fullmatch(r"bnn: [^\n]+\n", errors), errors
    assert "Traceback" not in errors
    for part in parts:
        assert part in errors


def results(directory: str) -> tuple:
    without = ("wall_s", "images_per_s", "peak_rss_mib", "beside_float")  # measured, or from what is compared here

    def clean(record: dict) -> dict:
        return {name: value for name, value in record.items() if name not in without}

    tensors = max(Path(directory, "checkpoints").glob("*.safetensors"))
    return (
        [clean(record) for record in read_metrics(Path(directory))],
        clean(read_json(Path(directory, "summary.json"))),
        tensors.name,  # which carries the hash of the weights and of the optimizer's state
    )
