"""`Model`: the network of a model file, ready to be evaluated, with how pictures become its input and its classes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn

from bnn.codec.errors import CodecError, FormatError
from bnn.codec.model import MEMORY_LIMIT_BYTES, fill, network_values, read_all_within
from bnn.codec.network import build
from bnn.data.preprocessing import Preprocessing, undecodable
from bnn.errors import BnnError, DataError
from bnn.layers import BinaryBlock
from bnn.layers.precision import Precision, products_of, widen_inputs
from bnn.weights import FrozenStore, default_store

_MOST_CLASSES = 1 << 16
_LONGEST_NAME = 1000
_VALUES_AT_ONCE = 1 << 24


class Guess(NamedTuple):
    """A class that an example may be of."""

    name: str
    probability: float
    """Softmax of the logits."""


class Model(nn.Module):
    """A network for inference, in evaluation mode; `bnn.load` gives one.

    Attributes:
        network: takes normalised images, float32 [N, C, H, W], or arrays, and gives logits [N, classes].
        preprocessing: how a picture or an array becomes an input; None where the file does not say.
        classes: their names, in the order of the logits; empty where the file does not say.
        precision: of the products.
        about: what else the file says, such as the data, the epochs and the versions of its training.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        preprocessing: Preprocessing | None = None,
        classes: Sequence[str] = (),
        precision: Precision = "float32",
        about: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing
        self.classes = tuple(classes)
        self.precision: Precision = precision
        self.about = dict(about or {})
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images, float32 [N, C, H, W], or arrays, [N, ...], to logits, float32 [N, classes].

        Raises:
            CodecError: the network fails, as one does that does not fit its input.
            MemoryError: there is not enough memory.
        """
        try:
            with products_of(self.precision, x.device):
                logits: Tensor = self.network(x)
            if logits.dim() != 2 or len(logits) != len(x):
                raise ValueError(f"it gives {list(logits.shape)} and not a row of logits for each image")
        except BnnError:
            raise
        # What a file describes need not fit together.
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
            if "allocate memory" in str(error):
                raise MemoryError from error
            raise CodecError(f"the network fails on images of {list(x.shape)}: {error}") from error
        return logits.float() if self.precision == "bfloat16" else logits

    def predict(self, files: Sequence[Path | str], *, top: int = 1) -> list[list[Guess]]:
        """What pictures show, or of which class the examples in CSV and NumPy files are.

        Args:
            files: of pictures, or of arrays if these are what the network reads.
            top: how many classes to name of each; at most all.

        Returns:
            Of each picture or example the likeliest classes, the likeliest first.

        Raises:
            DataError: a file cannot be read, or the model's does not say how files become inputs.
        """
        takes = self.preprocessing
        if takes is None:
            raise DataError("the model's file does not say how a picture becomes its input: normalise it yourself")
        # Few large pictures at a time, or many small ones.
        step = max(1, min(64, _VALUES_AT_ONCE // math.prod(takes.image_shape)))
        if takes.reads == "arrays":
            examples = takes.decode([Path(path) for path in files])
            return [
                guess for part in torch.split(examples, step) for guess in self._guesses(takes.normalized(part), top)
            ]
        return self._of_pictures(files, takes, step, top)

    def _of_pictures(
        self, pictures: Sequence[Path | str], takes: Preprocessing, step: int, top: int
    ) -> list[list[Guess]]:
        found: list[list[Guess]] = []
        damaged: dict[Path, str] = {}
        for start in range(0, len(pictures), step):
            images, reasons = takes.decode_all([Path(path) for path in pictures[start : start + step]])
            damaged |= reasons
            if not damaged:
                found += self._guesses(takes.normalized(images), top)
        if damaged:
            raise DataError(f"{undecodable(damaged, total=len(pictures))}: give the paths of pictures")
        return found

    def _guesses(self, x: Tensor, top: int) -> Iterator[list[Guess]]:
        with torch.no_grad():
            probabilities = self(x).softmax(dim=1)
        best, labels = probabilities.topk(min(top, probabilities.shape[1]), dim=1)
        for values, numbers in zip(best.tolist(), labels.tolist(), strict=True):
            yield [Guess(self.class_name(n), p) for n, p in zip(numbers, values, strict=True)]

    def class_name(self, label: int) -> str:
        """Name of a class, or its number where the file does not name it."""
        return self.classes[label] if label < len(self.classes) else str(label)


def described(
    network: nn.Module,
    *,
    preprocessing: Preprocessing | None = None,
    classes: Sequence[str] = (),
    precision: Precision = "float32",
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The description of a model that `bnn.codec.save` puts into its file, and from which `bnn.load` makes it again.

    A network that cannot be described is left out, with the reason in its place: its file can be loaded into a module.

    Args:
        network: the network.
        preprocessing: see `Model`.
        classes: see `Model`.
        precision: see `Model`.
        about: further JSON values.
    """
    values: dict[str, Any] = {"precision": precision, "classes": list(classes), "about": dict(about or {})}
    if preprocessing is not None:
        values["preprocessing"] = preprocessing.described()
    return network_values(network) | values


def load(
    path: Path | str,
    *,
    classes: Iterable[type[nn.Module]] = (),
    memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
) -> Model:
    """Makes the network of a model file (.bnnz), ready to be evaluated.

    Nothing in the file is executed: it names classes of torch and of this package, which are looked up in a list.

    Args:
        path: a file of `bnn compress`, or `model.bnnz` of a run.
        classes: of your own that the network has modules of; only name those that you trust with any attributes.
        memory_limit_bytes: what its tensors may take together, once decoded.

    Raises:
        CodecError: the file is missing, damaged, of another version, does not describe its network, or describes one
            that its tensors do not fit; see `bnn.codec.errors`.
    """
    path = Path(path)
    entries, description = read_all_within(path, memory_limit_bytes)
    if "network" not in description:
        reason = description.get("obstacle", "files of earlier versions do not")
        raise CodecError(
            f"{path} does not say how its network is made ({_line(reason)}): load it into a module of yours, by"
            " bnn.codec.load_into"
        )
    own = {cls.__qualname__: cls for cls in classes}
    try:
        model = Model(_without_memory(description["network"], own), **_values(description))
    except (FormatError, DataError) as error:
        raise FormatError(f"{path}: {error}") from None
    fill(model.network, entries, path, scales_too=True)
    if any(isinstance(module, BinaryBlock) and module.recompute for module in model.network.modules()):
        widen_inputs(model.network)
    return model.eval()


def _without_memory(description: Any, classes: Mapping[str, type[nn.Module]]) -> nn.Module:
    def store(shape: Sequence[int]) -> FrozenStore:
        return FrozenStore(torch.empty(tuple(shape), device="meta"), levels=2)

    with torch.device("meta"), default_store(store):
        return build(description, classes)


def _values(description: Mapping[str, Any]) -> dict[str, Any]:
    """What else a model consists of; all of it is checked."""
    preprocessing, precision = description.get("preprocessing"), description.get("precision", "float32")
    names, about = description.get("classes", []), description.get("about", {})
    if precision not in get_args(Precision):
        raise FormatError("the precision is none that this release knows")
    if not isinstance(names, list) or len(names) > _MOST_CLASSES or not isinstance(about, dict):
        raise FormatError("the description is damaged")
    if not all(isinstance(name, str) and len(name) <= _LONGEST_NAME for name in names):
        raise FormatError("the name of a class is no text, or a very long one")
    return {
        "preprocessing": None if preprocessing is None else Preprocessing.from_description(preprocessing),
        "classes": [_line(name) for name in names],
        "precision": precision,
        "about": about,
    }


def _line(text: Any) -> str:
    # What is printed must not be able to command a terminal.
    return "".join(character if character.isprintable() else "?" for character in str(text)[:_LONGEST_NAME])
