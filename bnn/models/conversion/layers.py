"""Which layers can be binary, their binary counterparts, and copies of the others."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import nn

from bnn.errors import RecipeError
from bnn.layers import BinaryConv2d, BinaryLayer, BinaryLinear
from bnn.quantizers import Quantizer
from bnn.weights import StoreFactory

Product = nn.Conv2d | nn.Linear
PRODUCTS = (nn.Conv2d, nn.Linear)
OTHER_PRODUCTS = (nn.Conv1d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Bilinear)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm, nn.LayerNorm)


def is_product(module: nn.Module | None) -> bool:
    """Whether it is a layer that may become binary: a subclass may do something else."""
    return type(module) in PRODUCTS


def is_depthwise(module: nn.Module) -> bool:
    """Whether it is a convolution of one channel a group."""
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1


def obstacle(module: nn.Module) -> str | None:
    """Why a layer with a weight has no binary counterpart; None where it has one."""
    if not is_product(module):
        return f"a {type(module).__name__} has no binary counterpart"
    if not isinstance(module, nn.Conv2d):
        return None
    if module.padding_mode != "zeros":
        return f"its padding is {module.padding_mode}, that of a binary convolution is of zeros"
    sizes = {"kernel": module.kernel_size, "stride": module.stride, "dilation": module.dilation}
    if not isinstance(module.padding, str):
        sizes["padding"] = cast(tuple[int, int], module.padding)
    for name, (height, width) in sizes.items():
        if height != width:
            return f"its {name} of {height}x{width} is not square"
    return None


def binary(
    module: Product, *, input_quantizer: Quantizer, store: StoreFactory | None, bias: bool, learned_scale: bool = False
) -> BinaryLayer:
    """The binary counterpart of a layer without an `obstacle`, which begins with its weights where they are there.

    Raises:
        RecipeError: the padding `same` is not as many zeros on each side.
    """
    options = {"store": store, "input_quantizer": input_quantizer, "bias": bias, "learned_scale": learned_scale}
    if isinstance(module, nn.Linear):
        layer: BinaryLayer = BinaryLinear(module.in_features, module.out_features, **options)  # type: ignore[arg-type]
    else:
        padding = module.padding if isinstance(module.padding, str) else module.padding[0]
        layer = BinaryConv2d(
            module.in_channels,
            module.out_channels,
            module.kernel_size[0],
            stride=module.stride[0],
            padding=padding,  # type: ignore[arg-type]
            dilation=module.dilation[0],
            groups=module.groups,
            **options,  # type: ignore[arg-type]
        )
    if not module.weight.is_meta:
        layer.store.assign(module.weight.detach())
        if layer.learned_scale is not None:
            # The scale of XNOR-Net, arXiv 1603.05279, eq. 6.
            layer.learned_scale.data.copy_(module.weight.detach().abs().flatten(1).mean(1))
        if layer.bias is not None and module.bias is not None:
            layer.bias.data.copy_(module.bias.detach())
    elif layer.learned_scale is not None:
        nn.init.constant_(layer.learned_scale, module.weight[0].numel() ** -0.5)
    return layer


def own_copy(module: nn.Module, name: str) -> nn.Module:
    """A copy that shares nothing; of a module on the meta device one with memory, drawn anew.

    Raises:
        RecipeError: it is on the meta device and does not know how it is drawn.
    """
    copied = copy.deepcopy(module)
    part: Any
    for part in copied.modules():
        if getattr(part, "inplace", False):
            part.inplace = False  # what a block returns must not be written to
        tensors = [*part.parameters(recurse=False), *part.buffers(recurse=False)]
        if not any(tensor.is_meta for tensor in tensors) or torch.get_default_device().type == "meta":
            continue
        draw = getattr(part, "reset_parameters", None)
        if draw is None:
            raise RecipeError(f"{name} is on the meta device, and a {type(part).__name__} has no reset_parameters()")
        part.to_empty(device=torch.get_default_device(), recurse=False)
        draw()
    return copied
