"""What a network consists of and what one training step of it does, counted from shapes alone."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bnn.accounting.ledger import Ledger, Phase
from bnn.bits import BitTensor
from bnn.discrete_store import ProgrammedWeight
from bnn.layers import BinaryLayer

_FLOAT_BITS = 32


@dataclass(frozen=True)
class LayerCount:
    """A layer, as one batch sees it."""

    name: str
    kind: str
    weights: int
    """Weights that enter products; 0 for a layer without any."""
    weight_bits: int
    """Bits that one of them takes once training has ended."""
    other_parameters: int
    """Parameters that enter no product, such as those of a norm, at 32 bits."""
    input_elements: int
    input_bits: int
    """Width of an input element as the arithmetic sees it."""
    output_elements: int
    output_bits: int
    multiply_accumulates: int
    """Of the forward pass of the batch; padded taps count."""
    needs_input_gradient: bool


def count_layers(model: nn.Module, input_shape: tuple[int, ...], *, batch_size: int = 1) -> list[LayerCount]:
    """Runs a forward pass on shapes, without memory or data, and lists the layers in the order of their use.

    Args:
        model: any module whose layers can run on meta tensors.
        input_shape: of one example, such as (C, H, W).
        batch_size: examples.
    """
    layers: list[LayerCount] = []
    names = {module: name for name, module in model.named_modules()}

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        trained_before = any(layer.weights or layer.other_parameters for layer in layers)
        layers.append(_layer_count(names[module], module, inputs[0], output, trained_before))

    hooks = [module.register_forward_hook(note) for module in _layers(model)]
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    training = [module for module in model.modules() if module.training]
    model.eval()  # a batch of one has no batch statistics
    try:
        with torch.no_grad():
            functional_call(
                model,
                {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()},
                torch.empty((batch_size, *input_shape), device="meta"),
            )
    finally:
        for hook in hooks:
            hook.remove()
        for module in training:
            module.training = True
    return layers


def count_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, input_shape: tuple[int, ...], *, batch_size: int
) -> Ledger:
    """Counts one training step of a batch: products and memory traffic, forward, backward and update.

    Every layer reads its input and weight and writes its output once. Backward reads the output's gradient with the
    kept input and weight and writes the gradients. The update reads and writes each parameter and state and reads
    each gradient. Arithmetic of norms, activations and the optimizer is not counted; their traffic is. Gradients are
    32 bits wide.

    Args:
        model: as in `count_layers`.
        optimizer: its state, as wide as it is stored, is what an update moves. Call after its first step.
        input_shape: of one example.
        batch_size: examples.
    """
    ledger = Ledger()
    for layer in count_layers(model, input_shape, batch_size=batch_size):
        _count_layer(ledger, layer)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = [value for value in optimizer.state.get(parameter, {}).values() if isinstance(value, Tensor)]
            ledger.moves("read", "optimizer", "update", _FLOAT_BITS, parameter.numel())
            for tensor in (parameter, *state):
                for op in ("read", "write"):
                    ledger.moves(op, "optimizer", "update", _stored_bits(tensor), tensor.numel())
    return ledger


def _count_layer(ledger: Ledger, layer: LayerCount) -> None:
    def macs(phase: Phase, bits: int, other_bits: int) -> None:
        ledger.multiply_accumulates(layer.name, phase, (bits, other_bits), layer.multiply_accumulates)

    ledger.moves("read", layer.name, "forward", layer.input_bits, layer.input_elements)
    ledger.moves("write", layer.name, "forward", layer.output_bits, layer.output_elements)
    ledger.moves("read", layer.name, "backward", layer.input_bits, layer.input_elements)
    ledger.moves("read", layer.name, "backward", _FLOAT_BITS, layer.output_elements)
    if layer.needs_input_gradient:
        ledger.moves("write", layer.name, "backward", _FLOAT_BITS, layer.input_elements)
    if layer.weights:
        ledger.moves("read", layer.name, "forward", layer.weight_bits, layer.weights)
        ledger.moves("read", layer.name, "backward", layer.weight_bits, layer.weights)
        ledger.moves("write", layer.name, "backward", _FLOAT_BITS, layer.weights)
        macs("forward", layer.input_bits, layer.weight_bits)
        macs("backward", layer.input_bits, _FLOAT_BITS)
        if layer.needs_input_gradient:
            macs("backward", layer.weight_bits, _FLOAT_BITS)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """Binary layers as a whole, and of all else the modules that have no modules inside."""
    children = list(module.children())
    if isinstance(module, BinaryLayer) or not children:
        yield module
    else:
        for child in children:
            yield from _layers(child)


def _layer_count(name: str, module: nn.Module, x: Tensor, output: Tensor, trained_before: bool) -> LayerCount:
    input_bits, weight_bits, weight = _bits(x), 0, None
    if isinstance(module, BinaryLayer):
        weight_bits, weight = module.store.storage_bits, module.store.shape
        if module.input_quantizer is not None:
            input_bits = module.input_quantizer.storage_bits
    elif isinstance(module, (nn.Linear, nn.Conv2d)):
        weight_bits, weight = 8 * module.weight.element_size(), tuple(module.weight.shape)
    weights = math.prod(weight) if weight else 0
    return LayerCount(
        name=name,
        kind=type(module).__name__,
        weights=weights,
        weight_bits=weight_bits,
        other_parameters=sum(parameter.numel() for parameter in module.parameters()) - weights,
        input_elements=x.numel(),
        input_bits=input_bits,
        output_elements=output.numel(),
        output_bits=_bits(output),
        multiply_accumulates=output.numel() * math.prod(weight[1:]) if weight else 0,
        needs_input_gradient=trained_before,
    )


def _stored_bits(x: Tensor) -> int:
    return x.store.storage_bits if isinstance(x, ProgrammedWeight) else 8 * x.element_size()


def _bits(x: Tensor) -> int:
    return 1 if isinstance(x, BitTensor) else 8 * x.element_size()
