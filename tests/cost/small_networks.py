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
from bnn.presets import prepare
from bnn.training import TrainingStep
from bnn.weights import LatentStore

PRESETS = ("standard", "edge", "edge-min")


def convolutions(*, input_shape=(3, 8, 8), store=LatentStore, norm=None) -> nn.Sequential:
    """Blocks of every kind: pooled and not, of real input and of bits, convolutions and linear layers."""
    features = 16 * math.prod(input_shape[1:]) // 4
    return nn.Sequential(
        BinaryBlock(
            BinaryConv2d(input_shape[0], 12, 3, padding=1, store=store, input_quantizer=None),
            (norm or nn.BatchNorm2d)(12),
        ),
        BinaryBlock(BinaryConv2d(12, 16, 3, padding=1, store=store), (norm or nn.BatchNorm2d)(16), pool=MaxPool2d(2)),
        nn.Flatten(),
        BinaryBlock(BinaryLinear(features, 20, store=store), (norm or nn.BatchNorm1d)(20)),
        BinaryBlock(BinaryLinear(20, 5, store=store), nn.BatchNorm1d(5)),
    )


NETWORKS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...]]] = {
    "convolutions": (convolutions, (3, 8, 8)),
    "mlp": (partial(mlp, classes=4), (1, 6, 5)),
    "resnet8": (resnet8, (3, 8, 8)),
}


def small_step(name: str, preset: str, batch_size: int, slice_size: int | None, device: str) -> dict[str, Any]:
    """What `predict_step` and `measure_step` take, by the names of their arguments."""
    build, input_shape = NETWORKS[name]
    with torch.device(device):
        step: TrainingStep = prepare(preset, build, input_shape=input_shape)
    return {"step": replace(step, slice_size=slice_size), "input_shape": input_shape, "batch_size": batch_size}
