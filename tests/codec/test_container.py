"""The file: its bytes are those of the specification, and every way in which one can be wrong has its error."""

import errno
import hashlib
import os
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from bnn.codec.coding import Coding, Entry, decode, encode_discrete, encode_values
from bnn.codec.container import HEADER_BYTES, MAGIC, from_bytes, read, read_all, to_bytes, version_of, write
from bnn.codec.errors import ChecksumError, CodecError, FormatError, LengthError, MagicError, VersionError

ENTRIES = [
    encode_discrete("1.store.weight", torch.tensor([[1.0, -1.0, 1.0], [-1.0, -1.0, 1.0]])),
    encode_values("1.bias", torch.tensor([0.5, -2.0])),
    encode_discrete("2.store.weight", (torch.arange(4000.0) % 40 == 0).float()),
    encode_values("steps", torch.tensor(7)),
    encode_values("nothing", torch.zeros(0, 3, dtype=torch.bool)),
]


def sealed(
    records: bytes,
    payloads: bytes = b"",
    *,
    version: int = 3,
    table: bytes | None = None,
    stated_records: int | None = None,
    stated_payloads: int | None = None,
    description: bytes = b"",
    stored_description: bytes | None = None,
    stated_description: int | None = None,
) -> bytes:
    """A file written by hand from the specification, with the right checksum over whatever it says."""
    table = zlib.compress(records) if table is None else table
    stated_records = len(records) if stated_records is None else stated_records
    stated_payloads = len(payloads) if stated_payloads is None else stated_payloads
    if stored_description is None:
        stored_description = zlib.compress(description) if description else b""
    fields = b"\x89BNNZ\r\n\n" + struct.pack("<HIIQ", version, len(table), stated_records, stated_payloads)
    if version >= 3:
        size = len(description) if stated_description is None else stated_description
        fields += struct.pack("<II", len(stored_description), size)
    body = table + stored_description + payloads
    return fields + hashlib.sha256(fields + body).digest() + body


def record(
    name: bytes = b"w",
    *,
    dtype: int = 0,
    coding: int = 0,
    shape: tuple[int, ...] = (2,),
    levels: tuple[float, ...] = (),
    payload_bytes: int = 8,
) -> bytes:
    layout = f"<H{len(name)}sBBB{len(shape)}IH{len(levels)}dQ"
    return struct.pack(layout, len(name), name, dtype, coding, len(shape), *shape, len(levels), *levels, payload_bytes)


def test_a_file_written_by_hand_is_read():
    records = record(b"a.weight", coding=2, shape=(2, 3), levels=(-1.0, 1.0), payload_bytes=1)
    records += record(b"b", dtype=4, shape=(), payload_bytes=8)
    weight, number = from_bytes(sealed(records, bytes([0b100101]) + struct.pack("<q", -3)))
    assert decode(weight).tolist() == [[1, -1, 1], [-1, -1, 1]]
    assert (weight.name, weight.shape, weight.dtype) == ("a.weight", (2, 3), torch.float32)
    assert decode(number).item() == -3


def test_files_of_version_1_stay_readable(tmp_path):
    content = bytes.fromhex(Path(__file__).with_name("version-1.hex").read_text())
    path = tmp_path / "model.bnnz"
    path.write_bytes(content)
    assert version_of(path) == 1
    assert read(path) == from_bytes(content)
    weight, bias, sparse, steps, nothing = map(decode, from_bytes(content))
    assert weight.tolist() == [[1, -1, 1], [-1, -1, 1]]
    assert bias.tolist() == [0.5, -2]
    assert torch.equal(sparse, (torch.arange(4000.0) % 40 == 0).float())
    assert steps.item() == 7
    assert (nothing.shape, nothing.dtype) == ((0, 3), torch.bool)


def test_entries_come_back_and_the_size_is_what_is_said(tmp_path):
    path = tmp_path / "model.bnnz"
    for _ in range(2):  # the second time over the first
        assert write(path, ENTRIES) == path.stat().st_size
    assert version_of(path) == 3
    assert read(path) == ENTRIES
    write(path, ENTRIES, {"classes": ["a", "ü"]})
    assert read_all(path) == (ENTRIES, {"classes": ["a", "ü"]})
    with pytest.raises(CodecError, match="a model takes up to 1048576 bytes"):
        to_bytes(ENTRIES, {"text": "x" * (1 << 20)})
    assert list(tmp_path.iterdir()) == [path]
    assert {entry.coding for entry in ENTRIES} == {Coding.PACKED, Coding.RAW, Coding.CONTEXT}


def test_files_of_version_2_have_no_description(tmp_path):
    path = tmp_path / "model.bnnz"
    path.write_bytes(sealed(record(), bytes(8), version=2))
    assert version_of(path) == 2
    assert read_all(path) == ([encode_values("w", torch.zeros(2), quick=True)], {})


def test_no_entries_are_a_file_too():
    assert from_bytes(to_bytes([])) == []


def test_what_cannot_be_written_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.bnnz"
    write(path, ENTRIES)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(CodecError, match=r"model\.bnnz cannot be written: No space left on device: name a file"):
            write(path, ENTRIES[:1])
    assert read(path) == ENTRIES
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(CodecError, match="cannot be written"):
        write(tmp_path / "missing" / "model.bnnz", ENTRIES)
    (tmp_path / "folder").mkdir()
    with pytest.raises(CodecError, match="folder cannot be written"):
        write(tmp_path / "folder", ENTRIES)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "folder", path]


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(CodecError, match=r"none\.bnnz cannot be read: No such file"):
        read(tmp_path / "none.bnnz")


def test_what_is_no_file_is_not_waited_for(tmp_path):
    with pytest.raises(CodecError, match="cannot be read: Is a directory"):
        read(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(CodecError, match="not a regular file"):
            read(tmp_path / "pipe")


CONTENT = to_bytes(ENTRIES)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"", MagicError, "no model file"),
        (b"PK\x03\x04" + bytes(100), MagicError, "no model file"),
        (CONTENT[1:], MagicError, "no model file"),
        (MAGIC[:5], LengthError, "ends within its header"),
        (CONTENT[: HEADER_BYTES - 1], LengthError, "ends within its header, after 65 bytes"),
        (CONTENT[:50], LengthError, "ends within its header, after 50 bytes"),
        (CONTENT[:-1], LengthError, rf"should have {len(CONTENT)} bytes and has {len(CONTENT) - 1}"),
        (CONTENT + b"\0", LengthError, "should have"),
        (sealed(b"", version=4), VersionError, "is of version 4, this release reads versions 1, 2, 3"),
        (sealed(b"", version=0), VersionError, "is of version 0, this release reads versions 1, 2, 3"),
        (CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]), ChecksumError, "SHA-256 is wrong"),
        (sealed(b"", stated_payloads=1 << 62), LengthError, "should have"),
    ],
)
def test_files_that_are_none_are_told_apart(content, error, message, tmp_path):
    with pytest.raises(error, match=message):
        from_bytes(content)
    path = tmp_path / "model.bnnz"
    path.write_bytes(content)
    with pytest.raises(error, match=rf"^\S*model\.bnnz: .*{message}"):
        read(path)


def test_every_flipped_bit_is_found():
    content = to_bytes(ENTRIES[:2])
    for place in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        # Two of the bits make version 3 to an earlier one, whose header is shorter.
        expected = MagicError if place < 64 else VersionError if 65 < place < 80 else CodecError
        with pytest.raises(expected):
            from_bytes(bytes(damaged))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (sealed(b"", stated_records=1 << 25), "a table takes up to"),
        (sealed(b"", table=b"nonsense"), "the table is damaged"),
        (sealed(b"", stored_description=b"nonsense", stated_description=9), "the description is damaged"),
        (sealed(b"", description=b"{}", stated_description=1 << 21), "a description takes up to"),
        (sealed(b"", description=b"{}", stated_description=1), "the description does not have the size"),
        (sealed(b"", stated_description=1), "the description does not have the size"),
        (sealed(b"", description=b"{"), "the description is damaged"),
        (sealed(b"", description=b"\xff"), "the description is damaged"),
        (sealed(b"", description=b'{"a": NaN}'), "NaN is no number"),
        (sealed(b"", description=b'{"a": -Infinity}'), "-Infinity is no number"),
        (sealed(b"", description=b"[]"), "the description is no JSON object"),
        (sealed(b"", description=b"[" * 100_000), "the description is damaged"),
        (sealed(record(), bytes(8), stated_records=9), "does not have the size"),
        (sealed(record(), bytes(8), stated_records=99), "does not have the size"),
        (sealed(record(), bytes(8), table=zlib.compress(record())[:-1]), "does not have the size"),
        (sealed(record(), bytes(8), table=zlib.compress(record()) + b"\0"), "does not have the size"),
        (sealed(record()[:-1], bytes(8)), "ends within a record"),
        (sealed(record() + b"\0", bytes(8)), "ends within a record"),
        (sealed(record() + record(), bytes(16)), "there are two tensors 'w'"),
        (sealed(record(), bytes(9)), "belong to no tensor"),
        (sealed(record(payload_bytes=9), bytes(8)), "goes beyond the end"),
        (sealed(record(payload_bytes=1 << 63), bytes(8)), "goes beyond the end"),
        (sealed(record(b"\xff"), bytes(8)), "not UTF-8"),
        (sealed(record(b""), bytes(8)), "cannot be the name"),
        (sealed(record(b"\x1b[2J"), bytes(8)), "cannot be the name"),
        (sealed(struct.pack("<H", 60000) + record()[2:], bytes(8)), "ends within a record|cannot be the name|UTF-8"),
        (sealed(record(dtype=10), bytes(8)), "has dtype 10"),
        (sealed(record(coding=4), bytes(8)), "coding 4"),
        (sealed(record(shape=(1,) * 9), bytes(8)), "has 9 dimensions"),
        (sealed(record(shape=(2**32 - 1,) * 8), bytes(8)), "elements, above the limit"),
        (sealed(record(shape=(1 << 20, 1 << 21)), bytes(8)), "elements, above the limit"),
        (sealed(record(levels=(1.0, 2.0)), bytes(8)), "cannot have 2 levels in the coding raw"),
        (sealed(record(coding=1, levels=(1.0,)), bytes(8)), "cannot have 1 levels in the coding deflated"),
        (sealed(record(coding=2), bytes(8)), "cannot have 0 levels in the coding packed"),
        (sealed(record(coding=2, levels=(1.0,)), bytes(8)), "cannot have 1 levels in the coding packed"),
        (sealed(record(coding=2, levels=tuple(map(float, range(257)))), bytes(8)), "cannot have 257 levels"),
        (sealed(record(coding=3, levels=tuple(map(float, range(17)))), bytes(8)), "cannot have 17 levels"),
        (sealed(record(coding=2, levels=(1.0, 1.0)), bytes(8)), "not ascending"),
        (sealed(record(coding=2, levels=(1.0, float("nan"))), bytes(8)), "not ascending"),
        (sealed(record(coding=2, levels=(1.0, float("inf"))), bytes(8)), "not ascending"),
        (sealed(record(coding=2, dtype=4, levels=(1.0, 2.0)), bytes(8)), "not ascending numbers of a floating dtype"),
    ],
)
def test_fields_that_lie_are_refused_though_the_checksum_is_right(content, message):
    with pytest.raises(FormatError, match=message):
        from_bytes(content)


def test_an_entry_knows_its_size_without_decoding():
    entry = Entry("x", (1 << 20, 1 << 20), torch.float64, Coding.RAW, (), b"")
    assert (entry.size, entry.decoded_bytes) == (1 << 40, 1 << 43)


@contextmanager
def memory_below(limit_bytes: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit_bytes
    finally:
        tracemalloc.stop()


def test_of_a_file_that_is_something_else_only_the_header_is_read(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(1 << 28)
    with memory_below(1 << 20), pytest.raises(MagicError):
        read(path)
    with path.open("r+b") as file:
        file.write(CONTENT[:HEADER_BYTES])
    with memory_below(1 << 20), pytest.raises(LengthError):
        read(path)


def test_a_table_is_not_inflated_beyond_the_size_that_it_states():
    content = sealed(b"", table=zlib.compress(bytes(1 << 26)), stated_records=100)
    with memory_below(1 << 22), pytest.raises(FormatError, match="does not have the size"):
        from_bytes(content)
