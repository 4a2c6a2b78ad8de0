"""The same network in float32, which a binary one is compared with."""

import copy
from typing import Any

import torch
from torch import nn

from bnn.layers import BinaryBlock, BinaryConv2d, BinaryLayer, BinaryNorm
from bnn.layers.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from bnn.quantizers import Quantizer
from bnn.training import TrainingStep


def float_step(step: TrainingStep, *, device: str = "meta") -> TrainingStep:
    """The step of the same network as plain PyTorch takes it.

    Weights are float32 and every sign or level is a `Hardtanh`; layers, norms and loss are the same. Poolings are
    torch's. The batch is whole, and the optimizer torch's own of the same name, or else Adam.

    Args:
        step: of the binary network.
        device: where the twin is; on the meta device it has shapes alone.

    Raises:
        TypeError: the network has a layer without a counterpart in float.
    """
    model = float_twin(step.model, device=device)
    group, name = step.optimizer.param_groups[0], type(step.optimizer).__name__
    if name == "SGD":
        momentum = float(group.get("momentum", 0.0))
        return TrainingStep(
            model=model, optimizer=torch.optim.SGD(model.parameters(), lr=1e-3, momentum=momentum), loss=step.loss
        )
    return TrainingStep(model=model, optimizer=torch.optim.Adam(model.parameters(), lr=1e-3), loss=step.loss)


def float_twin(model: nn.Module, *, device: str = "meta") -> nn.Module:
    """The model in float32, with new weights; see `float_step`."""
    twins: dict[int, Any] = {}
    with torch.device(device):
        for module in model.modules():
            twin = _twin(module)
            if twin is not None:
                twins[id(module)] = twin
    # Copies take what is known already in place of what they meet.
    copied = copy.deepcopy(model, twins).to(device)
    for module in copied.modules():
        if isinstance(module, BinaryBlock):
            module.recompute = False
    return copied.train()


def _twin(module: nn.Module) -> nn.Module | None:
    if isinstance(module, BinaryNorm):
        raise TypeError("a BinaryNorm has no counterpart in float")
    if isinstance(module, BinaryLayer):
        product = _product(module)
        return product if module.input_quantizer is None else nn.Sequential(nn.Hardtanh(), product)
    if isinstance(module, Quantizer):
        return nn.Hardtanh()
    if isinstance(module, MaxPool2d):
        return nn.MaxPool2d(module.kernel_size, module.stride, module.padding)
    if isinstance(module, AvgPool2d):
        return nn.AvgPool2d(module.kernel_size, module.stride, module.padding)
    if isinstance(module, GlobalAvgPool2d):
        return nn.AdaptiveAvgPool2d(1)
    return None


def _product(layer: BinaryLayer) -> nn.Module:
    outputs, inputs, *kernel = layer.store.shape
    bias = layer.bias is not None
    if not isinstance(layer, BinaryConv2d):
        return nn.Linear(inputs, outputs, bias=bias)
    stride, padding, dilation, groups = layer.window.for_torch
    return nn.Conv2d(inputs * groups, outputs, (kernel[0], kernel[1]), stride, padding, dilation, groups, bias=bias)
