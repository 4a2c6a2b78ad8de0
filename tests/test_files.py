"""Files that may be anything are read within bounds, and written whole or not at all."""

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn.files import parse_json, read_bytes, read_json, remove_left_behind, replacing, sealed, unsealed

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(path.name)


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("make", [make_pipe, make_socket, make_device, Path.mkdir])
def test_what_is_no_regular_file_is_neither_waited_for_nor_replaced(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file"
    make(path)
    with pytest.raises(OSError, match=r"regular file|Is a directory"):
        read_bytes(path, limit_bytes=100)
    before = path.lstat().st_ino
    with pytest.raises(OSError, match=r"regular file|Is a directory"), replacing(path) as file:
        file.write(b"new")
    assert path.lstat().st_ino == before
    assert list(tmp_path.iterdir()) == [path]


def test_no_more_than_the_limit_is_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bytes(path, limit_bytes=5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_bytes(path, limit_bytes=4)
    os.truncate(path, 3 << 30)  # it takes no place on the disk
    with pytest.raises(OSError, match="more than 1000 bytes"):
        read_json(path, limit_bytes=1000)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[" * 100_000, b'{"a":' * 100_000, b"[" * 257 + b"]" * 257, b"\xff\xfe", b'"\xff"', b"1" * 10_000],
)
def test_what_is_no_json_is_one_line(content):
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        parse_json(content)


def test_what_json_may_be():
    assert parse_json(b"[" * 256 + b"]" * 256) != []
    assert str(parse_json(b"[NaN, -Infinity]")) == "[nan, -inf]"
    with pytest.raises(ValueError, match="NaN is no number of JSON"):
        parse_json(b"[NaN]", finite=True)


@settings(max_examples=50)
@given(st.dictionaries(st.text().filter(lambda key: key != "sha256"), VALUES), st.data())
def test_a_seal_finds_every_change(fields, data):
    content = sealed(fields)
    assert unsealed(content) == fields
    place, bit = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 7))
    changed = bytearray(content)
    changed[place] ^= 1 << bit
    for damaged in (bytes(changed), content[:place]):
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            unsealed(damaged)


def test_what_could_not_be_read_is_not_sealed():
    deep: list[object] = []
    for _ in range(300):
        deep = [deep]
    with pytest.raises(ValueError, match="nested more than 256 deep"):
        sealed({"deep": deep})


def test_the_new_file_takes_the_place_of_the_old_one_and_its_rights_are_ordinary(tmp_path):
    path = tmp_path / "file"
    for content in (b"old", b"new"):
        with replacing(path) as file:
            file.write(content)
        assert path.read_bytes() == content
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert sorted(tmp_path.iterdir()) == [path, tmp_path / "plain"]


def test_a_link_is_replaced_and_what_it_names_is_left_alone(tmp_path):
    (tmp_path / "theirs").write_bytes(b"theirs")
    path = tmp_path / "file"
    path.symlink_to("theirs")
    with replacing(path) as file:
        file.write(b"ours")
    assert (path.read_bytes(), (tmp_path / "theirs").read_bytes()) == (b"ours", b"theirs")
    assert not path.is_symlink()


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(step, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space left"), replacing(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_kill_leaves_goes_with_the_next_write_and_a_living_writer_s_file_stays(tmp_path):
    path = tmp_path / "file"
    killed = f"""
import os, signal
from pathlib import Path
from bnn.files import replacing
with replacing(Path({str(path)!r})) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", killed]).returncode == -9
    (left,) = tmp_path.iterdir()
    with replacing(path) as file:
        assert not left.exists()
        remove_left_behind(tmp_path)
        file.write(b"whole")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"whole"
