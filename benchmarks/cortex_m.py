"""Flash, memory and instructions of exported networks on an emulated Cortex-M: python -m benchmarks.cortex_m.

Needs arm-none-eabi-gcc, qemu-system-arm (7.0 or later, with plugins) and gcc. Weights are drawn: nothing here
depends on them.
"""

import argparse
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from bnn.codec import Model
from bnn.data import Preprocessing
from bnn.export.commands import export_c
from bnn.models import networks
from bnn.presets import prepare

_ROOT = Path(__file__).resolve().parents[1]
_BOARD_FILES = _ROOT / "tests" / "export" / "cortex_m"
_SHAPES = {"mlp": (1, 28, 28), "cnv": (3, 32, 32)}
_COMPILER = ("arm-none-eabi-gcc", "-std=c99", "-O2", "-ffp-contract=off", "-mthumb", "--specs=rdimon.specs")
_BOARDS = {"cortex-m3": "mps2-an385", "cortex-m4": "mps2-an386"}


def model_of(name: str) -> Model:
    """A network by `edge-min` that takes pixels; its norms have the statistics of random images."""
    shape = _SHAPES[name]
    model = prepare("edge-min", networks()[name], input_shape=shape).model
    model.train()
    with torch.no_grad():
        model(torch.randn(16, *shape, generator=torch.Generator().manual_seed(0)))
    half = (0.5,) * shape[0]
    return Model(model.eval(), preprocessing=Preprocessing(shape, half, half))


def sizes(directory: Path, core: str) -> tuple[int, int]:
    """Bytes of flash and of RAM of the network alone: its code and constants, and its arrays."""
    compiled = directory / "network.o"
    subprocess.run([*_COMPILER, f"-mcpu={core}", "-c", "-o", compiled, directory / "network.c"], check=True)
    done = subprocess.run(["arm-none-eabi-size", compiled], check=True, capture_output=True, text=True)
    text, data, bss = map(int, done.stdout.splitlines()[1].split()[:3])
    return text + data, data + bss


def instructions(program: Path, plugin: Path, core: str, given: bytes) -> int:
    """What the board executes from reset to its end."""
    board = ("qemu-system-arm", "-M", _BOARDS[core], "-display", "none", "-serial", "none", "-monitor", "none")
    options = ("-semihosting-config", "enable=on,target=native", "-plugin", plugin, "-kernel", program)
    done = subprocess.run([*board, *options], input=given, capture_output=True, check=True, timeout=600)
    return int(done.stderr.decode().rsplit("end: ", 1)[1].split()[0])


def measured(name: str, core: str, directory: Path) -> tuple[int, int, int]:
    """Flash and RAM in bytes, and instructions of one image."""
    model, plugin, program = model_of(name), directory / "count.so", directory / "program"
    export_c(model, directory / "c", example=True)
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", plugin, _ROOT / "benchmarks/aarch64/count.c"], check=True)
    sources: Sequence[Path] = [_BOARD_FILES / "startup.c", *(directory / "c").glob("*.c")]
    linked = ["-nostartfiles", "-T", _BOARD_FILES / "mps2.ld", "-o", program, *sources, "-lm"]
    subprocess.run([*_COMPILER, f"-mcpu={core}", *linked], check=True)
    image = torch.randint(0, 256, _SHAPES[name], dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    content = image.movedim(0, -1).numpy().tobytes()
    one, two = (instructions(program, plugin, core, content * count) for count in (1, 2))
    return (*sizes(directory / "c", core), two - one)


def main() -> None:
    """Prints a row for each network and core."""
    argparse.ArgumentParser(prog="python -m benchmarks.cortex_m", description=__doc__.splitlines()[0]).parse_args()
    table = Table("network", "core", "flash, bytes", "RAM, bytes", "instructions an image")
    for name in _SHAPES:
        for core in _BOARDS:
            with tempfile.TemporaryDirectory() as folder:
                figures = measured(name, core, Path(folder))
            table.add_row(name, core, *(f"{figure:,}" for figure in figures))
    Console().print(table)


if __name__ == "__main__":
    main()
