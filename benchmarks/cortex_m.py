"""Flash, memory and instructions of exported networks on an emulated Cortex-M: python -m benchmarks.cortex_m.

Of networks that answer, and with --train of ones that learn.

Needs arm-none-eabi-gcc, qemu-system-arm (7.0 or later, with plugins) and gcc. Weights are drawn: nothing here
depends on them.
"""

import argparse
import subprocess
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from bnn.codec import Model
from bnn.data import Preprocessing
from bnn.export.commands import export_c, export_c_training
from bnn.models import mlp, networks
from bnn.presets import prepare

_ROOT = Path(__file__).resolve().parents[1]
_BOARD_FILES = _ROOT / "tests" / "export" / "cortex_m"
_SHAPES = {"mlp": (1, 28, 28), "cnv": (3, 32, 32)}
_BATCH = 16  # of a network that learns
_LEARNERS = {
    "mlp": ((1, 28, 28), 10, partial(mlp, input_shape=(1, 28, 28))),
    "mlp of digits": ((1, 8, 8), 10, partial(mlp, input_shape=(1, 8, 8), hidden=(128, 128))),
}
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


def built(directory: Path, core: str) -> tuple[Path, Path]:
    """The example program of an export for the board, and the plugin that counts."""
    plugin, program = directory / "count.so", directory / "program"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", plugin, _ROOT / "benchmarks/aarch64/count.c"], check=True)
    sources: Sequence[Path] = [_BOARD_FILES / "startup.c", *(directory / "c").glob("*.c")]
    linked = ["-nostartfiles", "-T", _BOARD_FILES / "mps2.ld", "-o", program, *sources, "-lm"]
    subprocess.run([*_COMPILER, f"-mcpu={core}", *linked], check=True)
    return program, plugin


def pixels(shape: tuple[int, ...], count: int) -> list[bytes]:
    """Random images in the order of height, width, channels."""
    images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return [image.movedim(0, -1).numpy().tobytes() for image in images]


def measured(name: str, core: str, directory: Path) -> tuple[int, int, int]:
    """Flash and RAM in bytes, and instructions of one image."""
    export_c(model_of(name), directory / "c", example=True)
    program, plugin = built(directory, core)
    (content,) = pixels(_SHAPES[name], 1)
    one, two = (instructions(program, plugin, core, content * count) for count in (1, 2))
    return (*sizes(directory / "c", core), two - one)


def measured_training(name: str, core: str, directory: Path) -> tuple[int, int, int]:
    """Flash and RAM in bytes, and instructions of one step, behind another one: reading its examples is among them."""
    shape, classes, build = _LEARNERS[name]
    step = prepare("edge-min", build, input_shape=shape)
    step.model.train()
    half = (0.5,) * shape[0]
    model = Model(step.model, preprocessing=Preprocessing(shape, half, half))
    export_c_training(model, step.optimizer, directory / "c", batch_size=_BATCH, example=True)
    program, plugin = built(directory, core)
    examples = [bytes([k % classes]) + image for k, image in enumerate(pixels(shape, 2 * _BATCH))]
    one, two = (instructions(program, plugin, core, b"".join(examples[: count * _BATCH])) for count in (1, 2))
    return (*sizes(directory / "c", core), two - one)


def main() -> None:
    """Prints a row for each network and core."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cortex_m", description=__doc__.splitlines()[0])
    parser.add_argument("--train", action="store_true", help=f"networks that learn, by batches of {_BATCH}")
    learns = parser.parse_args().train
    table = Table("network", "core", "flash, bytes", "RAM, bytes", f"instructions {'a step' if learns else 'an image'}")
    for name in _LEARNERS if learns else _SHAPES:
        for core in _BOARDS:
            with tempfile.TemporaryDirectory() as folder:
                figures = (measured_training if learns else measured)(name, core, Path(folder))
            table.add_row(name, core, *(f"{figure:,}" for figure in figures))
    Console().print(table)


if __name__ == "__main__":
    main()
