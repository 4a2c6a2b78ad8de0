"""Shards are made once, whole or not at all, of what can be decoded."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bnn.data.shards import read_shards, write_shards, writing
from bnn.data.shards.dataset import ShardImages
from bnn.errors import DataError


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def pictures(folder: Path, part: str = "train") -> list[Image.Image]:
    images = ShardImages(read_shards(folder), part, size=8)
    return [Image.open(io.BytesIO(images.jpeg(row))) for row in range(len(images))]


@pytest.mark.parametrize("test", ["test", "val"])
def test_every_picture_is_there_with_its_label(photographs, tmp_path, test):
    shards = write_shards(photographs(test=test), tmp_path / "out", shorter_side=32, images_per_shard=5)
    assert (shards.classes, dict(shards.counts), shards.damaged) == (("class0", "class1"), {"train": 3, "test": 1}, 0)
    _, index, shard_of = shards.index("train")
    assert index.labels.tolist() == 6 * [0] + 6 * [1]
    assert shard_of.tolist() == 5 * [0] + 5 * [1] + 2 * [2]
    sizes = [(picture.height, picture.width) for picture in pictures(tmp_path / "out")]
    assert sizes == list(zip(index.heights.tolist(), index.widths.tolist(), strict=True))
    assert max(min(size) for size in sizes) == 32


def test_small_jpegs_are_taken_to_the_byte(photographs, tmp_path):
    root = photographs()
    write_shards(root, tmp_path / "out", shorter_side=100)
    images = ShardImages(read_shards(tmp_path / "out"), "train", size=8)
    files = sorted((root / "train").glob("*/*"))
    same = [images.jpeg(row) == file.read_bytes() for row, file in enumerate(files)]
    assert same == [file.suffix == ".jpg" for file in files]


def test_large_ones_become_smaller_and_keep_their_proportions(photographs, tmp_path):
    root = photographs()
    Image.new("RGB", (300, 100), "teal").save(root / "train" / "class0" / "0.jpg")
    write_shards(root, tmp_path / "out", shorter_side=50)
    assert pictures(tmp_path / "out")[0].size == (150, 50)


def test_pictures_are_upright(photographs, tmp_path):
    root = photographs()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (40, 20), "teal").save(root / "train" / "class0" / "0.jpg", exif=exif)
    write_shards(root, tmp_path / "out", shorter_side=100)
    assert pictures(tmp_path / "out")[0].size == (20, 40)


def test_statistics_are_those_of_the_training_pixels(photographs, tmp_path):
    shards = write_shards(photographs(), tmp_path / "out", shorter_side=100)
    pixels = np.concatenate([np.asarray(picture).reshape(-1, 3) for picture in pictures(tmp_path / "out")]) / 255
    # Those of PNG files are counted before they become JPEG.
    np.testing.assert_allclose(shards.mean, pixels.mean(0), atol=2e-3)
    np.testing.assert_allclose(shards.std, pixels.std(0), atol=2e-3)


def test_a_pass_that_was_broken_off_goes_on(photographs, tmp_path, monkeypatch):
    root = photographs()
    whole = write_shards(root, tmp_path / "whole", shorter_side=32, images_per_shard=3).folder

    class Killed(BaseException):
        pass

    def killed(done: int, total: int) -> None:
        if done > 6:
            raise Killed

    with pytest.raises(Killed):
        write_shards(root, tmp_path / "out", shorter_side=32, images_per_shard=3, progress=killed)
    with pytest.raises(DataError, match="are not complete: make them with the same `bnn data shard` again"):
        read_shards(tmp_path / "out")
    encoded: list[Path] = []
    encode = writing._encoded
    monkeypatch.setattr(writing, "_encoded", lambda path, side: encoded.append(path) or encode(path, side))
    write_shards(root, tmp_path / "out", shorter_side=32, images_per_shard=3)
    assert len(encoded) == 16 - 9
    assert content(tmp_path / "out") == content(whole)


def test_a_damaged_shard_is_made_anew(photographs, tmp_path):
    out = write_shards(photographs(), tmp_path / "out", shorter_side=32, images_per_shard=3).folder
    before = content(out)
    (out / "train-00001.json").write_bytes(before["train-00001.json"].replace(b"1", b"2", 1))
    (out / "train-00002.jpegs").write_bytes(before["train-00002.jpegs"][:-1])
    write_shards(tmp_path / "photographs", out, shorter_side=32, images_per_shard=3)
    assert content(out) == before


def test_damaged_pictures_are_named_and_left_out_on_demand(photographs, tmp_path):
    root = photographs()
    for name in ("000.png", "004.jpg"):
        (root / "train" / "class0" / name).write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"2 of 16 pictures cannot be decoded: .*000\.png .*004\.jpg .*--skip-damaged"):
        write_shards(root, tmp_path / "out", shorter_side=32)
    with pytest.warns(UserWarning, match="2 of 16 pictures cannot be decoded"):
        shards = write_shards(root, tmp_path / "out", shorter_side=32, skip_damaged=True)
    assert shards.damaged == 2
    assert shards.index("train")[1].labels.tolist() == 4 * [0] + 6 * [1]


def test_a_class_without_a_picture_left_is_named(photographs, tmp_path):
    root = photographs()
    for path in (root / "val" / "class1").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"no image of .*class1 can be decoded"):
        write_shards(root, tmp_path / "out", shorter_side=32, skip_damaged=True)


def test_what_a_kill_has_left_of_the_first_file_is_no_obstacle(photographs, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".bnn-0123456789abcdef.new").write_bytes(b"half")
    write_shards(photographs(), tmp_path / "out", shorter_side=8)
    assert not list((tmp_path / "out").glob(".*"))


def test_what_does_not_fit_is_refused(photographs, tmp_path):
    root = photographs()
    with pytest.raises(DataError, match="at least 8 pixels, got 7"):
        write_shards(root, tmp_path / "out", shorter_side=7)
    write_shards(root, tmp_path / "out", shorter_side=32)
    with pytest.raises(DataError, match="of another size: delete it or choose another folder"):
        write_shards(root, tmp_path / "out", shorter_side=33)
    (root / "train" / "class0" / "new.png").write_bytes((root / "train" / "class0" / "000.png").read_bytes())
    with pytest.raises(DataError, match="has shards of other pictures"):
        write_shards(root, tmp_path / "out", shorter_side=32)
    with pytest.raises(DataError, match="is not empty, and holds no shards"):
        write_shards(root, root)
    (root / "val" / "class2").mkdir()
    (root / "val" / "class2" / "a.png").write_bytes((root / "train" / "class0" / "000.png").read_bytes())
    with pytest.raises(DataError, match="must have the same classes; only one of them has class2"):
        write_shards(root, tmp_path / "other")
