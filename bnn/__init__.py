"""Train binary and ternary neural networks in little memory.

The names below are imported when they are first used, so that `import bnn` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnn.bits import BitTensor
    from bnn.codec import load
    from bnn.errors import BnnError
    from bnn.layers import BinaryBlock, BinaryConv2d, BinaryLinear, BinaryNorm, L1BatchNorm, MaxPool2d, RPReLU
    from bnn.models.conversion import binarize
    from bnn.quantizers import ApproxSign, Quantizer, ReCU, ScaledSign, Sign, Ternary
    from bnn.training import Run, Trainer, TrainingStep
    from bnn.weights import LatentStore, WeightStore

__version__ = "0.3.0"

_HOMES = {
    "bits": ("BitTensor",),
    "codec": ("load",),
    "errors": ("BnnError",),
    "layers": ("BinaryBlock", "BinaryConv2d", "BinaryLinear", "BinaryNorm", "L1BatchNorm", "MaxPool2d", "RPReLU"),
    "models.conversion": ("binarize",),
    "quantizers": ("ApproxSign", "Quantizer", "ReCU", "ScaledSign", "Sign", "Ternary"),
    "training": ("Run", "Trainer", "TrainingStep"),
    "weights": ("LatentStore", "WeightStore"),
}

__all__ = [
    "ApproxSign",
    "BinaryBlock",
    "BinaryConv2d",
    "BinaryLinear",
    "BinaryNorm",
    "BitTensor",
    "BnnError",
    "L1BatchNorm",
    "LatentStore",
    "MaxPool2d",
    "Quantizer",
    "RPReLU",
    "ReCU",
    "Run",
    "ScaledSign",
    "Sign",
    "Ternary",
    "Trainer",
    "TrainingStep",
    "WeightStore",
    "binarize",
    "load",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"bnn.{module}"), name)
    raise AttributeError(f"module 'bnn' has no attribute {name!r}")
