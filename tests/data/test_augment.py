from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bnn.data import Augmentation, RandomCrop, RandomFlip, RandomShift, Split
from bnn.errors import DataError
from bnn.random.hashing import random_integers

ALL = [RandomCrop(padding=2), RandomFlip(), RandomShift(fraction=0.3)]


def windows(image: Tensor, most_y: int, most_x: int) -> list[Tensor]:
    """Every window of an image's own size in the image padded with zeros."""
    _, height, width = image.shape
    padded = F.pad(image, (most_x, most_x, most_y, most_y))
    return [padded[:, y : y + height, x : x + width] for y in range(2 * most_y + 1) for x in range(2 * most_x + 1)]


@pytest.mark.parametrize(
    ("augmentation", "most_y", "most_x"),
    [
        (RandomCrop(padding=2), 2, 2),
        (RandomCrop(padding=0), 0, 0),
        (RandomShift(fraction=0.3), 1, 2),
        (RandomShift(fraction=0.0), 0, 0),
    ],
)
def test_shifts_reach_every_window_equally_often(augmentation: Augmentation, most_y: int, most_x: int) -> None:
    image = torch.arange(1, 2 * 5 * 7 + 1, dtype=torch.uint8).view(2, 5, 7)
    expected = windows(image, most_y, most_x)
    n = 400 * len(expected)
    shifted = augmentation(image.expand(n, -1, -1, -1), random_integers(torch.arange(n), 3))
    assert shifted.dtype == torch.uint8
    counts = [int((shifted == window).flatten(1).all(1).sum()) for window in expected]
    assert sum(counts) == n
    assert all(300 < count < 500 for count in counts) or len(expected) == 1


def test_flip_mirrors_half_of_the_images(make_split: Callable[..., Split]) -> None:
    images = make_split(2000).images
    flipped = RandomFlip()(images, random_integers(torch.arange(2000), 5))
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    kept = (flipped == images).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert 900 < mirrored.sum() < 1100


@pytest.mark.parametrize("augmentation", ALL, ids=lambda a: type(a).__name__)
@given(random=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=8))
def test_an_image_is_augmented_alike_in_every_batch(augmentation: Augmentation, random: list[int]) -> None:
    images = torch.arange(len(random) * 30, dtype=torch.int64).remainder(251).byte().view(-1, 1, 5, 6)
    together = augmentation(images, torch.tensor(random))
    for i, number in enumerate(random):
        assert torch.equal(augmentation(images[i : i + 1], torch.tensor([number])), together[i : i + 1])


@pytest.mark.parametrize("augmentation", ALL, ids=lambda a: type(a).__name__)
def test_the_input_is_left_alone(augmentation: Augmentation, make_split: Callable[..., Split]) -> None:
    images = make_split(16).images
    before = images.clone()
    augmentation(images, random_integers(torch.arange(16)))
    assert torch.equal(images, before)


def test_options_are_checked() -> None:
    with pytest.raises(DataError, match="padding must be at least 0, got -1"):
        RandomCrop(padding=-1)
    for fraction in (-0.1, 1.0, float("nan")):
        with pytest.raises(DataError, match=f"below 1, got {fraction}"):
            RandomShift(fraction=fraction)
