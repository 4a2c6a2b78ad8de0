"""Narrow products: the precision of a network's floating products, and what takes part in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

from bnn.layers.base import BinaryLayer
from bnn.layers.block import BinaryBlock
from bnn.layers.narrow_norm import narrow_norm
from bnn.weights import WeightStore

Precision = Literal["float32", "bfloat16"]

# Devices on which torch's batch norm of images takes bfloat16 with statistics of float32.
_NARROW_NORMS = ("cpu", "cuda", "meta")


@contextmanager
def products_of(precision: Precision, device: torch.device) -> Iterator[None]:
    """Within it, floating products on a device have the precision; bfloat16 is torch's autocast."""
    # Tensors on the meta device have no autocast, and are left as they are by that of the CPU.
    kind = "cpu" if device.type == "meta" else device.type
    with torch.autocast(kind, torch.bfloat16, enabled=precision == "bfloat16"):
        yield


def widen_inputs(model: nn.Module) -> None:
    """Lets real layers outside of blocks take what blocks that recompute hand on in bfloat16.

    Norms of images take it as it is, with statistics of float32, and hand bfloat16 on (`bnn.layers.narrow_norm`).
    """
    inside = {part for block in model.modules() if isinstance(block, BinaryBlock) for part in block.modules()}
    for module in model.modules():
        parameters = list(module.parameters(recurse=False))
        if module not in inside and parameters and not isinstance(module, BinaryLayer | WeightStore):
            if isinstance(module, nn.BatchNorm2d) and type(module).forward is nn.BatchNorm2d.forward:
                module.register_forward_pre_hook(_widened_for_norm)
                narrow_norm(module)
            else:
                module.register_forward_pre_hook(_widened)


def _widened(module: nn.Module, inputs: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(x.float() if isinstance(x, torch.Tensor) and x.dtype is torch.bfloat16 else x for x in inputs)


def _widened_for_norm(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[object, ...]:
    return inputs if inputs[0].device.type in _NARROW_NORMS else _widened(module, inputs)
