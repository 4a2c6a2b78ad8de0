"""The presets keep the process as small as they promise, whatever the batch."""

import json
import subprocess
import sys

import pytest

from benchmarks.contestants.measure import Task
from bnn.ops import cpu

_MIB = 2**20


def figures(preset, *, model, batch):
    """Of two steps in a process of its own."""
    task = Task(model, (3, 32, 32), 10, batch, warmup=1, steps=1, threads=1, mode=preset)
    command = [sys.executable, "-m", "benchmarks.contestants.ours", task.to_json()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


# BinaryNet has 14.0 M weights; float32 weights, gradients and Adam's moments alone would take 214 MiB.
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process can be reset on Linux alone")
@pytest.mark.skipif(cpu.instruction_set() == "reference", reason="the reference makes float copies")
@pytest.mark.parametrize(
    ("preset", "batch", "most_mib"),
    [
        ("edge-min", 2, 40),  # 16 MiB are the gradient of the largest layer, bfloat16
        pytest.param("edge-signs", 2, 30, marks=pytest.mark.slow),
        pytest.param("edge-min", 107, 55, marks=pytest.mark.slow),
        pytest.param("edge", 100, 180, marks=pytest.mark.slow),
        pytest.param("edge-min", 100, 55, marks=pytest.mark.slow),
        pytest.param("edge", 3, 120, marks=pytest.mark.slow),  # 32 MiB are that gradient, float32
    ],
)
def test_peak_above_the_level_before_the_model(preset, batch, most_mib):
    assert figures(preset, model="binarynet", batch=batch)["peak_above_start_bytes"] < most_mib * _MIB
