"""The file: a header, a table of the tensors, a description and the tensors' payloads.

docs/model-file.md is its specification.

Nothing that the file says is believed before it has been checked, and nothing in it is executed.
"""

import hashlib
import itertools
import json
import math
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bnn import files
from bnn.codec import context
from bnn.codec.coding import DTYPES, MAX_LEVELS, Coding, Entry
from bnn.codec.errors import ChecksumError, CodecError, FormatError, LengthError, MagicError, VersionError

MAGIC = b"\x89BNNZ\r\n\n"
VERSION = 3
"""The version that is written. Version 2 has no description; version 1 had other names of a network's tensors."""
_READABLE = (1, 2, VERSION)

# Magic, version, bytes of the table as stored and inflated, bytes of all payloads; from version 3 on, bytes of the
# description as stored and inflated; then the SHA-256 of these fields and of all that follows it.
_FIELDS = struct.Struct("<8sHIIQ")
_DESCRIPTION = struct.Struct("<II")
_DIGEST_BYTES = 32
HEADER_BYTES = _FIELDS.size + _DESCRIPTION.size + _DIGEST_BYTES

_MAX_TABLE_BYTES = 1 << 24
_MAX_DESCRIPTION_BYTES = 1 << 20
# Names, shapes and values of one tensor take more, so that only empty ones are ever too many.
_LEAST_TENSOR_BYTES = 4
_FEW_TENSORS = 1024
_MAX_DIMS = 8
_MAX_SIZE = 1 << 40


@dataclass(frozen=True)
class _Header:
    """The sizes of a file's parts, in bytes."""

    version: int
    table: int
    """As stored."""
    records: int
    """The table, inflated."""
    payloads: int
    stored_description: int
    description: int
    """Inflated."""

    @property
    def digest_start(self) -> int:
        """Where the SHA-256 begins."""
        return _FIELDS.size + (_DESCRIPTION.size if self.version >= 3 else 0)

    @property
    def table_start(self) -> int:
        """Where the header ends."""
        return self.digest_start + _DIGEST_BYTES


def write(path: Path, entries: Sequence[Entry], description: Mapping[str, Any] | None = None) -> int:
    """Writes a model file. What was there before stays until the new file is whole.

    Args:
        path: of the file; its folder exists.
        entries: of different names.
        description: JSON values about the model; None for none.

    Returns:
        Bytes of the file.

    Raises:
        CodecError: the file cannot be written.
    """
    content = to_bytes(entries, description)
    try:
        with files.replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise CodecError(f"{path} cannot be written: {error.strerror or error}: name a file in another place") from None
    return len(content)


def read(path: Path) -> list[Entry]:
    """The entries of a model file, without decoding them; raises as `read_all`."""
    return read_all(path)[0]


def read_all(path: Path) -> tuple[list[Entry], dict[str, Any]]:
    """Reads a model file without decoding its tensors.

    Returns:
        Its entries and its description, which is empty where there is none; it holds JSON values of any kind.

    Raises:
        CodecError: the file is missing or cannot be read.
        MagicError: it is no model file.
        VersionError: it is of another version.
        LengthError: it is not as long as its header says.
        ChecksumError: it is damaged.
        FormatError: a field has a value that the format forbids.
    """
    try:
        with files.open_regular(path) as file:
            # Of a file that is something else, however large, no more than the header is read.
            header = file.read(HEADER_BYTES)
            _check_header(header, os.fstat(file.fileno()).st_size)
            content = header + file.read()
        return parsed(content)
    except OSError as error:
        raise CodecError(f"{path} cannot be read: {error.strerror or error}: name a model file") from None
    except CodecError as error:
        raise type(error)(f"{path}: {error}") from None


def version_of(path: Path) -> int:
    """Version of the format that a file is of, which `read` has read."""
    with path.open("rb") as file:
        return int(_FIELDS.unpack(file.read(_FIELDS.size))[1])


def to_bytes(entries: Sequence[Entry], description: Mapping[str, Any] | None = None) -> bytes:
    """The content of a file.

    Raises:
        CodecError: the description is too long.
    """
    records = b"".join(map(_record, entries))
    table, payloads = zlib.compress(records, 9), b"".join(entry.payload for entry in entries)
    text = json.dumps(description, separators=(",", ":"), allow_nan=False).encode() if description else b""
    if len(text) > _MAX_DESCRIPTION_BYTES:
        raise CodecError(f"the description of a model takes up to {_MAX_DESCRIPTION_BYTES} bytes, not {len(text)}")
    stored = zlib.compress(text, 9) if text else b""
    fields = _FIELDS.pack(MAGIC, VERSION, len(table), len(records), len(payloads))
    fields += _DESCRIPTION.pack(len(stored), len(text))
    body = b"".join((table, stored, payloads))
    return b"".join((fields, hashlib.sha256(fields + body).digest(), body))


def from_bytes(content: bytes) -> list[Entry]:
    """The entries of a file's content; raises as `read_all`."""
    return parsed(content)[0]


def parsed(content: bytes) -> tuple[list[Entry], dict[str, Any]]:
    """The entries and the description of a file's content.

    Raises:
        CodecError: one of its subclasses, as `read_all`.
    """
    header = _check_header(content[:HEADER_BYTES], len(content))
    digest = hashlib.sha256(content[: header.digest_start])
    digest.update(memoryview(content)[header.table_start :])
    if digest.digest() != content[header.digest_start : header.table_start]:
        raise ChecksumError("the file is damaged, its SHA-256 is wrong: get it again")
    middle = header.table_start + header.table
    payloads = middle + header.stored_description
    description = _description(content[middle:payloads], header.description)
    records = _inflate(content[header.table_start : middle], header.records, "table")
    return _Records(records, content, payloads).entries(), description


def _check_header(header: bytes, file_bytes: int) -> _Header:
    if header[: len(MAGIC)] != MAGIC[: len(header)] or not header:
        raise MagicError("this is no model file: `bnn compress` writes them")
    if len(header) < _FIELDS.size + _DIGEST_BYTES:
        raise LengthError(f"the file ends within its header, after {len(header)} bytes: get it again")
    _, version, *sizes = _FIELDS.unpack_from(header)
    if version not in _READABLE:
        readable = ", ".join(map(str, _READABLE))
        raise VersionError(f"the file is of version {version}, this release reads versions {readable}: install another")
    if version >= 3:
        if len(header) < HEADER_BYTES:
            raise LengthError(f"the file ends within its header, after {len(header)} bytes: get it again")
        sizes += _DESCRIPTION.unpack_from(header, _FIELDS.size)
    found = _Header(version, *sizes, *([0, 0] if version < 3 else []))
    stated = found.table_start + found.table + found.stored_description + found.payloads
    if stated != file_bytes:
        raise LengthError(f"the file should have {stated} bytes and has {file_bytes}: get it again")
    if found.records > _MAX_TABLE_BYTES:
        raise FormatError(f"a table takes up to {_MAX_TABLE_BYTES} bytes, not {found.records}")
    if found.description > _MAX_DESCRIPTION_BYTES:
        raise FormatError(f"a description takes up to {_MAX_DESCRIPTION_BYTES} bytes, not {found.description}")
    return found


def _description(stored: bytes, size: int) -> dict[str, Any]:
    if not stored and not size:
        return {}
    try:
        description = files.parse_json(_inflate(stored, size, "description"), finite=True)
    except ValueError as error:
        raise FormatError(f"the description is damaged: {error}") from None
    if not isinstance(description, dict):
        raise FormatError("the description is no JSON object")
    return description


def _inflate(stored: bytes, size: int, what: str) -> bytes:
    stream = zlib.decompressobj()
    try:
        inflated = stream.decompress(stored, size + 1)
    except zlib.error as error:
        raise FormatError(f"the {what} is damaged: {error}") from None
    if len(inflated) != size or not stream.eof or stream.unused_data:
        raise FormatError(f"the {what} does not have the size that the header states")
    return inflated


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
        most = _FEW_TENSORS + len(self._content) // _LEAST_TENSOR_BYTES
        while self._next < len(self._records):
            entry = self._entry()
            if entry.name in entries:
                raise FormatError(f"there are two tensors {entry.name!r}")
            entries[entry.name] = entry
            if len(entries) > most:
                raise FormatError(f"a file of {len(self._content)} bytes has at most {most} tensors")
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
