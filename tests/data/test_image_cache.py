import json
import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from bnn.data import image_cache
from bnn.data.arrays import channel_statistics
from bnn.data.image_cache import cached_images, default_cache_dir
from bnn.errors import DataError
from bnn.files import sealed
from tests.copies import run_in_a_copy

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


def test_written_once(path: Path) -> None:
    decode = Decoder()
    for _ in range(2):
        cached = cached_images(path, SHAPE, decode)
        assert torch.equal(cached.images[:], torch.from_numpy(PIXELS))
        assert (cached.mean, cached.std) == channel_statistics(torch.from_numpy(PIXELS))
    assert decode.calls == 1
    assert np.array_equal(np.load(path, allow_pickle=False), PIXELS)
    assert sorted(path.parent.iterdir()) == [path.with_suffix(".json"), path]


def test_images_are_indexed_as_a_tensor_is(path: Path) -> None:
    images, expected = cached_images(path, SHAPE, Decoder()).images, torch.from_numpy(PIXELS)
    assert (images.shape, images.dtype, images.ndim, len(images)) == (expected.shape, expected.dtype, 4, 10)
    rows = torch.tensor([7, 0, 7, 3])
    for index in (
        rows,
        slice(2, 5),
        slice(None),
        4,
        -1,
        (slice(None), 0, 1, 2),
        (3, 0),
        (rows, 2),
        rows[:0],
        expected[:, 0, 0, 0] > 9,
    ):
        assert torch.equal(images[index], expected[index])
    with pytest.raises(IndexError):
        images[10]


def test_no_image_lies_in_memory_that_is_mapped(path: Path) -> None:
    images = cached_images(path, SHAPE, Decoder()).images
    mapped = Path("/proc/self/maps")
    assert len(images[:]) == 10
    assert not mapped.exists() or str(path) not in mapped.read_text()


def test_a_file_that_is_cut_short_while_it_is_used_is_an_error_and_made_anew(path: Path) -> None:
    images = cached_images(path, SHAPE, Decoder()).images
    os.truncate(path, path.stat().st_size - 1)
    assert torch.equal(images[:9], torch.from_numpy(PIXELS[:9]))
    with pytest.raises(DataError, match=f"^the image cache {path} has been cut short: go on, and it is made anew$"):
        images[9]
    decode = Decoder()
    assert torch.equal(cached_images(path, SHAPE, decode).images[:], torch.from_numpy(PIXELS))
    assert decode.calls == 1


def test_a_file_that_takes_the_name_does_not_change_what_is_open(path: Path) -> None:
    images = cached_images(path, SHAPE, Decoder()).images
    (path.parent / "other").write_bytes(b"x")
    os.replace(path.parent / "other", path)
    assert torch.equal(images[:], torch.from_numpy(PIXELS))


def test_what_a_kill_leaves_goes_with_the_next_run(path: Path) -> None:
    killed = f"""
import os, signal
from pathlib import Path
import numpy as np
from bnn.data.image_cache import cached_images

def decode(damaged):
    yield np.zeros((5, 3, 4, 4), np.uint8)
    os.kill(os.getpid(), signal.SIGKILL)

cached_images(Path({str(path)!r}), {SHAPE}, decode)
"""
    assert run_in_a_copy(killed) == (-signal.SIGKILL, "")
    assert len(list(path.parent.iterdir())) == 1
    cached_images(path, SHAPE, Decoder())
    assert sorted(path.parent.iterdir()) == [path.with_suffix(".json"), path]


def test_another_process_that_writes_is_left_alone(path: Path) -> None:
    def decode(damaged: dict[int, str]) -> Iterator[np.ndarray]:
        cached_images(path.with_name("others.npy"), SHAPE, Decoder())
        yield PIXELS

    assert torch.equal(cached_images(path, SHAPE, decode).images[:], torch.from_numpy(PIXELS))


@pytest.mark.parametrize("change", [("0.4", "0.5"), ('"std":[0.', '"std":[1.'), ('"damaged":{}', '"damaged":{"1":""}')])
def test_changed_statistics_are_found(path: Path, change: tuple[str, str]) -> None:
    before = cached_images(path, SHAPE, Decoder())
    facts = path.with_suffix(".json").read_text()
    assert facts.replace(*change) != facts
    path.with_suffix(".json").write_text(facts.replace(*change))
    decode = Decoder()
    after = cached_images(path, SHAPE, decode)
    assert (after.mean, after.std, after.damaged) == (before.mean, before.std, {})
    assert decode.calls == 1


def test_what_is_no_file_is_not_waited_for(path: Path) -> None:
    cached_images(path, SHAPE, Decoder())
    for taken in (path.with_suffix(".json"), path):
        taken.unlink()
        os.mkfifo(taken)
        if taken != path:
            cached_images(path, SHAPE, Decoder())
    with pytest.raises(DataError, match=r"cannot write the image cache .*it is not a regular file"):
        cached_images(path, SHAPE, Decoder())


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
    assert torch.equal(cached_images(path, SHAPE, decode).images[:], torch.from_numpy(PIXELS))
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
        del facts["sha256"]
        path.with_suffix(".json").write_bytes(sealed({**facts, "crc32": image_cache._crc32(path)}))
        decode = Decoder()
        assert torch.equal(cached_images(path, SHAPE, decode).images[:], torch.from_numpy(PIXELS))
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
