import hashlib
import itertools
import os
import pickle
import shutil
import sys
import tarfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bnn.data import Dataset, cifar10, cifar100, image_folder, svhn
from bnn.data.torchvision_import import import_torchvision_datasets
from bnn.errors import DataError

PIXELS = np.arange(2 * 3072, dtype=np.uint16).reshape(2, 3072).astype(np.uint8)
Loader = Callable[..., Dataset]


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def cifar_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Two images a file in the published layouts, whose MD5 sums are made the expected ones."""
    sets = import_torchvision_datasets()
    folders = {}
    for loader, label_key, meta_key in (
        (sets.CIFAR10, "labels", "label_names"),
        (sets.CIFAR100, "fine_labels", "fine_label_names"),
    ):
        folder = tmp_path / loader.base_folder
        folder.mkdir()
        classes = 100 if loader is sets.CIFAR100 else 10

        def write(name: str, content: dict[str, Any], folder: Path = folder) -> tuple[str, str]:
            (folder / name).write_bytes(pickle.dumps(content))
            return name, md5(folder / name)

        train = write("train_batch", {"data": PIXELS, label_key: [3, classes - 1]})
        test = write("test_batch", {"data": PIXELS[::-1], label_key: [1, 2]})
        meta = write("meta", {meta_key: [f"class{k}" for k in range(classes)]})
        monkeypatch.setattr(loader, "train_list", [train])
        monkeypatch.setattr(loader, "test_list", [test])
        monkeypatch.setattr(loader, "meta", {"filename": meta[0], "key": meta_key, "md5": meta[1]})
        folders[loader.__name__] = folder
    return folders


@pytest.mark.parametrize(("load", "name", "classes"), [(cifar10, "CIFAR10", 10), (cifar100, "CIFAR100", 100)])
def test_cifar(cifar_files: dict[str, Path], load: Loader, name: str, classes: int) -> None:
    folder = cifar_files[name]
    dataset = load(folder.parent)
    assert torch.equal(dataset.train.images, torch.from_numpy(PIXELS).view(2, 3, 32, 32))
    assert torch.equal(dataset.test.images, dataset.train.images.flip(0))
    assert dataset.train.labels.tolist() == [3, classes - 1]
    assert dataset.test.labels.tolist() == [1, 2]
    assert dataset.classes == tuple(f"class{k}" for k in range(classes))
    assert dataset.source == f"{name.replace('R', 'R-')} (torchvision's files in {folder})"


def test_missing_cifar_is_named(cifar_files: dict[str, Path]) -> None:
    folder = cifar_files["CIFAR10"]
    (folder / "test_batch").unlink()
    with pytest.raises(DataError, match=f"no {folder}/test_batch .*--data-dir.*download=True"):
        cifar10(folder.parent)


@pytest.mark.parametrize("file", ["train_batch", "test_batch", "meta"])
def test_damaged_cifar_is_named_and_never_unpickled(cifar_files: dict[str, Path], file: str, tmp_path: Path) -> None:
    path = cifar_files["CIFAR10"] / file

    class Exploit:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (tmp_path / "unpickled",)

    path.write_bytes(pickle.dumps(Exploit()))
    with pytest.raises(DataError, match=f"{path} is damaged, its MD5 is not [0-9a-f]{{32}}: delete it"):
        cifar10(path.parent.parent)
    assert not (tmp_path / "unpickled").exists()


def test_a_failed_download_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_torchvision_datasets().CIFAR10, "url", (tmp_path / "nowhere.tar.gz").as_uri())
    with pytest.raises(DataError, match=r"no .*data_batch_1 \(.*\): check the connection") as raised:
        cifar10(tmp_path, download=True)
    assert "\n" not in str(raised.value)


def test_cifar_from_a_folder_of_images(make_folder: Callable[..., Path]) -> None:
    root = make_folder(classes=10, images=1, size=32)
    seen = []
    dataset = cifar10(root, progress=lambda done, total: seen.append((done, total)))
    assert dataset.name == "cifar10"
    assert dataset.source == f"CIFAR-10 (image folder {root})"
    assert dataset.image_shape == (3, 32, 32)
    assert seen == [(10, 10), (10, 10)]
    with pytest.raises(DataError, match=f"{root} has 10 classes, but CIFAR-100 has 100"):
        cifar100(root)


@pytest.fixture
def svhn_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    sets = import_torchvision_datasets()
    parts = {}
    for part in ("train", "test"):
        path = tmp_path / f"{part}_32x32.mat"
        path.write_bytes(part.encode())
        parts[part] = ["http://localhost", path.name, md5(path)]
    monkeypatch.setattr(sets.SVHN, "split_list", {**parts, "extra": ["", "extra_32x32.mat", ""]})
    return tmp_path


def test_svhn(svhn_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.arange(32 * 32 * 3 * 2, dtype=np.uint16).astype(np.uint8).reshape(32, 32, 3, 2)
    reader = types.ModuleType("scipy.io")
    vars(reader)["loadmat"] = lambda path: {"X": pixels, "y": np.array([[10], [7]], dtype=np.uint8)}
    package = types.ModuleType("scipy")
    vars(package)["io"] = reader
    monkeypatch.setitem(sys.modules, "scipy", package)
    monkeypatch.setitem(sys.modules, "scipy.io", reader)
    dataset = svhn(svhn_files)
    assert torch.equal(dataset.train.images, torch.from_numpy(pixels).permute(3, 2, 0, 1))
    assert dataset.train.labels.tolist() == [0, 7]
    assert dataset.num_classes == 10


def test_svhn_without_scipy_tells_how_to_install_it(svhn_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.delitem(sys.modules, "scipy.io", raising=False)
    with pytest.raises(DataError, match="SVHN needs scipy, which is not installed: pip install scipy"):
        svhn(svhn_files)


def test_missing_and_damaged_svhn_is_named(svhn_files: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = svhn_files / "train_32x32.mat"
    path.write_bytes(b"cut off")
    with pytest.raises(DataError, match=f"{path} is damaged"):
        svhn(svhn_files)
    path.unlink()
    with pytest.raises(DataError, match=f"no {path} .*download=True"):
        svhn(svhn_files)


@pytest.fixture
def cifar_jpeg(real_data: Path) -> Path:
    return real_data / "cifar10-jpeg.tar.xz"


def test_images_of_real_cifar10_jpeg(cifar_jpeg: Path, tmp_path: Path) -> None:
    with tarfile.open(cifar_jpeg) as archive:
        # The archive begins with the images of the first class.
        members = list(itertools.islice((member for member in archive if member.isfile()), 20))
        archive.extractall(tmp_path, members, filter="data")
    shutil.copytree(tmp_path / "train", tmp_path / "test")
    dataset = image_folder(tmp_path, size=32)
    assert dataset.classes == ("airplane",)
    assert dataset.source == f"JPEG folder {tmp_path}"
    files = sorted((tmp_path / "train" / "airplane").iterdir())
    for image, path in zip(dataset.train.images, files, strict=True):
        assert np.array_equal(image.permute(1, 2, 0), np.asarray(Image.open(path)))


@pytest.mark.slow
def test_the_whole_of_real_cifar10_jpeg(cifar_jpeg: Path, tmp_path: Path) -> None:
    with tarfile.open(cifar_jpeg) as archive:
        archive.extractall(tmp_path / "cifar", filter="data")
    dataset = cifar10(tmp_path / "cifar")
    assert (len(dataset.train), len(dataset.test)) == (50_000, 10_000)
    assert dataset.classes == (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
    assert dataset.train.labels.bincount().tolist() == [5000] * 10
    assert dataset.source == f"CIFAR-10 (JPEG folder {tmp_path / 'cifar'})"
    # The values that are usually published for CIFAR-10; JPEG moves them a little.
    assert dataset.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=1e-3)
    assert dataset.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=3e-3)
