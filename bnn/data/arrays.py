"""Labelled images as uint8 tensors, or arrays of float32: `Split`, `Dataset`, and what normalises them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from bnn.data.preprocessing import Preprocessing, Reads
from bnn.errors import DataError
from bnn.random.streams import hold_out_order

_STATISTICS_CHUNK = 1024
_MOST_IMAGES = 100_000_000


class Images(Protocol):
    """What a split asks of its images: a tensor has it, and a file that is read when it is indexed."""

    @property
    def shape(self) -> torch.Size:
        """[N, C, H, W]."""

    @property
    def dtype(self) -> torch.dtype:
        """uint8."""

    @property
    def device(self) -> torch.device:
        """That images are on when they have been read."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> Tensor: ...


@dataclass(frozen=True)
class Split:
    """Images and their labels, decoded, in memory or in a file.

    `len(split)` is the number of examples n, and `split[positions]` gives the images and labels of some of them.
    Several splits may share one storage of images, so that holding out a part of a set copies no pixel.
    """

    images: Images
    """uint8 [N, C, H, W], or measurements, float32 [N, C, ...], the storage: a tensor, or a file whose images are read
    as they are asked for."""
    labels: Tensor
    """int64 [n], one for each example."""
    rows: Tensor | None = None
    """int64 [n]: example i is `images[rows[i]]`; None: example i is `images[i]`, and n is N."""
    random_parts: Callable[[Tensor, Tensor], Tensor] | None = None
    """Of images that are decoded as they are read: from rows of the storage and a random integer in 0..2**63-1 for
    each, both int64 [b], to a random part of each image, uint8 [b, C, H, W], which training sees in their place."""

    def __post_init__(self) -> None:
        if (self.images.dtype, len(self.images.shape)) != (torch.uint8, 4) and not self._is_of_arrays():
            raise DataError(
                f"images must be uint8 [n, C, H, W], or arrays float32 [n, C, ...], got {_describe(self.images)}"
            )
        if self.labels.dtype != torch.int64 or self.labels.ndim != 1:
            raise DataError(f"labels must be int64 [n], got {_describe(self.labels)}")
        if self.rows is not None and (self.rows.dtype != torch.int64 or self.rows.ndim != 1):
            raise DataError(f"rows must be int64 [n], got {_describe(self.rows)}")
        examples = len(self.images if self.rows is None else self.rows)
        if examples != len(self.labels):
            raise DataError(f"{examples} images do not go with {len(self.labels)} labels")
        if self.rows is not None and len(self.rows):
            lowest, highest = int(self.rows.min()), int(self.rows.max())
            if lowest < 0 or highest >= len(self.images):
                raise DataError(f"rows {lowest}..{highest} do not lie within the {len(self.images)} images")

    def _is_of_arrays(self) -> bool:
        return self.images.dtype == torch.float32 and len(self.images.shape) >= 2

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Copies some of the examples.

        Args:
            positions: int64 [b], each in 0..n-1.

        Returns:
            Images, as in the storage [b, C, ...], and labels, int64 [b].
        """
        return self.images[self._rows(positions)], self.labels[positions]

    def drawn(self, positions: Tensor, random: Tensor) -> tuple[Tensor, Tensor]:
        """As indexing, with a random part of each image where the split has `random_parts`.

        Args:
            positions: int64 [b], each in 0..n-1.
            random: int64 [b], uniform in 0..2**63-1.
        """
        if self.random_parts is None:
            return self[positions]
        return self.random_parts(self._rows(positions), random), self.labels[positions]

    def _rows(self, positions: Tensor) -> Tensor:
        return positions if self.rows is None else self.rows[positions]


@dataclass(frozen=True)
class Dataset:
    """A training and a test split of one classification task."""

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    """Names of the classes; label k is `classes[k]`."""
    mean: tuple[float, ...]
    """Mean of each channel, or feature of a table, over the training images; pixels are scaled to 0..1."""
    std: tuple[float, ...]
    """Standard deviation of each channel or feature, likewise."""
    source: str
    """One line for reports: where the images come from."""
    columns: tuple[str, ...] = ()
    """Of a table with a header, the names of its features; else empty."""
    target: str = ""
    """Of a table, its column of classes: the name or, without a header, the number from 1; else empty."""

    def __post_init__(self) -> None:
        train_shape, test_shape = tuple(self.train.images.shape[1:]), tuple(self.test.images.shape[1:])
        if train_shape != test_shape:
            raise DataError(f"{self.name}: training images {train_shape} and test images {test_shape} differ")
        channels = train_shape[0]
        if len(self.mean) != channels or len(self.std) != channels:
            raise DataError(f"{self.name}: mean and std must have one value for each of {channels} channels")
        for part, split in (("training", self.train), ("test", self.test)):
            if not len(split):
                raise DataError(f"{self.name}: the {part} split has no images")
            for label in (int(split.labels.min()), int(split.labels.max())):
                if not 0 <= label < self.num_classes:
                    raise DataError(
                        f"{self.name}: label {label} of the {part} split is not within 0..{self.num_classes - 1};"
                        f" mend or replace {self.source}"
                    )

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Channels, height and width of every image; or the shape of every array."""
        return tuple(self.train.images.shape[1:])

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def preprocessing(self) -> Preprocessing:
        """How a picture or an array becomes a network's input."""
        reads: Reads = "pictures" if self.train.images.dtype == torch.uint8 else "arrays"
        return Preprocessing(
            self.image_shape, self.mean, self.std, reads=reads, columns=self.columns, target=self.target
        )

    def described(self) -> dict[str, Any]:
        """All but the images and labels, as JSON values."""
        return {
            "name": self.name,
            "source": self.source,
            "classes": list(self.classes),
            **self.preprocessing.described(),
            "train_images": len(self.train),
            "test_images": len(self.test),
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> "Dataset":
        """A set as `described`, of black images of class 0 that share one storage; for whatever needs no pixels.

        Raises:
            DataError: it is not such a description.
        """
        try:
            takes = Preprocessing.from_description(description)
            dtype = torch.uint8 if takes.reads == "pictures" else torch.float32
            image = torch.zeros(1, *takes.image_shape, dtype=dtype)
            train, test = (
                # They take no memory, however many a damaged description may ask for.
                Split(image, torch.zeros(1, dtype=torch.int64).expand(n), torch.zeros(1, dtype=torch.int64).expand(n))
                for n in (min(int(description[f"{part}_images"]), _MOST_IMAGES) for part in ("train", "test"))
            )
            return cls(
                name=str(description["name"]),
                train=train,
                test=test,
                classes=tuple(map(str, description["classes"])),
                mean=takes.mean,
                std=takes.std,
                source=str(description["source"]),
                columns=takes.columns,
                target=takes.target,
            )
        except (KeyError, TypeError, ValueError, RuntimeError, OverflowError, AttributeError) as error:
            raise DataError(f"the description of the data is damaged: {error}") from None


def hold_out(split: Split, *, fraction: float, seed: int) -> tuple[Split, Split]:
    """Sets a random part of a split aside for validation. Pixels are shared, not copied.

    Args:
        split: what to divide.
        fraction: the part to set aside, at least 0 and below 1; 0 gives an empty validation split.
        seed: 0..2**63-1; which examples are set aside depends on it and on the number of examples alone.

    Returns:
        The training split that remains and the validation split, both in the order of `split`.

    Raises:
        DataError: `fraction` is out of range.
    """
    if not 0 <= fraction < 1:
        raise DataError(f"the fraction to hold out must be at least 0 and below 1, got {fraction}")
    order = hold_out_order(len(split), seed=seed)
    held = round(fraction * len(split))
    return _part(split, order[held:]), _part(split, order[:held])


def divide_classes(split: Split, *, part: float, seed: int) -> tuple[Split, Split]:
    """Sets a part of each class aside for testing. Pixels are shared, not copied.

    Args:
        split: what to divide; each of its classes has at least 2 examples.
        part: of each class, above 0 and below 1; at least one example is set aside, and one is left.
        seed: which examples are set aside depends on it and on the number of examples of a class.

    Returns:
        What is left to train on, and what is set aside, both in the order of `split`.

    Raises:
        DataError: `part` is out of range.
    """
    if not 0 < part < 1:
        raise DataError(f"the part to test on lies between 0 and 1, got {part}")
    tested = torch.zeros(len(split), dtype=torch.bool)
    for label in set(split.labels.tolist()):
        places = (split.labels == label).nonzero().flatten()
        count = min(len(places) - 1, max(1, round(part * len(places))))
        tested[places[hold_out_order(len(places), seed=seed)[:count]]] = True
    left, aside = (_part(split, where.nonzero().flatten()) for where in (~tested, tested))
    return left, aside


def channel_statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel.

    Args:
        images: uint8 [n, C, H, W], n at least 1.

    Returns:
        Two tuples of C values, of pixels scaled to 0..1.
    """
    histogram = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for start in range(0, len(images), _STATISTICS_CHUNK):
        histogram += channel_histogram(images[start : start + _STATISTICS_CHUNK])
    return histogram_statistics(histogram)


def split_statistics(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """As `channel_statistics`, of the examples of a split, at least one; arrays are not scaled."""
    if split.images.dtype == torch.float32:
        channels = split[torch.arange(len(split))][0].double().transpose(0, 1).flatten(1)
        return tuple(channels.mean(dim=1).tolist()), tuple(channels.std(dim=1, correction=0).tolist())
    histogram = torch.zeros(split.images.shape[1], 256, dtype=torch.int64)
    for positions in torch.split(torch.arange(len(split)), _STATISTICS_CHUNK):
        histogram += channel_histogram(split[positions][0])
    return histogram_statistics(histogram)


def channel_histogram(images: Tensor) -> Tensor:
    """Counts the pixel values of each channel: uint8 [n, C, H, W] -> int64 [C, 256]."""
    return torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)])


def histogram_statistics(histogram: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel from int64 [C, 256] counts, of pixels scaled to 0..1."""
    values = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for counts in histogram.double():
        mean = (counts @ values / counts.sum()).item()
        means.append(mean)
        stds.append(math.sqrt((counts @ (values - mean).square() / counts.sum()).item()))
    return tuple(means), tuple(stds)


def _part(split: Split, positions: Tensor) -> Split:
    positions = positions.sort().values
    rows = positions if split.rows is None else split.rows[positions]
    return replace(split, labels=split.labels[positions], rows=rows)


def _describe(tensor: Images) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
