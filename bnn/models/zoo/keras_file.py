"""Reads a weight file of Keras (HDF5) into a network of the zoo; needs h5py."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from bnn import files
from bnn.errors import DataError
from bnn.models.zoo.keras_order import Slot, layers_of
from bnn.models.zoo.released import RELEASED

_MOST_LAYERS = 4096
_MOST_TENSORS = 16  # of a layer
_LONGEST_NAME = 512
_CHUNK_BYTES = 1 << 20


class _Tensor(NamedTuple):
    layer: str
    name: str
    dataset: Any


def read_weights(path: Path, name: str) -> tuple[nn.Sequential, str]:
    """A network of the zoo with the weights of a file of larq-zoo, one with the classifier.

    Shapes are compared before anything of a tensor is read; links to other files, and values that are computed, are not
    followed.

    Args:
        path: of the file.
        name: of the network.

    Returns:
        The network for images of 224x224 and 1000 classes, and the file's SHA-256.

    Raises:
        DataError: the file cannot be read, is that of another network, or has values that cannot be right.
    """
    digest = sha256(path)
    other = next((known for known, released in RELEASED.items() if released.sha256 == digest), name)
    if other != name:
        raise DataError(f"{path} has the weights of {other}, not of {name}: bnn zoo import {other} {path}")
    with torch.device("meta"):
        model = RELEASED[name].build()
    model = model.to_empty(device="cpu")
    layers = layers_of(model)
    with _opened(path) as file:
        found = _layers(file, path)
        for layer, tensors in zip(layers, found, strict=False):
            _compare(layer.slots, tensors, name, path)
        if len(found) != len(layers):
            raise DataError(_count_message(len(found), len(layers), layers, name, path))
        for layer, tensors in zip(layers, found, strict=True):
            for slot, tensor in zip(layer.slots, tensors, strict=True):
                _put(slot, tensor, path)
    for buffer_name, buffer in model.named_buffers():
        if buffer_name.endswith("num_batches_tracked"):
            buffer.zero_()
    return model, digest


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits.

    Raises:
        DataError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with files.open_regular(path) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    return digest.hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import h5py
    except ImportError:
        raise DataError("files of Keras need h5py, which is not installed: pip install 'bnn-edge[zoo]'") from None
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError:
        raise DataError(f"{path} is not an HDF5 file, or is damaged: download it again") from None
    with file:
        try:
            yield file
        except DataError:
            raise
        except Exception as error:  # what h5py makes of a damaged file
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{path} is damaged ({type(error).__name__}: {reason}): download it again") from None


def _layers(file: Any, path: Path) -> list[list[_Tensor]]:
    """The layers that have tensors, in the file's order."""
    layers = []
    for layer in _names(file, "layer_names", _MOST_LAYERS, path):
        group = _linked(file, layer, path)
        tensors = [
            _Tensor(layer, name, _linked(group, name, path))
            for name in _names(group, "weight_names", _MOST_TENSORS, path)
        ]
        if tensors:
            layers.append(tensors)
    return layers


def _names(group: Any, attribute: str, most: int, path: Path) -> list[str]:
    if attribute not in group.attrs:
        raise DataError(f"{path} is not a weight file of Keras: {group.name} has no attribute {attribute}")
    shape = group.attrs.get_id(attribute).shape
    if len(shape) != 1 or shape[0] > most:
        raise DataError(f"{path} lists {math.prod(shape)} names in {attribute}, where up to {most} are expected")
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in group.attrs[attribute]]
    if any(len(name) > _LONGEST_NAME for name in names):
        raise DataError(f"{path} has names of more than {_LONGEST_NAME} characters in {attribute}")
    return names


def _linked(group: Any, name: str, path: Path) -> Any:
    """A member of a group that lies in this file, by hard links alone."""
    import h5py

    for part in filter(None, name.split("/")):
        if not isinstance(group, h5py.Group) or part in (".", ".."):
            raise DataError(f"{path} has no {name!r}")
        link = group.get(part, getlink=True)
        if link is None:
            raise DataError(f"{path} lists {name!r}, which it does not have")
        if not isinstance(link, h5py.HardLink):
            raise DataError(
                f"{path} has a link to somewhere else in place of {name!r}: it is not one that Keras writes"
            )
        group = group[part]
    return group


def _compare(slots: tuple[Slot, ...], tensors: list[_Tensor], name: str, path: Path) -> None:
    """Refuses the tensors of a layer that are not those of the network, before anything of them is read."""
    import h5py

    for slot, tensor in zip(slots, tensors, strict=False):
        data = tensor.dataset
        if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external or data.dtype.kind != "f":
            raise DataError(f"{path}: {tensor.name} is not an array of floats that lies in the file")
        if _without_pixels(data.shape, slot.shape) != slot.shape:
            raise DataError(
                f"{path}: {tensor.name} has the shape {list(data.shape)}, where {name} has a {slot.kind} of"
                f" {list(slot.shape)}: the file is that of another network"
            )
    if len(slots) != len(tensors):
        raise DataError(
            f"{path}: the layer {tensors[0].layer} has {len(tensors)} tensors, where {name} has {len(slots)}"
            f" ({', '.join(slot.kind for slot in slots)}): the file is that of another network"
        )


def _without_pixels(shape: tuple[int, ...], expected: tuple[int, ...]) -> tuple[int, ...]:
    """A matrix may be written as a convolution of 1x1."""
    return shape[2:] if len(expected) == 2 and shape[:2] == (1, 1) else shape


def _count_message(found: int, expected: int, layers: list[Any], name: str, path: Path) -> str:
    if found > expected:
        return f"{path} has {found} layers with weights, {name} has {expected}: the file is that of another network"
    return (
        f"{path} has {found} of the {expected} layers with weights that {name} has, and ends before"
        f" {layers[found].name}: take the file with the classifier, {RELEASED[name].url}"
    )


def _put(slot: Slot, tensor: _Tensor, path: Path) -> None:
    values = np.asarray(tensor.dataset[()], dtype=np.float32).reshape(slot.shape)
    if not np.isfinite(values).all():
        raise DataError(f"{path}: {tensor.name} has values that are not finite: download it again")
    if slot.kind == "moving_variance" and (values < 0).any():
        raise DataError(f"{path}: {tensor.name} has negative variances: download it again")
    try:
        slot.put(torch.from_numpy(values))
    except ValueError as error:
        raise DataError(f"{path}: {tensor.name} cannot be taken: {error}") from None
