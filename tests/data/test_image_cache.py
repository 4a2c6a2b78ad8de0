import json
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from bnn.data import image_cache
from bnn.data.arrays import channel_statistics
from bnn.data.image_cache import cached_images, default_cache_dir
from bnn.errors import DataError

SHAPE = (10, 3, 4, 4)
PIXELS = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)


class Decoder:
    """Yields the pixels in three chunks and counts how often it was asked to."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, damaged: dict[int, str]) -> Iterator[np.ndarray]:
        self.calls += 1
        yield from np.array_split(PIXELS, 3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "folder" / "images.npy"


def test_written_once_and_mapped(path: Path) -> None:
    decode = Decoder()
    for _ in range(2):
        cached = cached_images(path, SHAPE, decode)
        assert torch.equal(cached.images, torch.from_numpy(PIXELS))
        assert (cached.mean, cached.std) == channel_statistics(torch.from_numpy(PIXELS))
    assert decode.calls == 1
    assert np.array_equal(np.load(path, allow_pickle=False), PIXELS)
    assert sorted(path.parent.iterdir()) == [path.with_suffix(".json"), path]
    mapped = Path("/proc/self/maps")
    assert not mapped.exists() or str(path) in mapped.read_text()


def damage_header(content: bytes) -> bytes:
    return b"\x00" + content[1:]


def damage_pixel(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


DAMAGE: list[Callable[[bytes], bytes]] = [
    damage_header,
    damage_pixel,
    lambda content: content[:-1],
    lambda content: content[:100],
    lambda content: b"",
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_rebuilt(path: Path, damage: Callable[[bytes], bytes]) -> None:
    cached_images(path, SHAPE, Decoder())
    path.write_bytes(damage(path.read_bytes()))
    decode = Decoder()
    assert torch.equal(cached_images(path, SHAPE, decode).images, torch.from_numpy(PIXELS))
    assert decode.calls == 1


@pytest.mark.parametrize("content", ["", "[]", "{", "{}", '{"mean": 1, "std": 2, "crc32": 3}'])
def test_damaged_facts_are_rebuilt(path: Path, content: str) -> None:
    cached_images(path, SHAPE, Decoder())
    path.with_suffix(".json").write_text(content)
    decode = Decoder()
    cached = cached_images(path, SHAPE, decode)
    assert decode.calls == 1
    assert (cached.mean, cached.std) == channel_statistics(torch.from_numpy(PIXELS))
    assert cached.damaged == {}


def test_files_of_another_shape_or_type_are_rebuilt(path: Path) -> None:
    for other in (PIXELS[:9], PIXELS.astype(np.int8)):
        cached_images(path, SHAPE, Decoder())
        np.save(path, other)
        facts = json.loads(path.with_suffix(".json").read_text())
        path.with_suffix(".json").write_text(json.dumps({**facts, "crc32": image_cache._crc32(path)}))
        decode = Decoder()
        assert torch.equal(cached_images(path, SHAPE, decode).images, torch.from_numpy(PIXELS))
        assert decode.calls == 1


def test_the_length_of_a_large_file_is_still_checked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_cache, "_CHECKSUM_BYTES", PIXELS.nbytes - 1)
    cached_images(path, SHAPE, Decoder())
    path.write_bytes(damage_pixel(path.read_bytes()))
    unread = Decoder()
    cached_images(path, SHAPE, unread)
    assert unread.calls == 0
    path.write_bytes(path.read_bytes()[:-1])
    decode = Decoder()
    cached_images(path, SHAPE, decode)
    assert decode.calls == 1


def test_images_that_cannot_be_decoded_are_kept_with_the_reason_and_left_out_of_the_statistics(path: Path) -> None:
    def decode(damaged: dict[int, str]) -> Iterator[np.ndarray]:
        damaged[3] = "cut short"
        yield np.where(np.arange(10)[:, None, None, None] == 3, 0, PIXELS).astype(np.uint8)

    for cached in (cached_images(path, SHAPE, decode), cached_images(path, SHAPE, Decoder())):
        assert cached.damaged == {3: "cut short"}
        assert (cached.mean, cached.std) == channel_statistics(torch.from_numpy(np.delete(PIXELS, 3, axis=0)))


def test_an_error_while_decoding_leaves_nothing_behind(path: Path) -> None:
    def decode(damaged: dict[int, str]) -> Iterator[np.ndarray]:
        yield PIXELS[:5]
        raise DataError("a damaged image")

    with pytest.raises(DataError, match="a damaged image"):
        cached_images(path, SHAPE, decode)
    assert list(path.parent.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "images.npy"
    with pytest.raises(DataError, match=f"cannot write the image cache in {path.parent} .*set BNN_CACHE"):
        cached_images(path, SHAPE, Decoder())


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write to every folder")
def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match=rf"cannot write the image cache in {tmp_path} \(Permission denied\)"):
        cached_images(tmp_path / "images.npy", SHAPE, Decoder())


def test_a_full_disk_is_told_and_leaves_nothing_behind(path: Path) -> None:
    # A limit on the size of files fails the same write as a full disk does.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
    try:
        with pytest.raises(DataError, match=f"cannot write the image cache in {path.parent} .*0 MB free"):
            cached_images(path, SHAPE, Decoder())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(path.parent.iterdir()) == []


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNN_CACHE", "/somewhere")
    assert default_cache_dir() == Path("/somewhere")
    monkeypatch.setenv("BNN_CACHE", "")
    assert default_cache_dir() == Path.home() / ".cache" / "bnn-edge"
