"""Augmentations: tensor operations on a whole batch of uint8 images.

An augmentation is a function of the images, uint8 [B, C, H, W], and of one random integer in 0..2**63-1 for each of
them, int64 [B], on the same device. It returns images of the same shape and dtype and has no other randomness, so an
image is augmented alike in whatever batch it arrives.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bnn.errors import DataError

Augmentation = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class RandomFlip:
    """Mirrors an image left to right with probability 1/2."""

    def __call__(self, images: Tensor, random: Tensor) -> Tensor:
        """See the module."""
        flip = (random % 2 == 1).view(-1, 1, 1, 1)
        return torch.where(flip, images.flip(3), images)


@dataclass(frozen=True)
class RandomCrop:
    """Pads an image with zeros on each side and cuts its own size out at a random place."""

    padding: int = 4
    """Pixels on each side."""

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise DataError(f"RandomCrop's padding must be at least 0, got {self.padding}")

    def __call__(self, images: Tensor, random: Tensor) -> Tensor:
        """See the module."""
        return _shift(images, random, self.padding, self.padding)


@dataclass(frozen=True)
class RandomShift:
    """Shifts an image by a random whole number of pixels in each direction; zeros come in at the edges."""

    fraction: float = 0.15
    """Largest shift, as a part of the image's height and width; rounded down to whole pixels."""

    def __post_init__(self) -> None:
        if not 0 <= self.fraction < 1:
            raise DataError(f"RandomShift's fraction must be at least 0 and below 1, got {self.fraction}")

    def __call__(self, images: Tensor, random: Tensor) -> Tensor:
        """See the module."""
        height, width = images.shape[2:]
        return _shift(images, random, int(self.fraction * height), int(self.fraction * width))


def _shift(images: Tensor, random: Tensor, most_y: int, most_x: int) -> Tensor:
    """Shifts each image by up to `most_y` rows and `most_x` columns, uniformly over all places."""
    channels, height, width = images.shape[1:]
    padded = F.pad(images, (most_x, most_x, most_y, most_y))
    # Two independent draws: the low and the high half of the random integer.
    top = (random & (2**32 - 1)) % (2 * most_y + 1)
    left = (random >> 32) % (2 * most_x + 1)
    rows = top.view(-1, 1, 1) + torch.arange(height, device=images.device).view(1, -1, 1)
    columns = left.view(-1, 1, 1) + torch.arange(width, device=images.device).view(1, 1, -1)
    pixels = (rows * padded.shape[3] + columns).flatten(1).unsqueeze(1).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, pixels).view_as(images)
