"""Small files as Keras writes them."""

from pathlib import Path

import h5py
import torch

from bnn.models.zoo import RELEASED, check_values
from bnn.models.zoo.keras_order import layers_of

NAME = "binary_densenet28"


def write(path: Path, name: str = NAME, *, layers: int | None = None) -> Path:
    """A file of a network of which the first two layers have values; the others are zeros that take no place.

    Args:
        path: of the file.
        name: of the network.
        layers: how many of its layers there are; by default all.
    """
    with torch.device("meta"):
        slots = [layer.slots for layer in layers_of(RELEASED[name].build())]
    with h5py.File(path, "w") as file:
        file.create_group("input_1").attrs["weight_names"] = []
        for index, layer in enumerate(slots[:layers]):
            group = file.create_group(f"layer_{index}")
            names = [f"layer_{index}/{slot.kind}:0" for slot in layer]
            for tensor, slot in zip(names, layer, strict=True):
                group.create_dataset(tensor, shape=slot.shape, dtype="f4")
            group.attrs["weight_names"] = names
            if index < 2:
                tensors = [(slot.kind, slot.shape, slot.eps) for slot in layer]
                values = check_values.layer_values(name, index, tensors, is_last=False)
                for tensor, value in zip(names, values, strict=True):
                    group[tensor][...] = value
        # The names say nothing, as in larq-zoo's files.
        file.attrs["layer_names"] = ["input_1", *(f"layer_{index}" for index in range(len(slots[:layers])))]
    return path
