from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bnn.data
from bnn.data import digits
from bnn.data.arrays import channel_statistics
from bnn.errors import DataError


def arrays(**changes: Any) -> dict[str, Any]:
    images, labels = np.zeros((10, 1, 8, 8), np.uint8), np.arange(10)
    good = {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels}
    return {name: array for name, array in {**good, **changes}.items() if array is not None}


def test_the_bundled_digits() -> None:
    dataset = digits()
    assert (len(dataset.train), len(dataset.test)) == (1437, 360)
    assert dataset.image_shape == (1, 8, 8)
    assert dataset.num_classes == 10
    assert dataset.source == "UCI optical digits (bundled)"
    # 17 grey levels, 0..16, spread over 0..255.
    levels = torch.arange(17).mul(255 / 16).round().byte()
    assert torch.equal(torch.unique(torch.cat([dataset.train.images, dataset.test.images])), levels)


def test_the_split_is_stratified() -> None:
    dataset = digits()
    train, test = (torch.bincount(split.labels, minlength=10) for split in (dataset.train, dataset.test))
    assert (train + test).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert ((test - (train + test) * 360 / 1797).abs() < 1).all()


def test_the_images_belong_to_their_labels() -> None:
    dataset = digits()
    centres = torch.stack([dataset.train.images[dataset.train.labels == k].float().mean(0) for k in range(10)])
    distances = torch.cdist(dataset.test.images.float().flatten(1), centres.flatten(1))
    assert (distances.argmin(1) == dataset.test.labels).float().mean() > 0.85


def test_statistics_are_those_of_the_training_split() -> None:
    dataset = digits()
    assert (dataset.mean, dataset.std) == channel_statistics(dataset.train.images)
    assert dataset.mean == pytest.approx((0.305580,), abs=1e-6)
    assert dataset.std == pytest.approx((0.375950,), abs=1e-6)


def test_the_licence_is_beside_the_data() -> None:
    licence = Path(bnn.data.__file__).parent / "files" / "LICENSE-digits.txt"
    text = licence.read_text()
    assert "10.24432/C50P49" in text
    assert "Attribution 4.0" in text


def test_a_folder_without_digits_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"there is no {tmp_path / 'digits.npz'}, .*leave --data-dir out"):
        digits(tmp_path)


def test_a_folder_with_digits_gives_those(tmp_path: Path) -> None:
    np.savez(tmp_path / "digits.npz", **arrays())
    dataset = digits(tmp_path)
    assert len(dataset.train) == 10
    assert dataset.source == f"UCI optical digits ({tmp_path / 'digits.npz'})"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"no folder {tmp_path / 'absent'}"):
        digits(tmp_path / "absent")


@pytest.mark.parametrize(
    "changes",
    [
        {"train_labels": None},
        {"train_labels": np.full(10, 10)},
        {"train_labels": np.arange(9)},
        {"train_labels": np.arange(10).astype(object)},
        {"train_labels": np.array(["a"] * 10)},
        {"test_images": np.zeros((10, 8, 8), np.uint8)},
        {"train_images": np.zeros((10, 1, 9, 9), np.uint8), "test_images": np.zeros((10, 1, 9, 9), np.uint8)},
        {"test_images": np.zeros((10, 1, 8, 8))},
        {"train_images": np.zeros((0, 1, 8, 8), np.uint8), "train_labels": np.arange(0)},
    ],
)
def test_malformed_digits_are_named(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "digits.npz"
    np.savez(path, **arrays(**changes))
    with pytest.raises(DataError, match=f"{path} is damaged or not a digits file"):
        digits(tmp_path)


def test_damaged_digits_are_named(tmp_path: Path) -> None:
    path = tmp_path / "digits.npz"
    np.savez_compressed(path, **arrays())
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[60:90] = bytes(30)
    np.save(tmp_path / "array.npy", np.zeros(3))
    array = (tmp_path / "array.npy").read_bytes()
    for content in (b"", b"not a zip", whole[: len(whole) // 2], bytes(flipped), array):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"{path} is damaged or not a digits file"):
            digits(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=f"^{path} cannot be read: Is a directory$"):
        digits(tmp_path)
