"""Steps are taken in the memory that is predicted, and in that which is measured, and not in less than that; the system
enforces it."""

import os
import subprocess
import sys

import pytest

from bnn.cost.memory.process import process_bytes
from bnn.ops import cpu

PROGRAM = """
import sys
from benchmarks.memory_limit import task

for model, preset, batch in (word.split(",") for word in sys.argv[1:]):
    step = task(model, preset, int(batch))
    memory, least = step.predicted(), step.least_bytes()
    less = least - max(0.05 * least, 4 * 2**20)
    more = memory.process_bytes - least
    tight = -max(0.05 * least, 3 * 2**20) < more < max(0.05 * least, 6.5 * 2**20)
    print(tight, step.fits(memory.process_bytes), step.fits(least), step.fits(less))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no limit of private memory")
@pytest.mark.skipif(cpu.instruction_set() == "reference", reason="the reference makes float copies")
@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(
            [
                "mlp,edge-min,10",
                "mlp,edge-min,100",
                "resnet8,edge-min,50",
                "cnv,edge-min,100",
                "cnv,edge,20",
                "resnet20,edge-min,100",
                "resnet20,edge,100",
                "vgg_small,edge-min,50",
                "resnete18,edge-min,2",
            ],
            marks=pytest.mark.slow,
        ),
        pytest.param(["mlp,standard,100", "resnet8,standard,50", "cnv,standard,20"], marks=pytest.mark.slow),
    ],
    ids=["bits", "standard"],
)
def test_a_step_is_taken_in_what_it_is_said_to_need_and_not_in_less(steps):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *steps], env=environment, capture_output=True, text=True, check=True
    )
    for step, line in zip(steps, done.stdout.splitlines(), strict=True):
        assert line.split() == ["True", "True", "True", "False"], step


WITHIN_A_HARD_LIMIT = """
import resource
from functools import partial
from bnn.cost.memory.limited import least_private_bytes
from bnn.models import mlp
from bnn.presets import prepare

def may_not_raise(kind, limits, plain=resource.setrlimit):
    if limits[1] > resource.getrlimit(kind)[1]:
        raise ValueError("not allowed to raise maximum limit")
    plain(kind, limits)

resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, 8 << 30))
resource.setrlimit = may_not_raise
shape = (1, 6, 6)
build = partial(mlp, input_shape=shape, classes=4, hidden=(16,))
print(least_private_bytes(lambda: prepare("standard", build, input_shape=shape), input_shape=shape, batch_size=4))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no limit of private memory")
def test_memory_is_measured_where_the_system_limits_it_already():
    """A limit cannot be raised by all; the superuser's right to is taken from the test."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", WITHIN_A_HARD_LIMIT], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert 2**21 < float(done.stdout) < 2**28  # with libraries that it loads


def test_modules_and_convolutions_take_memory_beside_tensors():
    assert process_bytes(0, modules=0, convolutions=0) == 3.75 * 2**20, "of the smallest a constant"
    assert process_bytes(80 << 20, modules=64, convolutions=0) == (80 + 2 + 3.75 + 1) * 2**20
    assert process_bytes(0, modules=0, convolutions=2) == (3.75 + 1.5) * 2**20
    assert process_bytes(0, modules=0, convolutions=80) == (3.75 + 33) * 2**20, "many share code"
