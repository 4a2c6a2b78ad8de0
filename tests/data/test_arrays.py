import dataclasses
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.data import Dataset, Split, hold_out
from bnn.data.arrays import channel_statistics
from bnn.errors import DataError

IMAGES = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
LABELS = torch.tensor([0, 1, 2, 0])
SPLIT = Split(images=IMAGES, labels=LABELS)
DATASET = Dataset(
    name="toy", train=SPLIT, test=SPLIT, classes=("a", "b", "c"), mean=(0.5,), std=(0.2,), source="made up"
)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"images": IMAGES.double()}, r"images must be uint8 \[n, C, H, W\], .*got float64 \[4, 1, 2, 2\]"),
        ({"images": IMAGES[:, 0]}, r"images must be uint8 \[n, C, H, W\], .*got uint8 \[4, 2, 2\]"),
        ({"labels": LABELS.int()}, r"labels must be int64 \[n\], got int32 \[4\]"),
        ({"labels": LABELS.view(2, 2)}, r"labels must be int64 \[n\], got int64 \[2, 2\]"),
        ({"labels": LABELS[:3]}, "4 images do not go with 3 labels"),
        ({"rows": torch.arange(3)}, "3 images do not go with 4 labels"),
        ({"rows": torch.arange(4.0)}, r"rows must be int64 \[n\], got float32 \[4\]"),
        ({"rows": torch.arange(1, 5)}, r"rows 1\.\.4 do not lie within the 4 images"),
        ({"rows": torch.arange(-1, 3)}, r"rows -1\.\.2 do not lie within the 4 images"),
    ],
)
def test_a_split_checks_its_tensors(fields: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(DataError, match=message):
        dataclasses.replace(SPLIT, **fields)


@pytest.mark.parametrize("label", [-1, 3])
@pytest.mark.parametrize("part", ["training", "test"])
def test_a_dataset_names_a_label_out_of_range(label: int, part: str) -> None:
    split = Split(images=IMAGES, labels=torch.tensor([0, 1, label, 2]))
    with pytest.raises(DataError, match=rf"toy: label {label} of the {part} split is not within 0\.\.2; .*made up"):
        dataclasses.replace(DATASET, train=split) if part == "training" else dataclasses.replace(DATASET, test=split)


def test_a_dataset_checks_shapes_and_statistics() -> None:
    other = Split(images=torch.zeros(4, 1, 3, 3, dtype=torch.uint8), labels=LABELS)
    empty = Split(images=IMAGES[:0], labels=LABELS[:0])
    with pytest.raises(DataError, match=r"images \(1, 2, 2\) and test images \(1, 3, 3\) differ"):
        dataclasses.replace(DATASET, test=other)
    with pytest.raises(DataError, match="each of 1 channels"):
        dataclasses.replace(DATASET, std=(1.0, 2.0))
    with pytest.raises(DataError, match="the test split has no images"):
        dataclasses.replace(DATASET, test=empty)


def test_shape_and_number_of_classes() -> None:
    assert DATASET.image_shape == (1, 2, 2)
    assert DATASET.num_classes == 3


@given(n=st.integers(0, 60), fraction=st.floats(0, 0.99), seed=st.integers(0, 2**63 - 1))
def test_hold_out_divides_without_copying(n: int, fraction: float, seed: int) -> None:
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1)
    split = Split(images=images, labels=torch.arange(n))
    train, validation = hold_out(split, fraction=fraction, seed=seed)
    assert len(validation) == round(fraction * n)
    assert sorted(train.labels.tolist() + validation.labels.tolist()) == list(range(n))
    for part in (train, validation):
        assert part.images.data_ptr() == images.data_ptr()
        part_images, part_labels = part[torch.arange(len(part))]
        assert torch.equal(part_images.flatten().long(), part_labels)
        assert torch.equal(part_labels, part.labels)


def test_hold_out_of_a_part_keeps_images_and_labels_together(make_split: Callable[..., Split]) -> None:
    split = make_split(100)
    first, _ = hold_out(split, fraction=0.3, seed=1)
    second, held = hold_out(first, fraction=0.5, seed=2)
    assert (len(second), len(held)) == (35, 35)
    for part in (second, held):
        images, labels = part[torch.arange(len(part))]
        assert part.rows is not None
        assert torch.equal(images, split.images[part.rows])
        assert torch.equal(labels, split.labels[part.rows])


def test_hold_out_depends_on_the_seed(make_split: Callable[..., Split]) -> None:
    def held(seed: int) -> list[int]:
        rows = hold_out(make_split(100), fraction=0.1, seed=seed)[1].rows
        assert rows is not None
        return rows.tolist()

    assert held(0) == held(0)
    assert held(0) != held(1)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5, float("nan")])
def test_hold_out_refuses_a_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(DataError, match=f"at least 0 and below 1, got {fraction}"):
        hold_out(SPLIT, fraction=fraction, seed=0)


def test_channel_statistics(make_split: Callable[..., Split]) -> None:
    images = make_split(1500, channels=2, size=3).images
    images[:, 1] //= 4
    mean, std = channel_statistics(images)
    scaled = images.double() / 255
    torch.testing.assert_close(torch.tensor(mean).double(), scaled.mean((0, 2, 3)), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.tensor(std).double(), scaled.std((0, 2, 3), correction=0), atol=1e-6, rtol=0)
