"""Tensors as bytes, and back, exactly.

A discrete tensor is one of few levels; its payload holds which level each element is, the levels lie in its entry.
Other tensors are kept byte by byte. Of the codings that fit a tensor, the one that takes fewest bytes is used.
"""

import enum
import itertools
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bnn.bits import BitTensor
from bnn.codec import context
from bnn.codec.errors import CodecError, FormatError

MAX_LEVELS = 256
_DEFLATE_RATIO = 1032  # the most that a byte of zlib's can stand for

Symbols = npt.NDArray[np.uint8]

# The place of a dtype is its code in a file.
DTYPES = (
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
)


class Coding(enum.IntEnum):
    """How a payload holds its tensor."""

    RAW = 0
    """Elements in row-major order, little-endian."""
    DEFLATED = 1
    """The bytes of RAW, first byte of all elements first, then the second ones, and so on; as a zlib stream."""
    PACKED = 2
    """Level numbers as digits of the base of their count, as many a byte as fit, the first the least."""
    CONTEXT = 3
    """Level numbers under an adaptive context model: see `bnn.codec.context`."""


@dataclass(frozen=True)
class Entry:
    """A tensor as a model file holds it."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    """Dtype of the decoded tensor."""
    coding: Coding
    levels: tuple[float, ...]
    """Values of a discrete tensor, ascending, 2 to 256; empty for any other."""
    payload: bytes

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def decoded_bytes(self) -> int:
        """Bytes of the tensor that it decodes to."""
        return self.size * self.dtype.itemsize

    @property
    def effort(self) -> float:
        """What decoding takes beyond what its bytes do: see `bnn.codec.context.effort`; 0 of other codings.

        Raises:
            FormatError: as `decode`.
        """
        if self.coding is not Coding.CONTEXT or not self.size:
            return 0
        try:
            return context.effort_of(self.payload, size=self.size, levels=len(self.levels))
        except FormatError as error:
            raise FormatError(f"{self.name}: {error}") from None


def encode_discrete(name: str, values: Tensor, *, levels: Sequence[float] = (), quick: bool = False) -> Entry:
    """Encodes a weight by its levels, or as `encode_values` if it has more than 256 different values.

    Args:
        name: of the entry.
        values: floating, of any shape; a `BitTensor` is one of -1 and +1.
        levels: the only values that it can have, ascending, where they are known; they need not be found then.
        quick: whether to take the quickest coding in place of the shortest.
    """
    levels, numbers = _numbered(values, levels)
    if not 0 < len(levels) <= MAX_LEVELS or not all(map(math.isfinite, levels)):
        return encode_values(name, values, quick=quick)
    if len(levels) == 1:
        levels.append(math.nextafter(levels[0], math.inf))
    symbols = numbers.cpu().contiguous().numpy().astype(np.uint8).reshape(-1)
    coding, payload = Coding.PACKED, pack(symbols, len(levels))
    if symbols.size and len(levels) <= context.MAX_LEVELS and not quick:
        row = math.prod(values.shape[1:])
        coded = context.encode(symbols, levels=len(levels), row=row, below=len(payload))
        if coded is not None:
            coding, payload = Coding.CONTEXT, coded
    return Entry(name, tuple(values.shape), values.dtype, coding, tuple(levels), payload)


def _numbered(values: Tensor, known: Sequence[float]) -> tuple[list[float], Tensor]:
    """The levels of a tensor, and the number of each element's."""
    if isinstance(values, BitTensor):
        return [-1.0, 1.0], values.dense(torch.bool)
    if 1 < len(known) <= MAX_LEVELS:
        levels = torch.tensor(known, dtype=torch.float64).to(values)
        numbers = torch.bucketize(values.detach().contiguous(), levels, out_int32=True).clamp_(max=len(known) - 1)
        if torch.equal(levels[numbers], values):
            return list(known), numbers
    distinct, numbers = torch.unique(values.detach(), return_inverse=True)
    # Adding 0 makes -0 to 0; the two are one level.
    return (distinct.double() + 0.0).tolist(), numbers


def encode_values(name: str, values: Tensor, *, quick: bool = False) -> Entry:
    """Encodes a tensor of any values, NaN and the sign of zero included.

    Args:
        name: of the entry.
        values: of any shape.
        quick: whether to take the quickest coding in place of the shortest.

    Raises:
        CodecError: its dtype cannot be stored.
    """
    if values.dtype not in DTYPES:
        raise CodecError(f"{name} cannot be stored: its dtype is {values.dtype}")
    raw = values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    if quick:
        return Entry(name, tuple(values.shape), values.dtype, Coding.RAW, (), raw.tobytes())
    deflated = zlib.compress(raw.reshape(-1, values.dtype.itemsize).T.tobytes(), 9)
    coding, payload = min((Coding.RAW, raw.tobytes()), (Coding.DEFLATED, deflated), key=lambda coded: len(coded[1]))
    return Entry(name, tuple(values.shape), values.dtype, coding, (), payload)


def decode(entry: Entry) -> Tensor:
    """The tensor of an entry, on the CPU.

    Raises:
        FormatError: the payload is not one of this entry. It is checked as far as possible before memory is taken.
    """
    if entry.levels:
        levels = torch.tensor(entry.levels, dtype=torch.float64).to(entry.dtype)
        return levels[torch.from_numpy(symbols(entry)).int()].reshape(entry.shape)
    raw = entry.payload if entry.coding is Coding.RAW else _inflate(entry)
    _check_length(entry, len(raw), entry.decoded_bytes)
    if entry.dtype is torch.bool and np.frombuffer(raw, np.uint8).max(initial=0) > 1:
        raise FormatError(f"{entry.name}: a truth value is neither 0 nor 1")
    values = torch.empty(entry.shape, dtype=entry.dtype)
    values.reshape(-1).view(torch.uint8).numpy()[:] = np.frombuffer(raw, np.uint8)
    return values


def symbols(entry: Entry) -> Symbols:
    """The number of each element's level, [size], of a discrete entry.

    Raises:
        FormatError: as `decode`.
    """
    if entry.coding is Coding.PACKED:
        return _unpack(entry)
    try:
        return context.decode(entry.payload, size=entry.size, levels=len(entry.levels))
    except FormatError as error:
        raise FormatError(f"{entry.name}: {error}") from None


def digits_per_byte(levels: int) -> int:
    """How many digits of the base `levels` fit into a byte: 8 of 2, 5 of 3, 1 above 16."""
    return next(digits for digits in itertools.count(1) if levels ** (digits + 1) > 256)


def pack(symbols: Symbols, levels: int) -> bytes:
    """Level numbers, [n], as digits of the base `levels`: the payload of `Coding.PACKED`."""
    digits = digits_per_byte(levels)
    columns = np.zeros((-(-len(symbols) // digits), digits), np.uint8)
    columns.reshape(-1)[: len(symbols)] = symbols
    return (columns @ (levels ** np.arange(digits)).astype(np.uint8)).astype(np.uint8).tobytes()


def _unpack(entry: Entry) -> Symbols:
    levels = len(entry.levels)
    digits = digits_per_byte(levels)
    _check_length(entry, len(entry.payload), -(-entry.size // digits))
    packed = np.frombuffer(entry.payload, np.uint8)
    if packed.max(initial=0) >= levels**digits:
        raise FormatError(f"{entry.name}: a byte holds no digits of base {levels}")
    columns = np.empty((len(packed), digits), np.uint8)
    for digit in range(digits):
        columns[:, digit] = packed // levels**digit % levels
    symbols = columns.reshape(-1)
    if symbols[entry.size :].any():
        raise FormatError(f"{entry.name}: there are digits past its end")
    return symbols[: entry.size]


def _inflate(entry: Entry) -> bytes:
    if entry.decoded_bytes > _DEFLATE_RATIO * len(entry.payload):
        raise FormatError(f"{entry.name}: {len(entry.payload)} bytes cannot inflate to {entry.decoded_bytes}")
    stream = zlib.decompressobj()
    try:
        planes = stream.decompress(entry.payload, entry.decoded_bytes + 1)
    except zlib.error as error:
        raise FormatError(f"{entry.name}: {error}") from None
    if not stream.eof or stream.unused_data:
        raise FormatError(f"{entry.name}: the deflated bytes do not end where they should")
    _check_length(entry, len(planes), entry.decoded_bytes)
    return np.frombuffer(planes, np.uint8).reshape(entry.dtype.itemsize, entry.size).T.tobytes()


def _check_length(entry: Entry, found: int, expected: int) -> None:
    if found != expected:
        raise FormatError(f"{entry.name}: a tensor of {list(entry.shape)} takes {expected} bytes, not {found}")
