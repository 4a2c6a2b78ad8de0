"""How a picture becomes an input, whatever its format, size and colours."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bnn.data import Batches, Preprocessing, Split
from bnn.data.preprocessing import decode_image
from bnn.errors import DataError


@pytest.mark.parametrize(("width", "height"), [(40, 20), (20, 40), (20, 20), (25, 20), (2000, 20)])
def test_the_centre_is_kept_and_resized(tmp_path: Path, width: int, height: int) -> None:
    # Red outside the centre square, green within it.
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = 255
    short = min(width, height)
    top, left = (height - short) // 2, (width - short) // 2
    pixels[top : top + short, left : left + short] = (0, 255, 0)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    decoded = decode_image(tmp_path / "image.png", (3, 10, 10))
    assert decoded.shape == (3, 10, 10)
    assert (decoded[:, 1:-1, 1:-1] == np.array([0, 255, 0])[:, None, None]).all()


def test_an_image_need_not_be_square(tmp_path: Path) -> None:
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:10] = 200
    Image.fromarray(pixels).save(tmp_path / "image.png")
    decoded = decode_image(tmp_path / "image.png", (3, 4, 8))
    assert decoded[:, 0].min() == 200
    assert decoded[:, 3].max() == 0


def test_an_image_of_the_right_size_keeps_its_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    assert np.array_equal(decode_image(tmp_path / "image.png", (3, 7, 7)), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("mode", "colour", "suffix"),
    [
        ("CMYK", (0, 255, 255, 0), "jpg"),
        ("RGBA", (254, 0, 0, 9), "png"),
        ("P", 1, "png"),
        ("P", 1, "gif"),
        ("L", 76, "png"),
        ("LA", (76, 9), "png"),
        ("1", 1, "png"),
        ("RGB", (254, 0, 0), "webp"),
        ("RGB", (254, 0, 0), "tiff"),
    ],
)
def test_any_colours_become_rgb_or_grey(
    tmp_path: Path, mode: str, colour: int | tuple[int, ...], suffix: str, channels: int
) -> None:
    path = tmp_path / f"image.{suffix}"
    image = Image.new(mode, (8, 8), colour)
    if mode == "P":
        image.putpalette([0, 0, 0, 254, 0, 0])
        # Bytes of transparency make Pillow warn unless it is told how to treat them.
        image.save(path, **({"transparency": b"\x10\x80"} if suffix == "png" else {}))
    else:
        image.save(path)
    pixel = decode_image(path, (channels, 8, 8))[:, 4, 4].astype(int).tolist()
    red = {"L": [76, 76, 76], "LA": [76, 76, 76], "1": [255, 255, 255]}.get(mode, [254, 0, 0])
    expected = red if channels == 3 else [255 if mode == "1" else 76]
    assert np.abs(np.subtract(pixel, expected)).max() <= 6


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))])
def test_pictures_are_turned_upright(tmp_path: Path, orientation: int, corner: tuple[int, int]) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:4, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "image.png", exif=exif)
    decoded = decode_image(tmp_path / "image.png", (1, 16, 16))[0]
    assert decoded[corner] == 255
    assert (decoded == 255).sum() == 16


def test_what_is_no_picture_says_why(tmp_path: Path) -> None:
    Image.fromarray(np.full((6, 6), 1000, np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "text.jpg").write_text("no picture")
    takes = Preprocessing((3, 6, 6), (0.5,) * 3, (0.2,) * 3)
    names = ["deep.png", "text.jpg", "gone.png", "."]
    with pytest.raises(DataError) as caught:
        takes.decode([tmp_path / name for name in names])
    for part in (
        "4 of 4 pictures cannot be decoded",
        f"{tmp_path}/deep.png (more than 8 bits a channel)",
        f"{tmp_path}/text.jpg (cannot identify image file)",
        f"{tmp_path}/gone.png (No such file or directory)",
        f"{tmp_path} (Is a directory)",
    ):
        assert part in str(caught.value)
    with pytest.raises(DataError, match="the network takes 2 channels, a picture has 1 or 3"):
        Preprocessing((2, 6, 6), (0.5,) * 2, (0.2,) * 2).decode([])


def test_pixels_are_normalised_as_in_training(generator: torch.Generator) -> None:
    images = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8, generator=generator)
    takes = Preprocessing((3, 4, 4), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    split = Split(images=images, labels=torch.zeros(5, dtype=torch.int64))
    ((x, _),) = Batches(split, batch_size=5, mean=takes.mean, std=takes.std).epoch(0)
    found = takes.normalized(images)
    assert torch.equal(found, x)
    assert found.stride() == x.stride()


def test_the_description_gives_it_back() -> None:
    takes = Preprocessing((1, 5, 6), (0.25,), (0.5,))
    assert Preprocessing.from_description(takes.described()) == takes


GOOD = {"image_shape": [1, 5, 6], "mean": [0.25], "std": [0.5]}


@pytest.mark.parametrize(
    "changes",
    [
        {"image_shape": [1, 5]},
        {"image_shape": [1, 5, 0]},
        {"image_shape": [1, 1 << 10, 1 << 20]},
        {"image_shape": [1, 5, float("inf")]},
        {"image_shape": "abc"},
        {"mean": [0.1, 0.2]},
        {"mean": [float("nan")]},
        {"mean": None},
        {"std": [0]},
        {"std": [-1.0]},
        {"std": ["x"]},
        {"std": [float("inf")]},
    ],
)
def test_a_description_that_lies_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        Preprocessing.from_description({**GOOD, **changes})
    with pytest.raises(DataError, match="is damaged"):
        Preprocessing.from_description([])
