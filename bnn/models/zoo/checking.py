"""Checks that this machine computes the networks of the zoo as larq-zoo does."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bnn.models.zoo import check_values
from bnn.models.zoo.keras_order import layers_of

_GOLDEN = Path(__file__).with_name("golden.json")


@cache
def golden() -> dict[str, Any]:
    """What larq-zoo computes, by the networks' names; `benchmarks/zoo_oracle.py` writes it."""
    values: dict[str, Any] = json.loads(_GOLDEN.read_text(encoding="utf-8"))
    return values


def put_check_values(model: nn.Sequential, name: str) -> None:
    """Gives a network of the zoo the weights and statistics that larq-zoo's had."""
    layers = layers_of(model)
    last = max(index for index, layer in enumerate(layers) if any("kernel" in slot.kind for slot in layer.slots))
    for index, layer in enumerate(layers):
        tensors = [(slot.kind, slot.shape, slot.eps) for slot in layer.slots]
        values = check_values.layer_values(name, index, tensors, is_last=index == last)
        for slot, value in zip(layer.slots, values, strict=True):
            slot.put(torch.from_numpy(value))


def logits(model: nn.Module, name: str, size: int) -> Tensor:
    """The logits of a network for its check image, [classes]."""
    image = torch.from_numpy(check_values.image(name, (size, size))).permute(2, 0, 1)
    with torch.inference_mode():
        out: Tensor = model.eval()(image[None])[0]
    return out
