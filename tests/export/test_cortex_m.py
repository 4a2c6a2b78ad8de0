"""The C export on an emulated Cortex-M3: the same logits, with the board's own library for floats."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from bnn.export.commands import export_c, export_c_training
from bnn.models import cnv, mlp
from tests.export.networks import examples, network, plain
from tests.export.test_c_training import BATCH, SHAPE, chain, check, drawn, given_to_learn, narrow_mlp, prepared

HERE = Path(__file__).parent / "cortex_m"
TOOLS = ("arm-none-eabi-gcc", "qemu-system-arm")
COMPILER = ("arm-none-eabi-gcc", "-std=c99", "-O2", "-mcpu=cortex-m3", "-mthumb", "--specs=rdimon.specs")
BOARD = ("qemu-system-arm", "-M", "mps2-an385", "-display", "none", "-serial", "none", "-monitor", "none")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason="apt install gcc-arm-none-eabi qemu-system-arm"),
]


def ran_on_the_board(sources, given: bytes, directory: Path, *flags: str) -> bytes:
    """What a program prints on the emulated board."""
    linked = ["-nostartfiles", "-T", str(HERE / "mps2.ld"), "-o", str(directory / "program")]
    sources = [str(path) for path in (HERE / "startup.c", *sources)]
    subprocess.run([*COMPILER, *flags, *linked, *sources, "-lm"], check=True)
    options = ["-semihosting-config", "enable=on,target=native", "-kernel", str(directory / "program")]
    return subprocess.run([*BOARD, *options], input=given, capture_output=True, check=True, timeout=300).stdout


@pytest.mark.parametrize(
    ("build", "shape", "count"),
    [(plain, (3, 16, 16), 20), (mlp, (1, 28, 28), 20), (cnv, (3, 32, 32), 3)],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_logits_are_those_of_the_network(build, shape, count, tmp_path):
    model = network(build, shape, preset="edge-min")
    given, logits = examples(model, shape, count)
    export_c(model, tmp_path / "c", example=True)
    content = given.movedim(1, -1).contiguous().numpy().tobytes()
    printed = ran_on_the_board((tmp_path / "c").glob("*.c"), content, tmp_path)
    found = torch.tensor([[float(word) for word in line.split()[1:]] for line in printed.decode().splitlines()])
    assert torch.equal(found, logits)


def test_a_linker_says_by_how_much_ram_is_too_small(tmp_path):
    line = export_c(network(plain, (3, 16, 16), preset="edge-min"), tmp_path / "c", example=True)
    takes = int(line.split("RAM: ")[1].split(" bytes")[0].replace(",", ""))
    script = (HERE / "mps2.ld").read_text()
    (tmp_path / "small.ld").write_text(re.sub(r"(ram .*LENGTH = )4M", rf"\g<1>{takes // 2}", script))
    linked = ["-nostartfiles", "-T", str(tmp_path / "small.ld"), "-o", str(tmp_path / "program")]
    sources = [str(path) for path in (HERE / "startup.c", *(tmp_path / "c").glob("*.c"))]
    ran = subprocess.run([*COMPILER, *linked, *sources, "-lm"], capture_output=True, text=True)
    assert ran.returncode != 0
    missing = re.search(r"region `ram' overflowed by (\d+) bytes", ran.stderr)
    assert missing is not None
    assert int(missing[1]) >= takes - takes // 2


@pytest.mark.parametrize(("build", "shape"), [(chain, SHAPE), (narrow_mlp, SHAPE)], ids=["chain", "mlp"])
def test_accumulators_are_those_of_edge_min(build, shape, tmp_path):
    step, model = prepared(build, shape)
    images, labels = drawn(shape, 5, 2 * BATCH)
    export_c_training(model, step.optimizer, tmp_path / "c", batch_size=BATCH)
    main = HERE.parent / "training_main.c"
    state = ran_on_the_board([main], given_to_learn(images, labels), tmp_path, f"-I{tmp_path / 'c'}")
    step.model.train()
    for x, of_x in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        step.take(model.preprocessing.normalized(x), of_x)
    check(step, state)
