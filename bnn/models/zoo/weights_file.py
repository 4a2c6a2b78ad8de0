"""Weights of a network of the zoo as a safetensors file, with the network's name and the file that they came from."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import nn

from bnn import files
from bnn.errors import DataError
from bnn.models.zoo.released import RELEASED


class Weights(NamedTuple):
    """A network with the weights of a file."""

    model: nn.Sequential
    source_sha256: str | None
    """Of the Keras file that they came from, where the file says."""


def save(model: nn.Module, path: Path, *, name: str, source_sha256: str) -> None:
    """Writes the state dict of a network of the zoo.

    Args:
        model: the network.
        path: of the file; what is there is replaced once the new one is whole.
        name: of the network.
        source_sha256: of the Keras file that the weights came from.

    Raises:
        DataError: the file cannot be written.
    """
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    try:
        with files.replacing(path) as file:
            file.write(to_safetensors(state, {"network": name, "source_sha256": source_sha256}))
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}: name another file with -o") from None


def load(path: Path | str, name: str) -> Weights:
    """A network of the zoo, for images of 224x224 and 1000 classes, with the weights of a file that `save` wrote.

    Raises:
        DataError: the file cannot be read, or is that of another network.
    """
    path = Path(path)
    with torch.device("meta"):
        model = RELEASED[name].build()
    state = model.state_dict()
    try:
        files.require_regular(path)
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("network", name) != name:
                raise DataError(f"{path} has the weights of {metadata['network']}, not of {name}")
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
            _compare({key: tuple(value.shape) for key, value in state.items()}, shapes, name, path)
            model.load_state_dict({key: file.get_tensor(key) for key in shapes}, assign=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise DataError(f"{path} cannot be read as safetensors: {' '.join(str(error).split())}") from None
    return Weights(model, metadata.get("source_sha256"))


def _compare(expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]], name: str, path: Path) -> None:
    for key, shape in expected.items():
        if key not in found:
            raise DataError(f"{path} lacks {key} of {name}, of {list(shape)}: it is that of another network")
        if found[key] != shape:
            raise DataError(
                f"{path}: {key} has the shape {list(found[key])}, where {name} has {list(shape)}: it is that of another"
                f" network"
            )
    if extra := sorted(found.keys() - expected.keys()):
        raise DataError(f"{path} has {extra[0]}, which {name} does not have: it is that of another network")
