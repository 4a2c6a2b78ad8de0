"""Constants as the text of C, and the functions of kernels.c that a source needs."""

import re
import string
from collections.abc import Iterator, Sequence
from importlib.resources import files

import numpy as np
import torch
from torch import Tensor

from bnn.export.memory import WORD_BITS

_HARMLESS = string.ascii_letters + string.digits + " _-.,:()"


def kernels_of(code: str, *, names: Sequence[str] = ("kernels.c",)) -> str:
    """The parts of some files that code refers to, and what these refer to, in the order of the files."""
    named: dict[str, str] = {}
    for name in names:
        text = read_template(name)
        parts = re.split(r"/\*\*\* (\w+) \*/\n", text)
        named |= dict(zip(parts[1::2], parts[2::2], strict=True))
    words = {name: "struct " + name.removesuffix("_type") if name.endswith("_type") else name for name in named}
    taken: set[str] = set()
    while True:
        known = code + "".join(named[name] for name in taken)
        more = {name for name in named if name not in taken and re.search(rf"\b{words[name]}\b", known)}
        if not more:
            break
        taken |= more
    return "\n".join(part for name, part in named.items() if name in taken)


def read_template(name: str) -> str:
    """The text of a file of this folder."""
    return files("bnn.export").joinpath(name).read_text(encoding="utf-8")


def words_of(bits: Tensor) -> Tensor:
    """bool [..., n] to the words of the last dimension, int32 [..., ceil(n / 32)], the first bit lowest."""
    missing = -bits.shape[-1] % WORD_BITS
    padded = torch.nn.functional.pad(bits, (0, missing)).numpy()
    packed = np.packbits(padded, axis=-1, bitorder="little")
    return torch.from_numpy(packed.view("<u4").astype(np.int64)).to(torch.int32)


def float_text(value: float) -> str:
    """A float32, exactly."""
    return f"{value.hex()}f"


def string_text(text: str) -> str:
    """A string of C; what is not harmless everywhere is told by its bytes."""
    plain = "".join(chr(b) if chr(b) in _HARMLESS else f"\\{b:03o}" for b in text.encode()[:200])
    return f'"{plain}"'


def wrapped(texts: Sequence[str]) -> str:
    """Elements of an array, some in each line."""
    return "\n".join(_lines(texts))


def _lines(texts: Sequence[str]) -> Iterator[str]:
    step = max(1, 116 // (max(map(len, texts), default=1) + 2))
    for start in range(0, len(texts), step):
        yield "    " + ", ".join(texts[start : start + step]) + ","
