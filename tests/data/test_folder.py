import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from bnn.data import Batches, folder, image_folder
from bnn.data.arrays import channel_statistics
from bnn.data.folder import labelled_images
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
    assert torch.equal(parts.train.images[:], whole.train.images[:])
    assert (parts.mean, parts.std) == (whole.mean, whole.std)


def test_images_are_decoded_once(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder()
    first = image_folder(root, size=6)
    monkeypatch.setattr(folder, "decode_image", lambda path, shape: pytest.fail("decoded again"))
    second = image_folder(root, size=6)
    assert torch.equal(first.train.images[:], second.train.images[:])
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
        pixels += [int(split.images[:].max()) for split in (dataset.train, dataset.test)]
    assert pixels == [0, 1, 2, 3]


def test_batches_of_a_set_in_a_file(make_folder: MakeFolder) -> None:
    dataset = image_folder(make_folder(), size=6)
    batches = Batches(dataset.train, batch_size=4, mean=dataset.mean, std=dataset.std, shuffle=True)
    ((images, labels),) = batches.epoch(0)
    assert images.shape == (4, 3, 6, 6)
    assert labels.shape == (4,)


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


def test_damaged_images_are_named_all_at_once(make_folder: MakeFolder) -> None:
    root = make_folder(size=32)
    paths = [root / part / "class1" / f"{number}.png" for part, number in (("train", 0), ("train", 2), ("test", 1))]
    whole = paths[0].read_bytes()
    contents = (b"", b"not an image", whole[: len(whole) // 2])
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    for _ in range(2):  # the second time from the cache
        with pytest.raises(DataError) as caught:
            image_folder(root, size=32)
        assert "2 of 6 pictures cannot be decoded" in str(caught.value)
        assert all(str(path) in str(caught.value) for path in paths[:2])
        assert "--skip-damaged" in str(caught.value)
    with pytest.warns(UserWarning, match=r"pictures cannot be decoded: .*they are left out"):
        dataset = image_folder(root, size=32, skip_damaged=True)
    assert (len(dataset.train), len(dataset.test)) == (4, 5)
    assert dataset.train.labels.tolist() == [0, 0, 0, 1]
    assert (dataset.mean, dataset.std) == channel_statistics(dataset.train[torch.arange(4)][0])
    for path in paths:
        path.write_bytes(whole)
    assert len(image_folder(root, size=32).train) == 6


@pytest.mark.filterwarnings("ignore:.*left out")
def test_a_link_to_nothing_is_a_damaged_image(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder()
    link = root / "train" / "class0" / "9.png"
    link.symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match=rf"1 of 7 pictures cannot be decoded: {link} \(No such file"):
        image_folder(root, size=6)
    assert len(image_folder(root, size=6, skip_damaged=True).train) == 6
    shutil.copy(root / "train" / "class0" / "0.png", tmp_path / "gone.png")
    assert len(image_folder(root, size=6).train) == 7
    (root / "test" / "class9").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=f"{root / 'test' / 'class9'} is a link to nothing: mend or delete it"):
        image_folder(root, size=6)


@pytest.mark.filterwarnings("ignore:.*left out")
def test_a_class_of_which_nothing_is_left_is_named(make_folder: MakeFolder) -> None:
    root = make_folder()
    for path in (root / "train" / "class1").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=f"no image of {root / 'train' / 'class1'} can be decoded"):
        image_folder(root, size=6, skip_damaged=True)


def flat(root: Path) -> Path:
    shutil.rmtree(root / "test")
    for place in (root / "train").iterdir():
        place.rename(root / place.name)
    (root / "train").rmdir()
    return root


@pytest.mark.parametrize("arrange", [flat, lambda root: shutil.rmtree(root / "test") or root])
def test_a_folder_that_is_not_divided_is_divided_by_seed_class_by_class(
    make_folder: MakeFolder, arrange: Callable[[Path], Path]
) -> None:
    root = arrange(make_folder(classes=3, images=8))
    dataset = image_folder(root, size=6, test_part=0.25, seed=1)
    assert dataset.train.labels.bincount().tolist() == [6, 6, 6]
    assert dataset.test.labels.bincount().tolist() == [2, 2, 2]
    pixels = {
        part: set(split[torch.arange(len(split))][0][:, 0, 0, 0].tolist())
        for part, split in (("train", dataset.train), ("test", dataset.test))
    }
    assert pixels["train"] | pixels["test"] == {20 * label + image for label in range(3) for image in range(8)}
    assert not pixels["train"] & pixels["test"]
    assert (dataset.mean, dataset.std) == channel_statistics(dataset.train[torch.arange(18)][0])
    again, other = (image_folder(root, size=6, test_part=0.25, seed=seed) for seed in (1, 2))
    assert torch.equal(again.test.rows, dataset.test.rows)
    assert not torch.equal(other.test.rows, dataset.test.rows)
    for part in (0.001, 0.999):
        dataset = image_folder(root, size=6, test_part=part)
        assert min(len(dataset.train), len(dataset.test)) == 3
    for part in (0.0, 1.0, -1.0):
        with pytest.raises(DataError, match="lies between 0 and 1"):
            image_folder(root, size=6, test_part=part)


def test_a_folder_with_a_part_for_testing_is_not_divided(make_folder: MakeFolder) -> None:
    root = make_folder()
    assert len(image_folder(root, size=6, test_part=0.5).train) == 6


def test_a_class_with_one_image_cannot_be_divided(make_folder: MakeFolder) -> None:
    root = flat(make_folder())
    for path in sorted((root / "class1").iterdir())[1:]:
        path.unlink()
    with pytest.raises(DataError, match=f"{root / 'class1'} has 1 image, which cannot be both"):
        image_folder(root, size=6, test_part=0.2)


def test_every_class_without_images_is_named_at_once(make_folder: MakeFolder) -> None:
    root = make_folder()
    for name in ("some", "other"):
        (root / "train" / name).mkdir()
    with pytest.raises(DataError, match=rf"{root}/train/other, {root}/train/some have no images"):
        image_folder(root, size=6)


def test_grey_images_have_one_channel(make_folder: MakeFolder) -> None:
    dataset = image_folder(make_folder(), size=6, channels=1)
    assert dataset.image_shape == (1, 6, 6)
    assert dataset.train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 20, 21, 22]
    with pytest.raises(DataError, match="1 channel or 3, not 2"):
        image_folder("pictures", size=6, channels=2)


def test_images_to_evaluate_on_are_those_for_testing_or_all(make_folder: MakeFolder) -> None:
    root = make_folder()
    for _ in range(2):
        split, names = labelled_images(root, image_shape=(3, 6, 6))
        assert names == ("class0", "class1")
        assert split.labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert split.images[:, 0, 0, 0].tolist() == [0, 1, 2, 20, 21, 22]
        if (root / "test").exists():
            flat(root)
    with pytest.raises(DataError, match="there is no folder"):
        labelled_images(root / "gone", image_shape=(3, 6, 6))


def test_the_size_is_checked(make_folder: MakeFolder) -> None:
    with pytest.raises(DataError, match="at least 1 pixel, got 0"):
        image_folder(make_folder(), size=0)


def test_missing_pillow_tells_how_to_install_it(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder()
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(DataError, match=r'Pillow, which is not installed: pip install "bnn-edge\[data\]"'):
        image_folder(root, size=6)
