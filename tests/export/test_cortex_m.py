"""The C export on an emulated Cortex-M3: the same logits, with the board's own library for floats."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from bnn.export.commands import export_c
from bnn.models import cnv, mlp
from tests.export.networks import examples, network, plain

HERE = Path(__file__).parent / "cortex_m"
TOOLS = ("arm-none-eabi-gcc", "qemu-system-arm")
COMPILER = ("arm-none-eabi-gcc", "-std=c99", "-O2", "-mcpu=cortex-m3", "-mthumb", "--specs=rdimon.specs")
BOARD = ("qemu-system-arm", "-M", "mps2-an385", "-display", "none", "-serial", "none", "-monitor", "none")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason="apt install gcc-arm-none-eabi qemu-system-arm"),
]


@pytest.mark.parametrize(
    ("build", "shape", "count"),
    [(plain, (3, 16, 16), 20), (mlp, (1, 28, 28), 20), (cnv, (3, 32, 32), 3)],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_logits_are_those_of_the_network(build, shape, count, tmp_path):
    model = network(build, shape, preset="edge-min")
    given, logits = examples(model, shape, count)
    export_c(model, tmp_path / "c", example=True)
    sources = [str(path) for path in (HERE / "startup.c", *(tmp_path / "c").glob("*.c"))]
    linked = ["-nostartfiles", "-T", str(HERE / "mps2.ld"), "-o", str(tmp_path / "program"), *sources, "-lm"]
    subprocess.run([*COMPILER, *linked], check=True)
    ran = subprocess.run(
        [*BOARD, "-semihosting-config", "enable=on,target=native", "-kernel", str(tmp_path / "program")],
        input=given.movedim(1, -1).contiguous().numpy().tobytes(),
        capture_output=True,
        check=True,
        timeout=120,
    )
    found = torch.tensor([[float(word) for word in line.split()[1:]] for line in ran.stdout.decode().splitlines()])
    assert torch.equal(found, logits)
