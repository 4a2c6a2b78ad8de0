"""Small made-up data in the files that recipes read."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_mnist(folder: Path, images: int = 40) -> None:
    """Images of noise, brighter for higher digits; ten test images."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name, count in (("train", images), ("t10k", 10)):
        labels = np.arange(count, dtype=np.uint8) % 10
        pixels = random.integers(0, 100, (count, 28, 28)) + 15 * labels[:, None, None]
        sizes = np.array([count, 28, 28], ">i4").tobytes()
        (raw / f"{name}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + sizes + pixels.astype(np.uint8).tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + sizes[:4] + labels.tobytes())


def write_images(folder: Path) -> None:
    """Colour images of ten classes, brighter for higher ones, with four training images and one test image each."""
    random = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 1)):
        for label in range(10):
            place = folder / split / f"class{label}"
            place.mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 50, (32, 32, 3)) + 20 * label
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{i}.png")
