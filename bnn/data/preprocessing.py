"""`Preprocessing`: how a picture becomes a network's input."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnn.errors import DataError
from bnn.files import require_regular

MOST_VALUES = 1 << 24
"""Of an image."""

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes an input: turned upright, scaled and cropped at its centre, and its pixels normalised.

    Raises:
        DataError: a value is out of its range.
    """

    image_shape: tuple[int, int, int]
    """Channels, 1 for grey or 3 for RGB, height and width of an image; other channels are no picture's."""
    mean: tuple[float, ...]
    """What is subtracted from each channel's pixels, which are scaled to 0..1 first."""
    std: tuple[float, ...]
    """What each channel is divided by afterwards; positive."""

    def __post_init__(self) -> None:
        if len(self.image_shape) != 3 or not all(size >= 1 for size in self.image_shape):
            raise DataError(f"an image has a shape of channels, height and width, not {self.image_shape}")
        if math.prod(self.image_shape) > MOST_VALUES:
            raise DataError(f"an image of {list(self.image_shape)} has more than {MOST_VALUES} values")
        if len(self.mean) != self.image_shape[0] or len(self.std) != self.image_shape[0]:
            raise DataError(f"mean and std must have one value for each of the images' {self.image_shape[0]} channels")
        if not all(map(math.isfinite, self.mean)) or not all(0 < value < math.inf for value in self.std):
            raise DataError(f"a mean is finite and a std positive, got {self.mean} and {self.std}")

    def decode(self, paths: Sequence[Path]) -> Tensor:
        """Reads pictures: uint8 [n, C, H, W].

        Raises:
            DataError: a picture is missing or damaged, the message names all such; or the network takes other things
                than pictures.
        """
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
        """uint8 [n, C, H, W] to the network's input, float32 in channels-last memory format."""
        # ((x / 255) - mean) / std as one product and one sum.
        scale = torch.tensor([1 / (255 * value) for value in self.std]).view(1, -1, 1, 1).to(images.device)
        shift = torch.tensor([-m / s for m, s in zip(self.mean, self.std, strict=True)]).view(1, -1, 1, 1)
        x = images.contiguous(memory_format=torch.channels_last).float()
        return x.mul_(scale).add_(shift.to(images.device))

    def described(self) -> dict[str, Any]:
        """As JSON values."""
        return {"image_shape": list(self.image_shape), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_description(cls, description: Any) -> Preprocessing:
        """As `described`.

        Raises:
            DataError: it is not such a description.
        """
        try:
            assert isinstance(description, Mapping)
            channels, height, width = (int(size) for size in description["image_shape"])
            mean, std = (tuple(float(value) for value in description[name]) for name in ("mean", "std"))
        except (AssertionError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"the description of the preprocessing is damaged: {error}") from None
        return cls((channels, height, width), mean, std)


def require_pillow() -> None:
    """Refuses to go on without Pillow.

    Raises:
        DataError: it is not installed.
    """
    try:
        import PIL.Image  # noqa: F401
    except ModuleNotFoundError as error:
        raise DataError('pictures need Pillow, which is not installed: pip install "bnn-edge[data]"') from error


def decode_image(path: Path, image_shape: tuple[int, int, int]) -> Pixels:
    """Reads a picture: uint8 [C, H, W].

    It is turned as its EXIF orientation says; the largest part around its centre that has the image's proportions is
    resized bilinearly. Palettes, CMYK and other colours become RGB or grey, transparency is dropped.

    Raises:
        DataError: it cannot be decoded; the message is the reason, without the path.
    """
    from PIL import Image, ImageOps

    channels, height, width = image_shape
    try:
        require_regular(path)
        with Image.open(path) as file:
            if file.mode.startswith(("I", "F")):
                raise ValueError("more than 8 bits a channel")
            # A palette with transparency can only become RGB by way of RGBA.
            image = ImageOps.exif_transpose(file.convert("RGBA") if "transparency" in file.info else file)
            # Others have no way to grey of their own.
            image = image.convert("RGB") if image.mode != "L" else image
            image = image.convert("RGB" if channels == 3 else "L")
    # Decoders of damaged files raise nearly everything: OSError, SyntaxError, struct.error, IndexError, ...
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DataError(" ".join(reason.replace(f" '{path}'", "").split()) or type(error).__name__) from error
    if image.size != (width, height):
        # Cropped before it is resized: a picture may be very long.
        scale = min(image.width / width, image.height / height)
        left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
        box = (left, top, left + scale * width, top + scale * height)
        image = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def undecodable(reasons: Mapping[Any, str], *, total: int) -> str:
    """A line about pictures that cannot be decoded, by their paths."""
    named = ", ".join(f"{path} ({reason})" for path, reason in reasons.items())
    return f"{len(reasons)} of {total} pictures cannot be decoded: {named}"
