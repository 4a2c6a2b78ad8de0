from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bnn.data import Dataset, fashion_mnist, mnist
from bnn.errors import DataError

Loader = Callable[..., Dataset]
LOADERS = [(mnist, "MNIST"), (fashion_mnist, "FashionMNIST")]


def idx(shape: tuple[int, ...], content: bytes, *, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape) + content


def write_raw(data_dir: Path, name: str = "MNIST", *, first_label: int = 0) -> Path:
    """Writes 10 training and 5 test images of 2x3 pixels; image i has pixels 6 i to 6 i + 5 and label i."""
    raw = data_dir / name / "raw"
    raw.mkdir(parents=True)
    for part, n in (("train", 10), ("t10k", 5)):
        labels = bytes([first_label, *range(1, n)])
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx((n, 2, 3), bytes(range(6 * n))))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx((n,), labels))
    return raw


@pytest.mark.parametrize(("load", "name"), LOADERS)
def test_idx_files_are_read(tmp_path: Path, load: Loader, name: str) -> None:
    raw = write_raw(tmp_path, name)
    dataset = load(str(tmp_path))
    assert torch.equal(dataset.train.images, torch.arange(60, dtype=torch.uint8).view(10, 1, 2, 3))
    assert torch.equal(dataset.train.labels, torch.arange(10))
    assert torch.equal(dataset.test.images, torch.arange(30, dtype=torch.uint8).view(5, 1, 2, 3))
    assert torch.equal(dataset.test.labels, torch.arange(5))
    assert dataset.num_classes == 10
    assert dataset.mean == pytest.approx((29.5 / 255,))
    assert dataset.source == f"{name} (IDX files in {raw})"


def test_present_files_are_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_raw(tmp_path)
    monkeypatch.setattr("bnn.data.idx_sets.import_torchvision_datasets", lambda: pytest.fail("tried to download"))
    assert len(mnist(tmp_path, download=True).train) == 10


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"no {tmp_path}/MNIST/raw/train-images-idx3-ubyte: .*download=True"):
        mnist(tmp_path)
    raw = write_raw(tmp_path)
    (raw / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=f"no {raw}/t10k-labels-idx1-ubyte: .*holds MNIST/raw"):
        mnist(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train-images-idx3-ubyte", idx((10, 2, 3), bytes(59)), "75 bytes where its header asks for 76"),
        ("train-images-idx3-ubyte", idx((10, 2, 3), bytes(61)), "77 bytes where its header asks for 76"),
        ("train-images-idx3-ubyte", b"", "not an IDX file of 3 dimensions"),
        ("train-images-idx3-ubyte", idx((10, 2, 3), bytes(60))[:9], "damaged: 9 bytes"),
        ("train-images-idx3-ubyte", idx((10, 2, 3), bytes(240), kind=13), "not an IDX file of 3 dimensions"),
        ("t10k-labels-idx1-ubyte", idx((5, 1), bytes(5)), "not an IDX file of 1 dimensions"),
        ("t10k-labels-idx1-ubyte", idx((4,), bytes(4)), "has 5 images but .*t10k-labels.* has 4 labels"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, file: str, content: bytes, message: str) -> None:
    raw = write_raw(tmp_path)
    (raw / file).write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        mnist(tmp_path)
    assert str(raw / file) in str(raised.value)


def test_a_label_out_of_range_is_named(tmp_path: Path) -> None:
    raw = write_raw(tmp_path, first_label=77)
    with pytest.raises(DataError, match=rf"label 77 of the training split is not within 0\.\.9; .*{raw}"):
        mnist(tmp_path)


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    raw = write_raw(tmp_path)
    (raw / "train-labels-idx1-ubyte").unlink()
    (raw / "train-labels-idx1-ubyte").mkdir()
    with pytest.raises(DataError, match=f"cannot read {raw}/train-labels-idx1-ubyte"):
        mnist(tmp_path)


def test_a_failed_download_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bnn.data.torchvision_import import import_torchvision_datasets

    sets = import_torchvision_datasets()
    monkeypatch.setattr(sets.MNIST, "mirrors", [(tmp_path / "nowhere").as_uri() + "/"])
    with pytest.raises(DataError, match=f"cannot download MNIST to {tmp_path}/MNIST/raw: Error") as raised:
        mnist(tmp_path, download=True)
    assert "\n" not in str(raised.value)


def test_real_mnist(real_data: Path) -> None:
    dataset = mnist(real_data)
    assert (len(dataset.train), len(dataset.test)) == (60_000, 10_000)
    assert dataset.image_shape == (1, 28, 28)
    assert dataset.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    # The values that are usually published for MNIST.
    assert dataset.mean == pytest.approx((0.1307,), abs=5e-5)
    assert dataset.std == pytest.approx((0.3081,), abs=5e-5)
