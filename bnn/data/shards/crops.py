"""Which part of a picture a network sees: the centre, or in training a random part."""

import math

import torch
from torch import Tensor

from bnn.random.hashing import random_integers

CENTRE = 0.875
"""Part of the shorter side that is tested on, 224 of 256 pixels as is usual."""
_LEAST_AREA = 0.08
_LARGEST_RATIO = 4 / 3


def centre_boxes(heights: Tensor, widths: Tensor) -> Tensor:
    """Squares about the centres, `CENTRE` of the shorter side long: int64 [n, 4], top, left, height and width."""
    side = (torch.minimum(heights, widths) * CENTRE).round().long().clamp(min=1)
    return torch.stack(((heights - side) // 2, (widths - side) // 2, side, side), dim=1)


def random_boxes(heights: Tensor, widths: Tensor, random: Tensor) -> Tensor:
    """Random parts of 0.08 to 1 of the area and proportions of 3:4 to 4:3, evenly in the logarithm.

    A part that is longer than the picture is cut to it. Source of the ranges: Szegedy et al. 2015, arXiv 1409.4842, as
    torchvision's `RandomResizedCrop` has them, which draws again in place of cutting.

    Args:
        heights: int64 [n], in pixels.
        widths: the same.
        random: int64 [n], uniform in 0..2**63-1.

    Returns:
        int64 [n, 4]: top, left, height and width.
    """
    area, ratio, top, left = (random_integers(random, draw).double() / 2.0**63 for draw in range(4))
    pixels = heights * widths * (_LEAST_AREA + (1 - _LEAST_AREA) * area)
    proportion = torch.exp((2 * ratio - 1) * math.log(_LARGEST_RATIO))
    height = torch.minimum((pixels / proportion).sqrt().round().clamp(min=1).long(), heights)
    width = torch.minimum((pixels * proportion).sqrt().round().clamp(min=1).long(), widths)
    return torch.stack(
        (
            torch.minimum((top * (heights - height + 1)).long(), heights - height),
            torch.minimum((left * (widths - width + 1)).long(), widths - width),
            height,
            width,
        ),
        dim=1,
    )
