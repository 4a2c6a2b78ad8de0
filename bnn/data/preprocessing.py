"""`Preprocessing`: how a picture, or an array of numbers, becomes a network's input."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from bnn.data.array_files import read_values
from bnn.errors import DataError
from bnn.files import require_regular

if TYPE_CHECKING:
    import PIL.Image

Reads = Literal["pictures", "arrays"]

MOST_VALUES = 1 << 24
"""Of an example."""
_LONGEST_NAME = 1000
_AT_ONCE = 1 << 18  # values
_ORIENTATION = 0x0112  # the EXIF tag

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


@dataclass(frozen=True)
class Preprocessing:
    """How files become inputs.

    A picture is turned upright, scaled and cropped at its centre, and its pixels are normalised. An array of numbers,
    such as a row of a table, is standardised.

    Raises:
        DataError: a value is out of its range.
    """

    image_shape: tuple[int, ...]
    """Of a picture channels, 1 for grey or 3 for RGB, height and width; of arrays that of an example, its first
    dimension the features of a table or the channels of a signal."""
    mean: tuple[float, ...]
    """What is subtracted from each channel or feature, after pixels have been scaled to 0..1."""
    std: tuple[float, ...]
    """What each channel or feature is divided by afterwards; positive."""
    reads: Reads = "pictures"
    columns: tuple[str, ...] = ()
    """Names of the columns of the features, in a table with a header; else empty."""
    target: str = ""
    """The column of the class, which is no input: its name or, without a header, its number from 1; or empty."""

    def __post_init__(self) -> None:
        if not self.image_shape or not all(size >= 1 for size in self.image_shape):
            raise DataError(f"an example has at least 1 value in each dimension, not {list(self.image_shape)}")
        if self.reads == "pictures" and len(self.image_shape) != 3:
            raise DataError(f"an image has a shape of channels, height and width, not {list(self.image_shape)}")
        if math.prod(self.image_shape) > MOST_VALUES:
            raise DataError(f"an image of {list(self.image_shape)} has more than {MOST_VALUES} values")
        if len(self.mean) != self.image_shape[0] or len(self.std) != self.image_shape[0]:
            raise DataError(f"mean and std must have one value for each of the images' {self.image_shape[0]} channels")
        if not all(map(math.isfinite, self.mean)) or not all(0 < value < math.inf for value in self.std):
            raise DataError(f"a mean is finite and a std positive, got {self.mean} and {self.std}")
        if self.reads not in get_args(Reads):
            raise DataError(f"a network reads {' or '.join(get_args(Reads))}, not {self.reads!r}")
        if self.columns and len(self.columns) != self.image_shape[0]:
            raise DataError(f"{len(self.columns)} columns are no {self.image_shape[0]} features")
        if not all(name.isprintable() and len(name) <= _LONGEST_NAME for name in (*self.columns, self.target)):
            raise DataError("the name of a column cannot be printed")

    def decode(self, paths: Sequence[Path]) -> Tensor:
        """Reads pictures, uint8 [n, C, H, W]; or all examples of CSV and NumPy files, float32 [n, ...].

        Raises:
            DataError: a picture is missing or damaged, the message names all such; or the network takes other things
                than pictures.
        """
        if self.reads == "arrays":
            read = [read_values(path, self.image_shape, columns=self.columns, target=self.target) for path in paths]
            return torch.cat(read) if read else torch.empty(0, *self.image_shape)
        images, damaged = self.decode_all(paths)
        if damaged:
            raise DataError(f"{undecodable(damaged, total=len(paths))}: give the paths of pictures")
        return images

    def decode_all(self, paths: Sequence[Path]) -> tuple[Tensor, dict[Path, str]]:
        """As `decode`; gives the pictures that cannot be decoded, and why, in place of an error. They are black."""
        require_pillow()
        channels = self.image_shape[0]
        if channels not in (1, 3):
            raise DataError(f"the network takes {channels} channels, a picture has 1 or 3: it is not for pictures")
        images, damaged = torch.zeros(len(paths), *self.image_shape, dtype=torch.uint8), {}
        for image, path in zip(images, paths, strict=True):
            try:
                image.copy_(torch.from_numpy(decode_image(path, self.image_shape).copy()))
            except DataError as error:
                damaged[path] = str(error)
        return images, damaged

    def normalized(self, images: Tensor) -> Tensor:
        """Pixels or numbers, as `decode` gives them, to the network's input: see the function `normalized`."""
        return normalized(images, *scale_and_shift(images, self.mean, self.std))

    def described(self) -> dict[str, Any]:
        """As JSON values."""
        values = {"image_shape": list(self.image_shape), "mean": list(self.mean), "std": list(self.std)}
        if self.reads == "pictures":
            return values
        return {**values, "reads": self.reads, "columns": list(self.columns), "target": self.target}

    @classmethod
    def from_description(cls, description: Any) -> Preprocessing:
        """As `described`.

        Raises:
            DataError: it is not such a description.
        """
        try:
            assert isinstance(description, Mapping)
            shape = tuple(int(size) for size in description["image_shape"])
            mean, std = (tuple(float(value) for value in description[name]) for name in ("mean", "std"))
            columns = tuple(map(str, description.get("columns", ())))
        except (AssertionError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"the description of the preprocessing is damaged: {error}") from None
        reads, target = description.get("reads", "pictures"), str(description.get("target", ""))
        return cls(shape, mean, std, reads=reads, columns=columns, target=target)


def scale_and_shift(values: Tensor, mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """((x / 255) - mean) / std of pixels, and (x - mean) / std of other numbers, as a product and a sum.

    Args:
        values: uint8 pixels or float32 numbers, [n, C, ...]; only their dtype, shape and device matter.
        mean: of each of the C channels.
        std: of each channel; positive.

    Returns:
        The factor and the summand, float32 [1, C, 1, ...], on the device of `values`.
    """
    unit = 255 if values.dtype == torch.uint8 else 1
    scale = torch.tensor([1 / (unit * value) for value in std])
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)])
    shape = (1, -1, *[1] * (values.ndim - 2))
    return scale.view(shape).to(values.device), shift.view(shape).to(values.device)


def normalized(values: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The input of a network, float32 and a copy: values * scale + shift; images in channels-last memory format."""
    layout = torch.channels_last if values.ndim == 4 else torch.contiguous_format
    # As large as an example, so that torch's loops are not as short as the channels are few.
    scale, shift = (x.expand(1, *values.shape[1:]).contiguous(memory_format=layout) for x in (scale, shift))
    result = torch.empty_like(values, dtype=torch.float32, memory_format=layout)
    # Few examples at a time, which stay in the processor's cache from one operation to the next.
    some = max(1, _AT_ONCE // max(1, math.prod(values.shape[1:])))
    for given, made in zip(torch.split(values, some), torch.split(result, some), strict=True):
        made.copy_(given).mul_(scale).add_(shift)
    return result


def require_pillow() -> None:
    """Refuses to go on without Pillow.

    Raises:
        DataError: it is not installed.
    """
    try:
        import PIL.Image  # noqa: F401
    except ModuleNotFoundError as error:
        raise DataError('pictures need Pillow, which is not installed: pip install "bnn-edge[data]"') from error


def decode_image(path: Path, image_shape: tuple[int, ...]) -> Pixels:
    """Reads a picture: uint8 [C, H, W].

    It is turned as its EXIF orientation says; the largest part around its centre that has the image's proportions is
    resized bilinearly. Palettes, CMYK and other colours become RGB or grey, transparency is dropped.

    Raises:
        DataError: it cannot be decoded; the message is the reason, without the path.
    """
    from PIL import Image

    channels, height, width = image_shape
    image, _ = open_picture(path)
    if channels == 1:
        image = image.convert("L")
    if image.size != (width, height):
        # Cropped before it is resized: a picture may be very long.
        scale = min(image.width / width, image.height / height)
        left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
        box = (left, top, left + scale * width, top + scale * height)
        image = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def open_picture(path: Path) -> tuple[PIL.Image.Image, bool]:
    """A picture upright and in RGB, and whether its file is a JPEG of just these pixels.

    Raises:
        DataError: it cannot be decoded; the message is the reason, without the path.
    """
    from PIL import Image, ImageOps

    try:
        require_regular(path)
        with Image.open(path) as file:
            if file.mode.startswith(("I", "F")):
                raise ValueError("more than 8 bits a channel")
            as_it_is = (file.format, file.mode) == ("JPEG", "RGB") and file.getexif().get(_ORIENTATION, 1) == 1
            # A palette with transparency can only become RGB by way of RGBA.
            image = ImageOps.exif_transpose(file.convert("RGBA") if "transparency" in file.info else file)
            return image.convert("RGB"), as_it_is
    # Decoders of damaged files raise nearly everything: OSError, SyntaxError, struct.error, IndexError, ...
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DataError(" ".join(reason.replace(f" '{path}'", "").split()) or type(error).__name__) from error


def undecodable(reasons: Mapping[Any, str], *, total: int) -> str:
    """A line about pictures that cannot be decoded, by their paths."""
    named = ", ".join(f"{path} ({reason})" for path, reason in reasons.items())
    return f"{len(reasons)} of {total} pictures cannot be decoded: {named}"
