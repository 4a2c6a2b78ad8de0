"""The file: a header, a table of the tensors and their payloads. docs/model-file.md is its specification.

Nothing that the file says is believed before it has been checked, and nothing in it is executed.
"""

import hashlib
import itertools
import math
import os
import stat
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from bnn.codec import context
from bnn.codec.coding import DTYPES, MAX_LEVELS, Coding, Entry
from bnn.codec.errors import ChecksumError, CodecError, FormatError, LengthError, MagicError, VersionError

MAGIC = b"\x89BNNZ\r\n\n"
VERSION = 2
"""The version that is written. It differs from version 1 only in the names of a network's tensors."""
_READABLE = (1, VERSION)

# Magic, version, bytes of the table as stored and inflated, bytes of all payloads; then the SHA-256 of these fields
# and of all that follows it.
_HEADER = struct.Struct("<8sHIIQ")
_DIGEST_BYTES = 32
HEADER_BYTES = _HEADER.size + _DIGEST_BYTES

_MAX_TABLE_BYTES = 1 << 24
_MAX_DIMS = 8
_MAX_SIZE = 1 << 40


def write(path: Path, entries: Sequence[Entry]) -> int:
    """Writes a model file. What was there before stays until the new file is whole.

    Args:
        path: of the file; its folder exists.
        entries: of different names.

    Returns:
        Bytes of the file.

    Raises:
        CodecError: the file cannot be written.
    """
    content = to_bytes(entries)
    temporary = path.with_name(f".{path.name}.new")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise CodecError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return len(content)


def read(path: Path) -> list[Entry]:
    """Reads a model file without decoding its tensors.

    Raises:
        CodecError: the file is missing or cannot be read.
        MagicError: it is no model file.
        VersionError: it is of another version.
        LengthError: it is not as long as its header says.
        ChecksumError: it is damaged.
        FormatError: a field has a value that the format forbids.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            # Opening a named pipe would wait for its writer.
            raise CodecError("this cannot be read, it is not a regular file: name a model file")
        with path.open("rb") as file:
            # Of a file that is something else, however large, no more than the header is read.
            header = file.read(HEADER_BYTES)
            _check_header(header, os.fstat(file.fileno()).st_size)
            content = header + file.read()
        return from_bytes(content)
    except OSError as error:
        raise CodecError(f"{path} cannot be read: {error.strerror or error}") from None
    except CodecError as error:
        raise type(error)(f"{path}: {error}") from None


def version_of(path: Path) -> int:
    """Version of the format that a file is of, which `read` has read."""
    with path.open("rb") as file:
        return int(_HEADER.unpack(file.read(_HEADER.size))[1])


def to_bytes(entries: Sequence[Entry]) -> bytes:
    """The content of a file."""
    records = b"".join(map(_record, entries))
    table, payloads = zlib.compress(records, 9), b"".join(entry.payload for entry in entries)
    fields = _HEADER.pack(MAGIC, VERSION, len(table), len(records), len(payloads))
    return b"".join((fields, hashlib.sha256(fields + table + payloads).digest(), table, payloads))


def from_bytes(content: bytes) -> list[Entry]:
    """The entries of a file's content.

    Raises:
        CodecError: one of its subclasses, as `read`.
    """
    table_bytes, records_bytes = _check_header(content[:HEADER_BYTES], len(content))
    digest = hashlib.sha256(content[: _HEADER.size])
    digest.update(memoryview(content)[HEADER_BYTES:])
    if digest.digest() != content[_HEADER.size : HEADER_BYTES]:
        raise ChecksumError("the file is damaged, its SHA-256 is wrong: get it again")
    payloads = HEADER_BYTES + table_bytes
    return _Records(_inflate(content[HEADER_BYTES:payloads], records_bytes), content, payloads).entries()


def _check_header(header: bytes, file_bytes: int) -> tuple[int, int]:
    """Bytes of the table as stored and inflated."""
    if header[: len(MAGIC)] != MAGIC[: len(header)] or not header:
        raise MagicError("this is no model file: `bnn compress` writes them")
    if len(header) < HEADER_BYTES:
        raise LengthError(f"the file ends within its header, after {len(header)} bytes: get it again")
    _, version, table_bytes, records_bytes, payload_bytes = _HEADER.unpack_from(header)
    if version not in _READABLE:
        readable = " and ".join(map(str, _READABLE))
        raise VersionError(f"the file is of version {version}, this release reads versions {readable}: install another")
    stated = HEADER_BYTES + table_bytes + payload_bytes
    if stated != file_bytes:
        raise LengthError(f"the file should have {stated} bytes and has {file_bytes}: get it again")
    if records_bytes > _MAX_TABLE_BYTES:
        raise FormatError(f"a table takes up to {_MAX_TABLE_BYTES} bytes, not {records_bytes}")
    return table_bytes, records_bytes


def _inflate(table: bytes, size: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        records = stream.decompress(table, size + 1)
    except zlib.error as error:
        raise FormatError(f"the table is damaged: {error}") from None
    if len(records) != size or not stream.eof or stream.unused_data:
        raise FormatError("the table does not have the size that the header states")
    return records


def _record(entry: Entry) -> bytes:
    name = entry.name.encode()
    return b"".join(
        (
            struct.pack(f"<H{len(name)}s", len(name), name),
            struct.pack("<BBB", DTYPES.index(entry.dtype), entry.coding, len(entry.shape)),
            struct.pack(f"<{len(entry.shape)}I", *entry.shape),
            struct.pack(f"<H{len(entry.levels)}d", len(entry.levels), *entry.levels),
            struct.pack("<Q", len(entry.payload)),
        )
    )


class _Records:
    """Reads the records of a table, and the payloads from `payload_start` of the content on."""

    def __init__(self, records: bytes, content: bytes, payload_start: int) -> None:
        self._records, self._next = records, 0
        self._content, self._payload_start = content, payload_start

    def entries(self) -> list[Entry]:
        entries: dict[str, Entry] = {}
        while self._next < len(self._records):
            entry = self._entry()
            if entry.name in entries:
                raise FormatError(f"there are two tensors {entry.name!r}")
            entries[entry.name] = entry
        if self._payload_start != len(self._content):
            raise FormatError("there are bytes that belong to no tensor")
        return list(entries.values())

    def _take(self, layout: str) -> tuple[int, ...]:
        try:
            values = struct.unpack_from("<" + layout, self._records, self._next)
        except struct.error:
            raise FormatError("the table ends within a record") from None
        self._next += struct.calcsize("<" + layout)
        return values

    def _entry(self) -> Entry:
        name = self._name()
        dtype, coding, dims = self._take("BBB")
        if dtype >= len(DTYPES) or coding >= len(Coding):
            raise FormatError(f"{name!r} has dtype {dtype} and coding {coding}, which are not both known")
        if dims > _MAX_DIMS:
            raise FormatError(f"{name!r} has {dims} dimensions, above the limit of {_MAX_DIMS}")
        shape = self._take(f"{dims}I")
        if math.prod(shape) > _MAX_SIZE:
            raise FormatError(f"{name!r} has {math.prod(shape)} elements, above the limit of {_MAX_SIZE}")
        levels = self._levels(name, DTYPES[dtype], Coding(coding))
        (payload_bytes,) = self._take("Q")
        begin, self._payload_start = self._payload_start, self._payload_start + payload_bytes
        if self._payload_start > len(self._content):
            raise FormatError(f"the payload of {name!r} goes beyond the end of the file")
        payload = self._content[begin : self._payload_start]
        return Entry(name, shape, DTYPES[dtype], Coding(coding), levels, payload)

    def _name(self) -> str:
        (length,) = self._take("H")
        begin, self._next = self._next, self._next + length
        try:
            name = self._records[begin : self._next].decode()
        except UnicodeDecodeError:
            raise FormatError("a tensor's name is not UTF-8") from None
        # A name is printed: it must not be able to command a terminal.
        if not name or not name.isprintable():
            raise FormatError(f"{name!r} cannot be the name of a tensor")
        return name

    def _levels(self, name: str, dtype: torch.dtype, coding: Coding) -> tuple[float, ...]:
        (count,) = self._take("H")
        least, most = {
            Coding.RAW: (0, 0),
            Coding.DEFLATED: (0, 0),
            Coding.PACKED: (2, MAX_LEVELS),
            Coding.CONTEXT: (2, context.MAX_LEVELS),
        }[coding]
        if not least <= count <= most:
            raise FormatError(f"{name!r} cannot have {count} levels in the coding {coding.name.lower()}")
        levels = self._take(f"{count}d")
        ascending = all(low < high for low, high in itertools.pairwise(levels))
        if not ascending or not all(map(math.isfinite, levels)) or (levels and not dtype.is_floating_point):
            raise FormatError(f"the levels of {name!r} are not ascending numbers of a floating dtype")
        return levels
