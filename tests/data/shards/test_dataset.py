"""Pictures of shards as a data set: what is seen of them, when, and what becomes of damage."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from bnn import files
from bnn.data import Batches, hold_out
from bnn.data.shards import ShardImages, decoding, read_shards, sharded, write_shards
from bnn.errors import DataError


@pytest.fixture
def shards(photographs, tmp_path):
    return write_shards(photographs(), tmp_path / "out", shorter_side=32, images_per_shard=5)


def test_a_data_set_has_what_was_written(shards):
    data = sharded(shards.folder, size=16)
    assert (data.image_shape, data.classes, data.mean, data.std) == (
        (3, 16, 16),
        shards.classes,
        shards.mean,
        shards.std,
    )
    assert (len(data.train), len(data.test)) == (12, 4)
    assert data.train.labels.tolist() == 6 * [0] + 6 * [1]
    assert data.name == "out"


def test_images_are_the_centres(shards):
    images = ShardImages(shards, "train", size=28)
    row = int((torch.minimum(images._heights, images._widths) == 32).nonzero()[0])
    picture = np.asarray(Image.open(io.BytesIO(images.jpeg(row))))
    top, left = ((side - 28) // 2 for side in picture.shape[:2])
    expected = picture[top : top + 28, left : left + 28].transpose(2, 0, 1)
    assert torch.equal(images[row], torch.from_numpy(expected.copy()))


@pytest.mark.parametrize("index", [3, slice(2, 9, 2), [0, 11], torch.tensor([[1, 2]]), (slice(0, 2), 1)])
def test_indices_are_those_of_a_tensor(shards, index):
    images = ShardImages(shards, "train", size=8)
    assert torch.equal(images[index], images[:][index])


def test_pillow_gives_the_same_pictures(shards, monkeypatch):
    fast = ShardImages(shards, "train", size=12)[:].int()
    monkeypatch.setitem(__import__("sys").modules, "simplejpeg", None)
    assert decoding.decoder() is decoding._by_pillow
    slow = ShardImages(shards, "train", size=12)[:].int()
    assert int((fast - slow).abs().max()) <= 2


def batches(data, *, batch_size: int, epoch: int, first_batch: int = 0, shuffle: bool = True):
    made = Batches(data.train, batch_size=batch_size, mean=data.mean, std=data.std, seed=7, shuffle=shuffle)
    parts = list(made.epoch(epoch, first_batch=first_batch))
    return torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts])


def test_a_random_part_depends_on_seed_epoch_and_picture_alone(shards):
    data = sharded(shards.folder, size=16)
    images, labels = batches(data, batch_size=4, epoch=1)
    again, same_labels = batches(data, batch_size=6, epoch=1)
    assert torch.equal(images, again)
    assert torch.equal(labels, same_labels)
    resumed, _ = batches(data, batch_size=4, epoch=1, first_batch=2)
    assert torch.equal(resumed, images[8:])
    other, _ = batches(data, batch_size=4, epoch=2)
    centres, _ = batches(data, batch_size=4, epoch=1, shuffle=False)
    for changed in (other, centres):
        assert not torch.equal(images.flatten(1).sum(1).sort().values, changed.flatten(1).sum(1).sort().values)


def test_what_is_held_out_has_random_parts_too(shards):
    train, validation = hold_out(sharded(shards.folder, size=8).train, fraction=0.25, seed=0)
    assert (len(train), len(validation)) == (9, 3)
    drawn, labels = train.drawn(torch.tensor([0, 8]), torch.tensor([5, 2**61]))
    centres, same_labels = train[torch.tensor([0, 8])]
    assert torch.equal(labels, same_labels)
    assert not torch.equal(drawn, centres)


def test_a_flipped_bit_is_found_and_placed(shards):
    path = shards.folder / "train-00001.jpegs"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)
    images = ShardImages(shards, "train", size=8)
    with pytest.raises(DataError, match=r"the picture at byte \d+ of .*train-00001.jpegs is damaged: delete the file"):
        images[:]
    assert images[:5].shape == (5, 3, 8, 8)


def test_a_file_that_is_cut_short_later_is_an_error(shards):
    images = ShardImages(shards, "train", size=8)
    images[0]
    (shards.folder / "train-00000.jpegs").write_bytes(b"")
    with pytest.raises(DataError, match="is damaged"):
        images[1]


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("shards.json", lambda text: text.replace(b"32", b"33"), "shards.json is damaged"),
        ("shards.json", lambda text: b"[" * 100_000, "shards.json is damaged"),
        ("train-00000.json", lambda text: text.replace(b"0", b"1", 1), "the shard .*train-00000.jpegs is damaged"),
        ("train-00000.jpegs", lambda content: content + b"x", "its pictures' file has another length"),
    ],
)
def test_damaged_files_are_one_line(shards, name, change, words):
    path = shards.folder / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=words):
        sharded(shards.folder, size=8)


@pytest.mark.parametrize(
    ("name", "field", "value", "words"),
    [
        ("shards.json", "classes", "ab", "its classes are no list of names"),
        ("shards.json", "classes", [], "its classes are no list of names"),
        ("shards.json", "mean", [0.5], "its statistics are no numbers in 0..1 of three channels"),
        ("shards.json", "std", [math.nan, 0.2, 0.2], "its statistics are no numbers in 0..1"),
        ("train-00000.json", "heights", [1 << 31, 1, 1, 1, 1], "a picture has more than 268,435,456 pixels"),
    ],
)
def test_a_right_seal_does_not_make_values_right(shards, name, field, value, words):
    path = shards.folder / name
    fields = files.unsealed(path.read_bytes())
    path.write_bytes(files.sealed({**fields, field: value}))
    with pytest.raises(DataError, match=words):
        sharded(shards.folder)


def test_a_picture_that_claims_to_be_huge_is_not_decoded(shards):
    decode = decoding.decoder()
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "JPEG")
    jpeg = bytearray(content.getvalue())
    place = jpeg.index(b"\xff\xc0") + 5
    jpeg[place : place + 4] = 2 * b"\xea\x60"
    with pytest.raises(Exception, match=r"60000 x 60000 pixels|exceeds limit"):
        decode(bytes(jpeg))


def test_a_missing_shard_is_named(shards):
    (shards.folder / "test-00000.jpegs").unlink()
    with pytest.raises(DataError, match=r"test-00000\.jpegs cannot be read"):
        sharded(shards.folder, size=8)


def test_no_shards_are_told_how_to_make_them(tmp_path):
    with pytest.raises(DataError, match=r"there are no shards in .*: make them with `bnn data shard FOLDER -o"):
        read_shards(tmp_path)


def test_sizes_are_checked(shards):
    with pytest.raises(DataError, match="at least 1 pixel, got 0"):
        sharded(shards.folder, size=0)


def test_statistics_normalise(shards):
    data = sharded(shards.folder, size=16)
    images, _ = batches(data, batch_size=4, epoch=0, shuffle=False)
    assert math.isclose(float(images.mean()), 0, abs_tol=0.3)
