"""Files that were changed, by chance or by someone who means harm: each gives an error or its tensors, soon."""

import math
import random
import re
import struct
import time
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import bnn
from bnn.codec import context, rans
from bnn.codec.coding import Coding, Entry, decode, encode_discrete, encode_values
from bnn.codec.container import HEADER_BYTES, from_bytes, to_bytes
from bnn.codec.errors import CodecError, FormatError, MemoryLimitError
from bnn.codec.model import load_into, load_tensors, read_within
from bnn.codec.network import describe
from bnn.layers import BinaryLinear
from tests.codec.test_container import record, sealed

ENTRIES = [
    encode_discrete(
        "1.weight", (torch.arange(600).reshape(20, 30) % 7 == 0).float() - (torch.arange(30) % 9 == 0).float()
    ),
    encode_discrete("2.weight", torch.where(torch.arange(77) * 37 % 11 > 4, 1.0, -1.0)),
    encode_values("bias", torch.linspace(-1, 1, 40)),
    encode_values("zeros", torch.zeros(50)),
    encode_values("steps", torch.tensor(7)),
]
DESCRIPTION = {"network": describe(nn.Sequential(nn.Flatten(), BinaryLinear(4, 2))), "classes": ["a", "b"]}
CONTENT = to_bytes(ENTRIES, DESCRIPTION)


def parts() -> tuple[bytes, bytes, bytes]:
    """The inflated records, the inflated description and the payloads of the file above."""
    table_bytes, _, _, stored_bytes = struct.unpack_from("<IIQI", CONTENT, 10)
    middle = HEADER_BYTES + table_bytes
    end = middle + stored_bytes
    return zlib.decompress(CONTENT[HEADER_BYTES:middle]), zlib.decompress(CONTENT[middle:end]), CONTENT[end:]


def mutated(content: bytes, chance: random.Random) -> bytes:
    """One to four changes: a byte, a bit, a 32-bit extreme, a cut, a doubled or a moved piece."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(changed) or 1)
        piece = changed[place : place + chance.randint(1, 30)]
        match chance.randrange(6):
            case 0:
                changed[place : place + 1] = bytes([chance.randrange(256)])
            case 1 if changed:
                changed[place] ^= 1 << chance.randrange(8)
            case 2:
                changed[place : place + 4] = chance.choice([bytes(4), b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0\0\1\0"])
            case 3:
                del changed[place:]
            case 4:
                changed[place:place] = piece
            case 5:
                target = chance.randrange(len(changed) or 1)
                changed[target : target + len(piece)] = piece
    return bytes(changed)


def outcome(content: bytes) -> str:
    """What reading and decoding a file comes to: the error's name, or `tensors`. Anything else is a failure."""
    began = time.monotonic()
    came_to = _outcome(content)
    assert time.monotonic() - began < 20
    return came_to


def _outcome(content: bytes) -> str:
    try:
        entries = from_bytes(content)
        if sum(entry.decoded_bytes for entry in entries) > 1 << 20:
            return "MemoryLimitError"
        tensors = [decode(entry) for entry in entries]
    except CodecError as error:
        return type(error).__name__ if re.fullmatch("[^\n]+", str(error)) else repr(error)
    assert [(tuple(tensor.shape), tensor.dtype) for tensor in tensors] == [(e.shape, e.dtype) for e in entries]
    return "tensors"


def changed_files(count: int) -> None:
    chance = random.Random(count)
    found = set()
    for _ in range(count):
        content = mutated(CONTENT, chance)
        found.add(outcome(content))
        assert content == CONTENT or outcome(content) != "tensors"
    assert found - {"tensors", "FormatError"} == {"MagicError", "VersionError", "LengthError", "ChecksumError"}


def forged_files(count: int) -> None:
    """Changes below the checksum, so that all that lies behind it is met."""
    chance = random.Random(count)
    records, description, payloads = parts()
    outcomes = []
    for _ in range(count):
        where = chance.randrange(4)
        outcomes.append(
            outcome(
                sealed(
                    mutated(records, chance) if where in (1, 2) else records,
                    mutated(payloads, chance) if where in (0, 2) else payloads,
                    description=mutated(description, chance) if where == 3 else description,
                )
            )
        )
    assert set(outcomes) == {"FormatError", "MemoryLimitError", "tensors"}
    assert outcomes.count("FormatError") > count / 3


def test_a_thousand_changed_files():
    changed_files(1_000)


def test_a_thousand_forged_files():
    forged_files(1_000)


@pytest.mark.slow
def test_ten_thousand_changed_files():
    changed_files(10_000)


@pytest.mark.slow
def test_ten_thousand_forged_files():
    forged_files(10_000)


def test_every_truncation():
    assert outcome(CONTENT) == "tensors"
    for length in range(len(CONTENT)):
        assert outcome(CONTENT[:length]) in ("MagicError", "LengthError")


def bomb(size: tuple[int, ...], coding: int = 3) -> bytes:
    """A few bytes that stand for very many equal weights."""
    levels = (-1.0, 0.0, 1.0) if coding in (2, 3) else ()
    payload = struct.pack("<IB", 65535, 0) + b"\0\0\1\0" * 65535
    return sealed(record(coding=coding, shape=size, levels=levels, payload_bytes=len(payload)), payload)


@pytest.mark.parametrize("coding", range(4))
def test_a_bomb_is_refused_before_memory_is_taken(coding, tmp_path):
    path = tmp_path / "bomb.bnnz"
    path.write_bytes(bomb((1 << 20, 1 << 12), coding))
    began = time.monotonic()
    with pytest.raises(MemoryLimitError, match="the tensors take 17179869184 bytes"):
        load_tensors(path)
    # Into a module it is not of the right shape.
    module = nn.Linear(4, 4, bias=False)
    with pytest.raises(CodecError, match="of another model"):
        load_into(module, path)
    assert time.monotonic() - began < 1


def one_lane(size: int, *, levels: int) -> bytes:
    """The shortest code of `size` zeros, in one lane."""
    symbols = np.zeros(size, np.uint8)
    frequency = np.empty((size, 1), np.uint16)
    model = context._Model(symbols[:, None], levels, ())
    for begin, end in context._blocks(size):
        frequency[begin:end] = model.frequency[0]
        model.learn(model.places(begin, end))
    return struct.pack("<IB", 1, 0) + rans.encode(frequency, np.zeros_like(frequency))


def test_a_file_whose_work_is_out_of_proportion_is_refused_before_it_is_done(tmp_path):
    path = tmp_path / "slow.bnnz"
    payload = one_lane(65_536, levels=16)
    entry = Entry("w", (65_536,), torch.float32, Coding.CONTEXT, tuple(map(float, range(16))), payload)
    path.write_bytes(to_bytes([replace(entry, name=f"w{number}") for number in range(100)]))
    assert path.stat().st_size < 4000
    began = time.monotonic()
    with pytest.raises(MemoryLimitError, match=r"decoding takes \d+ s or longer, too much for \d+ bytes under"):
        load_tensors(path)
    with pytest.raises(MemoryLimitError, match="too much"):
        bnn.load(path)
    assert time.monotonic() - began < 1
    path.write_bytes(to_bytes([entry]))
    assert not load_tensors(path)["w"].any()
    with pytest.raises(MemoryLimitError, match="too much"):
        load_tensors(path, memory_limit_bytes=1 << 18)


def test_what_is_written_is_in_proportion(tmp_path):
    path, chance = tmp_path / "model.bnnz", torch.Generator().manual_seed(0)
    for share in (0.0, 1e-4, 0.02):
        weight = torch.where(torch.rand(200_000, generator=chance) < share, 1.0, -1.0)
        entry = encode_discrete("w", weight)
        free = 1 << 16
        assert entry.coding is Coding.CONTEXT
        assert entry.effort <= free + context.EFFORT_PER_BYTE * len(entry.payload)
        assert len(entry.payload) < 500 + 1.2 * 25_000 * _entropy(share)
    path.write_bytes(to_bytes([replace(entry, name=str(number)) for number in range(1000)]))
    assert len(read_within(path, 1 << 31)) == 1000


def _entropy(share: float) -> float:
    return -sum(p * math.log2(p) for p in (share, 1 - share) if p)


def test_no_file_has_more_tensors_than_its_bytes_could_name():
    nothing = encode_values("w", torch.zeros(0), quick=True)
    with pytest.raises(FormatError, match=r"a file of \d+ bytes has at most \d+ tensors"):
        from_bytes(to_bytes([replace(nothing, name=str(number)) for number in range(10_000)]))
    scalar = encode_values("w", torch.tensor(1.5), quick=True)
    assert len(from_bytes(to_bytes([replace(scalar, name=str(number)) for number in range(5_000)]))) == 5_000


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 300 + "]" * 300, "\ud800", "NaN"])
def test_a_description_that_is_no_json_object_or_nested_deeply(text):
    described = text.encode(errors="surrogatepass")
    with pytest.raises(FormatError, match=r"^the description is damaged: [^\n]+$"):
        from_bytes(sealed(record(), bytes(8), description=described))
