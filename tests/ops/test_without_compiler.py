"""Counts and optimizers leave torch's compiler unloaded, and do not keep others from loading it."""

import subprocess
import sys

import pytest

from tests.cli.command_line import ROOT

COUNTS = """
import sys
from bnn.cost import count_network
from bnn.models import resnet8
from bnn.presets import prepare
step = prepare("edge-min", resnet8, input_shape=(3, 32, 32))
assert count_network(step.model, (3, 32, 32)).layers
step.optimizer.zero_grad()
assert "torch._dynamo" not in sys.modules
"""
TRAINS = """
import sys
from bnn.__main__ import main
sys.argv = ["bnn", "train", "digits", "--preset", "edge-min", "--epochs", "1", "--width", "32", "--out", sys.argv[1]]
assert main() == 0
assert "torch._dynamo" not in sys.modules
"""
GOES_ON = """
import torch
from bnn.ops.without_compiler import without_compiler
with without_compiler():
    assert not torch._dynamo.config.verbose
assert torch._dynamo.config is sys.modules["torch._dynamo.config"]
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2)).tolist() == [2, 2]
"""


@pytest.mark.parametrize(
    "program",
    [COUNTS, *(pytest.param(text, marks=pytest.mark.slow) for text in (COUNTS + GOES_ON, TRAINS))],
    ids=["a count", "a compiler behind it", "a training"],
)
def test_no_compiler_is_loaded(program, tmp_path):
    command = [sys.executable, "-c", program, str(tmp_path / "run")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
