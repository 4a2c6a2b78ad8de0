"""Checks of a network of the zoo: its counts, its values, and whether this machine computes it as larq-zoo does."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bnn.layers import BlurPool2d
from bnn.models.zoo import check_values
from bnn.models.zoo.keras_order import layers_of
from bnn.models.zoo.released import RELEASED
from bnn.weights import named_stores

TOLERANCE = 1e-4
_GOLDEN = Path(__file__).with_name("golden.json")


@cache
def golden() -> dict[str, Any]:
    """What larq-zoo computes, by the networks' names; `benchmarks/zoo_oracle.py` writes it."""
    values: dict[str, Any] = json.loads(_GOLDEN.read_text(encoding="utf-8"))
    return values


def with_check_values(name: str, *, size: int, classes: int) -> nn.Sequential:
    """A network of the zoo with the weights and statistics that larq-zoo's had, in evaluation mode."""
    with torch.device("meta"):
        model = RELEASED[name].build(input_shape=(3, size, size), classes=classes)
    model = model.to_empty(device="cpu").eval()
    layers = layers_of(model)
    last = max(index for index, layer in enumerate(layers) if any("kernel" in slot.kind for slot in layer.slots))
    for index, layer in enumerate(layers):
        tensors = [(slot.kind, slot.shape, slot.eps) for slot in layer.slots]
        values = check_values.layer_values(name, index, tensors, is_last=index == last)
        for slot, value in zip(layer.slots, values, strict=True):
            slot.put(torch.from_numpy(value))
    return model


def logits(model: nn.Module, name: str, size: int) -> Tensor:
    """The logits of a network for its check image, [classes]."""
    image = torch.from_numpy(check_values.image(name, (size, size))).permute(2, 0, 1)
    with torch.inference_mode():
        out: Tensor = model(image[None])[0]
    return out


def largest_difference(name: str, case: dict[str, Any]) -> float:
    """Between the logits that this machine computes and larq-zoo's, as `golden` has them for one case."""
    model = with_check_values(name, size=case["size"], classes=case["classes"])
    found = logits(model, name, case["size"])[:: case["step"]][: len(case["logits"])]
    return (found - torch.tensor(case["logits"])).abs().max().item()


def parameters(model: nn.Module) -> int:
    """Trained values and running statistics, and those of fixed blurs, as Keras counts them."""
    tensors = [*model.parameters(), *(buffer for buffer in model.buffers() if buffer.is_floating_point())]
    blurs = [module for module in model.modules() if isinstance(module, BlurPool2d)]
    return sum(tensor.numel() for tensor in tensors) + sum(9 * blur.channels for blur in blurs)


def binary_weights(model: nn.Module) -> int:
    """Weights of one bit."""
    return sum(store.size for _, store in named_stores(model) if store.is_binary)


def first_fault(model: nn.Module) -> str | None:
    """Which value of a network cannot be right, and why; None where there is no such."""
    for name, value in model.state_dict().items():
        if not value.isfinite().all():
            return f"{name} has values that are not finite"
        if name.endswith("running_var") and (value < 0).any():
            return f"{name} has negative variances"
    return None
