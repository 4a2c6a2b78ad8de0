"""The commands `bnn compress`, `bnn decompress` and `bnn inspect`."""

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from safetensors import SafetensorError
from safetensors.torch import save as to_safetensors

from bnn import files
from bnn.codec.coding import Entry, decode, symbols
from bnn.codec.errors import CodecError
from bnn.codec.model import MEMORY_LIMIT_BYTES, read_within, recode

TENSORS = "model.safetensors"
DESCRIPTION = "model.json"


def compress(
    console: Console,
    model: Path,
    path: Path,
    *,
    float_dtype: torch.dtype | None = None,
    memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
) -> None:
    """Writes a model file in its shortest codings and prints what it takes; see `bnn.codec.model.recode`."""
    recode(model, path, float_dtype=float_dtype, memory_limit_bytes=memory_limit_bytes)
    description = _describe(path, read_within(path, memory_limit_bytes=math.inf))
    console.print(f"{escape(str(path))}: {_summary(description)}", highlight=False, soft_wrap=True)


def decompress(path: Path, directory: Path, *, memory_limit_bytes: int = MEMORY_LIMIT_BYTES) -> None:
    """Writes the tensors of a model file as `model.safetensors`, and what `inspect` tells as `model.json`.

    Args:
        path: of the model file.
        directory: made if missing; empty, or with one of these very files, which a kill between the two leaves.
        memory_limit_bytes: what the tensors may take together.

    Raises:
        CodecError: the directory has other files or cannot be written, or the model file cannot be read.
    """
    entries = read_within(path, memory_limit_bytes)
    tensors = {entry.name: decode(entry) for entry in entries}
    description = json.dumps(_describe(path, entries), indent=2) + "\n"
    try:
        contents = {directory / TENSORS: to_safetensors(tensors), directory / DESCRIPTION: description.encode()}
        directory.mkdir(parents=True, exist_ok=True)
        files.remove_left_behind(directory)
        there = list(directory.iterdir())
        if len(there) > 1 or not all(_holds(found, contents.get(found)) for found in there):
            raise CodecError(f"{directory} is not empty: name another folder with -o")
        _write_both(*contents.items())
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise CodecError(f"{directory} cannot be written: {reason or error}") from None


def _holds(path: Path, content: bytes | None) -> bool:
    """Whether a file is there with just this content."""
    if content is None or not path.is_file() or path.stat().st_size != len(content):
        return False
    return files.read_bytes(path, limit_bytes=len(content)) == content


def _write_both(one: tuple[Path, bytes], other: tuple[Path, bytes]) -> None:
    """Writes two files, of which neither has its name before all of both is written."""
    try:
        with files.replacing(one[0]) as file, files.replacing(other[0]) as last:
            file.write(one[1])
            file.flush()
            last.write(other[1])
    except OSError:
        with suppress(OSError):
            other[0].unlink(missing_ok=True)
        raise


def inspect(
    console: Console, path: Path, *, as_json: bool = False, memory_limit_bytes: int = MEMORY_LIMIT_BYTES
) -> None:
    """Prints the tensors of a model file with their codings and bits, as a table or as JSON.

    Raises:
        CodecError: the file cannot be read; see `bnn.codec.errors`.
    """
    description = _describe(path, read_within(path, memory_limit_bytes))
    if as_json:
        console.print(json.dumps(description, indent=2), highlight=False, markup=False, soft_wrap=True)
        return
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("tensor", overflow="fold")
    for column in ("shape", "values", "coding", "bytes", "bits each", "entropy"):
        table.add_column(column, justify="right", no_wrap=True)
    for tensor in description["tensors"]:
        table.add_row(
            escape(tensor["name"]),
            "x".join(map(str, tensor["shape"])),
            f"{len(tensor['levels'])} levels" if tensor["levels"] else tensor["dtype"],
            tensor["coding"],
            f"{tensor['bytes']:,}",
            _bits(tensor["bits_per_element"]),
            _bits(tensor["entropy_bits_per_element"]),
        )
    console.print(table)
    console.print(_summary(description), highlight=False, soft_wrap=True)


def _describe(path: Path, entries: Sequence[Entry]) -> dict[str, Any]:
    """The output of `inspect`, as JSON values. `weights` are the elements of discrete tensors."""
    weights = [entry for entry in entries if entry.levels]
    others = [entry for entry in entries if not entry.levels]
    entropies = {entry.name: _entropy_bits(entry) for entry in weights}
    number = sum(entry.size for entry in weights)
    file_bytes, payload_bytes = path.stat().st_size, sum(len(entry.payload) for entry in entries)
    return {
        "file_bytes": file_bytes,
        "header_bytes": file_bytes - payload_bytes,
        "weights": number,
        "weight_bytes": sum(len(entry.payload) for entry in weights),
        "bits_per_weight": _each(8 * sum(len(entry.payload) for entry in weights), number),
        "entropy_bits_per_weight": _each(sum(entropies.values()), number),
        "other_values": sum(entry.size for entry in others),
        "other_bytes": sum(len(entry.payload) for entry in others),
        "tensors": [
            {
                "name": entry.name,
                "shape": list(entry.shape),
                "dtype": str(entry.dtype).removeprefix("torch."),
                "coding": entry.coding.name.lower(),
                "levels": list(entry.levels),
                "bytes": len(entry.payload),
                "bits_per_element": _each(8 * len(entry.payload), entry.size),
                "entropy_bits_per_element": _each(entropies[entry.name], entry.size) if entry.levels else None,
            }
            for entry in entries
        ],
    }


def _entropy_bits(entry: Entry) -> float:
    """Bits of a discrete tensor if each level took the logarithm of its share."""
    counts = np.bincount(symbols(entry))
    counts = counts[counts > 0]
    return float((counts * np.log2(counts.sum() / counts)).sum())


def _each(total: float, number: int) -> float | None:
    return total / number if number else None


def _bits(bits: float | None) -> str:
    return "" if bits is None else f"{bits:.4f}"


def _summary(description: dict[str, Any]) -> str:
    parts = [f"{description['file_bytes']:,} bytes"]
    if description["weights"]:
        parts.append(
            f"{description['weights']:,} weights at {description['bits_per_weight']:.4f} bits (entropy of order 0:"
            f" {description['entropy_bits_per_weight']:.4f})"
        )
    parts.append(f"{description['other_values']:,} other values in {description['other_bytes']:,} bytes")
    parts.append(f"header and table {description['header_bytes']:,} bytes")
    return "; ".join(parts)
