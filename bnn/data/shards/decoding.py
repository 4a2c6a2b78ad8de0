"""Pictures out of JPEG bytes: decoded, cut out and resized, by simplejpeg where it is installed and else by Pillow."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from bnn.data.shards.files import MOST_PIXELS

Pixels = npt.NDArray[np.uint8]


def decoder() -> Callable[[bytes], Pixels]:
    """A function from JPEG bytes to uint8 [height, width, 3]; it raises whatever it likes for damaged ones."""
    try:
        import simplejpeg
    except ModuleNotFoundError:
        return _by_pillow

    def decode(jpeg: bytes) -> Pixels:
        height, width, *_ = simplejpeg.decode_jpeg_header(jpeg)
        if height * width > MOST_PIXELS:  # some bytes may claim gigabytes; Pillow looks by itself
            raise ValueError(f"it has {height} x {width} pixels")
        pixels: Pixels = simplejpeg.decode_jpeg(jpeg, colorspace="RGB")
        return pixels

    return decode


def _by_pillow(jpeg: bytes) -> Pixels:
    from PIL import Image

    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as picture:
        return np.asarray(picture.convert("RGB"))


def cut_out(pixels: Pixels, box: tuple[int, int, int, int], size: int) -> Tensor:
    """A part of a picture, resized bilinearly with antialiasing.

    Args:
        pixels: uint8 [height, width, 3].
        box: top, left, height and width of the part, in pixels.
        size: of the result.

    Returns:
        uint8 [3, size, size].
    """
    top, left, height, width = box
    # A copy of the part, since numpy arrays of decoders may be read-only. As one image of a batch whose channels are
    # side by side, it is resized several times as fast.
    part = torch.from_numpy(pixels[top : top + height, left : left + width].copy())[None].permute(0, 3, 1, 2)
    if (height, width) == (size, size):
        return part[0]
    return F.interpolate(part, (size, size), mode="bilinear", antialias=True)[0]
