"""Networks with statistics of their own, some factors negative, and what runs their exported forms."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bnn.codec import Model
from bnn.data import Preprocessing
from bnn.export.commands import export_c
from bnn.layers import BinaryBlock, BinaryConv2d, BinaryLinear, BinaryNorm, L1BatchNorm, MaxPool2d, RPReLU
from bnn.models.zoo import quicknets
from bnn.presets import prepare
from bnn.quantizers import ApproxSign, Sign

STRICT = ("-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic")
SANITIZED = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here")


def plain() -> nn.Sequential:
    """A chain of binary layers: padding, stride, dilation, odd widths, and poolings before and behind the sign."""
    return nn.Sequential(
        BinaryBlock(BinaryConv2d(3, 20, 3, padding=1, input_quantizer=None), nn.BatchNorm2d(20), activation=Sign()),
        BinaryBlock(
            BinaryConv2d(20, 40, 3, padding=1, learned_scale=True),
            nn.BatchNorm2d(40),
            pool=MaxPool2d(2),
            activation=Sign(),
        ),
        BinaryBlock(BinaryConv2d(40, 33, 3, stride=2, padding=2), nn.BatchNorm2d(33), activation=Sign()),
        BinaryBlock(BinaryConv2d(33, 32, 3, padding=2, dilation=2), nn.BatchNorm2d(32), activation=nn.Hardtanh()),
        BinaryBlock(BinaryConv2d(32, 24, 1), nn.BatchNorm2d(24), activation=Sign()),
        MaxPool2d(2, padding=1),
        nn.Flatten(),
        BinaryBlock(BinaryLinear(24 * 9, 50), nn.BatchNorm1d(50), activation=Sign()),
        BinaryBlock(BinaryLinear(50, 5), nn.BatchNorm1d(5)),
    )


def of_parts() -> nn.Sequential:
    """Layers outside of blocks, norms of the package, biases, and a real stem and classifier."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        BinaryConv2d(8, 12, 3, padding=1, input_quantizer=ApproxSign(), bias=True, learned_scale=True),
        nn.PReLU(12),
        BinaryBlock(BinaryConv2d(12, 16, 3), L1BatchNorm(16), activation=RPReLU(16)),
        BinaryBlock(BinaryConv2d(16, 18, 2), BinaryNorm(18)),
        nn.Flatten(),
        BinaryLinear(18, 40, bias=True),
        nn.Dropout(),
        nn.Hardtanh(),
        nn.Linear(40, 5),
    )


def narrow_quicknet() -> nn.Sequential:
    """A QuickNet of two stages: a turned image, a stem by channel, padding of +1, rectified products, blurring."""
    return quicknets._quicknet("narrow_quicknet", (3, 32, 32), 5, units=1, widths=(16, 24))


def network(build: Callable[[], nn.Module], shape: tuple[int, ...], *, preset: str, pixels: bool = True) -> Model:
    """A network whose statistics are those of a batch, and whose factors have both signs."""
    model = prepare(preset, build, input_shape=shape).model
    generator = torch.Generator().manual_seed(1)

    def drawn(like: Tensor, spread: float = 1.0) -> Tensor:
        return spread * torch.randn(like.shape, generator=generator)

    model.train()
    with torch.no_grad():
        for _ in range(8):
            model(torch.randn(8, *shape, generator=generator))
        for module in model.modules():
            if isinstance(getattr(module, "learned_scale", None), Tensor):
                module.learned_scale.copy_(drawn(module.learned_scale))
            if hasattr(module, "running_mean") and isinstance(getattr(module, "weight", None), Tensor):
                module.weight.copy_(drawn(module.weight))
            if isinstance(getattr(module, "bias", None), Tensor):
                module.bias.copy_(drawn(module.bias, 0.3))
    if not pixels:
        return Model(model)
    return Model(model, preprocessing=Preprocessing(shape, (0.4, 0.5, 0.45)[: shape[0]], (0.25, 0.3, 0.2)[: shape[0]]))


def examples(model: Model, shape: tuple[int, ...], count: int, *, seed: int = 7) -> tuple[Tensor, Tensor]:
    """Random inputs as an exported network takes them, uint8 or float32 [count, C, H, W], and their logits."""
    generator = torch.Generator().manual_seed(seed)
    if model.preprocessing is None:
        given = x = torch.randn(count, *shape, generator=generator)
    else:
        given = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
        x = model.preprocessing.normalized(given)
    with torch.no_grad():
        return given, torch.cat([model(part) for part in x.split(50)])


def compiled(model: Model, directory: Path, *flags: str, shape: tuple[int, ...] | None = None) -> Path:
    """The example program of an exported network."""
    export_c(model, directory, example=True, input_shape=shape)
    program = directory / "classify"
    sources = [str(directory / name) for name in ("main.c", "network.c")]
    subprocess.run(["gcc", *STRICT, *flags, "-o", str(program), *sources, "-lm"], check=True)
    return program


def logits_of(program: Path, given: Tensor) -> Tensor:
    """What the example program prints for inputs."""
    by_pixels = given.movedim(1, -1) if given.dim() == 4 else given
    content = by_pixels.contiguous().numpy().tobytes()
    run = subprocess.run([program, "logits"], input=content, capture_output=True, check=True)
    rows = [[float(word) for word in line.split()[1:]] for line in run.stdout.decode().splitlines()]
    return torch.tensor(rows)
