import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bnn.data import Batches, folder, image_folder
from bnn.data.arrays import channel_statistics
from bnn.errors import DataError

MakeFolder = Callable[..., Path]


def cache_files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").glob("*.npy"))


@pytest.mark.parametrize("test", ["test", "val"])
def test_classes_and_images_are_in_the_order_of_their_names(make_folder: MakeFolder, test: str) -> None:
    root = make_folder(classes=3, images=2, size=4, test=test)
    dataset = image_folder(root, size=4)
    assert dataset.classes == ("class0", "class1", "class2")
    assert dataset.train.labels.tolist() == dataset.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    for split in (dataset.train, dataset.test):
        assert split.images.shape == (6, 3, 4, 4)
        assert split.images[:, 1, 2, 3].tolist() == [0, 1, 20, 21, 40, 41]
    assert (dataset.mean, dataset.std) == channel_statistics(dataset.train.images)
    assert dataset.name == "pictures"
    assert dataset.source == f"image folder {root}"


def test_many_chunks_give_the_same_images(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder(classes=2, images=5, size=4)
    whole = image_folder(root, size=4, cache_dir=root.parent / "one")
    monkeypatch.setattr(folder, "_CHUNK_BYTES", 3 * 3 * 4 * 4)
    seen: list[tuple[int, int]] = []
    parts = image_folder(
        root, size=4, cache_dir=root.parent / "other", progress=lambda done, total: seen.append((done, total))
    )
    assert seen == 2 * [(3, 10), (6, 10), (9, 10), (10, 10)]
    assert torch.equal(parts.train.images, whole.train.images)
    assert (parts.mean, parts.std) == (whole.mean, whole.std)


def test_images_are_decoded_once(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder()
    first = image_folder(root, size=6)
    monkeypatch.setattr(folder, "_decode_image", lambda path, size: pytest.fail("decoded again"))
    second = image_folder(root, size=6)
    assert torch.equal(first.train.images, second.train.images)
    assert (first.mean, first.std) == (second.mean, second.std)


def test_a_change_decodes_anew(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder()
    image_folder(root, size=6)
    before = cache_files(tmp_path)
    assert len(before) == 2
    changed = root / "train" / "class0" / "0.png"
    Image.new("RGB", (6, 6), (200, 0, 0)).save(changed)
    assert image_folder(root, size=6).train.images[0, :, 0, 0].tolist() == [200, 0, 0]
    assert len(cache_files(tmp_path)) == 3
    os.utime(changed, (1, 1))
    image_folder(root, size=6)
    changed.rename(changed.with_name("00.png"))
    image_folder(root, size=6)
    image_folder(root, size=5)
    assert len(cache_files(tmp_path)) == 7


def test_files_of_one_name_size_and_time_are_told_apart(tmp_path: Path) -> None:
    for value, (root, part) in enumerate((root, part) for root in ("a", "b") for part in ("train", "test")):
        path = tmp_path / root / part / "class" / "0.bmp"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (4, 4), (value, value, value)).save(path)
        os.utime(path, (1, 1))
    pixels = []
    for root in ("a", "b"):
        dataset = image_folder(tmp_path / root, size=4)
        pixels += [int(dataset.train.images.max()), int(dataset.test.images.max())]
    assert pixels == [0, 1, 2, 3]


def test_batches_of_a_memory_mapped_set(make_folder: MakeFolder) -> None:
    dataset = image_folder(make_folder(), size=6)
    batches = Batches(dataset.train, batch_size=4, mean=dataset.mean, std=dataset.std, shuffle=True)
    ((images, labels),) = batches.epoch(0)
    assert images.shape == (4, 3, 6, 6)
    assert labels.shape == (4,)


@pytest.mark.parametrize(("width", "height"), [(40, 20), (20, 40), (20, 20), (25, 20)])
def test_the_shorter_side_is_resized_and_the_centre_kept(tmp_path: Path, width: int, height: int) -> None:
    # Red outside the centre square, green within it.
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = 255
    short = min(width, height)
    top, left = (height - short) // 2, (width - short) // 2
    pixels[top : top + short, left : left + short] = (0, 255, 0)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    decoded = folder._decode_image(tmp_path / "image.png", 10)
    assert decoded.shape == (10, 10, 3)
    assert (decoded[1:-1, 1:-1] == (0, 255, 0)).all()


def test_an_image_of_the_right_size_keeps_its_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    assert np.array_equal(folder._decode_image(tmp_path / "image.png", 7), pixels)


@pytest.mark.parametrize(
    ("mode", "colour", "suffix"),
    [("CMYK", (0, 255, 255, 0), "jpg"), ("RGBA", (254, 0, 0, 9), "png"), ("P", 1, "png")],
)
def test_other_modes_become_rgb(tmp_path: Path, mode: str, colour: int | tuple[int, ...], suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    image = Image.new(mode, (8, 8), colour)
    if mode == "P":
        image.putpalette([0, 0, 0, 254, 0, 0])
        # Bytes of transparency make Pillow warn unless it is told how to treat them.
        image.save(path, transparency=b"\x10\x80")
    else:
        image.save(path)
    red, green, blue = folder._decode_image(path, 8)[4, 4].tolist()
    assert red > 250
    assert max(green, blue) < 5


def test_grey_images_become_rgb(tmp_path: Path) -> None:
    Image.new("L", (4, 4), 77).save(tmp_path / "image.png")
    assert (folder._decode_image(tmp_path / "image.png", 4) == 77).all()


def test_hidden_and_other_files_are_passed_over(make_folder: MakeFolder) -> None:
    root = make_folder(classes=1, images=2)
    (root / "train" / ".hidden").mkdir()
    (root / "train" / "notes.txt").write_text("not a class")
    (root / "train" / "class0" / "._0.png").write_bytes(b"not an image")
    (root / "train" / "class0" / "notes.txt").write_text("not an image")
    shutil.copy(root / "train" / "class0" / "0.png", root / "train" / "class0" / "9.PNG")
    assert len(image_folder(root, size=6).train) == 3


def test_missing_folders_are_named(make_folder: MakeFolder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"no folder {tmp_path / 'absent'}"):
        image_folder(tmp_path / "absent", size=6)
    root = make_folder()
    shutil.rmtree(root / "test")
    with pytest.raises(DataError, match=f"no folder {root / 'val'}"):
        image_folder(root, size=6)
    shutil.rmtree(root / "train")
    with pytest.raises(DataError, match=f"no folder {root / 'train'}"):
        image_folder(root, size=6)


def test_folders_without_classes_or_images_are_named(make_folder: MakeFolder) -> None:
    root = make_folder()
    (root / "train" / "class9").mkdir()
    with pytest.raises(DataError, match=f"{root / 'train' / 'class9'} has no images"):
        image_folder(root, size=6)
    shutil.rmtree(root / "train")
    (root / "train").mkdir()
    with pytest.raises(DataError, match=f"{root / 'train'} has no class folders"):
        image_folder(root, size=6)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_class_of_one_split_alone_is_named(make_folder: MakeFolder, part: str) -> None:
    root = make_folder()
    shutil.copytree(root / part / "class1", root / part / "class2")
    with pytest.raises(DataError, match="must have the same classes; only one of them has class2"):
        image_folder(root, size=6)


def test_damaged_images_are_named(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder(size=32)
    path = root / "test" / "class1" / "1.png"
    whole = path.read_bytes()
    for content in (b"not an image", whole[: len(whole) // 2], whole[:45]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"{path} cannot be decoded"):
            image_folder(root, size=32)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=f"{path} is empty"):
        image_folder(root, size=32)
    path.write_bytes(whole)
    # What was decoded before the damage was met is still there, and nothing half-written is.
    kept = cache_files(tmp_path)
    assert len(kept) == 1
    assert sorted((tmp_path / "cache").iterdir()) == sorted([kept[0], kept[0].with_suffix(".json")])
    image_folder(root, size=32)


def test_deep_images_are_refused(make_folder: MakeFolder) -> None:
    root = make_folder()
    path = root / "train" / "class0" / "0.png"
    Image.fromarray(np.full((6, 6), 1000, np.uint16)).save(path)
    with pytest.raises(DataError, match=f"{path} cannot be decoded .more than 8 bits"):
        image_folder(root, size=6)


def test_the_size_is_checked(make_folder: MakeFolder) -> None:
    with pytest.raises(DataError, match="at least 1 pixel, got 0"):
        image_folder(make_folder(), size=0)


def test_missing_pillow_tells_how_to_install_it(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder()
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(DataError, match=r'Pillow, which is not installed: pip install "bnn-edge\[data\]"'):
        image_folder(root, size=6)
