"""Networks small enough to be measured at once, with their training steps."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from bnn.layers import BinaryBlock, BinaryConv2d, BinaryLinear, MaxPool2d
from bnn.models import mlp, resnet8
from bnn.ops.memory import RESULTS
from bnn.presets import prepare
from bnn.quantizers import Sign
from bnn.training import TrainingStep

PRESETS = ("standard", "edge", "edge-min")


def convolutions(*, input_shape=(3, 8, 8)) -> nn.Sequential:
    """Blocks of many kinds: pooled and not, of real input and of bits, in front of a sign and not."""
    features = 16 * math.prod(input_shape[1:]) // 4
    first = BinaryConv2d(input_shape[0], 12, 3, padding=1, input_quantizer=None)
    return nn.Sequential(
        BinaryBlock(first, nn.BatchNorm2d(12), activation=Sign()),
        BinaryBlock(BinaryConv2d(12, 16, 3, padding=1), nn.BatchNorm2d(16), pool=MaxPool2d(2)),
        nn.Flatten(),
        BinaryBlock(BinaryLinear(features, 20), nn.BatchNorm1d(20), activation=Sign()),
        BinaryBlock(BinaryLinear(20, 5), nn.BatchNorm1d(5)),
    )


NETWORKS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...]]] = {
    "convolutions": (convolutions, (3, 8, 8)),
    "mlp": (partial(mlp, input_shape=(1, 6, 5), classes=4), (1, 6, 5)),
    # Where the last stage has fewer than 6x6 pixels, oneDNN takes scratch for its weights' gradients under AVX2 that is
    # not predicted.
    "resnet8": (partial(resnet8, input_shape=(3, 24, 24)), (3, 24, 24)),
}


def small_step(name: str, preset: str, batch_size: int, slice_size: int | None, device: str) -> dict[str, Any]:
    """What `predict_step` and `measure_step` take, by the names of their arguments."""
    build, input_shape = NETWORKS[name]
    RESULTS.is_kept = False  # unless the preset sets it
    with torch.device(device):
        step: TrainingStep = prepare(preset, build, input_shape=input_shape)
    return {"step": replace(step, slice_size=slice_size), "input_shape": input_shape, "batch_size": batch_size}
