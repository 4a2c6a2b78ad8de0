"""Inputs of a network as pictures."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from bnn.codec import Model
from bnn.data.preprocessing import require_pillow
from bnn.errors import RunError
from bnn.training.directory import writing

_SMALLEST_EDGE = 32  # of a picture on the sheet, smaller ones are drawn larger


def save_pictures(x: Tensor, model: Model, folder: Path) -> None:
    """Writes inputs as PNG, numbered from 0, and `sheet.png` with all of them.

    Args:
        x: float32 [n, C, H, W], normalised.
        model: that they are for.
        folder: is made.

    Raises:
        RunError: the network takes no pictures, or the folder cannot be written.
    """
    takes = model.preprocessing
    if takes is None or takes.reads != "pictures" or takes.image_shape[0] not in (1, 3):
        raise RunError("the network takes no pictures, so that its inputs cannot be written as such")
    require_pillow()
    from PIL import Image

    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (takes.mean, takes.std))
    pixels = (255 * (x * std + mean)).round().clamp(0, 255).to(torch.uint8).movedim(1, -1)
    with writing(folder):
        folder.mkdir(parents=True)
        for number, picture in enumerate((*pixels, _sheet(pixels))):
            name = f"{number}.png" if number < len(pixels) else "sheet.png"
            Image.fromarray(picture.squeeze(-1).numpy()).save(folder / name)


def _sheet(pixels: Tensor) -> Tensor:
    """All pictures, uint8 [n, H, W, C], in rows of one."""
    n, height, width, channels = pixels.shape
    columns = math.isqrt(n - 1) + 1
    rows = -(-n // columns)
    sheet = torch.zeros(rows * columns, height, width, channels, dtype=torch.uint8)
    sheet[:n] = pixels
    times = max(1, -(-_SMALLEST_EDGE // min(height, width)))
    sheet = sheet.reshape(rows, columns, height, width, channels).transpose(1, 2)
    sheet = sheet.reshape(rows * height, columns * width, channels)
    return sheet.repeat_interleave(times, 0).repeat_interleave(times, 1)
