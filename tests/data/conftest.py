import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bnn.data import Split

MakeSplit = Callable[..., Split]
MakeFolder = Callable[..., Path]


@pytest.fixture
def make_split() -> MakeSplit:
    """A split of n random images whose labels are their positions modulo 10."""

    def make(n: int, *, channels: int = 3, size: int = 8) -> Split:
        generator = torch.Generator().manual_seed(n)
        images = torch.randint(0, 256, (n, channels, size, size), dtype=torch.uint8, generator=generator)
        return Split(images=images, labels=torch.arange(n) % 10)

    return make


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """A folder of lossless images: class k has images of the one value 20 k + the image's position."""

    def make(*, classes: int = 2, images: int = 3, size: int = 6, test: str = "test") -> Path:
        root = tmp_path / "pictures"
        for part in ("train", test):
            for k in range(classes):
                folder = root / part / f"class{k}"
                folder.mkdir(parents=True)
                for i in range(images):
                    pixels = np.full((size, size, 3), 20 * k + i, dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{i}.png")
        return root

    return make


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets that the environment variable BNN_DATA names."""
    if "BNN_DATA" not in os.environ:
        pytest.skip("BNN_DATA names no folder with MNIST/raw and cifar10-jpeg.tar.xz")
    return Path(os.environ["BNN_DATA"])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNN_CACHE", str(tmp_path / "cache"))
