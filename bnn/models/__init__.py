"""Networks of the literature. Each function's docstring says where it is from; a test holds its weight count."""

import inspect
import math
import sys
from collections.abc import Callable

import torch
from torch import nn

from bnn.models.binarynet import binarynet
from bnn.models.cnv import cnv
from bnn.models.gxnor_cnn import gxnor_cnn, gxnor_vgg
from bnn.models.mlp import mlp
from bnn.models.resnet_cifar import resnet8, resnet18, resnet20
from bnn.models.resnet_imagenet import birealnet18, resnete18
from bnn.models.vgg7 import vgg7
from bnn.models.vgg_small import vgg_small
from bnn.models.zoo import RELEASED
from bnn.weights import WeightStore


def networks() -> dict[str, Callable[..., nn.Module]]:
    """The functions that make a network, by name: those of this module, and behind them those of `bnn.models.zoo`."""
    functions = inspect.getmembers(sys.modules[__name__], inspect.isfunction)
    here = {name: build for name, build in functions if "input_shape" in inspect.signature(build).parameters}
    return {**here, **{name: released.build for name, released in RELEASED.items()}}


def initialize(model: nn.Module, *, generator: torch.Generator) -> None:
    """Draws every weight of a model anew, so that they depend on the generator alone.

    Stores draw by their own rule; real convolutions and linear layers from a normal distribution of standard
    deviation sqrt(2 / fan-in) (He et al. 2015), with biases 0. Other parameters keep their start values.
    """
    for module in model.modules():
        if isinstance(module, WeightStore):
            module.initialize(generator)
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            fan_in = math.prod(module.weight.shape[1:])
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_in), generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


__all__ = [
    "binarynet",
    "birealnet18",
    "cnv",
    "gxnor_cnn",
    "gxnor_vgg",
    "initialize",
    "mlp",
    "networks",
    "resnet8",
    "resnet18",
    "resnet20",
    "resnete18",
    "vgg7",
    "vgg_small",
]
