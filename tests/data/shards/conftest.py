from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photographs(tmp_path: Path) -> Callable[..., Path]:
    """A folder of smooth pictures, a few of each of two classes, of sizes and formats of their own."""

    def make(*, train: int = 6, test: str = "val") -> Path:
        root = tmp_path / "photographs"
        draw = np.random.default_rng(0)
        for part, count in (("train", train), (test, 2)):
            for number in range(2 * count):
                folder = root / part / f"class{number % 2}"
                folder.mkdir(parents=True, exist_ok=True)
                width, height = (int(side) for side in draw.integers(20, 70, 2))
                small = draw.integers(0, 256, (4, 4, 3), dtype=np.uint8)
                picture = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
                picture.save(folder / f"{number:03d}.{'png' if number % 3 == 0 else 'jpg'}")
        return root

    return make
