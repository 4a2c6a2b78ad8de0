"""Beginning a training with the weights of another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bnn.codec import load_tensors
from bnn.codec.model import MEMORY_LIMIT_BYTES, read_all_within
from bnn.data import Preprocessing
from bnn.errors import CheckpointError
from bnn.training import checkpoint, directory
from bnn.training.finite import first_not_finite
from bnn.training.snapshot import Snapshot, restore_module
from bnn.weights import WeightStore

_MODEL = "model."
_WEIGHT = ".store.weight"


class Taken(NamedTuple):
    """Which layers begin with weights of another training, and which do not."""

    taken: list[str]
    new: list[str]
    """Their names, with both shapes where these differ."""
    by_class: list[str]
    """Those of which the classes that both networks know begin with what they had."""
    new_classes: list[str]
    """Those that are drawn in these layers."""

    def __str__(self) -> str:
        new = f"; new: {', '.join(self.new)}" if self.new else ""
        some = f"; {', '.join(self.by_class)} but for {', '.join(self.new_classes)}" if self.by_class else ""
        return f"{len(self.taken)} layers begin with the weights that they had{some}{new}"


def start_from(run: Path, model: nn.Module) -> None:
    """Gives a model the weights and buffers of a run's newest checkpoint.

    Args:
        run: the run's directory.
        model: of the same network.

    Raises:
        CheckpointError: there is no checkpoint, none is finite, or it is of another network; nothing has been changed.
    """
    tensors = checkpoint.load(run / directory.CHECKPOINTS, refusal=_not_finite).tensors
    restore_module(model, {key.removeprefix(_MODEL): x for key, x in tensors.items() if key.startswith(_MODEL)})


def weights_of(path: Path) -> dict[str, Tensor]:
    """What there is to start from in a run's directory or a model file, by name.

    Of a run these are the tensors of its model file, and in place of the levels of binary weights what is trained.

    Raises:
        CheckpointError: the run has no checkpoint.
        CodecError: the file cannot be read.
    """
    if not path.is_dir():
        return load_tensors(path)
    tensors = load_tensors(path / directory.MODEL)
    trained = {
        key.removeprefix(_MODEL): x
        for key, x in checkpoint.load(path / directory.CHECKPOINTS, refusal=_not_finite).tensors.items()
    }
    for name, x in tensors.items():
        own = trained.get(name)
        if name.endswith(_WEIGHT) and own is not None and own.shape == x.shape:
            tensors[name] = own
    return tensors


def classes_of(path: Path) -> tuple[str, ...]:
    """Names of the classes of a run's network or of a model file, in the order of its outputs; none if it has none.

    Raises:
        CodecError: the file cannot be read.
    """
    names = _description(path).get("classes")
    return tuple(map(str, names)) if isinstance(names, list) else ()


def shape_of(path: Path) -> tuple[int, ...] | None:
    """Shape of the images that a run's network or a model file takes; None where it does not say.

    Raises:
        CodecError: the file cannot be read.
        DataError: its description is damaged.
    """
    takes = _description(path).get("preprocessing")
    return None if takes is None else Preprocessing.from_description(takes).image_shape


def option_of(path: Path, name: str) -> str | None:
    """What a run's recipe was given for an option; None where it was no text, or of a model file.

    Raises:
        RunError: the directory is not a run's.
    """
    arguments = directory.read_configuration(path).get("arguments") if path.is_dir() else None
    value = arguments.get(name) if isinstance(arguments, dict) else None
    return value if isinstance(value, str) else None


def _description(path: Path) -> dict[str, Any]:
    return read_all_within(path / directory.MODEL if path.is_dir() else path, MEMORY_LIMIT_BYTES)[1]


def take_weights(
    model: nn.Module,
    weights: dict[str, Tensor],
    source: str,
    *,
    classes: tuple[Sequence[str], Sequence[str]] = ((), ()),
) -> Taken:
    """Gives the layers of a model the weights of the same name and shape.

    A binary layer takes the weight of a real one of its name, too.

    Args:
        model: may be of another preset, or have layers that the other network has not.
        weights: see `weights_of`.
        source: where they are from, for errors.
        classes: names of the classes there and here. Of a tensor with a row for each class, such as the head's weight,
            the rows of classes of the same name are taken; the others stay as they are drawn.

    Raises:
        CheckpointError: not one layer fits.
    """
    taken, new, by_class = [], [], []
    fresh: set[str] = set()
    there, here = ([str(name) for name in names] for names in classes)
    rows = [(here.index(name), there.index(name)) for name in here if name in there]
    stores = {name: module for name, module in model.named_modules() if isinstance(module, WeightStore)}
    inside = {f"{name}.{key}" for name, store in stores.items() for key in store.state_dict()}
    others = {name: x for name, x in model.state_dict(keep_vars=True).items() if name not in inside}
    wanted = {f"{name}.weight": store.shape for name, store in stores.items()}
    wanted |= {name: tuple(x.shape) for name, x in others.items()}
    real = {name: f"{name.removesuffix(_WEIGHT)}.weight" for name in wanted if name.endswith(_WEIGHT)}
    weights = {name: weights[of] for name, of in real.items() if of in weights} | weights
    for name, shape in wanted.items():
        given = weights.get(name)
        if given is not None and tuple(given.shape) == tuple(shape):
            taken.append(name)
        elif rows and given is not None and _differ_in_rows(given.shape, shape, len(there), len(here)):
            by_class.append(name)
            fresh |= set(here) - set(there)
        elif not name.endswith("num_batches_tracked"):
            new.append(name if given is None else f"{name} ({_size(given.shape)} there, {_size(shape)} here)")
    with torch.no_grad():
        for name in taken:
            if name in others:
                others[name].copy_(weights[name])
            else:
                stores[name.removesuffix(".weight")].assign(weights[name])
        for name in by_class:
            _take_rows(name, others, stores, weights[name], rows)
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in taken))
    if not layers:
        raise CheckpointError(f"no layer of {source} fits the network: not one has the name and shape of a layer of it")
    heads = list(dict.fromkeys(name.rpartition(".")[0] for name in by_class))
    return Taken(layers, new, heads, [name for name in here if name in fresh])


def _differ_in_rows(given: Sequence[int], own: Sequence[int], there: int, here: int) -> bool:
    return (given[:1], own[:1], list(given[1:])) == ((there,), (here,), list(own[1:]))


def _take_rows(
    name: str,
    others: dict[str, Tensor],
    stores: dict[str, WeightStore],
    given: Tensor,
    rows: list[tuple[int, int]],
) -> None:
    """Puts rows of another tensor in the place of some of a parameter, a buffer or a store's weight."""
    own, of_other = (list(places) for places in zip(*rows, strict=True))
    if name in others:
        others[name][own] = given[of_other].to(others[name].dtype)
        return
    store = stores[name.removesuffix(".weight")]
    values = store.trained_value().float().clone()
    taken = (given.float() + 0.5 if given.dtype is torch.int8 else given.float())[of_other]
    # Rows that are drawn and rows that are taken weigh alike.
    values[own] = taken * (values.square().mean() / taken.square().mean().clamp(min=1e-12)).sqrt()
    store.assign(values)


def _not_finite(snapshot: Snapshot) -> str | None:
    name = first_not_finite(snapshot.tensors)
    return None if name is None else f"its {name} is not finite"


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
