"""Counts one layer, or one operation outside layers: products, widths and memory accesses."""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from bnn.bits import BitTensor
from bnn.layers import BinaryLayer
from bnn.quantizers import Quantizer

_FLOAT_BITS = 32
_TERNARY_BITS = 2
_INDEX_BITS = 64
_VIEWS = (nn.Flatten, nn.Identity, nn.Unflatten)


@runtime_checkable
class SavesForBackward(Protocol):
    """A layer that saves something other than its input for backward."""

    def saved_for_backward(self, x: Tensor, output: Tensor) -> tuple[int, int]:
        """Elements that are saved, and bits of each."""
        ...


@dataclass(frozen=True)
class LayerCount:
    """A layer, or an operation outside layers, as one batch sees it."""

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
    """Width of an input element as the arithmetic sees it; 0, as for any other width, where it does not move because
    the layer before works in the same pass."""
    output_elements: int
    output_bits: int
    multiply_accumulates: int
    """Multiply-accumulates of the forward pass of the batch; padded taps count."""
    fan_in: int
    """Products in one sum of the forward pass, 0 without weights."""
    fan_out: int
    """Products in one sum of the input's gradient, away from the edges of an image; strides skip some of them."""
    needs_input_gradient: bool
    saved_elements: int
    """Elements saved for backward besides the weights: of the input, or of a few bits that replace it."""
    saved_bits: int
    gradient_bits: int
    """Width of the output's gradient as the arithmetic sees it."""
    gradient_bits_for_weight: int
    """The same in the product for the weight's gradient."""
    input_gradient_bits: int
    weight_gradient_bits: int
    recomputed_bits: int | None
    """Bits of an output element that are written and read again where backward repeats the layer's forward pass; None
    where it does not."""
    is_view: bool
    """Whether the output is the input under another shape, so that nothing moves."""


def count_layer(
    name: str,
    module: nn.Module,
    x: Tensor,
    output: Tensor,
    *,
    trained_before: bool,
) -> LayerCount:
    """Counts a module.

    Args:
        name: of the module.
        module: one that has no modules inside, or a binary layer.
        x: its input; values do not matter.
        output: what it made of it.
        trained_before: whether a gradient is handed down to the input.
    """
    input_bits, output_bits, weight_gradient_bits = bits_of(x), bits_of(output), _FLOAT_BITS
    # A gradient has the dtype of its tensor, also of one whose values are stored as bits.
    input_gradient_bits, gradient_bits = 8 * x.dtype.itemsize, 8 * output.dtype.itemsize
    weight_bits, weight, bits_for_weight = 0, None, 0
    if isinstance(module, BinaryLayer):
        weight_bits, weight = module.store.storage_bits, module.store.shape
        if module.input_quantizer is not None:
            input_bits = module.input_quantizer.storage_bits
        if module.grad_quantizer is not None:
            gradient_bits = module.grad_quantizer.storage_bits
            bits_for_weight = module.grad_quantizer.weight_bits or 0
            if module.grad_quantizer.ternary_weights and module.window is not None and input_bits == 1:
                bits_for_weight = _TERNARY_BITS
        if module.store.gradient_quantizer is not None:
            weight_gradient_bits = module.store.gradient_quantizer.storage_bits
    elif isinstance(module, (nn.Linear, nn.Conv2d)):
        weight_bits, weight = 8 * module.weight.element_size(), tuple(module.weight.shape)
    weights = math.prod(weight) if weight else 0
    fan_in = math.prod(weight[1:]) if weight else 0
    groups = getattr(module, "groups", 1)
    saved_elements, saved_bits = _saved_for_backward(module, x, output, input_bits)
    return LayerCount(
        name=name,
        kind=type(module).__name__,
        weights=weights,
        weight_bits=weight_bits,
        other_parameters=sum(parameter.numel() for parameter in module.parameters()) - weights,
        input_elements=x.numel(),
        input_bits=input_bits,
        output_elements=output.numel(),
        output_bits=output_bits,
        multiply_accumulates=output.numel() * fan_in,
        fan_in=fan_in,
        fan_out=weights // (weight[1] * groups) if weight else 0,
        needs_input_gradient=trained_before,
        saved_elements=saved_elements,
        saved_bits=saved_bits,
        gradient_bits=gradient_bits,
        gradient_bits_for_weight=bits_for_weight or gradient_bits,
        input_gradient_bits=input_gradient_bits,
        weight_gradient_bits=weight_gradient_bits if weights else 0,
        recomputed_bits=None,
        is_view=isinstance(module, _VIEWS) or (isinstance(module, Quantizer) and isinstance(x, BitTensor)),
    )


def count_operation(
    name: str, kind: str, inputs: list[Tensor], output: Tensor, *, saves_inputs: bool, trained_before: bool
) -> LayerCount:
    """Counts an operation that is no module.

    Args:
        name: of its place and itself.
        kind: the operation.
        inputs: its tensors, at least one.
        output: what it made of them.
        saves_inputs: whether backward needs them again.
        trained_before: whether gradients are handed down to them.
    """
    input_elements, input_bits = sum(x.numel() for x in inputs), max(bits_of(x) for x in inputs)
    return LayerCount(
        name=name,
        kind=kind,
        weights=0,
        weight_bits=0,
        other_parameters=0,
        input_elements=input_elements,
        input_bits=input_bits,
        output_elements=output.numel(),
        output_bits=bits_of(output),
        multiply_accumulates=0,
        fan_in=0,
        fan_out=0,
        needs_input_gradient=trained_before,
        saved_elements=input_elements if saves_inputs else 0,
        saved_bits=input_bits,
        gradient_bits=8 * output.dtype.itemsize,
        gradient_bits_for_weight=8 * output.dtype.itemsize,
        input_gradient_bits=max(8 * x.dtype.itemsize for x in inputs),
        weight_gradient_bits=0,
        recomputed_bits=None,
        is_view=False,
    )


def bits_of(x: Tensor) -> int:
    """Width of an element as it is stored."""
    return 1 if isinstance(x, BitTensor) else 8 * x.element_size()


def _saved_for_backward(module: nn.Module, x: Tensor, output: Tensor, input_bits: int) -> tuple[int, int]:
    """Elements and width of what backward reads again: the input, but for layers that say so, and a few of torch's."""
    if isinstance(module, SavesForBackward):
        return module.saved_for_backward(x, output)
    if isinstance(module, nn.MaxPool2d):
        return output.numel(), _INDEX_BITS
    if isinstance(module, (nn.AvgPool2d, nn.AdaptiveAvgPool2d, *_VIEWS)):
        return 0, input_bits
    return x.numel(), input_bits
